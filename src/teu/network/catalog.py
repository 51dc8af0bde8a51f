"""The networks there are: found by name or id, planned from a request, with their address pools."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from teu.clock import now_ns
from teu.errors import InvalidParameter, NotImplementedYet
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
from teu.network import bridge, ipam
from teu.network.config import NetworkConfig
from teu.network.errors import (
    AmbiguousNetwork,
    NoSuchNetwork,
    PoolsExhausted,
    PredefinedNetwork,
    SubnetTaken,
)
from teu.store.networks import NetworkNameTaken

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_LINK_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}")
_LATER_DRIVERS: Final = ("macvlan", "ipvlan", "vxlan", "overlay")


class Catalog:
    """All networks in memory; the owner stores them."""

    def __init__(self, config: NetworkConfig) -> None:
        self._config = config
        self._pools = ipam.parse_pools(config.default_address_pools)
        self._records: dict[str, NetworkRecord] = {}
        self._by_name: dict[str, NetworkRecord] = {}
        self._addresses: dict[str, ipam.AddressPool] = {}

    def add(self, record: NetworkRecord) -> None:
        self._records[record.id] = record
        self._by_name[record.name] = record
        if record.pools:
            self._addresses[record.id] = ipam.AddressPool(record.pools[0])

    def drop(self, record: NetworkRecord) -> None:
        self._records.pop(record.id, None)
        self._by_name.pop(record.name, None)
        self._addresses.pop(record.id, None)

    def all(self) -> list[NetworkRecord]:
        return list(self._records.values())

    def bridges(self) -> list[NetworkRecord]:
        return [record for record in self._records.values() if record.driver == BRIDGE]

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

    def addresses(self, network_id: str) -> ipam.AddressPool:
        return self._addresses[network_id]

    def links(self) -> set[str]:
        return {record.link for record in self._records.values() if record.link}

    def plan(self, request: NetworkCreate, routed: Iterable[IPv4Network]) -> NetworkRecord:
        """The record of a network to be made; `routed` are networks that the host can reach.

        Raises: InvalidParameter, NotImplementedYet, NetworkNameTaken, SubnetTaken,
        PoolsExhausted, PredefinedNetwork.
        """
        _check_request(request)
        if request.name in self._by_name:
            raise NetworkNameTaken(request.name)
        network_id = new_id()
        options = dict(request.options or {})
        asked = _asked_pool(request)
        record = NetworkRecord(
            id=network_id,
            name=request.name,
            created_ns=now_ns(),
            driver=BRIDGE,
            internal=request.internal,
            attachable=request.attachable,
            user_subnet=bool(asked.subnet),
            options=options,
            labels=dict(request.labels or {}),
            link=options.get(bridge.OPTION_NAME) or f"br-{network_id[:12]}",
        )
        self._check_options(record)
        if asked.subnet:
            pool = ipam.complete(asked)
            self._check_free(IPv4Network(pool.subnet), routed)
        else:
            pool = self._default_pool(self._pools or ipam.DEFAULT_POOLS, routed)
        record.pools = [pool]
        return record

    def plan_predefined(self, name: str) -> NetworkRecord:
        """`host` or `none`."""
        driver = {HOST: HOST, NONE: NULL_DRIVER}[name]
        return NetworkRecord(id=new_id(), name=name, created_ns=now_ns(), driver=driver)

    def plan_bridge(
        self, stored: NetworkRecord | None, present: str, routed: Iterable[IPv4Network]
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
            bridge.OPTION_DEFAULT: "true",
            bridge.OPTION_ICC: str(config.icc).lower(),
            bridge.OPTION_MASQUERADE: str(config.ip_masq).lower(),
            bridge.OPTION_HOST_IP: config.default_host_ip,
            bridge.OPTION_NAME: config.bridge,
        }
        if config.mtu:
            record.options[bridge.OPTION_MTU] = str(config.mtu)
        record.pools = [self._bridge_pool(record.pools, "" if stored else present, routed)]
        return record

    def _bridge_pool(
        self, stored: list[IPAMConfig], present: str, routed: Iterable[IPv4Network]
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
            pool = self._default_pool(self._pools or ipam.DEFAULT_BRIDGE_POOLS, routed)
        return ipam.complete(IPAMConfig(subnet=pool.subnet, gateway=pool.gateway, ip_range=part))

    def _default_pool(self, pools: ipam.Pools, routed: Iterable[IPv4Network]) -> IPAMConfig:
        taken = [*routed, *(subnet for _record, subnet in self._subnets())]
        subnet = ipam.free_subnet(pools, taken)
        if subnet is None:
            holders = [f"{record.name} ({subnet})" for record, subnet in self._subnets()]
            raise PoolsExhausted(holders)
        return ipam.complete(IPAMConfig(subnet=str(subnet)))

    def _subnets(self) -> list[tuple[NetworkRecord, IPv4Network]]:
        return [
            (record, IPv4Network(pool.subnet))
            for record in self._records.values()
            for pool in record.pools
        ]

    def _check_free(self, subnet: IPv4Network, routed: Iterable[IPv4Network]) -> None:
        for record, other in self._subnets():
            if subnet.overlaps(other):
                raise SubnetTaken(str(subnet), f"network {record.name} ({other})")
        if route := ipam.overlapping(subnet, routed):
            raise SubnetTaken(str(subnet), f"a route of this host to {route}")

    def _check_options(self, record: NetworkRecord) -> None:
        bridge.option_mtu(record)
        for option in (bridge.OPTION_ICC, bridge.OPTION_MASQUERADE):
            bridge.option_flag(record, option)
        if not _LINK_NAME.fullmatch(record.link):
            raise InvalidParameter(
                f"invalid bridge name {record.link!r}: at most 15 letters, digits, '.', '_', '-'"
            )
        if record.link in self.links():
            raise InvalidParameter(f"bridge name {record.link} already belongs to another network")


def _check_request(request: NetworkCreate) -> None:
    if request.name in PREDEFINED:
        raise PredefinedNetwork(request.name, creating=True)
    if not _NAME.fullmatch(request.name):
        raise InvalidParameter(
            f"invalid network name {request.name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    if request.driver in _LATER_DRIVERS:
        raise NotImplementedYet(f"network driver {request.driver} is not there yet; use bridge")
    if request.driver in (HOST, NULL_DRIVER):
        raise PredefinedNetwork(request.driver, creating=True)
    if request.driver not in ("", BRIDGE, "default"):
        raise InvalidParameter(
            f"could not find plugin {request.driver} in v1 plugin registry: plugin not found; "
            "the network drivers are bridge, host and null"
        )
    later = {
        "IPv6 addresses": request.enable_ipv6,
        "networks without IPv4": request.enable_ipv4 is False,
        "config-only networks": request.config_only or request.config_from,
        "swarm's ingress network": request.ingress,
        f"scope {request.scope}": request.scope not in ("", "local"),
        "other IPAM drivers": request.ipam and request.ipam.driver not in ("", "default"),
    }
    for what, asked in later.items():
        if asked:
            raise NotImplementedYet(f"{what} are not there yet on bridge networks")


def _asked_pool(request: NetworkCreate) -> IPAMConfig:
    pools = list((request.ipam and request.ipam.config) or [])
    if len(pools) > 1:
        raise InvalidParameter("bridge networks have one IPv4 subnet; give --subnet once")
    pool = pools[0] if pools else IPAMConfig()
    if not pool.subnet and (pool.gateway or pool.ip_range or pool.aux_addresses):
        raise InvalidParameter("gateway, ip-range and aux-address need a subnet: give --subnet")
    return pool


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
    return ipam.parse_network(part, "fixed-cidr").subnet_of(IPv4Network(pool.subnet))


def _conflicts(pool: IPAMConfig, routed: Iterable[IPv4Network]) -> bool:
    return ipam.overlapping(IPv4Network(pool.subnet), routed) is not None
