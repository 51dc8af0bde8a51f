"""IPAM: which subnet a network gets, and which address an endpoint gets; IPv4 and IPv6 alike.

Everything is in memory and immediate; what was handed out is stored with networks and endpoints
and put back by `AddressPool.hold` when the daemon starts.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from teu.errors import InvalidParameter
from teu.model.network import IPAMConfig
from teu.sys.netlink import IPAddress, IPNetwork

# 3840 networks of 253 containers; the default bridge takes a /16 of its own, Docker's first choice.
DEFAULT_POOLS: Final = (
    (IPv4Network("172.18.0.0/15"), 24),
    (IPv4Network("172.20.0.0/14"), 24),
    (IPv4Network("172.24.0.0/13"), 24),
    (IPv4Network("192.168.0.0/16"), 24),
)
DEFAULT_BRIDGE_POOLS: Final = (
    (IPv4Network("172.17.0.0/16"), 16),
    (IPv4Network("172.18.0.0/15"), 16),
    (IPv4Network("172.20.0.0/14"), 16),
    (IPv4Network("172.24.0.0/13"), 16),
    (IPv4Network("192.168.0.0/16"), 20),
)
_BROAD_ROUTE: Final = 4  # a VPN's 0.0.0.0/1 covers everything; it does not take addresses away
_ROOM_BITS: Final = 2  # the smallest subnet has two addresses for gateway and container
_IPV6_SUBNET: Final = 64

Pools = Sequence[tuple[IPNetwork, int]]


def parse_pools(pools: Iterable[tuple[str, int]]) -> Pools:
    """`[("10.0.0.0/8", 24)]`. Raises: InvalidParameter."""
    found = []
    for base, size in pools:
        network = parse_network(base, "default-address-pools")
        largest = network.max_prefixlen - _ROOM_BITS
        if not network.prefixlen <= size <= largest:
            raise InvalidParameter(
                f"default-address-pools: size {size} does not fit in {base} "
                f"(use {network.prefixlen} to {largest})"
            )
        found.append((network, size))
    return found


def unique_local(seed: str) -> tuple[IPNetwork, int]:
    """A pool of 65,536 IPv6 networks that hardly another machine has; the same for the same seed.

    Source: RFC 4193, unique local addresses: fd, 40 bits of the machine's own, 16 of the network.
    """
    own = hashlib.sha256(f"teu {seed}".encode()).digest()[:5]
    return IPv6Network((b"\xfd" + own + bytes(10), 48)), _IPV6_SUBNET


def parse_network(text: str, what: str) -> IPNetwork:
    """Raises: InvalidParameter for anything but a network with its prefix."""
    try:
        if "/" not in text:
            raise ValueError("the prefix length is missing")
        return ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidParameter(f"invalid {what} {text}: {error}") from error


def parse_address(text: str, what: str) -> IPAddress:
    """Raises: InvalidParameter."""
    try:
        return ip_address(text)
    except ValueError as error:
        raise InvalidParameter(f"invalid {what} {text}: {error}") from error


def overlapping(subnet: IPNetwork, taken: Iterable[IPNetwork]) -> IPNetwork | None:
    """The first of `taken` that shares an address with `subnet`."""
    return next((other for other in taken if blocks(other) and subnet.overlaps(other)), None)


def blocks(route: IPNetwork) -> bool:
    """Whether a host's route takes its addresses away from us (the default route does not)."""
    return route.prefixlen >= _BROAD_ROUTE


def free_subnet(pools: Pools, taken: Iterable[IPNetwork]) -> IPNetwork | None:
    """The first subnet of the pools that overlaps with nothing taken; None if there is none."""
    known = [network for network in taken if blocks(network)]
    for pool, size in pools:
        spans = _merged(network for network in known if network.version == pool.version)
        starts = [start for start, _end in spans]
        step = 1 << (pool.max_prefixlen - size)
        candidate, last = int(pool.network_address), int(pool.broadcast_address)
        while candidate + step - 1 <= last:
            before = bisect_right(starts, candidate + step - 1) - 1
            if before < 0 or spans[before][1] < candidate:
                return type(pool)((candidate, size))
            after = spans[before][1] + 1
            candidate = (after + step - 1) // step * step
    return None


def _merged(networks: Iterable[IPNetwork]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    ranges = ((int(net.network_address), int(net.broadcast_address)) for net in networks)
    for start, end in sorted(ranges):
        if spans and start <= spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return spans


def complete(config: IPAMConfig) -> IPAMConfig:
    """The pool with its gateway filled in and every address checked against the subnet.

    Raises: InvalidParameter.
    """
    subnet = parse_network(config.subnet, "subnet")
    if subnet.prefixlen > subnet.max_prefixlen - _ROOM_BITS:
        raise InvalidParameter(
            f"invalid subnet {config.subnet}: no room for containers "
            f"(max /{subnet.max_prefixlen - _ROOM_BITS})"
        )
    gateway = str(subnet[1])
    if config.gateway:
        gateway = str(_inside(subnet, config.gateway.partition("/")[0], "gateway"))
    if config.ip_range:
        part = parse_network(config.ip_range, "ip-range")
        if not is_part(part, subnet):
            raise InvalidParameter(
                f"invalid ip-range {config.ip_range}: it is not a part of {subnet}"
            )
    for address in (config.aux_addresses or {}).values():
        _inside(subnet, address, "auxiliary address")
    return IPAMConfig(
        subnet=str(subnet),
        ip_range=config.ip_range,
        gateway=gateway,
        aux_addresses=config.aux_addresses,
    )


def is_part(part: IPNetwork, whole: IPNetwork) -> bool:
    """Whether all of `part` is in `whole`."""
    return part[0] in whole and part[-1] in whole


def _inside(subnet: IPNetwork, text: str, what: str) -> IPAddress:
    address = parse_address(text, what)
    if address not in subnet:
        raise InvalidParameter(f"invalid {what} {text}: it is not in subnet {subnet}")
    return address


class AddressPool:
    """The addresses of one subnet: the lowest free one first."""

    def __init__(self, config: IPAMConfig) -> None:
        """`config` is complete (see `complete`)."""
        self.subnet = parse_network(config.subnet, "subnet")
        self.gateway = parse_address(config.gateway, "gateway")
        part = parse_network(config.ip_range, "ip-range") if config.ip_range else self.subnet
        first, last = int(part.network_address), int(part.broadcast_address)
        self._first = max(first, int(self.subnet.network_address) + 1)
        self._last = min(last, int(self.subnet.broadcast_address) - 1)
        aux = [int(ip_address(address)) for address in (config.aux_addresses or {}).values()]
        self._reserved = frozenset((int(self.gateway), *aux))
        self._used: set[int] = set()
        self._lowest = self._first  # nothing below it is free

    def take(self) -> IPAddress | None:
        """The lowest free address, None when all are in use."""
        number = self._lowest
        while number <= self._last:
            if number not in self._used and number not in self._reserved:
                self._used.add(number)
                self._lowest = number + 1
                return type(self.gateway)(number)
            number += 1
        self._lowest = self._last + 1
        return None

    def hold(self, address: IPAddress) -> bool:
        """Takes that very address; False if it is in use or reserved."""
        number = int(address)
        if number in self._used or number in self._reserved:
            return False
        self._used.add(number)
        return True

    def usable(self, address: IPAddress) -> bool:
        """Whether a container may have it at all."""
        edges = (self.subnet.network_address, self.subnet.broadcast_address)
        return address in self.subnet and address not in edges

    def release(self, address: IPAddress) -> None:
        """Accepts "not held"."""
        number = int(address)
        self._used.discard(number)
        if self._first <= number < self._lowest:
            self._lowest = number

    @property
    def used(self) -> int:
        return len(self._used)


def mac_of(address: IPAddress) -> str:
    """Docker's way: `172.17.0.2` -> `02:42:ac:11:00:02`, so a reused address keeps its MAC. Of an
    IPv6 address, its last four bytes."""
    return "02:42:" + address.packed[-4:].hex(":")
