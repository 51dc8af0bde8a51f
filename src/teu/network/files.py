"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container.

    HOME/{hosts,hostname,resolv.conf}     bind-mounted into the container, so written in place

Text is built by functions of its own; `EtcFiles` gathers what they need and puts it on the disk.
Source: hosts(5), resolv.conf(5), systemd-resolved(8).
"""

import logging
import os
import re
from collections.abc import Container, Iterable, Sequence
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import Final, Protocol

from msgspec import Struct, field

from teu.errors import InvalidParameter
from teu.model.config import EndpointSettings
from teu.model.container import ContainerRecord
from teu.model.network import HOST
from teu.network.config import NetworkConfig
from teu.network.names import RESOLVER_ADDRESS
from teu.resolver import resolvconf
from teu.sys.netlink import IPNetwork
from teu.sys.syscalls import os_errors

HOST_GATEWAY: Final = "host-gateway"
HOST_HOSTS: Final = Path("/etc/hosts")
HOST_RESOLV: Final = Path("/etc/resolv.conf")
# What systemd-resolved's stub at 127.0.0.53 forwards to; a container cannot reach the stub.
RESOLVED_UPSTREAM: Final = Path("/run/systemd/resolve/resolv.conf")
# Docker's choice when the host has no resolver that a container can reach.
PUBLIC_RESOLVERS: Final = ("8.8.8.8", "8.8.4.4")
_LOCALHOST: Final = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::\tip6-localnet",
    "ff00::\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)
log = logging.getLogger(__name__)
_WORD: Final = re.compile(r"[^\s\x00-\x1f#]+")


class Resolver(Struct, frozen=True, kw_only=True):
    """What resolv.conf says."""

    servers: Sequence[str] = ()
    search: Sequence[str] = ()
    options: Sequence[str] = ()


class FileContents(Struct, frozen=True, kw_only=True):
    hosts: str
    hostname: str
    resolv_conf: str


class Naming(Struct, frozen=True, kw_only=True):
    """`addresses` are the container's own; `extra_hosts` are parsed (name, address) pairs."""

    hostname: str
    domainname: str = ""
    addresses: Sequence[str] = ()
    extra_hosts: Sequence[tuple[str, str]] = ()
    asked: Resolver = field(default_factory=Resolver)  # the container's own, else the daemon's
    uses_host_network: bool = False
    has_resolver: bool = False  # the embedded one, at RESOLVER_ADDRESS


class Gateways(Protocol):
    def host_gateway(self) -> str:
        """What `host-gateway` stands for, or empty."""
        ...


class EtcFiles:
    """Writes the three files of a container whose endpoints are connected, and keeps them true."""

    def __init__(self, config: NetworkConfig, networks: Gateways) -> None:
        self._config = config
        self._networks = networks

    def servers(self, record: ContainerRecord) -> list[str]:
        """The resolvers asked for, by the container or else the daemon; empty: the host's."""
        return list(record.host.dns or self._config.dns)

    def write(
        self,
        home: Path,
        record: ContainerRecord,
        linked: Iterable[str] = (),
        *,
        has_resolver: bool = False,
    ) -> None:
        """Not for `container:X`, which has the files of X.

        Args: linked: `NAME:ADDRESS` beside the extra hosts. has_resolver: the embedded one.
        Raises: InvalidParameter (extra hosts, DNS options), SystemFailure.
        """
        naming = self._naming(record, linked, has_resolver=has_resolver)
        with os_errors(f"network files of container {record.name}"):
            write(home, contents(naming))

    def joined(self, home: Path, record: ContainerRecord, addresses: Iterable[str]) -> None:
        """A running container got addresses on one more network. Raises: SystemFailure."""
        naming = self._naming(record)
        lines = [_own_line(address, naming) for address in addresses]
        with os_errors(f"network files of container {record.name}"):
            _amend(home / "hosts", set(lines), lines)

    def left(self, home: Path, record: ContainerRecord, addresses: Iterable[str]) -> None:
        """As `joined`: these addresses are gone."""
        naming = self._naming(record)
        with os_errors(f"network files of container {record.name}"):
            _amend(home / "hosts", {_own_line(one, naming) for one in addresses}, [])

    def got_resolver(self, home: Path, record: ContainerRecord) -> None:
        """A running container has the embedded resolver from now on. A resolv.conf that was
        edited since it started stays as it is. Raises: SystemFailure."""
        path = home / "resolv.conf"
        with os_errors(f"resolv.conf of container {record.name}"):
            if path.stat().st_mtime_ns > record.started_ns:
                log.warning(
                    "container %s: its resolv.conf was edited and stays; names need "
                    "`nameserver %s`", record.name, RESOLVER_ADDRESS,
                )  # fmt: skip
                return
            _write_in_place(path, _resolv_conf(self._naming(record, has_resolver=True)))

    def point(self, home: Path, names: Sequence[str], address: str) -> None:
        """In /etc/hosts, `names` stand for this address and no other. Raises: SystemFailure."""
        with os_errors(f"hosts file {home}"):
            path = home / "hosts"
            old = {line for line in _read(path).splitlines() if line.partition("\t")[2] in names}
            _amend(path, old, [f"{address}\t{name}" for name in names])

    def _naming(
        self, record: ContainerRecord, linked: Iterable[str] = (), *, has_resolver: bool = False
    ) -> "Naming":
        host, config = record.host, self._config
        gateway = self._networks.host_gateway()
        extra = [*(host.extra_hosts or []), *linked]
        return Naming(
            hostname=record.config.hostname,
            domainname=record.config.domainname,
            addresses=[one for got in record.networks.values() for one in addresses_of(got)],
            extra_hosts=[parse_extra_host(one, gateway) for one in extra],
            asked=checked_resolver(
                self.servers(record),
                host.dns_search or config.dns_search,
                host.dns_options or config.dns_options,
            ),
            uses_host_network=host.network_mode == HOST,
            has_resolver=has_resolver,
        )


def addresses_of(settings: EndpointSettings) -> list[str]:
    """What an endpoint got: IPv4, IPv6, both or nothing."""
    return [one for one in (settings.ip_address, settings.global_ipv6_address) if one]


def parse_extra_host(text: str, host_gateway: str = "") -> tuple[str, str]:
    """`db:10.0.0.5` or `gw:host-gateway` -> (name, address). Raises: InvalidParameter."""
    name, colon, address = text.partition(":")
    if not colon or not _WORD.fullmatch(name):
        raise InvalidParameter(f"bad format for add-host: {text!r}; use NAME:ADDRESS")
    if address == HOST_GATEWAY:
        if not host_gateway:
            raise InvalidParameter(
                f"unable to derive the IP value for {HOST_GATEWAY}: there is no default bridge; "
                "set host-gateway-ip in the daemon's configuration"
            )
        return name, host_gateway
    try:
        return name, str(ip_address(address.strip("[]")))
    except ValueError as error:
        raise InvalidParameter(f"invalid IP address in add-host: {address!r}") from error


def checked_resolver(
    servers: Iterable[str], search: Iterable[str], options: Iterable[str]
) -> Resolver:
    """Raises: InvalidParameter for what does not belong in resolv.conf."""
    checked = []
    for server in servers:
        try:
            checked.append(str(ip_address(server)))
        except ValueError as error:
            raise InvalidParameter(f"bad nameserver address: {server!r}") from error
    for word in (*search, *options):
        if not _WORD.fullmatch(word):
            raise InvalidParameter(f"invalid DNS search domain or option {word!r}")
    return Resolver(servers=checked, search=list(search), options=list(options))


def contents(naming: Naming) -> FileContents:
    """Reads the host's own files where they matter."""
    full_name = f"{naming.hostname}.{naming.domainname}" if naming.domainname else naming.hostname
    return FileContents(
        hosts=_hosts(naming),
        hostname=f"{full_name}\n",
        resolv_conf=_resolv_conf(naming),
    )


def write(directory: Path, files: FileContents) -> None:
    """Writes in place: the inodes are what running containers have mounted. Raises: OSError."""
    for name, text in (
        ("hosts", files.hosts),
        ("hostname", files.hostname),
        ("resolv.conf", files.resolv_conf),
    ):
        _write_in_place(directory / name, text)


def _write_in_place(path: Path, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    file_fd = os.open(path, flags, 0o644)
    try:
        os.write(file_fd, text.encode())
    finally:
        os.close(file_fd)


def _amend(path: Path, gone: Container[str], new: list[str]) -> None:
    """Takes lines out and appends others; what the container wrote itself stays."""
    kept = [line for line in _read(path).splitlines() if line not in gone]
    _write_in_place(path, "\n".join([*kept, *new, ""]))


def parse_resolv_conf(text: str) -> Resolver:
    """See `resolvconf.parse`."""
    servers, search, options = resolvconf.parse(text)
    return Resolver(servers=servers, search=search, options=options)


def host_resolver() -> Resolver:
    """The host's resolvers that a container can reach; a local stub's upstreams in its place."""
    found = parse_resolv_conf(_read(HOST_RESOLV))
    if found.servers and all(map(_is_loopback, found.servers)):
        upstream = parse_resolv_conf(_read(RESOLVED_UPSTREAM))
        if any(not _is_loopback(server) for server in upstream.servers):
            return upstream
    return found


def resolver_networks() -> list[IPNetwork]:
    """The host's resolvers, each as a network: a subnet around one would cut the host off."""
    return [IPv4Network(one) for one in host_resolver().servers if _is_reachable(one)]


def _own_line(address: str, naming: Naming) -> str:
    names = naming.hostname
    if naming.domainname:
        names = f"{naming.hostname}.{naming.domainname} {naming.hostname}"
    return f"{address}\t{names}"


def _hosts(naming: Naming) -> str:
    extra = [f"{address}\t{name}" for name, address in naming.extra_hosts]
    if naming.uses_host_network:
        base = _read(HOST_HOSTS)
        return "\n".join([base.rstrip("\n"), *extra, ""]) if extra else base
    own = [_own_line(address, naming) for address in naming.addresses]
    return "\n".join([*_LOCALHOST, *extra, *own, ""])


def _resolv_conf(naming: Naming) -> str:
    asked = naming.asked
    if naming.uses_host_network:
        if not (asked.servers or asked.search or asked.options):
            return _read(HOST_RESOLV)
        host = parse_resolv_conf(_read(HOST_RESOLV))
        reachable = list(host.servers)
    else:
        host = host_resolver()
        reachable = [server for server in host.servers if _is_reachable(server)]
    servers: Sequence[str] = asked.servers or reachable or PUBLIC_RESOLVERS
    if naming.has_resolver:
        servers = (RESOLVER_ADDRESS,)
    search = [domain for domain in asked.search or host.search if domain != "."]
    options = list(asked.options or host.options)
    if naming.has_resolver and not any(one.startswith("ndots:") for one in options):
        options.append("ndots:0")  # so that a name without dots is asked as it is, and first
    lines = [f"nameserver {server}" for server in servers]
    if search:
        lines.append("search " + " ".join(search))
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join([*lines, ""])


def _is_loopback(server: str) -> bool:
    try:
        return ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _is_reachable(server: str) -> bool:
    """From a container without IPv6."""
    try:
        address = ip_address(server)
    except ValueError:
        return False
    return address.version == 4 and not address.is_loopback


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
