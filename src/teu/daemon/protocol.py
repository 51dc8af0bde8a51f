"""One HTTP connection: aiohttp's protocol, hardened against clients that stop half way.

A client may end its direction and still wait for the answer (`nc -N`, many small HTTP clients);
aiohttp by itself drops the connection then. Here the request under way is answered: one whose body
is cut short with an error, a whole one as usual. A head that does not come to its end, and a
half-closed connection whose client has left, are closed. What is no HTTP at all is refused in JSON.
"""

import asyncio
import logging
import select
import socket
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from teu.errors import InvalidParameter

HEAD_LIMIT_S: Final = 10.0
HALF_CLOSED_CHECK_S: Final = 1.0
HALF_CLOSED_TCP_LIMIT_S: Final = 3.0  # over TCP a client that left looks like one that waits
log = logging.getLogger(__name__)


class ConnectionServer(web.Server):
    """Makes a `Connection` for each client."""

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


class Connection(RequestHandler):
    _head_timer: asyncio.TimerHandle | None = None
    _gone_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_idle():
            if self._head_timer is None:
                self._head_timer = self._loop.call_later(HEAD_LIMIT_S, self._head_is_late)
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _is_idle(self) -> bool:
        """Waiting for a request's head to be complete."""
        return self._waiter is not None and not self._waiter.done() and not self._messages

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._is_idle():
            log.debug("a request's head did not come to its end in %.0f s", HEAD_LIMIT_S)
            self.force_close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """True keeps the connection open for the answer."""
        if self._is_idle() or self.transport is None:
            return False
        request = self._current_request
        bodies = [request.content] if request is not None else []
        for body in (*bodies, *(payload for _, payload in self._messages)):
            if not body.is_eof():
                body.set_exception(InvalidParameter("the request's body was cut short"))
        self.close()  # after the answer
        self._watch(0.0)
        return True

    def _watch(self, waited_s: float) -> None:
        """Looks from time to time whether anybody still waits for the answer."""
        self._gone_timer = None
        if self.transport is None or self.transport.is_closing():
            return
        if _has_left(self.transport, waited_s):
            self.transport.abort()
            return
        self._gone_timer = self._loop.call_later(
            HALF_CLOSED_CHECK_S, self._watch, waited_s + HALF_CLOSED_CHECK_S
        )

    def connection_lost(self, exc: BaseException | None) -> None:
        for timer in (self._head_timer, self._gone_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no request; it closes the connection."""
        log.debug("refused what is no HTTP request: %s", message or exc)
        text = (message or "the request is not valid HTTP").strip().splitlines()[0]
        answer = web.Response(
            body=msgspec.json.encode({"message": text}) + b"\n",
            status=status,
            content_type="application/json",
        )
        answer.force_close()
        return answer


def _has_left(transport: asyncio.Transport, waited_s: float) -> bool:
    sock = transport.get_extra_info("socket")
    if sock.family != socket.AF_UNIX:
        return waited_s >= HALF_CLOSED_TCP_LIMIT_S
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))
