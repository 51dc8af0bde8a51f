"""`/containers/{id}/archive`, `/changes` and `/export`: a container's files."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncGenerator

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
        found = await self._engine.archives.stat(container, call.params["id"], call.text("path"))
        return {STAT_HEADER: base64.b64encode(json.dumps(found).encode()).decode()}

    async def stat(self, call: Call) -> web.StreamResponse:
        return web.Response(headers=await self._stat_header(call, self._get(call)))

    async def get(self, call: Call) -> web.StreamResponse:
        container = self._get(call)
        headers = await self._stat_header(call, container)
        pieces = self._engine.archives.get(container, call.params["id"], call.text("path"))
        return await stream_tar(call, pieces, headers)

    async def put(self, call: Call) -> web.StreamResponse:
        await self._engine.archives.put(
            self._get(call),
            call.params["id"],
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
        return await stream_tar(call, self._engine.committer.export(container), {})


async def stream_tar(
    call: Call, pieces: AsyncGenerator[bytes, None], headers: dict[str, str]
) -> web.StreamResponse:
    """What fails before the first piece is an ordinary error; what fails later cuts the stream."""
    async with contextlib.aclosing(pieces):
        first = await anext(pieces, b"")
        response = web.StreamResponse(
            headers={"Content-Type": "application/x-tar", **HEADERS, **headers}
        )
        await response.prepare(call.request)
        await response.write(first)
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()
    return response
