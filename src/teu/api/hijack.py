"""Taking a connection away from HTTP: its descriptor goes to a shim or a log reader.

Over a plain socket the descriptor is duplicated, so that container bytes never pass through the
daemon. Over TLS, or when the client already sent bytes after its request, one end of a socket pair
is handed out and the daemon relays between the pair and the connection.
Source: API 1.51, "Hijacking" of ContainerAttach and ExecStart.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
import termios

from aiohttp import web

from teu.api.status import OK, SWITCHING_PROTOCOLS
from teu.errors import Unavailable

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"
_WINDOW_BYTES = 1 << 18
_HEAD_POLL_S, _HEAD_POLLS = 0.002, 50


class Hijacked(web.Response):
    """Tells aiohttp that nothing is left to be said on this connection."""

    async def prepare(self, request: web.BaseRequest) -> None:
        self._eof_sent = True

    async def write_eof(self, data: bytes = b"") -> None:
        return

    @property
    def prepared(self) -> bool:
        return True


def upgrade_head(request: web.BaseRequest, *, content_type: str) -> bytes:
    """`101 UPGRADED` for a client that asked to upgrade, else a 200 whose body never ends."""
    if request.headers.get("Upgrade"):
        lines = [f"HTTP/1.1 {SWITCHING_PROTOCOLS} UPGRADED", "Connection: Upgrade", "Upgrade: tcp"]
    else:
        lines = [f"HTTP/1.1 {OK} OK"]
    lines.append(f"Content-Type: {content_type}")
    return "\r\n".join([*lines, "", ""]).encode()


def stream_head(content_type: str, extra: dict[str, str]) -> bytes:
    """The head of an answer whose body ends with the connection."""
    lines = [f"HTTP/1.1 {OK} OK", f"Content-Type: {content_type}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in extra.items()]
    return "\r\n".join([*lines, "", ""]).encode()


async def take_over(request: web.BaseRequest, head: bytes) -> int:
    """Sends `head` and gives the connection's descriptor away; the caller owns it.

    The handler must return `Hijacked()` afterwards. Raises: Unavailable when the client is gone.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        raise Unavailable("the client closed the connection")
    tail = bytes(getattr(request.protocol, "_message_tail", b""))
    plain = transport.get_extra_info("sslcontext") is None
    if plain and not tail:
        fd = os.dup(transport.get_extra_info("socket").fileno())
        try:
            await _send(fd, head)
        except OSError as error:
            os.close(fd)
            raise Unavailable("the client closed the connection") from error
        transport.abort()
        return fd
    ours, theirs = socket.socketpair()
    _Relay(transport, ours, head, tail)
    return theirs.detach()


def loses_early_bytes(request: web.BaseRequest) -> bool:
    """docker-py reads the head through a buffer and the rest without it: what comes along with the
    head is lost to it. Busy machines and ready logs show it."""
    return request.headers.get("User-Agent", "").startswith("docker-sdk-python/")


async def head_was_read(fd: int) -> None:
    """Waits, not long, until the client has taken the head from its unix socket."""
    sock = socket.socket(fileno=os.dup(fd))
    with sock:
        if sock.family != socket.AF_UNIX:
            return
        for _ in range(_HEAD_POLLS):
            unread = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
            if not any(unread):
                return
            await asyncio.sleep(_HEAD_POLL_S)


async def _send(fd: int, head: bytes) -> None:
    """The head fits any empty socket buffer, so this does not wait in practice."""
    sock = socket.socket(fileno=os.dup(fd))
    sock.setblocking(False)
    try:
        async with asyncio.timeout(5):
            await asyncio.get_running_loop().sock_sendall(sock, head)
    except TimeoutError as error:
        raise OSError("the client does not read") from error
    finally:
        sock.close()


class _Relay(asyncio.Protocol):
    """Bytes between an HTTP connection's transport and a socket pair, with back pressure."""

    def __init__(
        self, transport: asyncio.Transport, sock: socket.socket, head: bytes, tail: bytes
    ) -> None:
        self._transport = transport
        self._sock = sock
        self._writable = asyncio.Event()
        self._writable.set()
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._queued = 0
        sock.setblocking(False)
        transport.set_protocol(self)
        transport.write(head)
        transport.resume_reading()
        if tail:
            self.data_received(tail)
        loop = asyncio.get_running_loop()
        self._tasks = (
            loop.create_task(self._to_client(), name="relay to client"),
            loop.create_task(self._from_client(), name="relay from client"),
        )

    def data_received(self, data: bytes) -> None:
        self._queued += len(data)
        self._inbox.put_nowait(data)
        if self._queued > _WINDOW_BYTES:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._inbox.put_nowait(b"")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        for task in self._tasks:
            task.cancel()
        self._sock.close()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def _to_client(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._sock, 1 << 16):
                await self._writable.wait()
                self._transport.write(data)
        self._transport.close()

    async def _from_client(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await self._inbox.get():
                await loop.sock_sendall(self._sock, data)
                self._queued -= len(data)
                if self._queued <= _WINDOW_BYTES:
                    self._transport.resume_reading()
            self._sock.shutdown(socket.SHUT_WR)
