"""Which ports processes of a network namespace listen on, as /proc shows them.

Source: proc_net_tcp(5), proc_net_udp(5).
"""

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from msgspec import Struct

_STATES: Final = {"tcp": "0A", "udp": "07"}  # LISTEN; UDP sockets without a peer


class Listener(Struct, frozen=True, order=True):
    protocol: str
    port: int
    address: str  # `0.0.0.0` or `::` for any

    @property
    def is_loopback(self) -> bool:
        return ip_address(self.address).is_loopback

    @property
    def is_any(self) -> bool:
        return ip_address(self.address).is_unspecified


def listeners(pid: int) -> list[Listener]:
    """Of the namespace that a process is in; empty when it has ended."""
    found: set[Listener] = set()
    for protocol in _STATES:
        for end in ("", "6"):
            try:
                text = Path(f"/proc/{pid}/net/{protocol}{end}").read_text()
            except OSError:
                continue
            found.update(_parse(text, protocol))
    return sorted(found)


def _parse(text: str, protocol: str) -> Iterator[Listener]:
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == _STATES[protocol]:
            address, _, port = fields[1].partition(":")
            yield Listener(protocol, int(port, 16), _address(address))


def _address(digits: str) -> str:
    """The kernel prints 32-bit words in the machine's byte order."""
    words = [digits[at : at + 8] for at in range(0, len(digits), 8)]
    packed = b"".join(int(word, 16).to_bytes(4, "little") for word in words)
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
