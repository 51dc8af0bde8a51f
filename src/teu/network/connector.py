"""Plugs containers into networks and publishes their ports; takes both back.

Order: the endpoint's row is written before the kernel is touched and removed after the kernel let
go, so a crash at any line leaves a row that `release` can work from. Calls for one container come
one at a time (the container's lock); calls for different containers run side by side.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Final

from teu.errors import EngineError, InvalidParameter, SystemFailure
from teu.ids import new_id, short
from teu.model.config import EndpointIPAMConfig, EndpointSettings
from teu.model.network import BRIDGE, PREDEFINED, EndpointRecord, NetworkRecord, PublishedPort
from teu.network import children, options, ports
from teu.network.catalog import Catalog
from teu.network.drivers import Drivers
from teu.network.endpoints import EndpointTable
from teu.network.errors import (
    AddressInUse,
    AlreadyConnected,
    ConfigurationOnly,
    NoFreeAddress,
    NotConnected,
)
from teu.network.firewall import Firewall
from teu.network.inside import route_requests
from teu.network.ipam import AddressPool, mac_of, parse_address
from teu.network.kernel import Worker
from teu.network.names import Names
from teu.network.ports import PortInUse, PortRequest, PortTable
from teu.network.sandbox import Sandboxes
from teu.sys.netlink import IPAddress
from teu.tx import Transaction

_RELEASE_LIMIT_S: Final = 10.0
_HOST_LINK_DIGITS: Final = 11  # `veth` and these fill a link name's 15 characters
_NOT_ON_BRIDGE: Final = "user specified IP address is supported on user defined networks only"
log = logging.getLogger(__name__)


class Connector:
    """`firewall` is None when the daemon was told to write no rules."""

    def __init__(
        self,
        catalog: Catalog,
        endpoints: EndpointTable,
        sandboxes: Sandboxes,
        drivers: Drivers,
        firewall: Firewall | None,
        worker: Worker,
        names: Names,
    ) -> None:
        self._catalog = catalog
        self._endpoints = endpoints
        self._sandboxes = sandboxes
        self._drivers = drivers
        self._firewall = firewall
        self._worker = worker
        self._names = names
        self._ports = PortTable()
        self.is_going: Callable[[str], bool] = _nobody
        self._releases = 0
        self._released = asyncio.Event()  # another one after each release

    async def connect(
        self,
        container_id: str,
        name: str,
        network: NetworkRecord,
        settings: EndpointSettings,
        *,
        hostname: str = "",
    ) -> EndpointSettings:
        """The settings as they became. See `NetworkService.connect`."""
        if network.config_only:
            raise ConfigurationOnly(network.name)
        if self._endpoints.find(container_id, network.id):
            raise AlreadyConnected(name, network.name)
        if settings.aliases and network.name in PREDEFINED:
            raise InvalidParameter(
                "network-scoped alias is supported only for containers in user defined networks"
            )
        async with Transaction("connect", short(container_id)) as tx:
            record = await self._reserve_soon(container_id, name, network, settings)
            record.hostname = hostname
            tx.on_rollback("address", lambda: self._free_addresses(record))
            tx.on_rollback("endpoint row", lambda: self._endpoints.remove(record))
            wins = {v for v in (4, 6) if self._gateway_endpoint(container_id, v, record) is record}
            self._endpoints.save(record)
            if self._drivers.find(network):
                tx.on_rollback("link", lambda: self._worker.run(self._unplug, network, record))
                await self._worker.run(self._plug, network, record, wins)
            self._names.joined(record)
            tx.commit()
        return _filled(settings, network, record)

    async def publish(
        self,
        record: EndpointRecord,
        wanted: list[PortRequest],
        direct: Iterable[PublishedPort] = (),
    ) -> None:
        """Holds the host's ports, stores them with the endpoint, writes the rules; all or nothing.

        `direct` are ports that open at the container's own address (gateway mode `routed`).
        Raises: PortTaken, SystemFailure.
        """
        published = list(direct)
        if not wanted and not published:
            return
        if self._firewall is None:
            raise SystemFailure(
                "ports cannot be published: the daemon runs with iptables=false and writes no rules"
            )
        firewall = self._firewall
        async with Transaction("publish", short(record.container_id)) as tx:
            tx.on_rollback("host ports", lambda: self._let_go(record, published))
            await self._hold_ports(record, wanted, published)
            before = record.ports
            tx.on_rollback("endpoint row", lambda: self._store_ports(record, before))
            self._store_ports(record, [*before, *published])
            tx.on_rollback("rules", lambda: self._worker.run(firewall.remove_ports, published))
            await self._worker.run(self._open_ports, firewall, record, published)
            tx.commit()

    async def disconnect(self, container_id: str, network: NetworkRecord) -> None:
        """Raises: NotConnected."""
        record = self._endpoints.find(container_id, network.id)
        if record is None:
            raise NotConnected(short(container_id), network.name)
        led = {v for v in (4, 6) if self._gateway_endpoint(container_id, v) is record}
        self._names.left(record)
        await self._close_ports([record])
        if self._drivers.find(network):
            await self._worker.run(self._unplug, network, record)
        self._forget(record)
        heirs = [heir for v in led if (heir := self._gateway_endpoint(container_id, v))]
        if heirs:
            await self._worker.run(self._set_default_routes, heirs, led)

    async def release(self, container_id: str) -> None:
        """Ports, rules, links, sandbox, addresses, rows; in the order in which others miss them.

        A failing step does not keep the later ones from running, but the rows stay.
        """
        records = self._endpoints.of_container(container_id)
        failures: list[Exception] = []
        for record in records:
            self._names.left(record)
        self._names.forget(container_id)
        try:
            await self._close_ports(records)
        except (EngineError, OSError) as error:
            failures.append(error)
        await self._worker.run(self._let_kernel_reap, container_id, records)
        if failures:
            raise failures[0]
        for record in records:
            self._forget(record)
        self._releases += 1
        self._released.set()
        self._released = asyncio.Event()

    async def until_released(self, is_awaited: Callable[[], bool]) -> None:
        """Returns when releases have made `is_awaited` false, or after a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RELEASE_LIMIT_S):
                while is_awaited():
                    await self._released.wait()

    def restore(self, record: EndpointRecord) -> None:
        """Takes back what a container that ran on holds: its address and its host ports."""
        self.hold_address(record)
        for port in record.ports:
            if not port.host_address:
                continue
            try:
                self._ports.hold_again(
                    port.protocol, port.host_address, port.host_port,
                    record.container_id, record.container_name,
                )  # fmt: skip
            except (PortInUse, InvalidParameter, OSError) as error:
                log.warning(
                    "port %s of container %s cannot be held again: %s",
                    port.host_port, record.container_name, error,
                )  # fmt: skip

    def rename(self, container_id: str, name: str) -> None:
        for record in self._endpoints.of_container(container_id):
            if record.container_name != name:
                record.container_name = name
                self._endpoints.save(record)
                self._names.joined(record)
        self._ports.rename(container_id, name)

    def hold_address(self, record: EndpointRecord) -> None:
        for address in _addresses(record):
            self._catalog.addresses(record.network_id, address.version).hold(address)

    def close(self) -> None:
        self._ports.close()

    async def _reserve_soon(
        self, container_id: str, name: str, network: NetworkRecord, settings: EndpointSettings
    ) -> EndpointRecord:
        """`_reserve`, which waits for a holder of the address that is about to let go."""
        deadline = asyncio.get_running_loop().time() + _RELEASE_LIMIT_S
        while True:
            try:
                return self._reserve(container_id, name, network, settings)
            except AddressInUse as error:
                if not await self._let_go_soon(error.container_id, deadline):
                    raise

    def _reserve(
        self, container_id: str, name: str, network: NetworkRecord, settings: EndpointSettings
    ) -> EndpointRecord:
        record = EndpointRecord(
            id=new_id(),
            network_id=network.id,
            container_id=container_id,
            container_name=name,
            gw_priority=settings.gw_priority,
            aliases=list(settings.aliases or []),
            links=list(settings.links or []),
        )
        if self._drivers.find(network) is None:
            return record
        if network.is_bridged:
            record.host_link = f"veth{record.id[:_HOST_LINK_DIGITS]}"
        options.apply(record, network, settings, self._endpoints.of_container(container_id))
        try:
            self._take_addresses(network, settings, record)
        except BaseException:
            self._free_addresses(record)
            raise
        record.mac = _asked_mac(settings) or mac_of(_addresses(record)[0])
        return record

    def _take_addresses(
        self, network: NetworkRecord, settings: EndpointSettings, record: EndpointRecord
    ) -> None:
        asked = settings.ipam_config or EndpointIPAMConfig()
        record.is_direct = children.is_direct(network) and not network.internal
        has_none = network.internal or record.is_direct
        if network.pool(4):
            pool = self._catalog.addresses(network.id, 4)
            record.address = str(self._take_address(network, pool, asked.ipv4_address))
            record.prefix = pool.subnet.prefixlen
            record.gateway = "" if has_none else str(pool.gateway)
        if network.pool(6):
            pool = self._catalog.addresses(network.id, 6)
            record.address6 = str(self._take_address(network, pool, asked.ipv6_address))
            record.prefix6 = pool.subnet.prefixlen
            record.gateway6 = "" if has_none else str(pool.gateway)
        elif asked.ipv6_address and network.name == BRIDGE:
            raise InvalidParameter(_NOT_ON_BRIDGE)

    def _take_address(self, network: NetworkRecord, pool: AddressPool, asked: str) -> IPAddress:
        version = pool.subnet.version
        if not asked:
            taken = pool.take()
            if taken is None:
                raise NoFreeAddress(network.name, network.id, str(pool.subnet))
            return taken
        address = parse_address(asked, f"IPv{version} address")
        if network.name == BRIDGE:
            raise InvalidParameter(_NOT_ON_BRIDGE)
        if not (network.user_subnet if version == 4 else network.user_subnet6):
            raise InvalidParameter(
                "user specified IP address is supported only when connecting to networks with "
                "user configured subnets"
            )
        if not pool.usable(address):
            raise InvalidParameter(
                f"invalid config for network {network.name}: invalid endpoint settings: no "
                f"configured subnet contains IP address {address}; use one in {pool.subnet}"
            )
        if not pool.hold(address):
            raise self._in_use(network, str(address))
        return address

    def _in_use(self, network: NetworkRecord, address: str) -> AddressInUse:
        for record in self._endpoints.of_network(network.id):
            if address in (record.address, record.address6):
                holder = f"container {record.container_name}"
                return AddressInUse(address, holder, record.container_id)
        return AddressInUse(address, f"network {network.name} itself")

    def _free_addresses(self, record: EndpointRecord) -> None:
        for address in _addresses(record):
            self._catalog.addresses(record.network_id, address.version).release(address)

    def _forget(self, record: EndpointRecord) -> None:
        self._endpoints.remove(record)
        self._free_addresses(record)

    def _gateway_endpoint(
        self, container_id: str, version: int, also: EndpointRecord | None = None
    ) -> EndpointRecord | None:
        """The endpoint that has the default route of IPv4 or IPv6: highest priority, then first
        network name."""
        records = [*self._endpoints.of_container(container_id), *([also] if also else [])]
        return min(
            (one for one in records if _leads_out(one, version)),
            key=lambda one: (-one.gw_priority, self._catalog.get(one.network_id).name),
            default=None,
        )

    def _plug(self, network: NetworkRecord, record: EndpointRecord, wins: set[int]) -> None:
        with self._sandboxes.inside(record.container_id) as inside:
            path = self._sandboxes.path(record.container_id)
            driver = self._drivers.get(network)
            driver.plug(network, record, path, inside, default_routes=wins)

    def _unplug(self, network: NetworkRecord, record: EndpointRecord) -> None:
        with self._sandboxes.inside(record.container_id) as inside:
            self._drivers.get(network).unplug(record, inside)

    def _set_default_routes(self, heirs: list[EndpointRecord], versions: set[int]) -> None:
        with self._sandboxes.inside(heirs[0].container_id) as inside:
            for heir in heirs:
                if link := inside.link(heir.link):
                    inside.run(*route_requests(heir, link.index, versions))

    async def _hold_ports(
        self, record: EndpointRecord, wanted: list[PortRequest], published: list[PublishedPort]
    ) -> None:
        for request in wanted:
            try:
                host_port = await self._acquire(request, record)
            except PortInUse as error:
                name = record.container_name
                raise await self._worker.run(ports.taken_error, error, name, record.id) from error
            published.extend(
                PublishedPort(
                    protocol=request.protocol,
                    host_address=address,
                    host_port=host_port,
                    address=record.address6 if ":" in address else record.address,
                    port=request.port,
                )
                for address in request.host_addresses
            )

    async def _acquire(self, request: PortRequest, record: EndpointRecord) -> int:
        """Waits for a holder that has ended and is about to let go. Raises: PortInUse."""
        deadline = asyncio.get_running_loop().time() + _RELEASE_LIMIT_S
        while True:
            try:
                return self._ports.acquire(request, record.container_id, record.container_name)
            except PortInUse as error:
                holder = error.holder.container_id if error.holder else ""
                if not await self._let_go_soon(holder, deadline):
                    raise

    async def _let_go_soon(self, container_id: str, deadline: float) -> bool:
        """Whether it is worth to try again: containers that have ended released what they held,
        before `deadline` (the loop's time)."""
        if not container_id or not self.is_going(container_id):
            return False
        if asyncio.get_running_loop().time() > deadline:
            return False
        before = self._releases
        await self.until_released(lambda: self._releases == before)
        return self._releases != before

    def _let_go(self, record: EndpointRecord, published: list[PublishedPort]) -> None:
        for port in published:
            self._ports.release(
                port.protocol, port.host_address, port.host_port, record.container_id
            )

    def _store_ports(self, record: EndpointRecord, published: list[PublishedPort]) -> None:
        record.ports = published
        self._endpoints.save(record)

    def _open_ports(
        self, firewall: Firewall, record: EndpointRecord, published: list[PublishedPort]
    ) -> None:
        firewall.add_ports(published)
        self._drivers.bridge.allow_hairpin(record)
        self._drivers.bridge.forget_flows(published)

    async def _close_ports(self, records: list[EndpointRecord]) -> None:
        published = [port for record in records for port in record.ports]
        try:
            if published and self._firewall:
                await self._worker.run(self._shut_ports, self._firewall, published)
        finally:
            for record in records:
                self._let_go(record, record.ports)

    def _shut_ports(self, firewall: Firewall, published: list[PublishedPort]) -> None:
        firewall.remove_ports(published)
        self._drivers.bridge.forget_flows(published)

    def _let_kernel_reap(self, container_id: str, records: list[EndpointRecord]) -> None:
        for record in records:
            network = self._catalog.get(record.network_id)
            if driver := self._drivers.find(network):
                driver.mute(record)
        self._sandboxes.remove(container_id)


def _leads_out(record: EndpointRecord, version: int) -> bool:
    if record.is_direct:
        return bool(record.address6 if version == 6 else record.address)
    return bool(record.gateway6 if version == 6 else record.gateway)


def _nobody(_container_id: str) -> bool:
    return False


def _addresses(record: EndpointRecord) -> list[IPAddress]:
    return [ip_address(one) for one in (record.address, record.address6) if one]


def _asked_mac(settings: EndpointSettings) -> str:
    """Empty for a MAC that an earlier start derived from the address it had then."""
    earlier = settings.ip_address or settings.global_ipv6_address
    if earlier and settings.mac_address == mac_of(ip_address(earlier)):
        return ""
    return _checked_mac(settings.mac_address)


def _checked_mac(text: str) -> str:
    parts = text.lower().replace("-", ":").split(":")
    if not text:
        return ""
    valid = len(parts) == 6 and all(len(part) == 2 for part in parts)
    try:
        first = bytes.fromhex("".join(parts))[0]
    except ValueError:
        valid, first = False, 0
    if not valid or first & 1:
        raise InvalidParameter(
            f"invalid MAC address {text!r}: use a unicast one, 02:42:ac:11:00:02"
        )
    return ":".join(parts)


def _filled(
    settings: EndpointSettings, network: NetworkRecord, record: EndpointRecord
) -> EndpointSettings:
    return EndpointSettings(
        ipam_config=settings.ipam_config,
        links=settings.links,
        aliases=settings.aliases,
        driver_opts=settings.driver_opts,
        gw_priority=settings.gw_priority,
        network_id=network.id,
        endpoint_id=record.id,
        gateway=record.gateway,
        ip_address=record.address,
        ip_prefix_len=record.prefix,
        ipv6_gateway=record.gateway6,
        global_ipv6_address=record.address6,
        global_ipv6_prefix_len=record.prefix6,
        mac_address=record.mac,
        dns_names=record.names if network.has_names else None,
    )


def bound_ports(records: list[EndpointRecord]) -> Mapping[str, list[dict[str, str]]]:
    """`{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}`, as inspect shows it."""
    found: dict[str, list[dict[str, str]]] = {}
    for record in records:
        for port in record.ports:
            number = str(port.host_port) if port.host_port else ""
            shown = {"HostIp": port.host_address, "HostPort": number}
            found.setdefault(f"{port.port}/{port.protocol}", []).append(shown)
    return found
