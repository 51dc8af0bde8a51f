"""`network why`: can a container reach another one, and where does the way end if not.

The way has four hops: the name, the route in the sender's sandbox, the rules between networks, and
somebody who listens. Nothing is sent: each hop is looked up where the kernel or the resolver would
look, so the answer is there at once and disturbs nobody.
"""

import asyncio
from dataclasses import dataclass, field
from ipaddress import ip_address

from teu.container.container import Container
from teu.container.services import Services
from teu.errors import Conflict, InvalidParameter
from teu.model.config import EndpointSettings
from teu.model.network import BRIDGE, EndpointRecord, NetworkRecord
from teu.network.bridge_options import OPTION_ICC, option_flag
from teu.network.files import addresses_of
from teu.network.listening import Listener, listeners

NAME, ROUTE, RULE, LISTENS = "name", "route", "rule", "listens"


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of the way; `text` says what was found, or what to do about it."""

    name: str
    passed: bool
    text: str


@dataclass(slots=True)
class Way:
    """The hops up to the first that fails."""

    sender: str
    target: str
    hops: list[Hop] = field(default_factory=list)

    @property
    def reaches(self) -> bool:
        return all(hop.passed for hop in self.hops)


@dataclass(slots=True)
class _Target:
    """Where it goes: `port` 0 is none asked for; `container` None is not one of ours."""

    host: str
    port: int
    protocol: str
    address: str = ""
    container: Container | None = None
    network: NetworkRecord | None = None


class Reach:
    """Reads records and /proc; changes nothing."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def explain(self, sender: Container, target: str) -> Way:
        """Args: target: `NAME`, `NAME:80`, `NAME:53/udp`, `10.0.0.1:80`, `[fd00::1]:80`.

        Raises: InvalidParameter; Conflict when the sender does not run or has no network.
        """
        if not sender.running:
            raise Conflict(f"container {sender.name} is not running: start it and ask again")
        if not sender.record.sandbox:
            raise Conflict(f"container {sender.name} has no network of its own to look into")
        to = _parsed(target)
        way = Way(sender.name, target)
        for check in (self._name, self._route, self._rule, self._listens):
            hop = await check(sender, to)
            if hop is not None:
                way.hops.append(hop)
                if not hop.passed:
                    break
        return way

    # --- the name ------------------------------------------------------------------------

    async def _name(self, sender: Container, to: _Target) -> Hop | None:
        if _is_address(to.host):
            to.address = to.host
            self._find_owner(to)
            owner = f", container {to.container.name}" if to.container else ""
            return Hop(NAME, True, f"{to.host} is an address{owner}")
        for network in self._networks_of(sender):
            for endpoint in self._services.networks.endpoints(network.id):
                if network.has_names and to.host.lower() in map(str.lower, endpoint.names):
                    self._take(to, endpoint, network)
                    return Hop(NAME, True, f"{to.host} is {to.address} on network {network.name}")
        return Hop(NAME, False, self._why_no_name(sender, to))

    def _why_no_name(self, sender: Container, to: _Target) -> str:
        other = self._services.containers.find(to.host)
        if other is None:
            return f"no container is called {to.host}, and no alias on {_names(sender)}"
        if not other.running:
            return f"container {other.name} is not running: teu start {other.name}"
        shared = [name for name in other.record.networks if name in sender.record.networks]
        if shared == [BRIDGE]:
            address = next(iter(addresses_of(other.record.networks[BRIDGE])), "")
            return (
                f"the default bridge has no names: use the address {address}, or put both on a "
                "network of their own (teu network create)"
            )
        where = next((name for name in other.record.networks if name != BRIDGE), "")
        hint = f": teu network connect {where} {sender.name}" if where else ""
        return (
            f"{other.name} is on {_names(other)}, {sender.name} on {_names(sender)}: they share no "
            f"network{hint}"
        )

    def _find_owner(self, to: _Target) -> None:
        for network in self._services.networks.all():
            for endpoint in self._services.networks.endpoints(network.id):
                if to.address in (endpoint.address, endpoint.address6):
                    self._take(to, endpoint, network)
                    return

    def _take(self, to: _Target, endpoint: EndpointRecord, network: NetworkRecord) -> None:
        to.address = to.address or endpoint.address or endpoint.address6
        to.container = self._services.containers.find(endpoint.container_id)
        to.network = network

    # --- the route and the rules ---------------------------------------------------------

    async def _route(self, sender: Container, to: _Target) -> Hop:
        version = ip_address(to.address).version
        if ip_address(to.address).is_loopback:
            to.container, to.network = sender, None
            return Hop(ROUTE, True, f"{to.address} is {sender.name} itself")
        route = await self._services.networks.route(sender.id, to.address)
        if route is None:
            reason = "only internal networks" if version == 4 else "no network with IPv6"
            return Hop(
                ROUTE, False, f"{sender.name} has no route to {to.address}: it is on {reason}"
            )
        link, gateway = route
        return Hop(ROUTE, True, f"by {link}, {f'gateway {gateway}' if gateway else 'directly'}")

    async def _rule(self, sender: Container, to: _Target) -> Hop | None:
        if to.container is None or to.network is None or to.container is sender:
            return None if to.container is sender else self._outward(to)
        if to.network.name in sender.record.networks:
            if to.network.is_bridged and not option_flag(to.network, OPTION_ICC):
                return Hop(
                    RULE, False,
                    f"network {to.network.name} keeps its containers apart ({OPTION_ICC}=false)",
                )  # fmt: skip
            return Hop(RULE, True, f"both are on network {to.network.name}")
        return Hop(
            RULE, False,
            f"{to.address} is on network {to.network.name}, and networks do not reach each other: "
            f"teu network connect {to.network.name} {sender.name}",
        )  # fmt: skip

    def _outward(self, to: _Target) -> Hop:
        if warnings := self._services.networks.warnings:
            return Hop(RULE, False, warnings[0])
        return Hop(RULE, True, f"{to.address} is no container; our rules let packets out")

    # --- who listens ---------------------------------------------------------------------

    async def _listens(self, sender: Container, to: _Target) -> Hop | None:
        if to.container is None or not to.port:
            return None
        found = await asyncio.to_thread(listeners, to.container.record.pid)
        at = [one for one in found if (one.protocol, one.port) == (to.protocol, to.port)]
        where = f"{to.port}/{to.protocol} in {to.container.name}"
        if not at:
            others = _shown([one for one in found if not one.is_loopback])
            return Hop(LISTENS, False, f"nothing listens on {where}{others}")
        if any(_takes(one, to.address) for one in at):
            return Hop(LISTENS, True, f"{where}, at {', '.join(one.address for one in at)}")
        if all(one.is_loopback for one in at):
            return Hop(
                LISTENS, False,
                f"{where} listens only on {at[0].address}: have it listen on 0.0.0.0",
            )  # fmt: skip
        addresses = ", ".join(one.address for one in at)
        return Hop(LISTENS, False, f"{where} listens on {addresses}, not on {to.address}")

    def _networks_of(self, container: Container) -> list[NetworkRecord]:
        def order(item: tuple[str, EndpointSettings]) -> tuple[int, str]:
            return -item[1].gw_priority, item[0]

        found = sorted(container.record.networks.items(), key=order)
        return [self._services.networks.get(name) for name, _settings in found]


def _parsed(target: str) -> _Target:
    text, slash, protocol = target.partition("/")
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):  # no port; or a bare IPv6 address
        host, port = text, ""
    host = host.removeprefix("[").removesuffix("]")
    protocol = protocol.lower() or "tcp"
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
        raise InvalidParameter(f"invalid port {port!r} in {target!r}")
    if not host or protocol not in ("tcp", "udp") or (slash and not port):
        raise InvalidParameter(f"invalid target {target!r}: use NAME, NAME:PORT or NAME:PORT/udp")
    return _Target(host, int(port or 0), protocol)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _names(container: Container) -> str:
    names = ", ".join(container.record.networks) or "no network"
    return f"network {names}" if container.record.networks else names


def _shown(found: list[Listener]) -> str:
    ports = dict.fromkeys(f"{one.port}/{one.protocol}" for one in found)
    return f"; it listens on {', '.join(list(ports)[:8])}" if ports else ""


def _takes(listener: Listener, address: str) -> bool:
    """Whether packets to that address come to that socket."""
    is_v6 = ":" in listener.address
    if listener.is_any:
        return is_v6 or ":" not in address  # an IPv6 socket for any address takes IPv4 as well
    return listener.address in (address, f"::ffff:{address}")
