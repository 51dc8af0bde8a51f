"""From a container's record to the OCI runtime configuration: a pure function.

Everything that has to be looked up (user, seccomp filter, cgroup version, devices of the host) is
in `Facts`; the result is what Docker gives its runtime for the same request, less what has no
effect. Source: OCI runtime specification 1.0.2, config.md and config-linux.md.
"""

import glob
from functools import cache
from pathlib import Path
from typing import Any, Final

from msgspec import Raw, Struct

from teu.model.config import HostConfig
from teu.model.container import ContainerRecord, MountPoint
from teu.runtime import cdi, devices, mountspec, namespaces, processes, resources, security
from teu.runtime.namespaces import HOST, Joins
from teu.runtime.processes import Confinement
from teu.runtime.security import SecurityOptions
from teu.runtime.users import User

OCI_VERSION: Final = "1.0.2"
MASKED_PATHS: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_THERMAL: Final = "/sys/devices/system/cpu/cpu*/thermal_throttle"
READONLY_PATHS: Final = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)
# Safe for everyone, and only ever set in a network namespace of the container's own.
_NETWORK_SYSCTLS: Final = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}


class Facts(Struct, kw_only=True, frozen=True):
    """What was looked up for one start. `seccomp` is the encoded OCI section (None: unconfined),
    `annotations` go to the runtime, `edits` are what asked devices need, `own_hostname` is the
    host's."""

    rootfs: Path
    user: User
    cgroups_path: str
    unified: bool
    own_hostname: str
    confinement: Confinement = Confinement()
    security: SecurityOptions = SecurityOptions()
    sources: mountspec.Sources = mountspec.Sources()
    joins: Joins = Joins()
    edits: list[cdi.Edits] = []
    seccomp: Raw | None = None
    annotations: dict[str, str] = {}


def build(record: ContainerRecord, facts: Facts) -> dict[str, Any]:
    """The content of `config.json`. Raises: InvalidParameter for what the host no longer has."""
    hostname = processes.hostname_of(record, facts.own_hostname)
    config: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "process": processes.main_process(
            record,
            facts.user,
            facts.confinement,
            hostname=hostname,
            init=facts.sources.init is not None,
        ),
        "root": {"path": str(facts.rootfs), "readonly": record.host.readonly_rootfs},
        "mounts": mountspec.build(
            record,
            facts.sources,
            init_inside=processes.INIT_INSIDE,
            writable_cgroups=_writable_cgroups(record, facts),
        ),
        "linux": _linux(record, facts),
    }
    if record.host.uts_mode != HOST and facts.joins.uts is None:
        config["hostname"] = hostname
    if annotations := {**(record.host.annotations or {}), **facts.annotations}:
        config["annotations"] = annotations
    cdi.apply(config, facts.edits)
    return config


def _linux(record: ContainerRecord, facts: Facts) -> dict[str, Any]:
    existing, rules = _devices(record)
    linux: dict[str, Any] = {
        "namespaces": namespaces.build(record, facts.joins, unified=facts.unified),
        "cgroupsPath": facts.cgroups_path,
        "resources": {
            "devices": rules,
            **resources.build(record.host, unified=facts.unified),
        },
        "maskedPaths": _paths(record, facts, record.host.masked_paths, masked_paths()),
        "readonlyPaths": _paths(record, facts, record.host.readonly_paths, READONLY_PATHS),
    }
    if existing:
        linux["devices"] = existing
    if sysctls := _sysctls(record, facts):
        linux["sysctl"] = sysctls
    if propagation := _root_propagation(record.mounts):
        linux["rootfsPropagation"] = propagation
    if facts.seccomp is not None:
        linux["seccomp"] = facts.seccomp
    return linux


@cache
def masked_paths() -> tuple[str, ...]:
    """What a container shall not read: MASKED_PATHS and each CPU's thermal counters, which tell
    about the neighbours' work (GHSA-6fw5-f8r9-fgfm). Looked up once."""
    return (*MASKED_PATHS, *sorted(glob.glob(_THERMAL)))


def fill_hidden_paths(host: HostConfig) -> None:
    """Writes the default lists into an asked configuration, as inspect shows them; none for a
    privileged container or `systempaths=unconfined`. Raises: InvalidParameter."""
    if host.privileged:
        return
    shown = security.parse(host.security_opt or ()).unconfined_paths
    if host.masked_paths is None:
        host.masked_paths = [] if shown else list(masked_paths())
    if host.readonly_paths is None:
        host.readonly_paths = [] if shown else list(READONLY_PATHS)


def _paths(
    record: ContainerRecord, facts: Facts, asked: list[str] | None, default: tuple[str, ...]
) -> list[str]:
    if record.host.privileged or facts.security.unconfined_paths:
        return []
    return list(default) if asked is None else asked


def _devices(record: ContainerRecord) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Device nodes to make and device rules."""
    host = record.host
    for request in host.device_requests or ():
        if not cdi.is_request(request):
            devices.refuse_request(request)
    asked = [devices.from_mapping(mapping) for mapping in host.devices or ()]
    nodes = [node for found, _ in asked for node in found]
    if not host.privileged:
        rules = [rule for _, found in asked for rule in found]
        return nodes, devices.rules(rules, host.device_cgroup_rules or ())
    of_host = devices.of_host()
    present = {node["path"] for node in of_host}
    extra = [node for node in nodes if node["path"] not in present]
    return [*of_host, *extra], [devices.ALLOW_ALL]


def _sysctls(record: ContainerRecord, facts: Facts) -> dict[str, str]:
    found: dict[str, str] = {}
    host, config = record.host, record.config
    if host.network_mode != HOST and not host.network_mode.startswith(namespaces.CONTAINER):
        found.update(_NETWORK_SYSCTLS)
    if config.domainname and host.uts_mode != HOST and facts.joins.uts is None:
        found["kernel.domainname"] = config.domainname
    found.update(host.sysctls or {})
    return found


def _root_propagation(mounts: list[MountPoint]) -> str:
    """Shared and slave mounts only work below a root that lets events through."""
    asked = {mount.propagation for mount in mounts if mount.type != "tmpfs"}
    if asked & {"shared", "rshared"}:
        return "shared"
    return "rslave" if asked & {"slave", "rslave"} else ""


def _writable_cgroups(record: ContainerRecord, facts: Facts) -> bool:
    asked = facts.security.writable_cgroups
    return record.host.privileged if asked is None else asked
