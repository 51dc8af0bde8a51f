"""`/networks/…`."""

from collections.abc import Callable

from aiohttp import web

from teu.api import status
from teu.api.call import Call, Filters, answer, check_filters
from teu.api.engine import Engine
from teu.api.router import Route
from teu.api.wire.networks import shown
from teu.container.container import Container
from teu.container.prune import has_label, parse_until
from teu.errors import EngineError
from teu.model.config import EndpointSettings, Wire
from teu.model.network import PREDEFINED, NetworkCreate, NetworkRecord

_FILTERS = frozenset({"driver", "id", "label", "name", "scope", "type", "dangling"})


class ConnectBody(Wire):
    """API 1.51 `NetworkConnectRequest`."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None


class DisconnectBody(Wire):
    container: str = ""
    force: bool = False


class NetworkRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._networks = engine.services.networks
        self._tasks = engine.services.tasks

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/networks", self.listing),
            Route("POST", "/networks/create", self.create),
            Route("POST", "/networks/prune", self.prune),
            Route("GET", "/networks/{id}", self.inspect),
            Route("DELETE", "/networks/{id}", self.remove),
            Route("POST", "/networks/{id}/connect", self.connect),
            Route("POST", "/networks/{id}/disconnect", self.disconnect),
            Route("GET", "/containers/{id}/reach", self.reach),
        ]

    async def listing(self, call: Call) -> web.StreamResponse:
        filters = call.filters()
        check_filters(filters, _FILTERS)
        chosen = [n for n in self._networks.all() if self._passes(n, filters)]
        return answer([shown(n, None) for n in chosen])

    def _passes(self, network: NetworkRecord, filters: Filters) -> bool:
        tests: dict[str, Callable[[str], bool]] = {
            "driver": lambda v: network.driver == v,
            "id": network.id.startswith,
            "name": lambda v: v in network.name,
            "scope": lambda v: network.scope == v,
            "type": lambda v: (v == "builtin") == (network.name in PREDEFINED),
            "dangling": lambda v: self._is_dangling(network) == (v.lower() in ("true", "1")),
        }
        if not all(has_label(network.labels, text) for text in filters.get("label", ())):
            return False
        return all(
            any(tests[name](value) for value in values)
            for name, values in filters.items()
            if name in tests and values
        )

    def _is_dangling(self, network: NetworkRecord) -> bool:
        return network.name not in PREDEFINED and not self._members(network)

    def _members(self, network: NetworkRecord) -> list[Container]:
        return [
            c
            for c in self._engine.services.containers
            if network.name in c.record.networks and c.running
        ]

    async def inspect(self, call: Call) -> web.StreamResponse:
        network = self._networks.get(call.params["id"])
        return answer(shown(network, self._members(network)))

    async def create(self, call: Call) -> web.StreamResponse:
        request = await call.body(NetworkCreate)
        network = await self._tasks.shielded(self._networks.create(request), "create network")
        self._tell("create", network)
        return answer({"Id": network.id, "Warning": ""}, status.CREATED)

    async def remove(self, call: Call) -> web.StreamResponse:
        network = self._networks.get(call.params["id"])
        await self._tasks.shielded(self._networks.remove(network.id), "remove network")
        self._tell("destroy", network)
        return web.Response(status=status.NO_CONTENT)

    async def prune(self, call: Call) -> web.StreamResponse:
        filters = call.filters()
        check_filters(filters, frozenset({"until", "label", "label!"}))
        removed = await self._tasks.shielded(self._prune(filters), "prune networks")
        self._engine.events.publish("network", "prune", "", {"reclaimed": "0"})
        return answer({"NetworksDeleted": removed or None})

    async def _prune(self, filters: Filters) -> list[str]:
        removed: list[str] = []
        mentioned = {name for c in self._engine.services.containers for name in c.record.networks}
        for network in self._networks.all():
            if network.name in PREDEFINED or network.name in mentioned:
                continue
            if not _prunable(network, filters):
                continue
            try:
                await self._networks.remove(network.id)
            except EngineError:  # taken into use meanwhile
                continue
            self._tell("destroy", network)
            removed.append(network.name)
        return removed

    async def connect(self, call: Call) -> web.StreamResponse:
        network = self._networks.get(call.params["id"])
        body = await call.body(ConnectBody)
        container = self._engine.services.containers.get(body.container)
        await self._tasks.shielded(
            self._engine.plugs.connect(
                container, network, body.endpoint_config or EndpointSettings()
            ),
            "connect",
        )
        return web.Response(status=status.OK)

    async def disconnect(self, call: Call) -> web.StreamResponse:
        network = self._networks.get(call.params["id"])
        body = await call.body(DisconnectBody)
        plugs, containers = self._engine.plugs, self._engine.services.containers
        if body.force and containers.find(body.container) is None:
            work = plugs.disconnect_lost(body.container, network)
        else:
            work = plugs.disconnect(containers.get(body.container), network)
        await self._tasks.shielded(work, "disconnect")
        return web.Response(status=status.OK)

    async def reach(self, call: Call) -> web.StreamResponse:
        """Not Docker's: whether, and if not why, the container reaches `?target=NAME[:PORT]`.

        {"Reaches": bool, "From": str, "To": str, "Hops": [{"Hop", "Passed": bool, "Text"}]}
        """
        container = self._engine.services.containers.get(call.params["id"])
        way = await self._engine.reach.explain(container, call.text("target"))
        hops = [{"Hop": one.name, "Passed": one.passed, "Text": one.text} for one in way.hops]
        return answer({"Reaches": way.reaches, "From": way.sender, "To": way.target, "Hops": hops})

    def _tell(self, action: str, network: NetworkRecord) -> None:
        self._engine.events.publish(
            "network", action, network.id, {"name": network.name, "type": network.driver}
        )


def _prunable(network: NetworkRecord, filters: Filters) -> bool:
    until = filters.get("until")
    if until and network.created_ns > parse_until(until[0]):
        return False
    if not all(has_label(network.labels, v) for v in filters.get("label", ())):
        return False
    return not any(has_label(network.labels, v) for v in filters.get("label!", ()))
