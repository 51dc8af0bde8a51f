"""`logs`."""

from __future__ import annotations

from teu.cli.commands.lifecycle import escape
from teu.cli.grammar import Command, Flag, Options
from teu.cli.session import Failure, Session


def logs(session: Session, options: Options, names: list[str]) -> int:
    """Prints what the container has written; with --follow also what it writes from now on."""
    from teu.cli.frames import Demultiplexer, write_all

    client = session.client
    path = f"/containers/{escape(names[0])}"
    tty = client.get(f"{path}/json")["Config"]["Tty"]
    query: dict[str, str | int | bool | list[str] | None] = {
        "stdout": True,
        "stderr": True,
        "details": options.flag("details"),
        "follow": options.flag("follow"),
        "timestamps": options.flag("timestamps"),
        "tail": options.text("tail"),
        "since": _instant("since", options.text("since")),
        "until": _instant("until", options.text("until")),
    }
    response = client.request("GET", f"{path}/logs", query)
    feed = (lambda data: write_all(1, data)) if tty else Demultiplexer(write_all).feed
    client.copy(response, feed)
    return 0


def _instant(name: str, text: str) -> str | None:
    if not text:
        return None
    from teu.cli.instants import api_instant

    try:
        return api_instant(text)
    except ValueError as error:
        raise Failure(f'invalid value for "{name}": {error}') from error


COMMANDS = {
    "container logs": Command(
        logs,
        "[OPTIONS] CONTAINER",
        args=(1, 1),
        flags=(
            Flag("details", "", "bool", "Show the extra attributes of each line"),
            Flag("follow", "f", "bool", "Go on with what is written from now on"),
            Flag(
                "since", "", "string", "Begin here: a time (2013-01-02T13:23:37Z) or an age (42m)"
            ),
            Flag("tail", "n", "string", "Number of lines from the end", default="all"),
            Flag("timestamps", "t", "bool", "Show the time of each line"),
            Flag("until", "", "string", "End here: a time (2013-01-02T13:23:37Z) or an age (42m)"),
        ),
    ),
}
