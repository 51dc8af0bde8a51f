"""`logs`."""

from __future__ import annotations

from teu.cli.commands.lifecycle import escape
from teu.cli.frames import Demultiplexer, write_all
from teu.cli.grammar import Command, Flag, Options
from teu.cli.session import Session

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"


def logs(session: Session, options: Options, names: list[str]) -> int:
    """Prints what the container has written; with --follow also what it writes from now on."""
    query: dict[str, str | int | bool | list[str] | None] = {
        "stdout": True,
        "stderr": True,
        "details": options.flag("details"),
        "follow": options.flag("follow"),
        "timestamps": options.flag("timestamps"),
        "tail": options.text("tail"),
    }
    for name in ("since", "until"):
        if options.changed(name):
            from teu.cli.instants import from_option

            query[name] = from_option(options, name)
    client = session.client
    path = f"/containers/{escape(names[0])}"
    response = client.request("GET", f"{path}/logs", query)
    raw = _is_raw(session, path, response.headers.get("content-type", ""))
    client.copy(response, _write_raw if raw else Demultiplexer(write_all).feed)
    return 0


def _is_raw(session: Session, path: str, content_type: str) -> bool:
    """True when the container has a terminal: then the log has no frames.

    Daemons tell it by the content type since API 1.42; older ones have to be asked.
    """
    if content_type == MULTIPLEXED:
        return False
    if content_type == RAW:
        return True
    return bool(session.client.get(f"{path}/json")["Config"]["Tty"])


def _write_raw(data: bytes) -> None:
    write_all(1, data)


COMMANDS = {
    "container logs": Command(
        logs,
        "[OPTIONS] CONTAINER",
        args=(1, 1),
        flags=(
            Flag("details", "", "bool", "Show the extra attributes of each line"),
            Flag("follow", "f", "bool", "Go on with what is written from now on"),
            Flag("since", "", "string", "Begin at this time (2013-01-02T13:23:37Z) or age (42m)"),
            Flag("tail", "n", "string", "Number of lines from the end", default="all"),
            Flag("timestamps", "t", "bool", "Show the time of each line"),
            Flag("until", "", "string", "End at this time (2013-01-02T13:23:37Z) or age (42m)"),
        ),
    ),
}
