"""The output side of a client's socket: framing, and what the socket does not take at once.

Framed as Docker does (`multiplexed`: 1 byte stream, 3 zero bytes, 4 bytes big-endian length, then
the payload) or raw. Never blocks. When the peer is gone everything is swallowed: `lost` is set.
"""

import os
import socket
import struct
from collections import deque

_HEADER = struct.Struct(">BxxxL")
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_CHUNK = 1 << 16


class Outlet:
    """Writes to `sock`, which stays its owner's."""

    def __init__(self, sock: socket.socket, multiplexed: bool) -> None:
        self.lost = False
        self._socket = sock
        self._multiplexed = multiplexed
        self._pending: deque[memoryview] = deque()
        self._owed: tuple[int, int] | None = None  # (pipe, bytes of an open frame still in it)

    @property
    def blocked(self) -> bool:
        """Whether something is left to `flush` when the socket is writable."""
        return bool(self._pending or self._owed)

    def send(self, kind: int, chunk: bytes) -> None:
        parts = [_HEADER.pack(kind, len(chunk)), chunk] if self._multiplexed else [chunk]
        sent = 0 if self.blocked else self._send(parts)
        for part in parts:
            if sent < len(part) and not self.lost:
                self._pending.append(memoryview(part)[sent:])
            sent = max(0, sent - len(part))

    def splice(self, kind: int, pipe_fd: int, count: int) -> None:
        """Moves `count` bytes, which are in the pipe, without copying. Must not be `blocked`."""
        if self._multiplexed:
            header = _HEADER.pack(kind, count)
            sent = self._send([header], socket.MSG_MORE)
            if sent < len(header):
                self._pending.append(memoryview(header)[sent:])
        if not self.lost:
            self._owed = (pipe_fd, count)
            self.flush()

    def take_owed(self) -> None:
        """Takes what `splice` still owes out of the pipe, so that the pipe may be closed."""
        if self._owed is None:
            return
        pipe_fd, count = self._owed
        self._owed = None
        while count > 0 and (chunk := os.read(pipe_fd, min(count, _CHUNK))):
            self._pending.append(memoryview(chunk))
            count -= len(chunk)

    def flush(self) -> None:
        """Goes on with what is pending; look at `blocked` and `lost` afterwards."""
        while self._pending and not self.lost:
            part = self._pending[0]
            sent = self._send([part])
            if sent < len(part):
                self._pending[0] = part[sent:]
                return
            self._pending.popleft()
        if self._owed and not self.lost:
            self._splice(*self._owed)
        if self.lost:
            self.clear()

    def clear(self) -> None:
        self._pending.clear()
        self._owed = None

    def _send(self, parts: list[bytes] | list[memoryview], flags: int = 0) -> int:
        try:
            return self._socket.sendmsg(parts, (), flags)
        except BlockingIOError:
            return 0
        except OSError:
            self.lost = True
            return sum(map(len, parts))

    def _splice(self, pipe_fd: int, count: int) -> None:
        try:
            while count > 0:
                count -= os.splice(pipe_fd, self._socket.fileno(), count, flags=_FLAGS)
        except BlockingIOError:
            self._owed = (pipe_fd, count)
        except OSError:
            self.lost = True
        else:
            self._owed = None
