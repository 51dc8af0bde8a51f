"""`events`."""

from __future__ import annotations

import sys
import time

from teu.cli.filters import encode
from teu.cli.grammar import Command, Flag, Options
from teu.cli.instants import from_option
from teu.cli.session import Failure, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Show = Callable[[bytes], str]


def events(session: Session, options: Options, _words: list[str]) -> int:
    """Prints what happens, a line each, until `--until` or until the user stops it."""
    show = _formatter(options.text("format"))
    query = {
        "since": from_option(options, "since"),
        "until": from_option(options, "until"),
        "filters": encode(options.texts("filter")),
    }
    client = session.client
    for line in client.lines(client.request("GET", "/events", query)):
        session.out(show(line) + "\n")
        sys.stdout.flush()
    return 0


def _formatter(form: str) -> Show:
    if form == "json":
        return lambda line: line.decode("utf-8", "replace").strip()
    from teu.cli.jsontext import loads

    if not form:
        return lambda line: _plain(loads(line))
    from teu.cli.shapes import BOOK
    from teu.cli.tables import clean_format, parse_format
    from teu.template import TemplateError

    template = parse_format(clean_format(form)[1])

    def show(line: bytes) -> str:
        try:
            return template.execute(BOOK.convert("events.Message", loads(line)))
        except TemplateError as error:
            raise Failure(f"template parsing error: {error}") from None

    return show


def _plain(event: dict[str, Any]) -> str:
    """`TIME TYPE ACTION ID (name=value, …)`, the time in the local zone."""
    actor = event.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    text = f"{event.get('Type', '')} {event.get('Action', '')} {actor.get('ID', '')}"
    if attributes:
        pairs = ", ".join(f"{name}={attributes[name]}" for name in sorted(attributes))
        text += f" ({pairs})"
    return f"{_local_time(event)} {text}" if event.get("time") else text


def _local_time(event: dict[str, Any]) -> str:
    nanos = int(event.get("timeNano") or event["time"] * 1_000_000_000)
    moment = time.localtime(nanos // 1_000_000_000)
    zone = time.strftime("%z", moment)
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{nanos % 1_000_000_000:09d}{zone}"


COMMANDS = {
    "system events": Command(
        events,
        "[OPTIONS]",
        flags=(
            Flag("filter", "f", "filter", "Print only events that match", check="filter"),
            Flag("format", "", "string", "'json', or a Go template for each event"),
            Flag("since", "", "string", "Begin with the events of this time or age"),
            Flag("until", "", "string", "End at this time"),
        ),
    ),
}
