"""Copies bytes between stdin, stdout and a socket, each direction until its end."""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

_CHUNK = 1 << 16
_SHUT_WR = 1


def relay_stdio(sock: _socket.socket) -> None:
    """Returns when the daemon has closed its side; the end of stdin is passed on to it."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    poll.register(0, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == 0:
                data = os.read(0, _CHUNK)
                if data:
                    sock.sendall(data)
                else:
                    poll.unregister(0)
                    sock.shutdown(_SHUT_WR)
                continue
            data = sock.recv(_CHUNK)
            if not data:
                return
            while data:
                data = data[os.write(1, data) :]
