"""`/volumes/…`."""

from aiohttp import web

from teu.api import status
from teu.api.call import Call, Filters, answer, check_filters
from teu.api.engine import Engine
from teu.api.router import Route
from teu.api.wire.volumes import shown
from teu.container.prune import has_label
from teu.model.config import Wire
from teu.model.volume import VolumeRecord


class CreateBody(Wire):
    """API 1.51 `VolumeCreateOptions`."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class VolumeRoutes:
    def __init__(self, engine: Engine) -> None:
        self._volumes = engine.services.volumes
        self._tasks = engine.services.tasks

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/volumes", self.listing),
            Route("POST", "/volumes/create", self.create),
            Route("POST", "/volumes/prune", self.prune),
            Route("GET", "/volumes/{name}", self.inspect),
            Route("DELETE", "/volumes/{name}", self.remove),
        ]

    async def listing(self, call: Call) -> web.StreamResponse:
        filters = call.filters()
        check_filters(filters, frozenset({"name", "label", "dangling", "driver"}))
        volumes, warnings = await self._volumes.listed()
        chosen = [shown(v, self._volumes) for v in volumes if self._passes(v, filters)]
        return answer({"Volumes": chosen, "Warnings": warnings or None})

    def _passes(self, volume: VolumeRecord, filters: Filters) -> bool:
        names, drivers = filters.get("name"), filters.get("driver")
        dangling = filters.get("dangling")
        if names and not any(part in volume.name for part in names):
            return False
        if drivers and volume.driver not in drivers:
            return False
        if dangling:
            wanted = dangling[0].lower() in ("true", "1")
            if wanted == bool(self._volumes.users(volume.name)):
                return False
        return all(has_label(volume.labels, text) for text in filters.get("label", ()))

    async def create(self, call: Call) -> web.StreamResponse:
        body = await call.body(CreateBody)
        volume, _ = await self._tasks.shielded(
            self._volumes.ensure(
                body.name, driver=body.driver, options=body.driver_opts, labels=body.labels
            ),
            f"create volume {body.name}",
        )
        return answer(shown(volume, self._volumes), status.CREATED)

    async def inspect(self, call: Call) -> web.StreamResponse:
        volume = await self._volumes.look_up(call.params["name"])
        state = await self._volumes.status(volume)
        return answer(shown(volume, self._volumes) | ({"Status": state} if state else {}))

    async def remove(self, call: Call) -> web.StreamResponse:
        name = call.params["name"]
        await self._tasks.shielded(
            self._volumes.remove(name, force=call.flag("force")), f"remove volume {name}"
        )
        return web.Response(status=status.NO_CONTENT)

    async def prune(self, call: Call) -> web.StreamResponse:
        filters = call.filters()
        check_filters(filters, frozenset({"label", "label!", "all"}))
        everything = (filters.get("all") or ["false"])[0].lower() in ("true", "1")

        def wanted(volume: VolumeRecord) -> bool:
            return all(has_label(volume.labels, v) for v in filters.get("label", ())) and not any(
                has_label(volume.labels, v) for v in filters.get("label!", ())
            )

        removed, reclaimed = await self._tasks.shielded(
            self._volumes.prune(include_named=everything or call.version < (1, 42), wanted=wanted),
            "prune volumes",
        )
        self._volumes.tell("prune", "", {"reclaimed": str(reclaimed)})
        return answer({"VolumesDeleted": removed or None, "SpaceReclaimed": reclaimed})
