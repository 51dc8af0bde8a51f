"""Which namespaces a container gets of its own, joins, or shares with the host."""

from typing import Any

from msgspec import Struct

from teu.model.config import HostConfig
from teu.model.container import ContainerRecord

HOST = "host"
NONE = "none"
PRIVATE = "private"
SHAREABLE = "shareable"
CONTAINER = "container:"


class Joins(Struct, kw_only=True, frozen=True):
    """Paths of existing namespaces (`/run/teu/netns/ID`, `/proc/PID/ns/ipc`); None: decide by the
    container's own configuration (host, or a new one)."""

    net: str | None = None
    pid: str | None = None
    ipc: str | None = None
    uts: str | None = None


def joined_container(mode: str) -> str:
    """`container:ID` -> `ID`, anything else -> empty."""
    return mode.removeprefix(CONTAINER) if mode.startswith(CONTAINER) else ""


def cgroup_is_private(host: HostConfig, *, unified: bool) -> bool:
    """Docker's default: a cgroup namespace of its own on cgroup v2, the host's on v1."""
    return host.cgroupns_mode == PRIVATE or (not host.cgroupns_mode and unified)


def build(record: ContainerRecord, joins: Joins, *, unified: bool) -> list[dict[str, Any]]:
    """The OCI list; a type that is missing from it is shared with the host."""
    host = record.host
    network = HOST if host.network_mode == HOST and not record.config.network_disabled else ""
    wanted = (
        ("network", network, joins.net or record.sandbox),
        ("uts", host.uts_mode, joins.uts),
        ("pid", host.pid_mode, joins.pid),
        ("ipc", host.ipc_mode, joins.ipc),
    )
    found: list[dict[str, Any]] = [{"type": "mount"}]
    for kind, mode, path in wanted:
        if path:
            found.append({"type": kind, "path": path})
        elif mode != HOST:
            found.append({"type": kind})
    if cgroup_is_private(host, unified=unified):
        found.append({"type": "cgroup"})
    return found
