"""What registries have: `/distribution/…`, `/images/search`.

    GET  /distribution/{name}/json      Docker's: {"Descriptor", "Platforms"}
    GET  /distribution/{name}/tags      {"Name": str, "Tags": [str]}
    GET  /distribution/{name}/manifest  {"Ref", "Descriptor", "Raw": base64}
    POST /distribution/{name}/manifest  {"Raw": base64, "Sources": [NAME@DIGEST]} -> {"Digest"}

All but the first are this engine's own: they are what `image tags` and `manifest` are made of.
"""

import msgspec
from aiohttp import web

from teu.api.call import Call, Filters, answer, check_filters
from teu.api.engine import Engine
from teu.api.registryauth import registry_auth
from teu.api.router import Route
from teu.errors import InvalidParameter
from teu.model.reference import Reference
from teu.registry.search import DEFAULT_LIMIT, Found

_SINCE = (1, 30)
_SEARCH_FILTERS = frozenset({"is-automated", "is-official", "stars"})
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


class _NewIndex(msgspec.Struct, rename="pascal"):
    raw: bytes = b""
    sources: list[str] = []


class DistributionRoutes:
    def __init__(self, engine: Engine) -> None:
        self._remote = engine.remote
        self._registry = engine.registry
        self._tasks = engine.services.tasks

    def routes(self) -> list[Route]:
        one = "/distribution/{name:path}"
        return [
            Route("GET", f"{one}/json", self.inspect, _SINCE),
            Route("GET", f"{one}/tags", self.tags, _SINCE),
            Route("GET", f"{one}/manifest", self.manifest, _SINCE),
            Route("POST", f"{one}/manifest", self.put_index, _SINCE),
            Route("GET", "/images/search", self.search),
        ]

    async def inspect(self, call: Call) -> web.StreamResponse:
        return answer(await self._remote.inspect(call.params["name"], registry_auth(call)))

    async def tags(self, call: Call) -> web.StreamResponse:
        name = call.params["name"]
        tags = await self._remote.tags(name, registry_auth(call))
        return answer({"Name": Reference.parse(name).familiar_name, "Tags": tags})

    async def manifest(self, call: Call) -> web.StreamResponse:
        return answer(await self._remote.manifest(call.params["name"], registry_auth(call)))

    async def put_index(self, call: Call) -> web.StreamResponse:
        new = await call.body(_NewIndex)
        digest = await self._tasks.shielded(
            self._remote.put_index(call.params["name"], new.raw, new.sources, registry_auth(call)),
            "push index",
        )
        return answer({"Digest": digest})

    async def search(self, call: Call) -> web.StreamResponse:
        filters = call.filters()
        check_filters(filters, _SEARCH_FILTERS)
        limit = call.number("limit") or DEFAULT_LIMIT
        found = await self._registry.search(call.text("term"), limit, registry_auth(call))
        return answer([item for item in found if _fits(item, filters)])


def _fits(found: Found, filters: Filters) -> bool:
    """Raises: InvalidParameter."""
    official, automated = _flag(filters, "is-official"), _flag(filters, "is-automated")
    if official is not None and official != found.is_official:
        return False
    if automated:  # nothing is, any more
        return False
    return all(found.star_count >= _stars(value) for value in filters.get("stars", []))


def _flag(filters: Filters, name: str) -> bool | None:
    values = filters.get(name, [])
    if not values:
        return None
    if values[0] not in _FLAGS:
        raise InvalidParameter(f"invalid filter '{name}={values}'")
    return _FLAGS[values[0]]


def _stars(value: str) -> int:
    if not value.isdigit():
        raise InvalidParameter(f"invalid filter 'stars={value}'")
    return int(value)
