"""`/teu/volumes/…`: what Docker's API has no words for (docs/adr/0021, docs/volumes.md)."""

import base64
import json

from aiohttp import web

from teu.api import status
from teu.api.call import Call, answer
from teu.api.engine import Engine
from teu.api.router import Route
from teu.api.routes.archive import STAT_HEADER, stream_tar
from teu.api.wire.volumes import shown
from teu.model.config import Wire
from teu.model.volume import VolumeRecord


class CloneBody(Wire):
    """`snapshot`: made to be mounted read-only, its name may be left to the engine. `pause`: the
    containers that write to the volume, while it is copied."""

    name: str = ""
    labels: dict[str, str] | None = None
    snapshot: bool = False
    pause: bool = True


class VolumeWorkRoutes:
    def __init__(self, engine: Engine) -> None:
        self._work = engine.volume_work
        self._volumes = engine.services.volumes
        self._tasks = engine.services.tasks

    def routes(self) -> list[Route]:
        one = "/teu/volumes/{name}"
        return [
            Route("GET", "/teu/volumes", self.usage),
            Route("POST", f"{one}/clone", self.clone),
            Route("POST", f"{one}/rename", self.rename),
            Route("GET", f"{one}/export", self.export),
            Route("POST", f"{one}/import", self.import_),
            Route("HEAD", f"{one}/archive", self.stat),
            Route("GET", f"{one}/archive", self.get),
            Route("PUT", f"{one}/archive", self.put),
        ]

    def _made(self, volume: VolumeRecord) -> web.Response:
        return answer(shown(volume, self._volumes), status.CREATED)

    async def usage(self, call: Call) -> web.StreamResponse:
        return answer(await self._work.usage())

    async def clone(self, call: Call) -> web.StreamResponse:
        name, body = call.params["name"], await call.body(CloneBody)
        work = self._work.clone(
            name, body.name, labels=body.labels or {}, pause=body.pause, snapshot=body.snapshot
        )
        return self._made(await self._tasks.shielded(work, f"clone volume {name}"))

    async def rename(self, call: Call) -> web.StreamResponse:
        return answer(
            shown(self._work.rename(call.params["name"], call.text("name")), self._volumes)
        )

    async def export(self, call: Call) -> web.StreamResponse:
        pieces = self._work.export(call.params["name"], pause=call.flag("pause", True))
        return await stream_tar(call, pieces, {})

    async def import_(self, call: Call) -> web.StreamResponse:
        return self._made(await self._work.import_(call.params["name"], call.chunks()))

    async def _stat_header(self, call: Call) -> dict[str, str]:
        found = await self._work.stat(call.params["name"], call.text("path"))
        return {STAT_HEADER: base64.b64encode(json.dumps(found).encode()).decode()}

    async def stat(self, call: Call) -> web.StreamResponse:
        return web.Response(headers=await self._stat_header(call))

    async def get(self, call: Call) -> web.StreamResponse:
        headers = await self._stat_header(call)
        return await stream_tar(
            call, self._work.get(call.params["name"], call.text("path")), headers
        )

    async def put(self, call: Call) -> web.StreamResponse:
        await self._work.put(
            call.params["name"],
            call.text("path"),
            call.chunks(),
            keep_kinds=call.flag("noOverwriteDirNonDir"),
        )
        return web.Response(status=status.OK)
