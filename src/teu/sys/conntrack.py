"""Connections that the kernel tracks: finding and forgetting those of a UDP port.

A UDP client that goes on sending keeps its tracked connection alive, and with it the translation
of that time: a rule that came later, or the end of the container, does not reach it. So entries
are deleted when a UDP port is published or closed. TCP needs none of this: its clients notice.

Source: linux/netfilter/nfnetlink_conntrack.h; conntrack(8).
"""

import errno
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from msgspec import Struct

from teu.sys.netlink_socket import NetlinkSocket, Request, attribute, attributes, nested

_NETLINK_NETFILTER: Final = 12
_SUBSYSTEM: Final = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE = _SUBSYSTEM | 1, _SUBSYSTEM | 2
_TUPLE_ORIG, _TUPLE_REPLY, _ID, _FILTER = 1, 2, 12, 25
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_ADDRESSES: Final[dict[int, tuple[int, int]]] = {
    socket.AF_INET: (1, 2),
    socket.AF_INET6: (3, 4),
}  # source, destination
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_FILTER_ORIG_FLAGS, _FILTER_REPLY_FLAGS = 1, 2
_FILTER_PROTO_NUM, _FILTER_DST_PORT = 1 << 3, 1 << 5
_NFGEN = struct.Struct(">BBH")
_HEADERS: Final = {family: _NFGEN.pack(family, 0, 0) for family in _ADDRESSES}


class Flow(Struct, frozen=True):
    """Where the client's packets go, and who answers them (after translation)."""

    family: int
    destination: IPv4Address | IPv6Address
    answerer: IPv4Address | IPv6Address
    key: bytes  # the attributes by which the kernel finds it again


class Conntrack(NetlinkSocket):
    """The tracked connections of the calling thread's network namespace."""

    def __init__(self) -> None:
        super().__init__(_NETLINK_NETFILTER)

    def forget_udp(self, port: int, chosen: Callable[[Flow], bool]) -> int:
        """Deletes flows to that destination port that `chosen` picks; how many.

        Raises: OSError.
        """
        found = (flow for family in _ADDRESSES for flow in self._udp_flows(family, port))
        flows = [flow for flow in found if chosen(flow)]
        if flows:
            tolerate = (errno.ENOENT,)
            what = f"forget connections to UDP port {port}"
            self.run(
                *(
                    Request(_DELETE, 0, _HEADERS[flow.family] + flow.key, what, tolerate)
                    for flow in flows
                ),
            )
        return len(flows)

    def _udp_flows(self, family: int, port: int) -> list[Flow]:
        flags = struct.pack("=I", _FILTER_PROTO_NUM | _FILTER_DST_PORT)
        proto = attribute(_PROTO_NUM, bytes([socket.IPPROTO_UDP]))
        proto += attribute(_PROTO_DST_PORT, struct.pack(">H", port))
        body = _HEADERS[family] + nested(_TUPLE_ORIG, nested(_TUPLE_PROTO, proto))
        # Kernels before 5.8 ignore the filter and answer with everything: `_parse` looks again.
        wanted = attribute(_FILTER_ORIG_FLAGS, flags)
        wanted += attribute(_FILTER_REPLY_FLAGS, struct.pack("=I", 0))
        body += nested(_FILTER, wanted)
        found = (
            _parse(payload, family, port) for payload in self.dump(_GET, body, "list connections")
        )
        return [flow for flow in found if flow is not None]


def _parse(payload: bytes, family: int, port: int) -> Flow | None:
    top = attributes(payload, _NFGEN.size)
    original = attributes(top.get(_TUPLE_ORIG, b""), 0)
    reply = attributes(top.get(_TUPLE_REPLY, b""), 0)
    proto = attributes(original.get(_TUPLE_PROTO, b""), 0)
    source, destination = _ADDRESSES[family]
    address = attributes(original.get(_TUPLE_IP, b""), 0).get(destination)
    answerer = attributes(reply.get(_TUPLE_IP, b""), 0).get(source)
    is_wanted = proto.get(_PROTO_NUM) == bytes([socket.IPPROTO_UDP]) and proto.get(
        _PROTO_DST_PORT
    ) == struct.pack(">H", port)
    if not (is_wanted and address and answerer):
        return None
    key = nested(_TUPLE_ORIG, top[_TUPLE_ORIG])
    if ident := top.get(_ID):
        key += attribute(_ID, ident)
    return Flow(family, ip_address(address), ip_address(answerer), key)
