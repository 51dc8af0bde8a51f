"""The output of many containers: each line with the name of its container, in its colour."""

from __future__ import annotations

import sys
import threading

from teu.cli.client import Client
from teu.cli.frames import Demultiplexer
from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from teu.cli.client import Query
    from teu.compose.plan import Found

_COLOURS = ("36", "33", "32", "35", "34", "36;1", "33;1", "32;1", "35;1", "34;1")
Show = "Callable[[str, str], None]"


class Printer:
    """Prints whole lines, so that those of different containers do not mix."""

    def __init__(
        self, names: list[str], *, prefix: bool = True, colour: bool | None = None
    ) -> None:
        self._width = max((len(name) for name in names), default=0)
        self._prefix = prefix
        self._colour = sys.stdout.isatty() if colour is None else colour
        self._places = {name: place for place, name in enumerate(names)}
        self._pending: dict[tuple[str, int], bytes] = {}
        self._lock = threading.Lock()

    def writer(self, name: str) -> Callable[[int, bytes], None]:
        """For `Demultiplexer`."""

        def write(stream: int, data: bytes) -> None:
            with self._lock:
                whole = self._pending.pop((name, stream), b"") + data
                *lines, rest = whole.split(b"\n")
                for line in lines:
                    self._line(name, line)
                if rest:
                    self._pending[name, stream] = rest

        return write

    def finish(self, name: str) -> None:
        """Prints what has no end of line yet."""
        with self._lock:
            for stream in (1, 2):
                if rest := self._pending.pop((name, stream), b""):
                    self._line(name, rest)

    def say(self, name: str, text: str) -> None:
        with self._lock:
            self._line(name, text.encode())

    def _line(self, name: str, line: bytes) -> None:
        head = b""
        if self._prefix:
            place = self._places.setdefault(name, len(self._places))
            shown = f"{name:<{self._width}}  | "
            if self._colour:
                shown = f"\x1b[{_COLOURS[place % len(_COLOURS)]}m{shown}\x1b[0m"
            head = shown.encode()
        sys.stdout.buffer.write(head + line + b"\n")
        sys.stdout.buffer.flush()


def print_logs(client: Client, containers: list[Found], printer: Printer, query: Query) -> None:
    """All logs; with `follow` until every container has ended. Raises: Failure."""
    if not query.get("follow"):
        for found in containers:
            _print_one(client, found, printer, query)
        return
    followers = [
        threading.Thread(
            target=_follow, args=(Client(client.endpoint), found, printer, query), daemon=True
        )
        for found in containers
    ]
    for follower in followers:
        follower.start()
    for follower in followers:
        while follower.is_alive():
            follower.join(0.2)  # in pieces: ^C is noticed in between


def _follow(client: Client, found: Found, printer: Printer, query: Query) -> None:
    try:
        _print_one(client, found, printer, query)
    except Failure as failure:
        printer.say(found.name, str(failure))


def _print_one(client: Client, found: Found, printer: Printer, query: Query) -> None:
    response = client.request("GET", f"/containers/{found.id}/logs", query)
    write = printer.writer(found.name)
    if "raw-stream" in response.headers.get("content-type", ""):
        client.copy(response, lambda data: write(1, data.replace(b"\r\n", b"\n")))
    else:
        client.copy(response, Demultiplexer(write).feed)
    printer.finish(found.name)
