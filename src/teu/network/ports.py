"""Published ports: what is asked, and holding the host's ports while a container runs.

A port is held by a bound socket of the daemon, so a clash with any process of the host is found
before `start` answers, and nobody can take it while the container runs. Packets never reach that
socket: the firewall translates them first.
"""

import errno
import os
import socket
from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from msgspec import Struct

from teu.errors import InvalidParameter
from teu.model.config import PortBinding
from teu.network.errors import PortTaken

ANY: Final = "0.0.0.0"
_ANY: Final = {4: ANY, 6: "::"}
PROTOCOLS: Final = ("tcp", "udp", "sctp")
_LOOPBACK6: Final = ip_address("::1")
_RANGE_FILE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_DEFAULT_RANGE: Final = (32768, 60999)
_UDP_BUFFER: Final = 2048  # the smallest: nobody reads what arrives while there is no rule
_KINDS: Final = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}

Bindings = Mapping[str, list[PortBinding] | None]


class PortRequest(Struct, frozen=True, kw_only=True):
    """A container's port and the host ports it may get; `first` 0 means any ephemeral one.

    `host_addresses`: at all of them, and the same port at each.
    """

    protocol: str
    port: int
    host_addresses: tuple[str, ...]
    first: int
    last: int

    @property
    def key(self) -> str:
        return f"{self.port}/{self.protocol}"


def requested(
    bindings: Bindings | None,
    exposed: Iterable[str],
    *,
    publish_all: bool,
    default_address: str = ANY,
    versions: Collection[int] = (4,),
) -> list[PortRequest]:
    """What must be published; fixed host ports first, so that random ones do not take them.

    `versions` are the IP versions that the network has: a port without an address is published
    at every address of the host of each of them.

    Raises: InvalidParameter for bad ports, protocols or addresses.
    """
    found: list[PortRequest] = []
    wanted: dict[str, list[PortBinding]] = {
        key: list(value or [PortBinding()]) for key, value in (bindings or {}).items()
    }
    if publish_all:
        for key in exposed:
            wanted.setdefault(key, [PortBinding()])
    for key, asked in wanted.items():
        port, protocol = parse_port_key(key)
        for binding in asked:
            first, last = _host_ports(binding.host_port)
            found.append(
                PortRequest(
                    protocol=protocol,
                    port=port,
                    host_addresses=_host_addresses(binding.host_ip, default_address, versions),
                    first=first,
                    last=last,
                )
            )
    return sorted(found, key=lambda request: (request.first == 0, request.last - request.first))


def parse_port_key(key: str) -> tuple[int, str]:
    """`80/tcp` -> (80, "tcp"); without a protocol it is tcp. Raises: InvalidParameter."""
    number, _, protocol = key.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise InvalidParameter(f"invalid port specification: {key!r}: invalid proto: {protocol}")
    return _number(number, key), protocol


def _number(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise InvalidParameter(
            f"invalid port specification: {whole!r}: use a number from 1 to 65535"
        )
    return int(text)


def _host_ports(text: str) -> tuple[int, int]:
    if text in ("", "0"):
        return 0, 0
    first_text, dash, last_text = text.partition("-")
    first = _number(first_text, text)
    last = _number(last_text, text) if dash else first
    if last < first:
        raise InvalidParameter(
            f"invalid port specification: {text!r}: the range ends before it starts"
        )
    return first, last


def _host_addresses(text: str, default: str, versions: Collection[int]) -> tuple[str, ...]:
    if not text and default in _ANY.values():
        return tuple(_ANY[version] for version in sorted(versions))
    try:
        address = ip_address((text or default).strip("[]"))
    except ValueError as error:
        raise InvalidParameter(f"invalid host IP address {text!r} in a port binding") from error
    if address == _LOOPBACK6:
        raise InvalidParameter(
            "cannot publish on ::1: the kernel does not forward from there; use 127.0.0.1, which "
            "`localhost` stands for as well"
        )
    if address.version not in versions:
        raise InvalidParameter(
            f"cannot publish on {address}: the network has no IPv{address.version}; use an "
            f"IPv{min(versions, default=4)} address or none"
        )
    return (str(address),)


class Held(Struct):
    """A held port: for whom, and the socket (None where the kernel lacks the protocol)."""

    container_id: str
    container_name: str
    socket: socket.socket | None


class PortInUse(Exception):
    """Inside this package: the port is taken; `holder` is set if it is one of ours."""

    def __init__(self, protocol: str, address: str, port: int, holder: Held | None) -> None:
        super().__init__(f"{address}:{port}/{protocol}")
        self.protocol, self.address, self.port, self.holder = protocol, address, port, holder


class PortTable:
    """All ports that the daemon holds, on the loop's thread."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], dict[str, Held]] = {}  # (protocol, port) -> by address
        self._next = 0

    def acquire(self, request: PortRequest, container_id: str, container_name: str) -> int:
        """Holds one of the asked host ports and returns it.

        Raises: PortInUse, InvalidParameter when the host does not have the address.
        """
        if request.first == 0:
            return self._acquire_ephemeral(request, container_id, container_name)
        taken: PortInUse | None = None
        for port in range(request.first, request.last + 1):
            try:
                self._hold_all(request, port, container_id, container_name)
            except PortInUse as error:
                taken = taken or error
            else:
                return port
        assert taken is not None
        raise taken

    def hold_again(
        self, protocol: str, address: str, port: int, container_id: str, container_name: str
    ) -> None:
        """Takes back a port of a container that ran on while the daemon was away.

        Raises: PortInUse (then the table still knows that it belongs to the container).
        """
        holder = Held(container_id, container_name, None)
        try:
            self._hold(protocol, address, port, holder)
        except (PortInUse, InvalidParameter):
            self._held.setdefault((protocol, port), {}).setdefault(address, holder)
            raise

    def rename(self, container_id: str, name: str) -> None:
        for by_address in self._held.values():
            for held in by_address.values():
                if held.container_id == container_id:
                    held.container_name = name

    def release(self, protocol: str, address: str, port: int, container_id: str) -> None:
        """Accepts "not held"; a port that somebody else holds by now is left alone."""
        by_address = self._held.get((protocol, port), {})
        held = by_address.get(address)
        if held is None or held.container_id != container_id:
            return
        del by_address[address]
        if not by_address:
            del self._held[protocol, port]
        if held.socket:
            held.socket.close()

    def close(self) -> None:
        """Lets go of all sockets (the daemon stops; the containers' rules stay)."""
        for by_address in self._held.values():
            for held in by_address.values():
                if held.socket:
                    held.socket.close()
        self._held.clear()

    def _acquire_ephemeral(self, request: PortRequest, ident: str, name: str) -> int:
        first, last = _ephemeral_range()
        count = last - first + 1
        start = self._next if first <= self._next <= last else first
        for offset in range(count):
            port = first + (start - first + offset) % count
            try:
                self._hold_all(request, port, ident, name)
            except PortInUse:
                continue
            self._next = port + 1
            return port
        raise PortInUse(request.protocol, request.host_addresses[0], start, None)

    def _hold_all(self, request: PortRequest, port: int, ident: str, name: str) -> None:
        """That port at all addresses, or at none."""
        done: list[str] = []
        try:
            for address in request.host_addresses:
                self._hold(request.protocol, address, port, Held(ident, name, None))
                done.append(address)
        except BaseException:
            for address in done:
                self.release(request.protocol, address, port, ident)
            raise

    def _hold(self, protocol: str, address: str, port: int, holder: Held) -> None:
        by_address = self._held.get((protocol, port), {})
        clash = next((held for at, held in by_address.items() if _overlap(at, address)), None)
        if clash:
            raise PortInUse(protocol, address, port, clash)
        holder.socket = _bound(protocol, address, port)
        self._held.setdefault((protocol, port), {})[address] = holder


def _overlap(one: str, other: str) -> bool:
    """Whether an address of the host, or all of a version, is in both."""
    version = 6 if ":" in one else 4
    if version != (6 if ":" in other else 4):
        return False
    return one == other or _ANY[version] in (one, other)


def _bound(protocol: str, address: str, port: int) -> socket.socket | None:
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        bound = socket.socket(family, *_KINDS[protocol])
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return None  # SCTP: forwarding works without a socket of the host
        raise
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "udp":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UDP_BUFFER)
        _bind(bound, address, port, protocol)
    except BaseException:
        bound.close()
        raise
    return bound


def _bind(bound: socket.socket, address: str, port: int, protocol: str) -> None:
    """Without SO_REUSEADDR, so that nobody shares the port.

    Connections in TIME_WAIT also refuse that; for them the port is bound with it and then
    listened on, which shuts others out just as well.
    """
    try:
        bound.bind((address, port))
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise InvalidParameter(
                f"cannot publish on {address}:{port}/{protocol}: this host does not have that "
                "address (cannot assign requested address)"
            ) from error
        if error.errno != errno.EADDRINUSE:
            raise
        if protocol == "tcp" and _bind_over_time_wait(bound, address, port):
            return
        raise PortInUse(protocol, address, port, None) from error


def _bind_over_time_wait(bound: socket.socket, address: str, port: int) -> bool:
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
        bound.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    return True


def _ephemeral_range() -> tuple[int, int]:
    try:
        first, last = map(int, _RANGE_FILE.read_text().split())
    except (OSError, ValueError):
        return _DEFAULT_RANGE
    return first, last


def taken_error(error: PortInUse, endpoint: str, endpoint_id: str) -> PortTaken:
    """Docker's text with the holder. Reads /proc for a foreign holder: call it in a thread."""
    where = f"{error.address}:{error.port}"
    if error.holder:
        reason = (
            f"Bind for {where} failed: port is already allocated "
            f"(by container {error.holder.container_name})"
        )
    else:
        who = listening_process(error.protocol, error.port)
        reason = (
            f"failed to bind port {where}/{error.protocol}: address already in use"
            f"{f' by {who}' if who else ''}; stop that process or publish on another port"
        )
    return PortTaken(endpoint, endpoint_id, reason)


def listening_process(protocol: str, port: int) -> str:
    """`process 812 (nginx)`: who holds the port, or empty if that cannot be seen."""
    inodes = set()
    for table in (protocol, f"{protocol}6"):
        inodes |= _inodes(Path(f"/proc/thread-self/net/{table}"), port)
    if not inodes:
        return ""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _holds_any(process / "fd", inodes):
            try:
                name = (process / "comm").read_text().strip()
            except OSError:
                continue
            return f"process {process.name} ({name})"
    return ""


def _inodes(table: Path, port: int) -> set[str]:
    """Socket inodes whose local port it is. Source: proc_net_tcp(5)."""
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return set()
    suffix = f":{port:04X}"
    rows = (line.split() for line in lines)
    return {row[9] for row in rows if len(row) > 9 and row[1].endswith(suffix) and row[9] != "0"}


def _holds_any(directory: Path, inodes: set[str]) -> bool:
    try:
        names = os.listdir(directory)
    except OSError:
        return False
    for name in names:
        try:
            target = os.readlink(directory / name)
        except OSError:
            continue
        if target.startswith("socket:[") and target[8:-1] in inodes:
            return True
    return False
