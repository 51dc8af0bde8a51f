"""The vxlan driver: one network over several hosts, whose addresses each of them is told.

    host A: containers ── br-… ── vx-… ══ UDP 4789 ══ vx-… ── br-… ── containers :host B

A bridge network with one more port, a VXLAN tunnel to the other hosts. Each host makes the network
itself, with the same id and subnet, its own `--ip-range`, and the others as peers:

    teu network create -d vxlan --subnet 10.50.0.0/16 --ip-range 10.50.1.0/24 \
        -o vxlan.id=42 -o vxlan.peers=192.0.2.2,192.0.2.3 mesh

The gateway has the same address and MAC on every host, so a container always meets its own host's.
Frames are not encrypted, and only accepted from the peers (see `firewall`).

Source: RFC 7348, linux/if_link.h.
"""

import hashlib
from typing import Final

from teu.errors import InvalidParameter
from teu.model.network import NetworkRecord
from teu.network import bridge_options
from teu.network.bridge import BridgeDriver
from teu.network.firewall import Tunnel
from teu.network.ipam import parse_address
from teu.sys import netlink
from teu.sys.netlink import IPAddress
from teu.sys.syscalls import os_errors

OPTION_ID: Final = "vxlan.id"
OPTION_PEERS: Final = "vxlan.peers"
OPTION_LOCAL: Final = "vxlan.local"
OPTION_PORT: Final = "vxlan.port"
_HEADERS_BYTES: Final = {4: 50, 6: 70}  # what the tunnel adds to a frame
_DEFAULT_PORT: Final = 4789
_ID_LIMIT: Final = 1 << 24


def check(record: NetworkRecord) -> None:
    """Raises: InvalidParameter."""
    bridge_options.check(record)
    tunnel = tunnel_of(record)
    ends = [parse_address(peer, "peer") for peer in tunnel.peers]
    if local := _local(record):
        ends.append(local)
    if len({end.version for end in ends}) > 1:
        raise InvalidParameter(
            f"{OPTION_PEERS} and {OPTION_LOCAL}: all addresses must be of the same IP version"
        )


def tunnel_of(record: NetworkRecord) -> Tunnel:
    """Raises: InvalidParameter."""
    peers = record.options.get(OPTION_PEERS, "").replace(",", " ").split()
    return Tunnel(
        ident=_number(record, OPTION_ID, 0, _ID_LIMIT - 1),
        port=_number(record, OPTION_PORT, _DEFAULT_PORT, 65535),
        peers=tuple(str(parse_address(peer, f"address in {OPTION_PEERS}")) for peer in peers),
    )


class VxlanDriver(BridgeDriver):
    """See the module's text."""

    def ensure(self, record: NetworkRecord, *, idle: bool = False) -> None:
        super().ensure(record, idle=idle)
        name = _tunnel_link(record)
        with os_errors(f"tunnel of network {record.name}"):
            bridge = self._host.link(record.link)
            if bridge is None or self._host.link(name):
                return
            tunnel = tunnel_of(record)
            self._host.run(
                netlink.create_vxlan(
                    name, ident=tunnel.ident, port=tunnel.port, mac=_random_mac(record),
                    master=bridge.index, local=_local(record),
                ),
                netlink.without_ipv6_autoconf(name),
                netlink.set_link(name, up=True, mtu=bridge.mtu),
            )  # fmt: skip
            if link := self._host.link(name):
                peers = (parse_address(peer, "peer") for peer in tunnel.peers)
                self._host.run(*(netlink.add_tunnel_peer(link.index, peer) for peer in peers))

    def remove(self, record: NetworkRecord) -> None:
        with os_errors(f"tunnel of network {record.name}"):
            self._host.run(netlink.delete_link(_tunnel_link(record)))
        super().remove(record)

    def _wanted_mtu(self, record: NetworkRecord) -> int:
        if asked := bridge_options.option_mtu(record):
            return asked
        peers = tunnel_of(record).peers
        version = parse_address(peers[0], "peer").version if peers else 4
        return super()._wanted_mtu(record) - _HEADERS_BYTES[version]


def _tunnel_link(record: NetworkRecord) -> str:
    return f"vx-{record.id[:12]}"


def _random_mac(record: NetworkRecord) -> str:
    """Of the tunnel's end: locally administered, different on each host."""
    return "0a:" + hashlib.sha256(record.id.encode()).digest()[:5].hex(":")


def _local(record: NetworkRecord) -> IPAddress | None:
    text = record.options.get(OPTION_LOCAL)
    return parse_address(text, f"address in {OPTION_LOCAL}") if text else None


def _number(record: NetworkRecord, option: str, default: int, largest: int) -> int:
    text = record.options.get(option, "") or str(default)
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 0 < number <= largest:
        raise InvalidParameter(
            f"invalid value {text!r} for {option}: the vxlan driver needs a number from 1 to "
            f"{largest}, the same on all hosts (-o {option}=…)"
        )
    return number
