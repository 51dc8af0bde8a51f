"""Starts the real daemon process around an engine that only answers a few requests.

Run as `python fake_daemon.py [flags of teud]`. Behaviour by environment:
FAKE_START_S delays the start (a recovery), FAKE_STOP_S the stop, FAKE_FAIL makes the start fail.
"""

import asyncio
import logging
import os
import sys

import msgspec
from aiohttp import web

from teu.daemon import main
from teu.daemon.commandline import program_for
from teu.daemon.config import DaemonConfig
from teu.errors import SystemFailure

log = logging.getLogger("fake")


class FakeEngine:
    """Satisfies `service.Engine`."""

    def __init__(self, config: DaemonConfig) -> None:
        self.config = config
        self._routes = {
            "/_ping": self._ping,
            "/config": self._show_config,
            "/forever": self._forever,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._routes[request.path](request)

    async def start(self) -> None:
        log.info("engine starts")
        await asyncio.sleep(float(os.environ.get("FAKE_START_S", "0")))
        if "FAKE_FAIL" in os.environ:
            raise SystemFailure("the fake engine was told to fail")
        log.info("engine started")

    async def stop(self) -> None:
        await asyncio.sleep(float(os.environ.get("FAKE_STOP_S", "0")))
        log.info("engine stopped")

    def reload(self, config: DaemonConfig) -> None:
        self.config = config

    async def _ping(self, request: web.BaseRequest) -> web.Response:
        sock = request.transport.get_extra_info("socket") if request.transport else None
        return web.Response(text="OK", headers={"Peer-Fd": str(sock.fileno() if sock else -1)})

    async def _show_config(self, request: web.BaseRequest) -> web.Response:
        shown = msgspec.json.encode(self.config, enc_hook=str)
        return web.Response(body=shown, content_type="application/json")

    async def _forever(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun\n")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.info("stream cancelled")
            raise
        return response


if __name__ == "__main__":
    program = program_for(os.environ.get("FAKE_ARGV0", "teud"))
    sys.exit(main.run(sys.argv[1:], program, os.environ, FakeEngine))
