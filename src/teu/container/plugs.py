"""Connecting containers to networks, and taking them off, after they were created."""

from teu.container.container import Container
from teu.container.services import Services
from teu.errors import Conflict, Forbidden, InvalidParameter, NotFound
from teu.events import EventBus
from teu.model.config import EndpointSettings
from teu.model.network import HOST, NONE, NetworkRecord
from teu.network.files import addresses_of
from teu.tx import Transaction


class Plugs:
    def __init__(self, services: Services, events: EventBus) -> None:
        self._services = services
        self._events = events

    async def connect(
        self, container: Container, network: NetworkRecord, settings: EndpointSettings
    ) -> None:
        """At once for a running container; for others it is noted and happens at start.

        Raises: Conflict, Forbidden with Docker's texts.
        """
        async with container.lock:
            record = container.record
            self._check(container, network)
            if network.name == HOST:
                raise InvalidParameter(
                    "cannot connect container to host network - container must be created in "
                    "host network mode"
                )
            if record.networks and NONE in (network.name, *record.networks):
                raise InvalidParameter(
                    "container cannot be connected to multiple networks with one of the networks "
                    "in private (none) mode"
                )
            if network.name in record.networks:
                raise Forbidden(
                    f"endpoint with name {container.name} already exists in network {network.name}"
                )
            if container.running:
                settings = await self._plug_in(container, network, settings)
            record.networks[network.name] = settings
            self._services.containers.save(container)
        if container.running:  # else it is told at the start
            self._tell("connect", container, network)

    async def disconnect(self, container: Container, network: NetworkRecord) -> None:
        """Raises: Conflict, Forbidden, InvalidParameter."""
        if network.name == HOST and container.record.host.network_mode == HOST:
            raise InvalidParameter(
                "cannot disconnect container from host network - container was created in host "
                "network mode"
            )
        async with container.lock:
            record = container.record
            self._check(container, network)
            if network.name not in record.networks:
                raise Forbidden(
                    f"container {container.id} is not connected to network {network.name}"
                )
            settings = record.networks[network.name]
            if container.running:
                await self._services.networks.disconnect(record.id, network.name)
                home = self._services.paths.home(record.id)
                self._services.etc.left(home, record, addresses_of(settings))
            del record.networks[network.name]
            self._services.containers.save(container)
        if container.running:
            self._tell("disconnect", container, network)

    async def disconnect_lost(self, ref: str, network: NetworkRecord) -> None:
        """`--force`: an endpoint whose container is not known any more. Raises: NotFound."""
        for endpoint in self._services.networks.endpoints(network.id):
            if ref in (endpoint.container_name, endpoint.container_id):
                await self._services.networks.disconnect(endpoint.container_id, network.name)
                return
        raise NotFound(f"endpoint {ref} not found")

    async def _plug_in(
        self, container: Container, network: NetworkRecord, asked: EndpointSettings
    ) -> EndpointSettings:
        """The endpoint, names and the files under /etc of a running container; all or nothing."""
        services, record = self._services, container.record
        home = services.paths.home(record.id)
        async with Transaction("connect", record.name) as tx:
            settings = await services.networks.connect(
                record.id, record.name, record.sandbox, network.name, asked,
                hostname=record.config.hostname,
            )  # fmt: skip
            tx.on_rollback(
                "endpoint", lambda: services.networks.disconnect(record.id, network.name)
            )
            had_resolver = services.networks.serves_names(record.id)
            has_resolver = await services.networks.serve_names(
                record.id, services.etc.servers(record)
            )
            if has_resolver and not had_resolver:
                services.etc.got_resolver(home, record)
            services.etc.joined(home, record, addresses_of(settings))
            tx.commit()
        return settings

    def _check(self, container: Container, network: NetworkRecord) -> None:
        mode = container.record.host.network_mode
        if mode == HOST or mode.startswith("container:"):
            raise InvalidParameter(
                "container sharing network namespace with another container or host cannot be "
                "connected to any other network"
            )
        if container.running and not container.record.sandbox:
            raise Conflict(
                f"container {container.name} has no network of its own; restart it to connect it"
            )

    def _tell(self, action: str, container: Container, network: NetworkRecord) -> None:
        self._events.publish(
            "network",
            action,
            network.id,
            {"container": container.id, "name": network.name, "type": network.driver},
        )
