"""`/containers/{id}/archive`, `/changes` and `/export`: a container's files."""

import asyncio
import base64
import json

from aiohttp import web

from teu.api import status
from teu.api.call import Call, answer
from teu.api.engine import Engine
from teu.api.headers import HEADERS
from teu.api.router import Route
from teu.container.changes import changes
from teu.container.container import Container

STAT_HEADER = "X-Docker-Container-Path-Stat"


class ArchiveRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._services = engine.services

    def routes(self) -> list[Route]:
        return [
            Route("HEAD", "/containers/{id}/archive", self.stat),
            Route("GET", "/containers/{id}/archive", self.get),
            Route("PUT", "/containers/{id}/archive", self.put),
            Route("GET", "/containers/{id}/changes", self.changes),
            Route("GET", "/containers/{id}/export", self.export),
        ]

    def _get(self, call: Call) -> Container:
        return self._services.containers.get(call.params["id"])

    async def _stat_header(self, call: Call, container: Container) -> dict[str, str]:
        found = await self._engine.archives.stat(container, call.text("path"))
        return {STAT_HEADER: base64.b64encode(json.dumps(found).encode()).decode()}

    async def stat(self, call: Call) -> web.StreamResponse:
        return web.Response(headers=await self._stat_header(call, self._get(call)))

    async def get(self, call: Call) -> web.StreamResponse:
        container = self._get(call)
        headers = await self._stat_header(call, container)
        response = web.StreamResponse(
            headers={"Content-Type": "application/x-tar", **HEADERS, **headers}
        )
        await response.prepare(call.request)
        async for chunk in self._engine.archives.get(container, call.text("path")):
            await response.write(chunk)
        await response.write_eof()
        return response

    async def put(self, call: Call) -> web.StreamResponse:
        await self._engine.archives.put(
            self._get(call),
            call.text("path"),
            call.chunks(),
            keep_kinds=call.flag("noOverwriteDirNonDir"),
        )
        return web.Response(status=status.OK)

    async def changes(self, call: Call) -> web.StreamResponse:
        container = self._get(call)
        upper = self._services.paths.home(container.id) / "upper"
        lower = self._engine.rootfs.lower(container)
        found = await asyncio.to_thread(changes, upper, lower)
        return answer([{"Path": path, "Kind": kind} for path, kind in found] or None)

    async def export(self, call: Call) -> web.StreamResponse:
        container = self._get(call)
        response = web.StreamResponse(headers={"Content-Type": "application/x-tar", **HEADERS})
        await response.prepare(call.request)
        async for chunk in self._engine.committer.export(container):
            await response.write(chunk)
        await response.write_eof()
        return response
