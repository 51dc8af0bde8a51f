"""The networks there are: found by name or id, planned from a request, with their address pools."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface
from typing import Final

from msgspec.structs import replace

from teu.clock import now_ns
from teu.errors import Forbidden, InvalidParameter, NotFound, NotImplementedYet
from teu.ids import matching_ids, new_id
from teu.model.network import (
    BRIDGE,
    HOST,
    NONE,
    NULL_DRIVER,
    PREDEFINED,
    IPAMConfig,
    NetworkCreate,
    NetworkRecord,
)
from teu.network import bridge_options, drivers, ipam
from teu.network.config import NetworkConfig
from teu.network.errors import (
    AmbiguousNetwork,
    ConfigurationMixed,
    NoSuchConfiguration,
    NoSuchNetwork,
    OnlyOneInstance,
    PoolsExhausted,
    PredefinedNetwork,
    SubnetTaken,
)
from teu.store.networks import NetworkNameTaken
from teu.sys.netlink import IPNetwork

_NAME: Final = re.compile(r"[^\x00-\x1f/]*[^\x00-\x1f/\s][^\x00-\x1f/]*")


class Catalog:
    """All networks in memory; the owner stores them."""

    def __init__(self, config: NetworkConfig, machine: str = "") -> None:
        """`machine` is what the IPv6 networks of this host are derived from."""
        self._config = config
        self._pools = ipam.parse_pools(config.default_address_pools)
        self._records: dict[str, NetworkRecord] = {}
        self._by_name: dict[str, NetworkRecord] = {}
        self._addresses: dict[tuple[str, int], ipam.AddressPool] = {}
        self._ipv6_pool = ipam.unique_local(machine)

    def add(self, record: NetworkRecord) -> None:
        self._records[record.id] = record
        self._by_name[record.name] = record
        for config in record.pools:
            pool = ipam.AddressPool(config)
            self._addresses[record.id, pool.subnet.version] = pool

    def drop(self, record: NetworkRecord) -> None:
        self._records.pop(record.id, None)
        self._by_name.pop(record.name, None)
        for version in (4, 6):
            self._addresses.pop((record.id, version), None)

    def all(self) -> list[NetworkRecord]:
        return list(self._records.values())

    def bridges(self) -> list[NetworkRecord]:
        """Networks behind our firewall, which have a bridge."""
        return [record for record in self._records.values() if record.is_bridged]

    def get(self, ref: str) -> NetworkRecord:
        """By id, name, or the start of an id. Raises: NoSuchNetwork, AmbiguousNetwork."""
        if found := self._records.get(ref) or self._by_name.get(ref):
            return found
        matches = matching_ids(self._records, ref) if ref else []
        if len(matches) > 1:
            raise AmbiguousNetwork(ref)
        if not matches:
            raise NoSuchNetwork(ref)
        return self._records[matches[0]]

    def find(self, name: str) -> NetworkRecord | None:
        return self._by_name.get(name)

    def addresses(self, network_id: str, version: int) -> ipam.AddressPool:
        """Raises: KeyError where the network has no such addresses."""
        return self._addresses[network_id, version]

    def links(self) -> set[str]:
        """Of the bridges: what the host routes there is our own."""
        return {record.link for record in self.bridges()}

    def plan(self, request: NetworkCreate, routed: Iterable[IPNetwork]) -> NetworkRecord:
        """The record of a network to be made; `routed` is what the host reaches.

        Raises: InvalidParameter, NotImplementedYet, NetworkNameTaken, SubnetTaken,
        PoolsExhausted, PredefinedNetwork.
        """
        if request.name in self._by_name:
            raise NetworkNameTaken(request.name)
        _check_request(request)
        if request.config_only:
            return self._plan_config(request)
        config_from = request.config_from.network if request.config_from else ""
        if config_from:
            request = self._configured(request, config_from)
        network_id = new_id()
        options = dict(request.options or {})
        asked = _asked_pools(request)
        record = NetworkRecord(
            id=network_id,
            name=request.name,
            created_ns=now_ns(),
            driver=BRIDGE if request.driver in ("", "default") else request.driver,
            internal=request.internal,
            attachable=request.attachable,
            enable_ipv4=request.enable_ipv4 is not False,
            enable_ipv6=bool(request.enable_ipv6),
            user_subnet=4 in asked,
            user_subnet6=6 in asked,
            options=options,
            labels=dict(request.labels or {}),
            ipam_options=request.ipam.options if request.ipam else None,
            config_from=config_from,
        )
        record.link = drivers.link_of(record)
        drivers.check(record)
        self._check_link(record)
        if not record.is_bridged:  # its addresses are those of the network outside
            routed = ()
        record.pools = [
            self._pool(version, asked.get(version), routed)
            for version, enabled in ((4, record.enable_ipv4), (6, record.enable_ipv6))
            if enabled
        ]
        return record

    def _pool(
        self, version: int, asked: IPAMConfig | None, routed: Iterable[IPNetwork]
    ) -> IPAMConfig:
        if asked:
            pool = ipam.complete(asked)
            self._check_free(ipam.parse_network(pool.subnet, "subnet"), routed)
            return pool
        default = ipam.DEFAULT_POOLS if version == 4 else [self._ipv6_pool]
        configured = [pool for pool in self._pools if pool[0].version == version]
        return self._default_pool(configured or default, routed)

    def _plan_config(self, request: NetworkCreate) -> NetworkRecord:
        _asked_pools(request)
        return NetworkRecord(
            id=new_id(),
            name=request.name,
            created_ns=now_ns(),
            driver=NULL_DRIVER,
            internal=request.internal,
            attachable=request.attachable,
            enable_ipv6=bool(request.enable_ipv6),
            options=dict(request.options or {}),
            labels=dict(request.labels or {}),
            config=request,
        )

    def _configured(self, request: NetworkCreate, source: str) -> NetworkCreate:
        """The request with the settings of a configuration-only network."""
        found = self._by_name.get(source)
        if found is None or found.config is None:
            raise NoSuchConfiguration(source)
        has_own = (
            request.options or request.internal or request.enable_ipv6 or _asked_pools(request)
        )
        if has_own:
            raise ConfigurationMixed(source)
        return replace(
            found.config,
            name=request.name,
            driver=request.driver,
            labels={**(found.labels or {}), **(request.labels or {})},
            attachable=request.attachable or found.attachable,
            config_only=False,
        )

    def plan_predefined(self, name: str) -> NetworkRecord:
        """`host` or `none`."""
        driver = {HOST: HOST, NONE: NULL_DRIVER}[name]
        return NetworkRecord(id=new_id(), name=name, created_ns=now_ns(), driver=driver)

    def plan_bridge(
        self, stored: NetworkRecord | None, present: str, routed: Iterable[IPNetwork]
    ) -> NetworkRecord:
        """The default bridge by today's configuration. `present`: an address its link has already.

        Raises: InvalidParameter, PoolsExhausted.
        """
        config = self._config
        record = stored or NetworkRecord(
            id=new_id(), name=BRIDGE, created_ns=now_ns(), driver=BRIDGE
        )
        record.link = config.bridge
        record.options = {
            bridge_options.OPTION_DEFAULT: "true",
            bridge_options.OPTION_ICC: str(config.icc).lower(),
            bridge_options.OPTION_MASQUERADE: str(config.ip_masq).lower(),
            bridge_options.OPTION_HOST_IP: config.default_host_ip,
            bridge_options.OPTION_NAME: config.bridge,
        }
        if config.mtu:
            record.options[bridge_options.OPTION_MTU] = str(config.mtu)
        pools4 = [pool for pool in (record.pool(4),) if pool]
        pools = [self._bridge_pool(pools4, "" if stored else present, routed)]
        if config.ipv6:
            pools.append(self._bridge_pool6(record.pool(6), routed))
        record.pools = pools
        record.enable_ipv6 = config.ipv6
        return record

    def _bridge_pool6(self, stored: IPAMConfig | None, routed: Iterable[IPNetwork]) -> IPAMConfig:
        part = self._config.fixed_cidr_v6
        if self._config.bip6:
            own = IPv6Interface(self._config.bip6)
            return ipam.complete(
                IPAMConfig(subnet=str(own.network), gateway=str(own.ip), ip_range=part)
            )
        if part:
            return ipam.complete(IPAMConfig(subnet=part))
        return stored or self._default_pool([self._ipv6_pool], routed)

    def _bridge_pool(
        self, stored: list[IPAMConfig], present: str, routed: Iterable[IPNetwork]
    ) -> IPAMConfig:
        """What is asked for, else what was there, else a free subnet."""
        part = self._config.fixed_cidr
        if self._config.bip or present:
            return _pool_of(self._config.bip or present, part)
        if part and not any(_covers(pool, part) for pool in stored):
            return ipam.complete(IPAMConfig(subnet=part))
        if stored and not _conflicts(stored[0], routed):
            pool = stored[0]
        else:
            configured = [pool for pool in self._pools if pool[0].version == 4]
            pool = self._default_pool(configured or ipam.DEFAULT_BRIDGE_POOLS, routed)
        return ipam.complete(IPAMConfig(subnet=pool.subnet, gateway=pool.gateway, ip_range=part))

    def _default_pool(self, pools: ipam.Pools, routed: Iterable[IPNetwork]) -> IPAMConfig:
        taken = [*routed, *(subnet for _record, subnet in self._subnets())]
        subnet = ipam.free_subnet(pools, taken)
        if subnet is None:
            holders = [f"{record.name} ({subnet})" for record, subnet in self._subnets()]
            raise PoolsExhausted(holders)
        return ipam.complete(IPAMConfig(subnet=str(subnet)))

    def _subnets(self) -> list[tuple[NetworkRecord, IPNetwork]]:
        return [
            (record, ipam.parse_network(pool.subnet, "subnet"))
            for record in self._records.values()
            for pool in record.pools
        ]

    def _check_free(self, subnet: IPNetwork, routed: Iterable[IPNetwork]) -> None:
        for record, other in self._subnets():
            if subnet.overlaps(other):
                raise SubnetTaken(str(subnet), f"network {record.name} ({other})")
        if route := ipam.overlapping(subnet, routed):
            raise SubnetTaken(str(subnet), f"a route or resolver of this host, {route}")

    def _check_link(self, record: NetworkRecord) -> None:
        for other in self._records.values():
            if other.link != record.link:
                continue
            if record.is_bridged:
                raise InvalidParameter(
                    f"bridge name {record.link} already belongs to another network, {other.name}"
                )
            raise Forbidden(f"network {other.name} is already using parent interface {record.link}")


def _check_request(request: NetworkCreate) -> None:
    if request.name in PREDEFINED:
        raise PredefinedNetwork(request.name, creating=True)
    if not _NAME.fullmatch(request.name):
        raise InvalidParameter(
            f"invalid network name {request.name!r}: it must not be empty, nor contain '/' or "
            "control characters"
        )
    if request.driver == "overlay":
        raise NotImplementedYet(
            "the overlay driver needs a swarm, which this engine has not; the vxlan driver "
            "connects hosts that are told each other's addresses"
        )
    if request.driver in (HOST, NULL_DRIVER):
        raise OnlyOneInstance(request.driver)
    if request.driver not in ("", "default", *drivers.NAMES):
        raise InvalidParameter(
            f"could not find plugin {request.driver} in v1 plugin registry: plugin not found; "
            f"the network drivers are {', '.join(drivers.NAMES)}, host and null"
        )
    if request.ingress or request.scope not in ("", "local"):
        raise Forbidden(
            "cannot create a swarm scoped network when swarm is not active: this engine has no "
            "swarm; for several hosts see the vxlan driver"
        )
    if request.ipam and request.ipam.driver not in ("", "default"):
        raise NotFound(
            f"plugin {request.ipam.driver!r} not found: the only IPAM driver is `default`"
        )
    if request.enable_ipv4 is False and not request.enable_ipv6:
        raise InvalidParameter("IPv4 or IPv6 must be enabled")


def _asked_pools(request: NetworkCreate) -> dict[int, IPAMConfig]:
    """By IP version; those of a version that is not enabled do not count, as with Docker."""
    found: dict[int, IPAMConfig] = {}
    for pool in (request.ipam and request.ipam.config) or []:
        if not pool.subnet:
            if pool.gateway or pool.ip_range or pool.aux_addresses:
                raise InvalidParameter(
                    "gateway, ip-range and aux-address need a subnet: give --subnet"
                )
            continue
        version = ipam.parse_network(pool.subnet, "subnet").version
        if version in found:
            raise InvalidParameter(
                f"a network has one IPv{version} subnet; give --subnet once for each of "
                "IPv4 and IPv6"
            )
        found[version] = pool
    return found


def _pool_of(address: str, fixed_cidr: str) -> IPAMConfig:
    try:
        interface = IPv4Interface(address)
    except ValueError as error:
        raise InvalidParameter(f"invalid bip {address}: {error}") from error
    edges = (interface.network[0], interface.network[-1])
    if interface.ip in edges or interface.network.prefixlen > 30:
        raise InvalidParameter(
            f"invalid bip {address}: give the bridge's own address with its prefix length, such as "
            "172.17.0.1/16"
        )
    gateway = str(IPv4Address(interface.ip))
    return ipam.complete(
        IPAMConfig(subnet=str(interface.network), gateway=gateway, ip_range=fixed_cidr)
    )


def _covers(pool: IPAMConfig, part: str) -> bool:
    return ipam.is_part(ipam.parse_network(part, "fixed-cidr"), IPv4Network(pool.subnet))


def _conflicts(pool: IPAMConfig, routed: Iterable[IPNetwork]) -> bool:
    return ipam.overlapping(IPv4Network(pool.subnet), routed) is not None
