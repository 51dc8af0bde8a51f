"""How registries are reached: which without TLS, through which mirrors, with which limits."""

import ipaddress
from pathlib import Path

from msgspec import Struct, field

from teu.errors import InvalidParameter
from teu.model.reference import DEFAULT_DOMAIN

_HUB = "registry-1.docker.io"
CERTS_DIRECTORIES = (Path("/etc/teu/certs.d"), Path("/etc/docker/certs.d"))


class RegistryConfig(Struct, kw_only=True):
    """The daemon's settings for registries.

    `insecure`: hosts (`name[:port]`) or networks (CIDR) that may be spoken to in plain HTTP, or
    with a certificate nobody checks; loopback always may. `mirrors`: base URLs to try before a
    registry, by its host (`docker.io`, `quay.io`, `registry.lan:5000`).
    """

    insecure: list[str] = field(default_factory=list)
    mirrors: dict[str, list[str]] = field(default_factory=dict)
    certs_directories: tuple[Path, ...] = CERTS_DIRECTORIES
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_attempts: int = 5
    connect_timeout_s: float = 15.0
    stall_timeout_s: float = 30.0
    backoff_s: float = 1.0


class Endpoint(Struct, frozen=True):
    """One address of a registry: a base URL without the trailing slash."""

    url: str
    mirror: bool = False


def endpoints(config: RegistryConfig, domain: str) -> list[Endpoint]:
    """Where to look for a registry's content, in order; an insecure host is tried with TLS first,
    as Docker does."""
    found = [Endpoint(url.rstrip("/"), mirror=True) for url in config.mirrors.get(domain, ())]
    host = _HUB if domain == DEFAULT_DOMAIN else domain
    found.append(Endpoint(f"https://{host}"))
    if is_insecure(config, host):
        found.append(Endpoint(f"http://{host}"))
    return found


def is_insecure(config: RegistryConfig, host: str) -> bool:
    """Whether plain HTTP (or an unchecked certificate) is allowed for `name[:port]`."""
    name = host_name(host)
    if is_loopback(host) or host in config.insecure or name in config.insecure:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return any(address in network for network in _networks(config.insecure))


def is_loopback(host: str) -> bool:
    name = host_name(host)
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """`[::1]:5000` -> `::1`, `name:5000` -> `name`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _networks(
    entries: list[str],
) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    found = []
    for entry in entries:
        if "/" in entry:
            try:
                found.append(ipaddress.ip_network(entry, strict=False))
            except ValueError as error:
                raise InvalidParameter(f"insecure registry {entry}: {error}") from error
    return found
