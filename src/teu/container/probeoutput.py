"""The output of a health probe: the first bytes are kept, the rest is taken and forgotten."""

import asyncio
import contextlib
import socket

from teu.runtime.shim import Client

_READ_BYTES = 1 << 16


class ProbeOutput:
    """Standard output and error together. The probe never waits for its reader."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept = b""
        self._cut = False
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.Future[None] = self._loop.create_future()
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._loop.add_reader(self._ours.fileno(), self._read)

    def client(self) -> Client:
        """The end that the shim writes to; its descriptor is given away."""
        return Client(
            fd=self._theirs.detach(), stdin=False, stdout=True, stderr=True, multiplexed=False
        )

    async def ended(self, limit_s: float) -> None:
        """Waits until all of it is here; something may hold the other end for longer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await asyncio.shield(self._end)

    def text(self) -> str:
        """What is not UTF-8 is shown as U+FFFD; `...` stands for what was left out."""
        return self._kept.decode(errors="replace") + ("..." if self._cut else "")

    def close(self) -> None:
        if self._ours.fileno() >= 0:
            self._loop.remove_reader(self._ours.fileno())
            self._ours.close()
        self._theirs.close()

    def _read(self) -> None:
        try:
            data = self._ours.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._ours.fileno())
            if not self._end.done():
                self._end.set_result(None)
            return
        room = self._limit_bytes - len(self._kept)
        self._kept += data[:room]
        self._cut = self._cut or len(data) > room
