"""`/_ping`, `/version`, `/info`, `/events`, `/system/df`, `/auth`."""

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from teu.api import versions
from teu.api.call import Call, Filters, answer
from teu.api.engine import Engine
from teu.api.headers import HEADERS
from teu.api.progress import Emit, stream_progress
from teu.api.registryauth import registry_logins
from teu.api.router import Route
from teu.api.routes.containers import parse_instant
from teu.api.wire import containers as container_wire
from teu.api.wire import volumes as volume_wire
from teu.container.prune import has_label
from teu.errors import InvalidParameter
from teu.model.event import Event
from teu.system import DiskUsage

PING_HEADERS = {
    "Builder-Version": "1",
    "Swarm": "inactive",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
}
_EVENT_FILTERS = frozenset(
    {"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin",
     "scope", "secret", "service", "type", "volume"}
)  # fmt: skip
_DF_KINDS = frozenset({"container", "image", "volume", "build-cache"})
_encode = msgspec.json.Encoder().encode


class AuthConfig(msgspec.Struct):
    """API 1.51 `AuthConfig`, spelled as on the wire."""

    username: str = ""
    password: str = ""
    auth: str = ""
    email: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class SystemRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/_ping", self.ping),
            Route("HEAD", "/_ping", self.ping),
            Route("GET", "/version", self.version),
            Route("GET", "/info", self.info),
            Route("GET", "/events", self.events),
            Route("GET", "/system/df", self.disk_usage, (1, 25)),
            Route("POST", "/auth", self.auth),
            Route("POST", "/system/check", self.check),
        ]

    async def ping(self, call: Call) -> web.StreamResponse:
        if (
            call.request.method == "HEAD"
        ):  # as a command line begins, often one that starts something
            self._engine.services.runtime.foresee_start()
        body = "" if call.request.method == "HEAD" else "OK"
        return web.Response(text=body, headers=PING_HEADERS)

    async def version(self, call: Call) -> web.StreamResponse:
        return answer(self._engine.system.version())

    async def info(self, call: Call) -> web.StreamResponse:
        info = self._engine.system.info()
        versions.adapt_info(info, call.version)
        return answer(info)

    async def auth(self, call: Call) -> web.StreamResponse:
        body = await call.body(AuthConfig)
        fields = {name: getattr(body, name) for name in AuthConfig.__struct_fields__}
        address = fields.pop("serveraddress")
        token = await self._engine.registry.login(address, fields)
        return answer({"Status": "Login Succeeded", "IdentityToken": token})

    async def disk_usage(self, call: Call) -> web.StreamResponse:
        """A container's size counts its logs as well (also told apart, as `SizeLogs`)."""
        kinds = _wanted_kinds(call)
        usage = await self._engine.system.disk_usage(kinds)
        shown: dict[str, Any] = {}
        if "image" in kinds:
            shown |= {"LayersSize": usage.layers, "Images": self._images_with_users(call)}
        if "container" in kinds:
            shown["Containers"] = self._containers_with_sizes(usage)
        if "volume" in kinds:
            volumes = self._engine.services.volumes
            shown["Volumes"] = [
                volume_wire.shown(v, volumes, usage.volumes.get(v.name, 0)) for v in volumes.all()
            ]
        if "build-cache" in kinds:
            shown["BuildCache"] = self._engine.builds.pruner.rows()
        if call.version < (1, 42):
            shown["BuilderSize"] = sum(row["Size"] for row in self._engine.builds.pruner.rows())
        return answer(shown)

    def _containers_with_sizes(self, usage: DiskUsage) -> list[dict[str, Any]]:
        services = self._engine.services
        rows = []
        for container in sorted(
            services.containers, key=lambda c: c.record.created_ns, reverse=True
        ):
            row = container_wire.summary(container, services.images)
            own, whole = usage.containers.get(container.id, (0, 0))
            logs = usage.logs.get(container.id, 0)
            row |= {"SizeRw": own + logs, "SizeRootFs": whole, "SizeLogs": logs}
            rows.append(row)
        return rows

    async def check(self, call: Call) -> web.StreamResponse:
        """Not Docker's: looks at all stored content, `repair=1` fetches what is lost again."""
        logins = registry_logins(call)
        repair = call.flag("repair")

        async def work(emit: Emit) -> None:
            await self._engine.services.images.check(emit, repair=repair, logins=logins)

        return await stream_progress(call, self._engine.services.tasks, "system check", work)

    def _images_with_users(self, call: Call) -> list[dict[str, Any]]:
        services = self._engine.services
        rows = services.images.list_images({}, all_=True, shared_size=True)
        for row in rows:
            row["Containers"] = len(services.containers.using_image(row["Id"]))
            versions.adapt_image_row(row, call.version)
        return rows

    # --- events --------------------------------------------------------------------------

    async def events(self, call: Call) -> web.StreamResponse:
        filters = call.filters()
        for name in filters:
            if name not in _EVENT_FILTERS:
                raise InvalidParameter(f"invalid filter '{name}'")
        since, until = parse_instant(call.text("since")), parse_instant(call.text("until"))
        if since and until and since > until:
            raise InvalidParameter("`since` time must be before `until` time")
        response = web.StreamResponse(headers={"Content-Type": "application/json", **HEADERS})
        await response.prepare(call.request)
        await response.write(b"")
        stream = self._engine.events.stream(since, until, lambda e: matches(e, filters))
        try:
            async for event in stream:
                await response.write(_encode(shown(event)) + b"\n")
        except (ConnectionError, asyncio.CancelledError):
            raise
        finally:
            await stream.aclose()
        await response.write_eof()
        return response


def _wanted_kinds(call: Call) -> frozenset[str]:
    """The `type`s asked for; all when none is. Raises: InvalidParameter."""
    asked = frozenset(call.values("type") if call.version >= (1, 42) else ())
    for kind in asked:
        if kind not in _DF_KINDS:
            raise InvalidParameter(f"unknown object type: {kind}")
    return asked or _DF_KINDS


def shown(event: Event) -> dict[str, Any]:
    """API 1.51 `EventMessage`, with the old names that clients still read."""
    message: dict[str, Any] = {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor, "Attributes": event.attributes},
        "scope": "local",
        "time": event.at_ns // 1_000_000_000,
        "timeNano": event.at_ns,
    }
    if event.type in ("container", "image"):
        message = {"status": event.action, **message}
        if event.actor:
            message["id"] = event.actor
        if event.type == "container" and event.actor:
            message["from"] = event.attributes.get("image", "")
    return message


def matches(event: Event, filters: Filters) -> bool:
    """All filters must hold; of one filter's values, one."""
    return all(_holds(event, name, values) for name, values in filters.items() if values)


def _holds(event: Event, name: str, values: list[str]) -> bool:
    match name:
        case "type":
            return event.type in values
        case "event":
            return any(event.action == v or event.action.startswith(f"{v}:") for v in values)
        case "label":
            return all(has_label(event.attributes, v) for v in values)
        case "scope":
            return "local" in values
        case "image":
            image = event.actor if event.type == "image" else event.attributes.get("image", "")
            names = {image, event.attributes.get("name", ""), image.partition(":")[0]}
            return event.type in ("image", "container") and bool(names & set(values))
        case "container" | "volume" | "network" | "daemon":
            return event.type == name and any(_is_actor(event, v) for v in values)
    return False


def _is_actor(event: Event, value: str) -> bool:
    return event.attributes.get("name") == value or event.actor.startswith(value)
