"""The networks of one daemon: what the containers' side calls.

CNM: `open_sandbox` makes the container's namespace, `connect` puts an endpoint into it, `publish`
opens host ports, `release` takes all of it back. Drivers: bridge, host, none.

Crash: rows come first and go last; `start` writes bridges and rules anew from the rows, `restore`
takes back what running containers hold, `reap` removes what belongs to nobody. Stopping or killing
the daemon leaves links, namespaces and rules in place, so running containers keep their network.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path

from msgspec import Struct, field

from teu.errors import EngineError, InvalidParameter, SystemFailure
from teu.ids import short
from teu.model.config import EndpointSettings, PortBinding
from teu.model.network import (
    BRIDGE,
    HOST,
    NONE,
    EndpointRecord,
    NetworkCreate,
    NetworkRecord,
    PublishedPort,
)
from teu.network.bridge_options import OPTION_HOST_IP, option_mode
from teu.network.catalog import Catalog
from teu.network.config import NetworkConfig
from teu.network.connector import Connector, bound_ports
from teu.network.defaults import DefaultNetworks
from teu.network.drivers import Drivers, firewall_rules
from teu.network.endpoints import EndpointTable
from teu.network.errors import (
    ConfigurationInUse,
    NetworkInUse,
    NotConnected,
    PredefinedNetwork,
)
from teu.network.files import resolver_networks
from teu.network.firewall import ROUTED, Firewall
from teu.network.kernel import (
    HostLinks,
    Worker,
    keep_router_advertisements,
    machine_id,
    read_sysctl,
    set_sysctl,
)
from teu.network.mtu import MtuFollower
from teu.network.names import Names
from teu.network.ports import parse_port_key, requested
from teu.network.sandbox import Sandboxes
from teu.store.db import Database
from teu.store.networks import NetworkRepository
from teu.sys.nft import Nft, TableWatch
from teu.sys.syscalls import os_errors
from teu.tx import Transaction

__all__ = ["Live", "NetworkConfig", "NetworkService"]

REPAIR_DELAY_S = 0.3  # longer than a script needs between "flush" and its own rules
DROPPER_WARNING = (
    "firewall chain {} drops forwarded packets by default, those of containers too, unless a rule "
    "there allows them; beside Docker: iptables -I DOCKER-USER -i BRIDGE -j ACCEPT; "
    "iptables -I DOCKER-USER -o BRIDGE -j ACCEPT (BRIDGE: teu0, or another network's bridge)"
)
log = logging.getLogger(__name__)


class Live(Struct):
    """A container that ran on while the daemon was away; `servers` as in `serve_names`."""

    container_id: str
    name: str
    servers: list[str] = field(default_factory=list)


class NetworkService:
    """All methods run on the loop; what may block in the kernel runs in a few threads."""

    def __init__(self, db: Database, exec_root: Path, config: NetworkConfig) -> None:
        self._config = config
        self._rows = NetworkRepository(db)
        self._catalog = Catalog(config, machine_id())
        self._endpoints = EndpointTable(self._rows)
        self._sandboxes = Sandboxes(exec_root)
        self._marks = {  # the host was no router for that family before us
            "ip": exec_root / "netns" / ".forwarding-was-off",
            "ip6": exec_root / "netns" / ".ipv6-forwarding-was-off",
        }
        self._worker = Worker()
        self._host = HostLinks()
        self._drivers = Drivers(
            self._host, config.mtu, guarded=config.iptables, owner=f"teu {exec_root}"[:250]
        )
        self._names = Names(
            exec_root, self._endpoints, self._sandboxes, self._catalog.get, self._worker
        )
        self._nft = Nft() if config.iptables else None
        self._firewall = Firewall(self._nft, config.bridge) if self._nft else None
        self._connector = Connector(
            self._catalog, self._endpoints, self._sandboxes, self._drivers, self._firewall,
            self._worker, self._names,
        )  # fmt: skip
        self._defaults = DefaultNetworks(
            config, self._rows, self._catalog, self._endpoints, self._drivers.bridge, self._host,
            self._firewall,
        )  # fmt: skip
        self._mtu = MtuFollower(
            self._catalog, self._endpoints, self._sandboxes, self._drivers, self._worker
        )
        self._changing = asyncio.Lock()  # creating and removing networks, one at a time
        self.warnings: list[str] = []  # what keeps networks from working, for `info`
        self._dropper = ""
        self._watch: TableWatch | None = None
        self._repair: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Bridges, addresses, the few sysctls and the firewall table, as the rows say.

        Idempotent; the network of running containers goes on meanwhile.
        Raises: InvalidParameter (configuration), SystemFailure.
        """
        for record in self._rows.networks():
            self._catalog.add(record)
        self._endpoints.load({record.id for record in self._catalog.all()})
        self._defaults.ensure()
        for family in ("ip", "ip6"):
            version = 6 if family == "ip6" else 4
            if any(record.pool(version) for record in self._catalog.bridges()):
                await self._worker.run(self._enable_forwarding, family)
        if self._firewall:  # before the bridges: see BridgeDriver
            await self._worker.run(self._write_rules, self._firewall)
        await self._worker.run(self._drivers.bridge.remove_strays, self._catalog.links())
        for record in self._catalog.all():
            await self._ensure_network(record)
        for endpoint in self._endpoints.all():
            self._connector.hold_address(endpoint)
            network = self._catalog.get(endpoint.network_id)
            if network.is_bridged:
                await self._worker.run(self._drivers.bridge.separate, network, endpoint)
        self._mtu.start()
        if self._firewall:
            self._watch = TableWatch()
            asyncio.get_running_loop().add_reader(self._watch.fileno(), self._rules_changed)

    async def stop(self) -> None:
        """Lets go of sockets and threads. Containers live on and so does their network; where
        none is left, nothing stays in the kernel but the administrator's own rules."""
        await self._stop_watching()
        await self._mtu.stop()
        if not self._endpoints.all():
            await self._clear_kernel()
        await self._names.close()
        self._connector.close()
        self._worker.close()
        self._sandboxes.close()
        self._host.close()
        if self._nft:
            self._nft.close()

    def expect_releases(self, is_going: Callable[[str], bool]) -> None:
        """`is_going` tells containers that have ended, whose `release` will come: what they hold
        is waited for instead of refused."""
        self._connector.is_going = is_going

    def get(self, ref: str) -> NetworkRecord:
        """By id, name or the start of an id. Raises: NoSuchNetwork, AmbiguousNetwork."""
        return self._catalog.get(ref)

    def all(self) -> list[NetworkRecord]:
        return self._catalog.all()

    def endpoints(self, network_id: str) -> list[EndpointRecord]:
        """Who is plugged into the network now."""
        return self._endpoints.of_network(network_id)

    async def create(self, request: NetworkCreate) -> NetworkRecord:
        """A user-defined network, ready for endpoints; all or nothing.

        Raises: NetworkNameTaken, InvalidParameter, NotImplementedYet, SubnetTaken,
        PoolsExhausted, PredefinedNetwork, SystemFailure.
        """
        async with self._changing, Transaction("create network", request.name) as tx:
            routed = await self._worker.run(self._host.routed, self._catalog.links())
            record = self._catalog.plan(request, [*routed, *resolver_networks()])
            if record.config_only:
                self._rows.save_network(record)
                self._catalog.add(record)
                return record
            link, driver = record.link, self._drivers.get(record)
            record.link_is_ours = await self._worker.run(self._host.link, link) is None
            if record.pool(6) and record.is_bridged:
                await self._worker.run(self._enable_forwarding, "ip6")
            tx.on_rollback("row", lambda: self._rows.remove_network(record.id))
            tx.on_rollback("link", lambda: self._worker.run(driver.remove, record))
            self._rows.save_network(record)
            if record.is_bridged and (firewall := self._firewall):
                tx.on_rollback("rules", lambda: self._worker.run(firewall.remove_bridge, link))
                await self._worker.run(firewall.add_bridge, firewall_rules(record))
            await self._worker.run(driver.ensure, record)
            self._catalog.add(record)
            tx.commit()
        self._names.foresee()
        return record

    async def remove(self, ref: str) -> None:
        """Waits for containers that have ended to let go of it.

        Raises: NoSuchNetwork, NetworkInUse, PredefinedNetwork, SystemFailure.
        """
        record = self.get(ref)
        await self._connector.until_released(
            lambda: any(
                self._connector.is_going(one.container_id) for one in self.endpoints(record.id)
            )
        )
        async with self._changing:
            record = self.get(record.id)
            if record.name in (BRIDGE, HOST, NONE):
                raise PredefinedNetwork(record.name)
            self._refuse_if_used(record)
            async with Transaction("remove network", record.name) as tx:
                tx.on_rollback("catalog", lambda: self._catalog.add(record))
                self._catalog.drop(record)  # from here on nobody can connect
                await self._take_down(record, tx)
                self._rows.remove_network(record.id)
                tx.commit()

    def _refuse_if_used(self, record: NetworkRecord) -> None:
        if held := self.endpoints(record.id):
            raise NetworkInUse(record.name, [(one.container_name, one.id) for one in held])
        made = [one.name for one in self.all() if one.config_from == record.name]
        if record.config_only and made:
            raise ConfigurationInUse(record.name, made)

    async def _take_down(self, record: NetworkRecord, tx: Transaction) -> None:
        driver = self._drivers.find(record)
        if driver is None:
            return
        if record.is_bridged and (firewall := self._firewall):
            rules = firewall_rules(record)
            tx.on_rollback("rules", lambda: self._worker.run(firewall.add_bridge, rules))
            await self._worker.run(firewall.remove_bridge, record.link)
        await self._worker.run(driver.remove, record)

    async def open_sandbox(self, container_id: str) -> str:
        """The path of a fresh network namespace with its loopback up (about 0.7 ms).

        Raises: SystemFailure. Cancel: safe; the namespace is removed again.
        """
        async with Transaction("open sandbox", short(container_id)) as tx:
            tx.on_rollback(
                "sandbox", lambda: self._worker.run(self._sandboxes.remove, container_id)
            )
            with os_errors(f"network namespace of {short(container_id)}"):
                path = await self._worker.run(self._sandboxes.create, container_id)
            tx.commit()
        return str(path)

    async def connect(
        self,
        container_id: str,
        name: str,
        sandbox: str,
        network: str,
        settings: EndpointSettings,
        *,
        hostname: str = "",
    ) -> EndpointSettings:
        """Plugs the container in: address allocated, stored, link up in the sandbox (about 1 ms).

        Args: name: the container's. sandbox: from `open_sandbox`, empty on network `host`.
            hostname: one more name by which others find it.
        Returns: the settings with ids, address, prefix, gateway and MAC filled in.
        Raises: NoSuchNetwork, AlreadyConnected, NoFreeAddress, AddressInUse, InvalidParameter,
        SystemFailure. Cancel and failure: nothing is left.
        """
        record = self.get(network)
        return await self._connector.connect(
            container_id, name, record, settings, hostname=hostname
        )

    def serves_names(self, container_id: str) -> bool:
        """Whether the container has the resolver already."""
        return self._names.serves(container_id)

    async def serve_names(self, container_id: str, servers: Iterable[str] = ()) -> bool:
        """Gives the container the resolver at 127.0.0.11 if it is on a network with names.

        Args: servers: where questions about other names go; empty: the host's, followed live.
        Returns: whether the container has it, from now on or already.
        Raises: SystemFailure. Cancel, crash: `release` takes it away.
        """
        networks = (one.network_id for one in self._endpoints.of_container(container_id))
        if not any(self._catalog.get(network).has_names for network in networks):
            return False
        if self._names.serves(container_id):
            await self._names.settled()
            return True
        with os_errors(f"names for container {short(container_id)}"):
            await self._names.serve(container_id, servers)
        return True

    async def publish(
        self,
        container_id: str,
        name: str,
        network: str,
        bindings: dict[str, list[PortBinding] | None] | None,
        exposed: Iterable[str] = (),
        publish_all: bool = False,
    ) -> dict[str, list[dict[str, str]]]:
        """Opens host ports for the container's endpoint on `network`; all or nothing.

        Returns: `{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": []}`: ports
        that are only exposed have an empty list (inspect shows null).
        Raises: PortTaken (names the holder), InvalidParameter, NotConnected, SystemFailure.
        """
        record = self.get(network)
        shown: dict[str, list[dict[str, str]]] = {}
        for key in (*exposed, *(bindings or {})):
            port, protocol = parse_port_key(key)
            shown[f"{port}/{protocol}"] = []
        if not record.is_bridged:
            return {}
        if record.internal:
            return shown
        endpoint = self._endpoints.find(container_id, record.id)
        if endpoint is None:
            raise NotConnected(name, record.name)
        routed = {v for v in (4, 6) if record.pool(v) and option_mode(record, v) == ROUTED}
        wanted = requested(
            bindings,
            exposed,
            publish_all=publish_all,
            default_address=record.options.get(OPTION_HOST_IP) or self._config.default_host_ip,
            versions={v for v in (4, 6) if record.pool(v)} - routed,
        )
        direct = [
            PublishedPort(one.protocol, "", 0, address, one.port)
            for one in wanted
            for version, address in ((4, endpoint.address), (6, endpoint.address6))
            if version in routed
        ]
        await self._connector.publish(
            endpoint, [one for one in wanted if one.host_addresses], list(dict.fromkeys(direct))
        )
        return shown | dict(bound_ports([endpoint]))

    async def disconnect(self, container_id: str, network: str) -> None:
        """Unplugs a container from one network; its ports there close.

        Raises: NoSuchNetwork, NotConnected, SystemFailure.
        """
        await self._connector.disconnect(container_id, self.get(network))
        await self._names.settled()

    async def release(self, container_id: str, sandbox: str = "") -> None:
        """All endpoints, ports, rules and the sandbox; idempotent, accepts "never existed".

        Raises: SystemFailure; the rows are kept then, so that calling it again goes on.
        """
        with os_errors(f"network of container {short(container_id)}"):
            await self._connector.release(container_id)

    async def route(self, container_id: str, address: str) -> tuple[str, str] | None:
        """(link, gateway) by which a container sends to an address; the gateway is empty where it
        is reached directly. None: there is no route. Raises: SystemFailure."""
        with os_errors(f"routes of container {short(container_id)}"):
            return await self._worker.run(self._sandboxes.route, container_id, ip_address(address))

    def rename(self, container_id: str, name: str) -> None:
        """The container's new name, for messages about who holds what."""
        self._connector.rename(container_id, name)

    def host_gateway(self) -> str:
        """The address that `host-gateway` stands for in extra hosts; empty if there is none."""
        if self._config.host_gateway_ip:
            return self._config.host_gateway_ip
        default = self._catalog.find(BRIDGE)
        return default.pools[0].gateway if default else ""

    async def restore(self, live: Iterable[Live]) -> None:
        """After `start`: takes back addresses, ports and names of containers that ran on."""
        servers: dict[str, list[str]] = {}
        for one in live:
            for endpoint in self._endpoints.of_container(one.container_id):
                self._connector.restore(endpoint)
            self.rename(one.container_id, one.name)
            servers[one.container_id] = one.servers
        await self._names.restore(servers)

    async def reap(self, live_ids: set[str]) -> None:
        """Removes endpoints, ports, rules and sandboxes of everyone but `live_ids`."""
        known = {*self._endpoints.containers(), *self._sandboxes.existing()}
        for container_id in sorted(known - live_ids - {mark.name for mark in self._marks.values()}):
            try:
                await self.release(container_id)
            except EngineError:
                log.exception("the network of container %s cannot be removed", container_id)

    async def _clear_kernel(self) -> None:
        try:
            if self._firewall and not await self._worker.run(self._firewall.has_own_rules):
                await self._worker.run(self._firewall.destroy)
            for record in self.all():
                if driver := self._drivers.find(record):
                    await self._worker.run(driver.remove, record)
        except EngineError as error:  # somebody else was faster, or stands in the way
            log.info("networks were not cleared: %s", error)

    async def destroy(self) -> None:
        """Removes everything this service ever made in the kernel, and its rows."""
        await self._stop_watching()
        await self.reap(set())
        if self._firewall:
            await self._worker.run(self._firewall.destroy)
        for record in self.all():
            if driver := self._drivers.find(record):
                await self._worker.run(driver.remove, record)
            self._rows.remove_network(record.id)
            self._catalog.drop(record)
        for mark in self._marks.values():
            mark.unlink(missing_ok=True)

    async def _ensure_network(self, record: NetworkRecord) -> None:
        driver = self._drivers.find(record)
        if driver is None:
            return
        try:
            idle = not self.endpoints(record.id)
            await self._worker.run(driver.ensure, record, idle=idle)
        except (SystemFailure, InvalidParameter):
            if record.name == BRIDGE:
                raise
            log.exception("network %s is not usable until this is repaired", record.name)

    def _enable_forwarding(self, family: str) -> None:
        """Forwarding must be on; if it was off, what is not ours stays unforwarded as before."""
        key = "ipv6/conf/all/forwarding" if family == "ip6" else "ipv4/ip_forward"
        mark = self._marks[family]
        with os_errors(f"forwarding, /proc/sys/net/{key}"):
            if self._config.ip_forward and read_sysctl(key) == "0":
                mark.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
                mark.touch()
                if family == "ip6":
                    keep_router_advertisements()
                set_sysctl(key, "1", "containers reach the outside")
            if self._firewall and mark.exists():
                self._firewall.block_foreign_forwarding(family)

    def _rules_changed(self) -> None:
        """Somebody changed the rule set (it may have been us): looks after it in a moment."""
        if self._watch is None or self._firewall is None:
            return
        news = self._watch.read(self._firewall.name)
        if news and (self._repair is None or self._repair.done()):
            self._repair = asyncio.create_task(self._look_after(self._firewall), name="repair")

    async def _look_after(self, firewall: Firewall) -> None:
        await asyncio.sleep(REPAIR_DELAY_S)
        try:
            await self._worker.run(firewall.repair)
            await self._worker.run(self._look_for_droppers, firewall)
        except EngineError:
            log.exception("the firewall table cannot be looked after")

    async def _stop_watching(self) -> None:
        if self._watch:
            asyncio.get_running_loop().remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None
        if self._repair:
            self._repair.cancel()
            await asyncio.gather(self._repair, return_exceptions=True)

    def _write_rules(self, firewall: Firewall) -> None:
        rules = [firewall_rules(record) for record in self._catalog.bridges()]
        firewall.apply(rules, self._endpoints.ports())
        self._look_for_droppers(firewall)

    def _look_for_droppers(self, firewall: Firewall) -> None:
        """A foreign chain that drops what is forwarded cuts containers off; we cannot overrule it
        (see `firewall`), so it is said: in the log once, and in `warnings` while it lasts.
        """
        dropper = firewall.foreign_forward_drop()
        self.warnings = [DROPPER_WARNING.format(dropper)] if dropper else []
        if dropper and dropper != self._dropper:
            log.warning("%s", self.warnings[0])
        self._dropper = dropper
