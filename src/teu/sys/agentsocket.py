"""A unix socket whose users are connected to whoever offers a connection.

    a user connects to `path`  <- bytes both ways ->  the next connection that was offered

What is offered and not used yet waits, and so do users. Loop's thread.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

USER_LIMIT_S = 30.0
_READ_BYTES = 1 << 16
_START = b"\x01"  # tells the other side that somebody is there


class AgentSocket:
    """Listens until `close`. Raises: OSError when the socket cannot be made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offered: deque[socket.socket] = deque()
        self._more = asyncio.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(16)
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawn(self._accept())

    def offer(self, connection: socket.socket) -> None:
        """A connection for the next user; owned here from now on."""
        connection.setblocking(False)
        self._offered.append(connection)
        self._more.set()

    def close(self) -> None:
        """Ends all connections and removes the socket."""
        for task in self._tasks:
            task.cancel()
        self._listener.close()
        while self._offered:
            self._offered.popleft().close()
        self.path.unlink(missing_ok=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="agent socket")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            user, _ = await loop.sock_accept(self._listener)
            user.setblocking(False)
            self._spawn(self._serve(user))

    async def _serve(self, user: socket.socket) -> None:
        with user:
            try:
                async with asyncio.timeout(USER_LIMIT_S):
                    other = await self._next()
            except TimeoutError:
                return
            with other:
                loop = asyncio.get_running_loop()
                with contextlib.suppress(OSError):
                    await loop.sock_sendall(other, _START)
                    await asyncio.gather(_copy(user, other), _copy(other, user))

    async def _next(self) -> socket.socket:
        while not self._offered:
            self._more.clear()
            await self._more.wait()
        return self._offered.popleft()


async def _copy(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await loop.sock_recv(source, _READ_BYTES):
            await loop.sock_sendall(target, data)
    finally:
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
