"""Attaching over a WebSocket: what a browser's terminal speaks.

    browser == WebSocket == daemon -- socket pair -- shim

The shim sees an ordinary client; each of its writes becomes one message. Source: RFC 6455; API 1.51
ContainerAttachWebsocket (binary messages since 1.28).
"""

import asyncio
import contextlib
import socket
from types import TracebackType
from typing import Final, Self

from aiohttp import WSMsgType, web

from teu.api.headers import HEADERS
from teu.errors import InvalidParameter

_MESSAGE_LIMIT_BYTES: Final = 1 << 20
_READ_BYTES: Final = 1 << 16
_CLOSE_LIMIT_S: Final = 1.0


class WebSocketRelay:
    """`async with`: the handshake is done inside; leaving closes both sides.

    `text`: send text messages, for very old clients. Raises: InvalidParameter for a request that
    asks for no WebSocket.
    """

    def __init__(self, request: web.BaseRequest, *, text: bool) -> None:
        self._request = request
        self._text = text
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._socket = web.WebSocketResponse(
            timeout=_CLOSE_LIMIT_S, max_msg_size=_MESSAGE_LIMIT_BYTES, compress=False
        )

    async def __aenter__(self) -> Self:
        try:
            if not self._socket.can_prepare(self._request).ok:
                raise InvalidParameter("this endpoint speaks WebSocket only: no valid upgrade")
            self._socket.headers.update(HEADERS)
            await self._socket.prepare(self._request)
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._close()
        await self._socket.close()

    def give_fd(self) -> int:
        """The other end's descriptor; the caller owns it."""
        return self._theirs.detach()

    async def run(self) -> web.WebSocketResponse:
        """Until the container's side ends, or the client leaves."""
        reading = asyncio.create_task(self._from_client(), name="websocket input")
        writing = asyncio.create_task(self._to_client(), name="websocket output")
        try:
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
        return self._socket

    async def _from_client(self) -> None:
        """Ends when the client does: a WebSocket cannot close one direction only."""
        loop = asyncio.get_running_loop()
        async for message in self._socket:
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                return
            data = message.data
            try:
                await loop.sock_sendall(
                    self._ours, data if isinstance(data, bytes) else data.encode()
                )
            except OSError:  # nobody reads input any more; output may still come
                continue

    async def _to_client(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._ours, _READ_BYTES):
                if self._text:
                    await self._socket.send_str(data.decode(errors="replace"))
                else:
                    await self._socket.send_bytes(data)

    def _close(self) -> None:
        self._ours.close()
        self._theirs.close()
