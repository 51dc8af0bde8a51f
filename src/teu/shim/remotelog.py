"""The log of a container whose output goes to a log server, with a copy here for `logs`.

In blocking mode the container's output is held back (`blocked`) while too much waits for the
server. Otherwise what does not fit in the buffer any more is dropped, which is reported once.
"""

import time
from collections.abc import Callable
from typing import Any

from teu.shim.formats import encoder
from teu.shim.lines import Line, LineCutter
from teu.shim.link import Link
from teu.shim.logfile import LogFile
from teu.shim.loop import Loop
from teu.shim.resolve import LogServerError

HELD_BYTES = 1 << 18  # in blocking mode: beyond this the output is held back


class RemoteLog:
    """`options`: the log of a launch (wire.py), with `remote`. Raises: LogServerError, OSError."""

    def __init__(
        self,
        loop: Loop,
        options: dict[str, Any],
        on_error: Callable[[str], None],
        on_unblocked: Callable[[], None],
    ) -> None:
        remote = options["remote"]
        self._on_error = on_error
        self._on_unblocked = on_unblocked
        self._buffer_bytes = int(options.get("buffer_bytes") or 0)  # 0: blocking mode
        self._blocked = False
        self._dropping = False
        self._cutters = {1: LineCutter(), 2: LineCutter()}
        self._encode = encoder(remote["driver"], remote["settings"], remote["extra"])
        security = None
        if remote["tls"] is not None:
            from teu.shim.tls import Tls

            security = Tls(remote["tls"], remote["target"]["host"])
        self._link = Link(loop, remote["target"], security, self._moved, on_error)
        self._link.open()
        try:
            self._copy = LogFile(options, on_error) if options.get("path") else None
        except OSError:
            self._link.close()
            raise

    @property
    def blocked(self) -> bool:
        """Whether output is to be held back until `on_unblocked`."""
        return self._blocked

    @property
    def finished(self) -> bool:
        """After `close`: nothing is left to be sent."""
        return self._link.closed

    def write(self, kind: int, chunk: bytes) -> None:
        if self._copy:
            self._copy.write(kind, chunk)
        self._put(kind, self._cutters[kind].feed(chunk))
        self._link.flush()

    def close(self) -> None:
        """Ends the copy at once; the server gets what is left as soon as it takes it."""
        for kind, cutter in self._cutters.items():
            self._put(kind, cutter.finish())
        if self._copy:
            self._copy.close()
            self._copy = None
        self._link.flush()
        self._link.close()

    def _put(self, kind: int, lines: list[Line]) -> None:
        now_ns = time.time_ns()
        for line, piece in lines:
            for packet in self._encode(kind, line, now_ns, piece):
                waiting = self._link.waiting_bytes
                if self._buffer_bytes and waiting and waiting + len(packet[0]) > self._buffer_bytes:
                    self._dropped()
                    break
                self._link.put(packet)
        if not self._buffer_bytes:
            self._blocked = self._link.waiting_bytes > HELD_BYTES

    def _dropped(self) -> None:
        if not self._dropping:
            self._dropping = True
            self._on_error(f"the log server {self._link.name} is too slow: lines are dropped")

    def _moved(self) -> None:
        waiting = self._link.waiting_bytes
        if self._dropping and waiting < self._buffer_bytes // 2:
            self._dropping = False
        if self._blocked and waiting <= HELD_BYTES:
            self._blocked = False
            self._on_unblocked()


__all__ = ["LogServerError", "RemoteLog"]
