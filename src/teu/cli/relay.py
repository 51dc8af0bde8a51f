"""Copies bytes between stdin, stdout and a socket, each direction until its end."""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teu.cli.http1 import Socket

_CHUNK = 1 << 16


def relay_stdio(sock: Socket) -> None:
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
                    _close_writing(sock)
                continue
            data = sock.recv(_CHUNK)
            if not data:
                return
            while data:
                data = data[os.write(1, data) :]


def _close_writing(sock: Socket) -> None:
    """Half a close; a TLS socket cannot do that, and is closed by its peer in the end."""
    shutdown = getattr(sock, "shutdown", None)
    if shutdown is not None and not hasattr(sock, "context"):
        shutdown(1)
