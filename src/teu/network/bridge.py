"""The bridge driver: a Linux bridge per network, a veth pair per endpoint.

Every method blocks (milliseconds) and is called in the worker's threads.
"""

import logging
import os
import socket
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Final

from teu.errors import SystemFailure
from teu.model.network import EndpointRecord, NetworkRecord, PublishedPort
from teu.network.bridge_options import OPTION_ICC, gateway_interfaces, option_flag, option_mtu
from teu.network.inside import configure, interfaces
from teu.network.ipam import mac_of
from teu.network.kernel import HostLinks, read_sysctl, set_sysctl
from teu.sys import netlink
from teu.sys.conntrack import Conntrack, Flow
from teu.sys.netlink import IPAddress, Link, Netlink
from teu.sys.syscalls import os_errors

_LINK_LOCAL: Final = ip_interface("fe80::1/64")  # of bridges with IPv6, as Docker's
log = logging.getLogger(__name__)


class BridgeDriver:
    """`mtu` is for networks that do not ask for one; 0 is that of the host's default route.

    `guarded`: firewall rules keep the bridges' packets from 127.0.0.0/8, so `route_localnet` may be
    on, which published ports on 127.0.0.1 need. The rules must be written before `ensure`.
    `owner` is noted on each bridge made, for `remove_strays`.
    """

    def __init__(self, host: HostLinks, mtu: int, *, guarded: bool, owner: str) -> None:
        self._owner = owner
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
            inside.link(endpoint.link)
            self._host.link(endpoint.host_link)
            configure(endpoint, sandbox, inside, default_routes)

    def made(self, link: Link) -> bool:
        """Whether a link is a bridge that this daemon, or an earlier one in its place, made."""
        return link.kind == "bridge" and link.alias == self._owner

    def remove_strays(self, known: set[str]) -> None:
        """Bridges of ours that no network has: the data that knew them was removed, or lost.

        Raises: SystemFailure.
        """
        with os_errors("bridges of networks that are gone"):
            for link in self._host.links():
                if self.made(link) and link.name not in known:
                    log.warning("removing bridge %s, which belongs to no network", link.name)
                    self._host.run(netlink.delete_link(link.name))

    def follow_mtu(self, record: NetworkRecord, endpoints: Sequence[EndpointRecord]) -> int:
        """Gives bridge and host-side links the MTU that the host's default route has now.

        Returns: that MTU if it is another one than before (the inner sides need it), else 0.
        Raises: SystemFailure.
        """
        mtu = self._wanted_mtu(record)
        if not record.link_is_ours or mtu == self._mtus.get(record.link):
            return 0
        with os_errors(f"MTU of network {record.name}"):
            links = [record.link, *(one.host_link for one in endpoints)]
            self._host.run(*(netlink.set_link(link, mtu=mtu) for link in links))
        self._mtus[record.link] = mtu
        return mtu

    def unplug(self, endpoint: EndpointRecord, inside: Netlink) -> None:
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
        mtu = self._mtus[record.link] = self._wanted_mtu(record)
        mac = mac_of(ip_address(record.pools[0].gateway))
        self._host.run(
            netlink.create_bridge(record.link, mac=mac, mtu=mtu),
            netlink.set_alias(record.link, self._owner),
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
                *(netlink.forget_neighbour(master, one.ip) for one in interfaces(endpoint)),
            )
        finally:
            os.close(netns_fd)
        self.separate(record, endpoint)


def _enable_ipv6(record: NetworkRecord) -> None:
    """On the bridge; what routers announce there (a container could) is not listened to."""
    why = f"IPv6 of network {record.name}"
    set_sysctl(f"ipv6/conf/{record.link}/disable_ipv6", "0", why)
    set_sysctl(f"ipv6/conf/{record.link}/accept_ra", "0", why)


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
