"""Which driver makes a network real, and what each asks of a network."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from teu.model.network import BRIDGE, IPVLAN, MACVLAN, VXLAN, EndpointRecord, NetworkRecord
from teu.network import bridge_options, children, vxlan
from teu.network.bridge import BridgeDriver
from teu.network.children import ChildDriver
from teu.network.firewall import BridgeRules
from teu.network.kernel import HostLinks
from teu.network.vxlan import VxlanDriver
from teu.sys.netlink import Netlink

NAMES: Final = (BRIDGE, MACVLAN, IPVLAN, VXLAN)  # beside host and null, which have no kernel part
_CHECKS: Final[dict[str, Callable[[NetworkRecord], None]]] = {
    BRIDGE: bridge_options.check,
    MACVLAN: children.check,
    IPVLAN: children.check,
    VXLAN: vxlan.check,
}


class Driver(Protocol):
    """Blocking calls, for the worker's threads; see `BridgeDriver`."""

    def ensure(self, record: NetworkRecord, *, idle: bool = False) -> None: ...

    def remove(self, record: NetworkRecord) -> None: ...

    def plug(
        self, record: NetworkRecord, endpoint: EndpointRecord, sandbox: Path, inside: Netlink,
        *, default_routes: set[int],
    ) -> None: ...  # fmt: skip

    def unplug(self, endpoint: EndpointRecord, inside: Netlink) -> None: ...

    def mute(self, endpoint: EndpointRecord) -> None: ...


class Drivers:
    """One of each. `bridge` is also what published ports need."""

    def __init__(self, host: HostLinks, mtu: int, *, guarded: bool, owner: str) -> None:
        self.bridge = BridgeDriver(host, mtu, guarded=guarded, owner=owner)
        child = ChildDriver(host)
        self._tunnelled = VxlanDriver(host, mtu, guarded=guarded, owner=owner)
        self._by_name: dict[str, Driver] = {
            BRIDGE: self.bridge,
            VXLAN: self._tunnelled,
            MACVLAN: child,
            IPVLAN: child,
        }

    def find(self, record: NetworkRecord) -> Driver | None:
        """None for networks without a kernel part: host, none, configurations."""
        return self._by_name.get(record.driver)

    def get(self, record: NetworkRecord) -> Driver:
        return self._by_name[record.driver]

    def bridged(self, record: NetworkRecord) -> BridgeDriver:
        """Of a network that is on a bridge."""
        return self._tunnelled if record.driver == VXLAN else self.bridge


def check(record: NetworkRecord) -> None:
    """The options of a network to be made. Raises: InvalidParameter."""
    _CHECKS[record.driver](record)


def link_of(record: NetworkRecord) -> str:
    """The name of the host's link that the network is on."""
    if record.is_bridged:
        return record.options.get(bridge_options.OPTION_NAME) or f"br-{record.id[:12]}"
    return record.options.get(children.OPTION_PARENT) or f"dm-{record.id[:12]}"


def firewall_rules(record: NetworkRecord) -> BridgeRules:
    """What the firewall must know of a bridged network."""
    return BridgeRules(
        link=record.link,
        subnets=tuple(pool.subnet for pool in record.pools),
        icc=bridge_options.option_flag(record, bridge_options.OPTION_ICC),
        masquerade=bridge_options.option_flag(record, bridge_options.OPTION_MASQUERADE),
        internal=record.internal,
        modes={
            version: bridge_options.option_mode(record, version)
            for version in bridge_options.OPTION_MODES
        },
        sources=bridge_options.option_sources(record),
        tunnel=vxlan.tunnel_of(record) if record.driver == VXLAN else None,
    )
