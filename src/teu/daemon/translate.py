"""From the daemon's configuration to what each part is told."""

import json
import platform
from pathlib import Path

from teu.daemon.config import DaemonConfig
from teu.model.reference import DEFAULT_DOMAIN
from teu.network.config import NetworkConfig
from teu.registry.config import RegistryConfig
from teu.runtime.config import RuntimeBinary, RuntimeConfig


def runtime_config(config: DaemonConfig) -> RuntimeConfig:
    return RuntimeConfig(
        exec_root=config.exec_root,
        runtimes={n: RuntimeBinary(r.path, r.args) for n, r in config.runtimes.items()},
        default_runtime=config.default_runtime,
        cgroup_parent=config.cgroup_parent,
        init=config.init,
        init_path=config.init_path,
        default_ulimits=config.default_ulimits,
        default_shm_size=config.default_shm_size_bytes,
        ipc_mode=config.default_ipc_mode,
        cgroupns_mode=config.default_cgroupns_mode,
        no_new_privileges=config.no_new_privileges,
        cdi_spec_dirs=tuple(Path(directory) for directory in config.cdi_spec_dirs if directory),
        seccomp_profile="" if config.seccomp_profile == "builtin" else config.seccomp_profile,
    )


def network_config(config: DaemonConfig) -> NetworkConfig:
    return NetworkConfig(
        bridge=config.bridge or "teu0",
        bip=config.bip,
        fixed_cidr=config.fixed_cidr,
        ipv6=config.ipv6,
        bip6=config.bip6,
        fixed_cidr_v6=config.fixed_cidr_v6,
        mtu=config.mtu,
        icc=config.icc,
        ip_masq=config.ip_masq,
        ip_forward=config.ip_forward,
        iptables=config.iptables,
        default_address_pools=[(pool.base, pool.size) for pool in config.default_address_pools],
        default_host_ip=config.ip,
        dns=list(config.dns),
        dns_search=list(config.dns_search),
        dns_options=list(config.dns_opts),
        host_gateway_ip=next(iter(config.host_gateway_ips), ""),
    )


def registry_config(config: DaemonConfig) -> RegistryConfig:
    return RegistryConfig(
        insecure=list(config.insecure_registries),
        mirrors=mirrors(config),
        max_concurrent_downloads=config.max_concurrent_downloads,
        max_concurrent_uploads=config.max_concurrent_uploads,
        max_attempts=config.max_download_attempts,
    )


def mirrors(config: DaemonConfig) -> dict[str, list[str]]:
    """URLs by the host whose mirrors they are."""
    found: dict[str, list[str]] = {}
    for entry in config.registry_mirrors:
        host, equals, url = entry.rpartition("=")
        found.setdefault(host if equals else DEFAULT_DOMAIN, []).append(url)
    return found


def reload_facts(config: DaemonConfig) -> dict[str, str]:
    """What the event of a reload says, in Docker's words."""
    values: dict[str, object] = {
        "debug": config.debug,
        "default-cgroupns-mode": config.default_cgroupns_mode,
        "default-ipc-mode": config.default_ipc_mode,
        "default-runtime": config.default_runtime,
        "default-shm-size": config.default_shm_size_bytes,
        "insecure-registries": config.insecure_registries,
        "labels": config.labels,
        "live-restore": True,
        "max-concurrent-downloads": config.max_concurrent_downloads,
        "max-concurrent-uploads": config.max_concurrent_uploads,
        "max-download-attempts": config.max_download_attempts,
        "registry-mirrors": config.registry_mirrors,
        "shutdown-timeout": config.shutdown_timeout_s,
    }
    facts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
    runtimes = " ".join(f"{name}:{entry.path}" for name, entry in config.runtimes.items())
    return {"name": platform.node(), "runtimes": runtimes, **facts}
