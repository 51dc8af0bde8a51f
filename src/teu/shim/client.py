"""One attached client: a socket that gets a process's output and may give it input.

It leaves in one of three ways: it vanishes (dropped at once), it is finished (gets what is
pending, then end of file; its own end is awaited for LINGER_S, because closing a socket with
unread input may destroy output on its way), or its process could not start (dropped).
"""

import socket
from typing import Any, Protocol

from teu.shim.keys import DetachKeys
from teu.shim.loop import GONE, READ, WRITE, Loop, Timer
from teu.shim.outlet import Outlet

CHUNK = 1 << 16
LINGER_S = 1.0


class Owner(Protocol):
    """What a client needs of its session."""

    @property
    def takes_input(self) -> bool:
        """Whether `feed` may be called now."""

    def feed(self, data: bytes) -> None: ...
    def input_ended(self, client: "Client") -> None: ...
    def detached(self, client: "Client") -> None: ...
    def unblocked(self) -> None: ...
    def left(self, client: "Client") -> None: ...


class Client:
    """Owns `fd` from here on. Options: CLIENT in wire.py."""

    def __init__(self, loop: Loop, owner: Owner, fd: int, options: dict[str, Any]) -> None:
        self._loop = loop
        self._owner = owner
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._outlet = Outlet(self._socket, bool(options.get("multiplexed")))
        self._kinds = (False, bool(options.get("stdout")), bool(options.get("stderr")))
        self._keys = DetachKeys(bytes(options.get("detach_keys") or ()))
        self._forwards = bool(options.get("stdin"))
        self._input_open = True
        self._finishing = False
        self._linger: Timer | None = None
        self.watch()

    @property
    def blocked(self) -> bool:
        """Whether it has not taken yet what it was sent."""
        return self._outlet.blocked

    def wants(self, kind: int) -> bool:
        return self._kinds[kind] and not self._finishing and not self._outlet.lost

    def send(self, kind: int, chunk: bytes) -> None:
        """Output of the process; see Outlet.send."""
        self._outlet.send(kind, chunk)
        if self._outlet.blocked:
            self.watch()

    def splice(self, kind: int, pipe_fd: int, count: int) -> None:
        """The same for bytes in a pipe; see Outlet.splice."""
        self._outlet.splice(kind, pipe_fd, count)
        if self._outlet.blocked:
            self.watch()

    def take_owed(self) -> None:
        self._outlet.take_owed()

    def finish(self) -> None:
        """End of the session for this client, after what is pending."""
        if not self._finishing:
            self._finishing = True
            self._forwards = False
            self._flush()

    def drop(self) -> None:
        """Closes at once. The connection itself lives on if others hold it."""
        if self._socket.fileno() < 0:
            return
        if self._linger:
            self._linger.cancel()
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        self._outlet.clear()
        self._owner.left(self)

    def watch(self) -> None:
        """Watches for what can be done now; to be called when the session takes input again."""
        fd = self._socket.fileno()
        if fd < 0:
            return
        reads = self._input_open and (self._owner.takes_input or not self._forwards)
        if self._outlet.lost and not self._input_open:
            self.drop()
        elif self._outlet.lost and not reads:
            self._loop.forget(fd)  # its last input cannot be taken yet, and HUP would spin
        else:
            events = (READ if reads else 0) | (WRITE if self._outlet.blocked else 0)
            self._loop.watch(fd, events, self._ready)

    def _ready(self, events: int) -> None:
        if events & GONE:
            self._outlet.lost = True
            self._outlet.clear()
            self._owner.unblocked()
        elif events & WRITE and self._outlet.blocked:
            self._flush()
        if self._input_open and (self._owner.takes_input or not self._forwards):
            self._read()
        self.watch()

    def _flush(self) -> None:
        self._outlet.flush()
        if self._outlet.blocked:
            self.watch()
        elif self._finishing:
            self._shut_down()
        else:
            self._owner.unblocked()

    def _shut_down(self) -> None:
        if self._outlet.lost or not self._input_open:
            self.drop()
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.drop()
            return
        if not self._linger:
            self._linger = self._loop.later(LINGER_S, self.drop)
        self.watch()

    def _read(self) -> None:
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._outlet.lost = True
            data = b""
        if not data:
            self._end_of_input()
        elif self._forwards:
            forward, complete = self._keys.feed(data)
            if forward:
                self._owner.feed(forward)
            if complete:
                self._owner.detached(self)

    def _end_of_input(self) -> None:
        self._input_open = False
        if self._forwards:
            if held := self._keys.flush():
                self._owner.feed(held)
            self._owner.input_ended(self)
        if self._linger or self._outlet.lost:
            self.drop()
