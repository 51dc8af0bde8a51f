"""Checks at create time: everything about a container that only the runtime side can judge.

Ports, restart policies, health checks, volumes and the existence of joined containers are the
caller's. Texts are Docker's where Docker has one.
"""

import posixpath
from typing import Final

from teu.errors import InvalidParameter
from teu.model.config import ContainerConfig, HostConfig
from teu.runtime import capabilities, devices, mountspec, namespaces, security
from teu.runtime.namespaces import HOST, NONE, PRIVATE, SHAREABLE

HOSTNAME_LIMIT: Final = 64
_IPC_MODES: Final = frozenset(("", HOST, NONE, PRIVATE, SHAREABLE))
# Those that the kernel keeps apart in each namespace; the others are the host's.
_IPC_SYSCTLS: Final = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni")
) | {"kernel.shm_rmid_forced"}
_UTS_SYSCTLS: Final = frozenset(("kernel.domainname", "kernel.hostname"))


def check_config(config: ContainerConfig) -> None:
    """Raises: InvalidParameter. Writes the working directory back in its shortest form."""
    if len(config.hostname.encode()) > HOSTNAME_LIMIT:
        raise InvalidParameter(
            f'hostname "{config.hostname}" is too long (maximum {HOSTNAME_LIMIT} bytes)'
        )
    if config.working_dir:
        if not config.working_dir.startswith("/"):
            raise InvalidParameter(
                f"the working directory '{config.working_dir}' is invalid, "
                "it needs to be an absolute path"
            )
        config.working_dir = _clean(config.working_dir)
    for variable in config.env or ():
        if not variable or variable.startswith("="):
            raise InvalidParameter(f"invalid environment variable: {variable}")
        if "\0" in variable:
            raise InvalidParameter("an environment variable contains a zero byte")


def check_host(host: HostConfig) -> None:
    """Raises: InvalidParameter for what contradicts itself or does not exist anywhere."""
    _check_modes(host)
    _check_capabilities(host)
    security.parse(host.security_opt or ())
    _check_sysctls(host)
    _check_devices(host)
    _check_tmpfs(host)
    if host.shm_size < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    if host.isolation not in ("", "default"):
        raise InvalidParameter(f"invalid isolation '{host.isolation}' on linux")
    if "" in (host.annotations or {}):
        raise InvalidParameter(
            "invalid Annotations: the empty string is not permitted as an annotation key"
        )
    for path in (*(host.masked_paths or ()), *(host.readonly_paths or ())):
        if not path.startswith("/"):
            raise InvalidParameter(f"masked and read-only paths must be absolute: {path}")


def check_conflicts(host: HostConfig, config: ContainerConfig) -> None:
    """Raises: InvalidParameter. Call it before a default host name is filled in."""
    if host.uts_mode == HOST and config.hostname:
        raise InvalidParameter("conflicting options: hostname and the UTS mode")
    if host.network_mode == HOST and host.links:
        raise InvalidParameter(
            "conflicting options: host type networking can't be used with links. "
            "This would result in undefined behavior"
        )
    if not host.network_mode.startswith(namespaces.CONTAINER):
        return
    if not namespaces.joined_container(host.network_mode):
        raise InvalidParameter("invalid network mode: invalid container format container:<name|id>")
    if host.links:
        raise InvalidParameter(
            "conflicting options: container type network can't be used with links. "
            "This would result in undefined behavior"
        )
    conflicts = (
        (config.hostname, "hostname and the network mode"),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (config.mac_address, "mac-address and the network mode"),
        (
            host.port_bindings or host.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (config.exposed_ports, "port exposing and the container type network mode"),
    )
    for given, what in conflicts:
        if given:
            raise InvalidParameter(f"conflicting options: {what}")


def _check_modes(host: HostConfig) -> None:
    joins_ipc = namespaces.joined_container(host.ipc_mode)
    if host.ipc_mode not in _IPC_MODES and not joins_ipc:
        raise InvalidParameter(f"invalid IPC mode: {host.ipc_mode}")
    if host.pid_mode not in ("", HOST) and not namespaces.joined_container(host.pid_mode):
        raise InvalidParameter(f"invalid PID mode: {host.pid_mode}")
    if host.uts_mode not in ("", HOST):
        raise InvalidParameter(f"invalid UTS mode: {host.uts_mode}")
    if host.userns_mode not in ("", HOST):
        raise InvalidParameter(f"invalid user namespace mode: {host.userns_mode}")
    if host.cgroupns_mode not in ("", HOST, PRIVATE):
        raise InvalidParameter(f"invalid cgroup namespace mode: {host.cgroupns_mode}")


def _check_capabilities(host: HostConfig) -> None:
    for what, names in (("CapAdd", host.cap_add), ("CapDrop", host.cap_drop)):
        try:
            # Dropping what is not there in any case is no error.
            allowed = capabilities.available() if what == "CapAdd" else capabilities.NAMES
            capabilities.normalize(names or (), allowed)
        except InvalidParameter as error:
            raise InvalidParameter(f"invalid {what}: {error.message}") from error


def _check_sysctls(host: HostConfig) -> None:
    for name, value in (host.sysctls or {}).items():
        if "\0" in value or "/" in name or ".." in name:
            raise InvalidParameter(f"sysctl '{name}' is not allowed")
        _check_sysctl(name, host)


def _check_sysctl(name: str, host: HostConfig) -> None:
    if name.startswith("net."):
        shared, kind = host.network_mode == HOST, "network"
    elif name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
        shared, kind = host.ipc_mode == HOST, "IPC"
    elif name in _UTS_SYSCTLS:
        shared, kind = host.uts_mode == HOST, "UTS"
    else:
        raise InvalidParameter(
            f"sysctl '{name}' is not allowed: it is not kept apart for containers; "
            "set it on the host"
        )
    if shared:
        raise InvalidParameter(
            f"sysctl '{name}' is not allowed in the host {kind} namespace; set it on the host"
        )


def _check_devices(host: HostConfig) -> None:
    for mapping in host.devices or ():
        devices.check_permissions(mapping.cgroup_permissions or "rwm")
        if mapping.path_in_container and not mapping.path_in_container.startswith("/"):
            raise InvalidParameter(f"{mapping.path_in_container} is not an absolute path")
    for rule in host.device_cgroup_rules or ():
        devices.rule_from_text(rule)


def _check_tmpfs(host: HostConfig) -> None:
    for destination, options in (host.tmpfs or {}).items():
        if not destination.startswith("/"):
            raise InvalidParameter(
                f"invalid mount path: '{destination}' mount path must be absolute"
            )
        if _clean(destination) == "/":
            raise InvalidParameter("invalid specification: destination can't be '/'")
        mountspec.tmpfs_words(options.split(",") if options else ())


def _clean(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")
