"""The bridge driver: a Linux bridge per network, a veth pair per endpoint.

Every method blocks (milliseconds) and is called in the worker's threads.
"""

import logging
import os
import socket
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Final

from teu.errors import InvalidParameter, SystemFailure
from teu.model.network import EndpointRecord, NetworkRecord, PublishedPort
from teu.network.firewall import ISOLATED, NAT, ROUTED, UNPROTECTED, BridgeRules
from teu.network.ipam import mac_of, parse_address
from teu.network.kernel import HostLinks, read_sysctl, set_sysctl
from teu.sys import netlink, netns
from teu.sys.conntrack import Conntrack, Flow
from teu.sys.netlink import IPAddress, IPInterface, Link, Netlink
from teu.sys.netlink_socket import Request
from teu.sys.syscalls import os_errors

OPTION_NAME: Final = "com.docker.network.bridge.name"
OPTION_ICC: Final = "com.docker.network.bridge.enable_icc"
OPTION_MASQUERADE: Final = "com.docker.network.bridge.enable_ip_masquerade"
OPTION_HOST_IP: Final = "com.docker.network.bridge.host_binding_ipv4"
OPTION_DEFAULT: Final = "com.docker.network.bridge.default_bridge"
OPTION_MTU: Final = "com.docker.network.driver.mtu"
OPTION_MODES: Final = {
    4: "com.docker.network.bridge.gateway_mode_ipv4",
    6: "com.docker.network.bridge.gateway_mode_ipv6",
}
OPTION_SOURCES: Final = {4: "com.docker.network.host_ipv4", 6: "com.docker.network.host_ipv6"}
_EVERYWHERE: Final = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_LINK_LOCAL: Final = ip_interface("fe80::1/64")  # of bridges with IPv6, as Docker's
_IPV6_CONF: Final = Path("/proc/sys/net/ipv6/conf")
log = logging.getLogger(__name__)


def option_flag(record: NetworkRecord, option: str, default: bool = True) -> bool:
    """Raises: InvalidParameter."""
    text = record.options.get(option, "").lower()
    if text in ("", "1", "t", "true", "0", "f", "false"):
        return text in ("1", "t", "true") if text else default
    raise InvalidParameter(f"invalid value {text!r} for network option {option}: use true or false")


def option_mtu(record: NetworkRecord) -> int:
    """0 if it is not asked for. Raises: InvalidParameter."""
    text = record.options.get(OPTION_MTU, "") or "0"
    if not text.isdigit() or not (text == "0" or 68 <= int(text) <= 65535):
        raise InvalidParameter(f"invalid value {text!r} for network option {OPTION_MTU}")
    return int(text)


def option_mode(record: NetworkRecord, version: int) -> str:
    """How the network meets the world: nat, nat-unprotected, routed, isolated.

    Raises: InvalidParameter.
    """
    option = OPTION_MODES[version]
    mode = record.options.get(option) or NAT
    if mode not in (NAT, UNPROTECTED, ROUTED, ISOLATED):
        raise InvalidParameter(
            f"unknown gateway mode {mode} in {option}: use {NAT}, {UNPROTECTED}, {ROUTED} or "
            f"{ISOLATED}"
        )
    if mode == ISOLATED and not record.internal:
        raise InvalidParameter(
            f"gateway mode 'isolated' can only be used for an internal network ({option}): "
            "add --internal"
        )
    return mode


def option_sources(record: NetworkRecord) -> tuple[str, ...]:
    """Addresses of the host under which packets leave. Raises: InvalidParameter."""
    found = []
    for version, option in OPTION_SOURCES.items():
        if text := record.options.get(option):
            address = parse_address(text, f"address in {option}")
            if address.version != version:
                raise InvalidParameter(f"{text} in {option} is no IPv{version} address")
            found.append(str(address))
    return tuple(found)


def gateway_interfaces(record: NetworkRecord) -> list[IPInterface]:
    """The bridge's own addresses, those of the gateways; none of an isolated network."""
    networks = ((pool.gateway, ip_network(pool.subnet)) for pool in record.pools)
    return [
        ip_interface(f"{gateway}/{subnet.prefixlen}")
        for gateway, subnet in networks
        if option_mode(record, subnet.version) != ISOLATED
    ]


def route_requests(record: EndpointRecord, versions: set[int]) -> list[Request]:
    """Requests for inside the sandbox: everything goes by this endpoint."""
    gateways = ((4, record.gateway), (6, record.gateway6))
    return [
        netlink.add_route(_EVERYWHERE[version], gateway=ip_address(gateway))
        for version, gateway in gateways
        if gateway and version in versions
    ]


def firewall_rules(record: NetworkRecord) -> BridgeRules:
    return BridgeRules(
        link=record.link,
        subnets=tuple(pool.subnet for pool in record.pools),
        icc=option_flag(record, OPTION_ICC),
        masquerade=option_flag(record, OPTION_MASQUERADE),
        internal=record.internal,
        modes={version: option_mode(record, version) for version in OPTION_MODES},
        sources=option_sources(record),
    )


class BridgeDriver:
    """`mtu` is for networks that do not ask for one; 0 is that of the host's default route.

    `guarded`: firewall rules keep the bridges' packets from 127.0.0.0/8, so `route_localnet` may be
    on, which published ports on 127.0.0.1 need. The rules must be written before `ensure`.
    """

    def __init__(self, host: HostLinks, mtu: int, *, guarded: bool) -> None:
        self._host = host
        self._mtu = mtu
        self._guarded = guarded
        self._mtus: dict[str, int] = {}  # by bridge, so that both ends of a pair agree with it

    def ensure(self, record: NetworkRecord, *, idle: bool = False) -> None:
        """The bridge's link with its address, up. Idempotent; running containers do not notice.

        `idle`: no container is there, so the MTU may follow the host's or the configuration's.

        Raises: SystemFailure (also when the name belongs to a link that is no bridge).
        """
        wanted = gateway_interfaces(record)
        with os_errors(f"bridge {record.link} of network {record.name}"):
            link = self._host.link(record.link) or self._create(record)
            if link.kind != "bridge":
                raise SystemFailure(
                    f"link {record.link} is there but is no bridge ({link.kind or 'physical'}): "
                    "rename it, or choose another bridge name"
                )
            mtu = self._wanted_mtu(record) if idle and record.link_is_ours else link.mtu
            self._mtus[record.link] = mtu
            present = self._host.addresses(link.index)
            requests = [netlink.set_link(record.link, up=True, mtu=0 if mtu == link.mtu else mtu)]
            if record.pool(6):
                _enable_ipv6(record)
                requests.append(netlink.add_address(link.index, _LINK_LOCAL))
            requests += [
                netlink.add_address(link.index, one) for one in wanted if str(one) not in present
            ]
            if record.link_is_ours:
                stale = set(map(ip_interface, present)) - set(wanted)
                requests += [netlink.delete_address(link.index, one) for one in stale]
            self._host.run(*requests)
            why = f"published ports on 127.0.0.1, network {record.name}"
            set_sysctl(f"ipv4/conf/{record.link}/route_localnet", str(int(self._guarded)), why)

    def remove(self, record: NetworkRecord) -> None:
        """Accepts "already gone"; a bridge that was there before us stays.

        Raises: SystemFailure.
        """
        with os_errors(f"bridge {record.link} of network {record.name}"):
            if record.link_is_ours:
                self._host.run(netlink.delete_link(record.link))
            elif link := self._host.link(record.link):
                gateways = gateway_interfaces(record)
                self._host.run(*(netlink.delete_address(link.index, one) for one in gateways))

    def plug(
        self, record: NetworkRecord, endpoint: EndpointRecord, sandbox: Path, inside: Netlink,
        *, default_routes: set[int],
    ) -> None:  # fmt: skip
        """The endpoint's veth pair, address and routes: a few sends, about 0.7 ms.

        Raises: SystemFailure. On failure `unplug` it.
        """
        with os_errors(f"endpoint {endpoint.container_name} on network {record.name}"):
            self._create_pair(record, endpoint, sandbox)
            inside.run(netlink.set_link(endpoint.link, up=True))
            # Looking at a link makes the kernel act on its carrier now (rtnl_getlink). Otherwise a
            # work queue does, later, and until then the bridge drops the container's first packets:
            # a second is lost to the repeated ARP request.
            link = inside.link(endpoint.link)
            self._host.link(endpoint.host_link)
            if link is None:
                raise SystemFailure(f"link {endpoint.link} did not appear in {sandbox}")
            if endpoint.address6 or endpoint.sysctls:
                netns.run_inside(sandbox, partial(_set_up_inside, endpoint))
            requests = [netlink.add_address(link.index, one) for one in _interfaces(endpoint)]
            inside.run(*requests, *route_requests(endpoint, default_routes))

    def unplug(self, endpoint: EndpointRecord) -> None:
        """Removes the pair (blocks for a grace period). Accepts "never there"."""
        with os_errors(f"endpoint of {endpoint.container_name}"):
            self._host.run(netlink.delete_link(endpoint.host_link))

    def mute(self, endpoint: EndpointRecord) -> None:
        """Shuts the bridge's port at once, so that the address may be given to another container
        while the kernel still reaps this one's namespace. Accepts "already gone".
        """
        index = _index(endpoint.host_link) if endpoint.host_link else 0
        try:
            if index:
                self._host.run(netlink.set_bridge_port(index, disabled=True))
        except OSError as error:
            log.warning("link %s was not shut: %s", endpoint.host_link, error)

    def allow_hairpin(self, endpoint: EndpointRecord) -> None:
        """Lets a container reach itself by its published port when bridge-nf-call-iptables is on:
        the bridge then translates without routing, and must send a frame back where it came from.
        """
        with os_errors(f"hairpin mode of {endpoint.container_name}"):
            index = socket.if_nametoindex(endpoint.host_link)
            self._host.run(netlink.set_bridge_port(index, hairpin=True))

    def forget_flows(self, ports: Sequence[PublishedPort]) -> None:
        """Lets UDP clients that go on sending meet the rules as they are now.

        Their packets went to the host itself before a port was published, and go to the container
        as long as the kernel remembers. Failure is logged: the flows end by themselves when silent.
        """
        udp = [port for port in ports if port.protocol == "udp"]
        if not udp:
            return
        try:
            own = self._host.own_addresses()
            with Conntrack() as tracked:
                for port in udp:
                    chosen = partial(_is_stale, ip_address(port.address), own)
                    tracked.forget_udp(port.host_port, chosen)
        except OSError as error:
            log.warning(
                "old UDP connections were not ended: %s (%s)", error.strerror, error.filename
            )

    def separate(self, record: NetworkRecord, endpoint: EndpointRecord) -> None:
        """On a network without icc: keeps the endpoint from its neighbours on the bridge itself.

        Where bridged packets pass the firewall (bridge-nf-call-iptables) its rule does that, and
        the port must stay open: published ports of a neighbour are then translated on the bridge.
        Known gap: after the sysctl was switched off, until the daemon's next start.
        """
        if option_flag(record, OPTION_ICC):
            return
        filtered = read_sysctl("bridge/bridge-nf-call-iptables") == "1"
        if index := _index(endpoint.host_link):
            self._host.run(netlink.set_bridge_port(index, isolated=not filtered))

    def _create(self, record: NetworkRecord) -> Link:
        mtu = self._wanted_mtu(record)
        mac = mac_of(ip_address(record.pools[0].gateway))
        self._host.run(
            netlink.create_bridge(record.link, mac=mac, mtu=mtu),
            netlink.without_ipv6_autoconf(record.link),
        )
        link = self._host.link(record.link)
        if link is None:
            raise SystemFailure(f"bridge {record.link} vanished while it was made")
        log.info("made bridge %s for network %s", record.link, record.name)
        return link

    def _wanted_mtu(self, record: NetworkRecord) -> int:
        return option_mtu(record) or self._mtu or self._host.default_mtu()

    def _create_pair(self, record: NetworkRecord, endpoint: EndpointRecord, sandbox: Path) -> None:
        master = _index(record.link)
        if not master:
            log.warning("bridge %s was gone; making it again", record.link)
            self.ensure(record)
            master = socket.if_nametoindex(record.link)
        netns_fd = os.open(sandbox, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._host.run(
                netlink.create_veth(
                    endpoint.host_link,
                    mac=_host_side_mac(endpoint),
                    mtu=self._mtus.get(record.link, 0),
                    master=master,
                    peer=endpoint.link,
                    peer_mac=endpoint.mac,
                    netns_fd=netns_fd,
                ),
                netlink.without_ipv6_autoconf(endpoint.host_link),
                netlink.set_link(endpoint.host_link, up=True),
                # An earlier holder of the address may have had another MAC.
                *(netlink.forget_neighbour(master, one.ip) for one in _interfaces(endpoint)),
            )
        finally:
            os.close(netns_fd)
        self.separate(record, endpoint)


def _interfaces(endpoint: EndpointRecord) -> list[IPInterface]:
    found = ((endpoint.address, endpoint.prefix), (endpoint.address6, endpoint.prefix6))
    own = [ip_interface(f"{address}/{prefix}") for address, prefix in found if address]
    return own + [ip_interface(one) for one in endpoint.link_locals]


def _enable_ipv6(record: NetworkRecord) -> None:
    """On the bridge; what routers announce there (a container could) is not listened to."""
    why = f"IPv6 of network {record.name}"
    set_sysctl(f"ipv6/conf/{record.link}/disable_ipv6", "0", why)
    set_sysctl(f"ipv6/conf/{record.link}/accept_ra", "0", why)


def _set_up_inside(endpoint: EndpointRecord) -> None:
    """In the sandbox, whose new links have IPv6 switched off; then what the user asked for.

    A link's name may contain dots, so the sysctl's own are replaced around it.
    """
    if endpoint.address6:
        (_IPV6_CONF / endpoint.link / "accept_ra").write_text("0")
        (_IPV6_CONF / endpoint.link / "disable_ipv6").write_text("0")
    for name, value in endpoint.sysctls.items():
        kind, key = name.split(f".{endpoint.link}.")
        path = Path("/proc/sys", *kind.split("."), endpoint.link, key)
        try:
            path.write_text(value)
        except OSError as error:
            raise InvalidParameter(f"cannot set {name} to {value}: {error.strerror}") from error


def _is_stale(container: IPAddress, own: set[IPAddress], flow: Flow) -> bool:
    """Flows to the container, and those that the host itself answers."""
    return flow.answerer == container or flow.answerer in own or flow.answerer.is_loopback


def _index(link: str) -> int:
    try:
        return socket.if_nametoindex(link)
    except OSError:
        return 0


def _host_side_mac(endpoint: EndpointRecord) -> str:
    """Set by us so that udev does not think of another one; locally administered."""
    return "0a:" + bytes.fromhex(endpoint.id[:10]).hex(":")
