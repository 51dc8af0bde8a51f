"""Serves one HTTP handler on the daemon's listeners.

Transports are asyncio's plain ones over the accepted sockets: the API takes a connection over by
duplicating its descriptor (hijack), which only works when nothing sits in between (except TLS,
where it relays). A handler is cancelled when its client goes away.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from teu.daemon.listeners import BACKLOG, Listener
from teu.daemon.protocol import ConnectionServer

KEEPALIVE_S = 600.0  # clients poll over one connection; an idle one costs a few KiB
HANDSHAKE_LIMIT_S = 10.0
ANSWER_LIMIT_S = 1.0  # at stop: for answers already being written
LINE_LIMIT_BYTES = 1 << 16  # filters travel in the URL
HEADER_LIMIT_BYTES = 1 << 18  # X-Registry-Config carries the credentials of all registries
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
log = logging.getLogger(__name__)


class HttpServer:
    """Owns the listeners once started."""

    def __init__(self, handler: Handler, listeners: list[Listener]) -> None:
        protocols = ConnectionServer(
            handler,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=KEEPALIVE_S,
            max_line_size=LINE_LIMIT_BYTES,
            max_field_size=HEADER_LIMIT_BYTES,
        )
        self._runner = web.ServerRunner(
            protocols, handle_signals=False, shutdown_timeout=ANSWER_LIMIT_S
        )
        self._listeners = listeners
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Accepts from now on. The sockets were bound before; clients may already wait."""
        await self._runner.setup()
        for listener in self._listeners:
            self._servers.append(await self._serve(listener))
            log.info("API listen on %s", listener.host)

    async def _serve(self, listener: Listener) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        protocol = self._runner.server
        assert protocol is not None  # after setup()
        limit = HANDSHAKE_LIMIT_S if listener.tls else None
        if listener.host.scheme == "unix":
            return await loop.create_unix_server(protocol, sock=listener.socket, backlog=BACKLOG)
        return await loop.create_server(
            protocol,
            sock=listener.socket,
            backlog=BACKLOG,
            ssl=listener.tls,
            ssl_handshake_timeout=limit,
        )

    def stop_accepting(self) -> None:
        """New connections are refused; those that stand go on."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    async def close(self) -> None:
        """Ends all connections: `ANSWER_LIMIT_S` for answers under way, then they are cut."""
        self.stop_accepting()
        await self._runner.cleanup()
