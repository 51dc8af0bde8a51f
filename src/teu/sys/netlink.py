"""rtnetlink: links, addresses and routes by messages of our own, many in one send.

    with Netlink() as kernel:
        kernel.run(create_bridge("teu0", mtu=1500), set_link("teu0", up=True))

Each function here makes one request; `Netlink.run` sends them (see `netlink_socket`).

Deleting a veth pair blocks for an RCU grace period (16 ms here) and holds the kernel's rtnl lock
meanwhile; closing the namespace that holds its peer reaps it for nothing.

Source: rtnetlink(7), linux/{if_link,if_addr,rtnetlink,veth,if_bridge}.h.
"""

import errno
import socket
import struct
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Final, TypeAlias

from msgspec import Struct

from teu.sys.netlink_socket import (
    CREATE,
    EXCLUSIVE,
    REPLACE,
    NetlinkSocket,
    Request,
    attribute,
    attributes,
    nested,
)

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWNEIGH, _DELNEIGH = 28, 29
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_NOARP, _NUD_PERMANENT, _NTF_SELF, _APPEND = 0x40, 0x80, 0x02, 0x800
_IFLA_LINK, _IFLA_IFALIAS = 5, 20
_VXLAN_ID, _VXLAN_LOCAL, _VXLAN_PORT, _VXLAN_LOCAL6 = 1, 4, 15, 17
_MACVLAN_MODE, _IPVLAN_MODE, _IPVLAN_FLAGS, _VLAN_ID = 1, 1, 2, 1

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_PROTINFO, _IFLA_NET_NS_FD, _IFLA_AF_SPEC = 12, 28, 26
_INFO_KIND, _INFO_DATA, _VETH_PEER, _INET6_ADDR_GEN_MODE = 1, 2, 1, 8
_PORT_STATE, _PORT_HAIRPIN, _PORT_FLUSH, _PORT_ISOLATED = 1, 4, 24, 33
_BR_FORWARD_DELAY = 1
_IFF_UP: Final = 0x1
_IN6_ADDR_GEN_NONE: Final = 1

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_IFA_F_NODAD: Final = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_TABLE = 1, 4, 5, 6, 15
_TABLE_MAIN, _TABLE_LOCAL = 254, 255
_PROTO_BOOT, _SCOPE_UNIVERSE, _SCOPE_LINK, _TYPE_UNICAST = 3, 0, 253, 1

_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBi")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=B3xiHBB")


IPAddress: TypeAlias = IPv4Address | IPv6Address
IPInterface: TypeAlias = IPv4Interface | IPv6Interface
IPNetwork: TypeAlias = IPv4Network | IPv6Network


class Link(Struct, frozen=True):
    """A network interface. `kind` is the driver's word (`bridge`, `veth`) or empty."""

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    master: int
    alias: str = ""  # a note that its maker left


class Address(Struct, frozen=True):
    link_index: int
    interface: IPInterface


class Route(Struct, frozen=True):
    """`gateway` is None for directly connected networks; the default route has prefix 0."""

    destination: IPNetwork
    gateway: IPAddress | None
    link_index: int
    table: int
    metric: int


def create_bridge(name: str, *, mac: str, mtu: int) -> Request:
    """A bridge without spanning tree. The MAC is fixed: udev and ports do not change it."""
    data = attribute(_BR_FORWARD_DELAY, struct.pack("=I", 0))
    body = _link_message(0, name=name, mac=mac, mtu=mtu) + _link_info("bridge", data)
    return Request(_NEWLINK, CREATE | EXCLUSIVE, body, f"create bridge {name}")


def create_veth(
    name: str, *, mac: str, mtu: int, master: int, peer: str, peer_mac: str, netns_fd: int
) -> Request:
    """A veth pair: `name` here with its master set, `peer` in the other namespace; both down."""
    inside = _link_message(0, name=peer, mac=peer_mac, mtu=mtu)
    inside += attribute(_IFLA_NET_NS_FD, struct.pack("=I", netns_fd))
    body = _link_message(0, name=name, mac=mac, mtu=mtu, master=master)
    body += _link_info("veth", attribute(_VETH_PEER, inside))
    return Request(_NEWLINK, CREATE | EXCLUSIVE, body, f"create veth pair {name} for {peer}")


def create_vxlan(
    name: str, *, ident: int, port: int, mac: str, master: int, local: IPAddress | None = None
) -> Request:
    """A tunnel's end as a port of a bridge; frames go to the peers of `add_tunnel_peer`."""
    data = attribute(_VXLAN_ID, struct.pack("=I", ident))
    data += attribute(_VXLAN_PORT, struct.pack(">H", port))
    if local:
        kind = _VXLAN_LOCAL if local.version == 4 else _VXLAN_LOCAL6
        data += attribute(kind, local.packed)
    body = _link_message(0, name=name, mac=mac, master=master) + _link_info("vxlan", data)
    return Request(_NEWLINK, CREATE | EXCLUSIVE, body, f"create vxlan link {name}")


def add_tunnel_peer(index: int, peer: IPAddress) -> Request:
    """Frames to unknown or to all stations are sent to this peer, too. Accepts "already so"."""
    body = _NEIGHBOUR.pack(socket.AF_BRIDGE, index, _NUD_PERMANENT | _NUD_NOARP, _NTF_SELF, 0)
    body += attribute(_NDA_DST, peer.packed) + attribute(_NDA_LLADDR, bytes(6))
    return Request(_NEWNEIGH, CREATE | _APPEND, body, f"add peer {peer}", (errno.EEXIST,))


def create_child(
    kind: str, name: str, *, parent: int, data: bytes, netns_fd: int = -1, mac: str = ""
) -> Request:
    """A link on top of another one (macvlan, ipvlan, vlan), straight in its namespace.

    `data` is made by `macvlan_data` and its kin.
    """
    body = _link_message(0, name=name, mac=mac) + attribute(_IFLA_LINK, struct.pack("=I", parent))
    if netns_fd >= 0:
        body += attribute(_IFLA_NET_NS_FD, struct.pack("=I", netns_fd))
    body += _link_info(kind, data)
    return Request(_NEWLINK, CREATE | EXCLUSIVE, body, f"create {kind} link {name}")


def create_dummy(name: str) -> Request:
    body = _link_message(0, name=name) + _link_info("dummy", b"")
    return Request(_NEWLINK, CREATE | EXCLUSIVE, body, f"create dummy link {name}")


def macvlan_data(mode: int) -> bytes:
    return attribute(_MACVLAN_MODE, struct.pack("=I", mode))


def ipvlan_data(mode: int, flags: int) -> bytes:
    return attribute(_IPVLAN_MODE, struct.pack("=H", mode)) + attribute(
        _IPVLAN_FLAGS, struct.pack("=H", flags)
    )


def vlan_data(ident: int) -> bytes:
    return attribute(_VLAN_ID, struct.pack("=H", ident))


def set_link(
    link: str | int,
    *,
    up: bool | None = None,
    mac: str = "",
    mtu: int = 0,
    master: int | None = None,
    new_name: str = "",
) -> Request:
    """Changes what is given. A name is found by the kernel, which needs an index to rename."""
    index, name = (link, new_name) if isinstance(link, int) else (0, link)
    body = _link_message(index, name=name, mac=mac, mtu=mtu, master=master, up=up)
    return Request(_NEWLINK, 0, body, f"change link {link}")


def set_alias(name: str, alias: str) -> Request:
    """A note on a link, for whoever finds it later."""
    body = _link_message(0, name=name) + attribute(_IFLA_IFALIAS, alias.encode())
    return Request(_NEWLINK, 0, body, f"set alias of {name}")


def without_ipv6_autoconf(name: str) -> Request:
    """No link-local IPv6 address (and so no duplicate detection traffic) on a host-side link."""
    mode = attribute(_INET6_ADDR_GEN_MODE, struct.pack("=B", _IN6_ADDR_GEN_NONE))
    spec = nested(_IFLA_AF_SPEC, nested(socket.AF_INET6, mode))
    tolerate = (errno.EAFNOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP)
    return Request(
        _NEWLINK, 0, _link_message(0, name=name) + spec, f"set IPv6 mode of {name}", tolerate
    )


def set_bridge_port(
    index: int,
    *,
    hairpin: bool | None = None,
    isolated: bool | None = None,
    disabled: bool = False,
) -> Request:
    """Flags of a bridge's port. `disabled` also makes the bridge forget the MACs behind it."""
    flags = b""
    if hairpin is not None:
        flags += attribute(_PORT_HAIRPIN, struct.pack("=B", hairpin))
    if isolated is not None:
        flags += attribute(_PORT_ISOLATED, struct.pack("=B", isolated))
    if disabled:
        flags += attribute(_PORT_STATE, struct.pack("=B", 0)) + attribute(_PORT_FLUSH, b"")
    body = _LINK.pack(socket.AF_BRIDGE, 0, index, 0, 0) + nested(_IFLA_PROTINFO, flags)
    tolerate = (errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP) if disabled else ()
    return Request(_SETLINK, 0, body, f"set bridge port {index}", tolerate)


def delete_link(name: str) -> Request:
    """Blocks for a grace period; accepts "already gone"."""
    return Request(_DELLINK, 0, _link_message(0, name=name), f"delete link {name}", (errno.ENODEV,))


def add_address(link_index: int, interface: IPInterface) -> Request:
    """Accepts "already there". IPv6: without duplicate detection, so it can be used at once."""
    return Request(
        _NEWADDR,
        CREATE | REPLACE,
        _address_message(link_index, interface),
        f"add address {interface}",
        (errno.EEXIST,),
    )


def delete_address(link_index: int, interface: IPInterface) -> Request:
    body = _address_message(link_index, interface)
    return Request(_DELADDR, 0, body, f"delete address {interface}", (errno.EADDRNOTAVAIL,))


def add_route(
    destination: IPNetwork, *, gateway: IPAddress | None = None, link_index: int = 0
) -> Request:
    """A route in the main table, replacing one to the same destination."""
    body = _route_message(destination, gateway, link_index)
    return Request(_NEWROUTE, CREATE | REPLACE, body, f"add route {destination} via {gateway}")


def delete_route(destination: IPNetwork) -> Request:
    """Accepts "already gone"."""
    body = _route_message(destination, None, 0)
    return Request(_DELROUTE, 0, body, f"delete route {destination}", (errno.ESRCH,))


def forget_neighbour(link_index: int, address: IPAddress) -> Request:
    """Drops what ARP, or neighbour discovery, knows of an address. Accepts "nothing"."""
    body = _NEIGHBOUR.pack(_family(address), link_index, 0, 0, 0)
    body += attribute(_NDA_DST, address.packed)
    what = f"forget neighbour {address}"
    return Request(_DELNEIGH, 0, body, what, (errno.ENOENT, errno.EINVAL))


_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


class Netlink(NetlinkSocket):
    """A route socket of the calling thread's network namespace."""

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE)

    def links(self) -> list[Link]:
        body = _LINK.pack(0, 0, 0, 0, 0)
        return [_parse_link(payload) for payload in self.dump(_GETLINK, body, "list links")]

    def link(self, name: str) -> Link | None:
        """The link of that name, None if there is none."""
        request = Request(_GETLINK, 0, _link_message(0, name=name), f"find link {name}")
        found = self.get(request, _NEWLINK)
        return _parse_link(found) if found else None

    def addresses(self, link_index: int = 0) -> list[Address]:
        """IPv4 and global IPv6 addresses of one link, or of all."""
        found = []
        for family in _FAMILIES:
            body = _ADDRESS.pack(family, 0, 0, 0, link_index)
            found += self.dump(_GETADDR, body, "list addresses")
        parsed = (_parse_address(data) for data in found)
        return [one for one in parsed if not one.interface.ip.is_link_local]

    def routes(self) -> list[Route]:
        """All unicast routes of every table but the kernel's own `local`; IPv6's link-local ones,
        which every link has, are left out."""
        found = []
        for family in _FAMILIES:
            body = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
            found += self.dump(_GETROUTE, body, "list routes")
        parsed = (_parse_route(data) for data in found)
        return [one for one in parsed if one and not one.destination.is_link_local]


def _family(address: IPAddress) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _link_info(kind: str, data: bytes) -> bytes:
    return nested(_IFLA_LINKINFO, attribute(_INFO_KIND, kind.encode()) + nested(_INFO_DATA, data))


def _link_message(
    index: int,
    *,
    name: str = "",
    mac: str = "",
    mtu: int = 0,
    master: int | None = None,
    up: bool | None = None,
) -> bytes:
    change = 0 if up is None else _IFF_UP
    message = _LINK.pack(socket.AF_UNSPEC, 0, index, _IFF_UP if up else 0, change)
    if name:
        message += attribute(_IFLA_IFNAME, name.encode() + b"\0")
    if mac:
        message += attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    if mtu:
        message += attribute(_IFLA_MTU, struct.pack("=I", mtu))
    if master is not None:
        message += attribute(_IFLA_MASTER, struct.pack("=I", master))
    return message


def _address_message(link_index: int, interface: IPInterface) -> bytes:
    packed, network = interface.ip.packed, interface.network
    flags = _IFA_F_NODAD if interface.version == 6 else 0
    message = _ADDRESS.pack(_family(interface.ip), network.prefixlen, flags, 0, link_index)
    message += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    if interface.version == 4 and network.prefixlen < 31:
        message += attribute(_IFA_BROADCAST, network.broadcast_address.packed)
    return message


def _route_message(destination: IPNetwork, gateway: IPAddress | None, link_index: int) -> bytes:
    scope = _SCOPE_UNIVERSE if gateway or not link_index else _SCOPE_LINK
    message = _ROUTE.pack(
        _family(destination.network_address), destination.prefixlen, 0, 0, _TABLE_MAIN,
        _PROTO_BOOT, scope, _TYPE_UNICAST, 0,
    )  # fmt: skip
    if destination.prefixlen:
        message += attribute(_RTA_DST, destination.network_address.packed)
    if gateway:
        message += attribute(_RTA_GATEWAY, gateway.packed)
    if link_index:
        message += attribute(_RTA_OIF, struct.pack("=I", link_index))
    return message


def _number(attributes: dict[int, bytes], kind: int) -> int:
    value = attributes.get(kind)
    return int(struct.unpack("=I", value)[0]) if value else 0


def _parse_link(payload: bytes) -> Link:
    _version, _type, index, flags, _change = _LINK.unpack_from(payload)
    found = attributes(payload, _LINK.size)
    info = attributes(found.get(_IFLA_LINKINFO, b""), 0)
    return Link(
        index=index,
        name=found[_IFLA_IFNAME].rstrip(b"\0").decode(),
        kind=info.get(_INFO_KIND, b"").rstrip(b"\0").decode(),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found, _IFLA_MTU),
        up=bool(flags & _IFF_UP),
        master=_number(found, _IFLA_MASTER),
        alias=found.get(_IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"),
    )


def _parse_address(payload: bytes) -> Address:
    _version, prefix, _flags, _scope, index = _ADDRESS.unpack_from(payload)
    found = attributes(payload, _ADDRESS.size)
    packed = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
    return Address(link_index=index, interface=ip_interface((packed, prefix)))


def _parse_route(payload: bytes) -> Route | None:
    family, prefix, _src, _tos, table, _proto, _scope, kind, _flags = _ROUTE.unpack_from(payload)
    found = attributes(payload, _ROUTE.size)
    table = _number(found, _RTA_TABLE) or table
    if kind != _TYPE_UNICAST or table == _TABLE_LOCAL:
        return None
    gateway = found.get(_RTA_GATEWAY)
    nowhere = 4 if family == socket.AF_INET else 16
    return Route(
        destination=ip_network((found.get(_RTA_DST, bytes(nowhere)), prefix)),
        gateway=ip_address(gateway) if gateway else None,
        link_index=_number(found, _RTA_OIF),
        table=table,
        metric=_number(found, _RTA_PRIORITY),
    )
