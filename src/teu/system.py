"""What the engine says of itself and its host: version, info, disk usage."""

import asyncio
import contextlib
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from teu import __version__, clock
from teu.container import logdrivers
from teu.container.containers import Containers
from teu.container.looks import Looks
from teu.container.services import Services
from teu.events import EventBus
from teu.model.container import Status
from teu.model.reference import DEFAULT_DOMAIN
from teu.runtime.service import RuntimeService
from teu.sys.mounts import filesystem_of

API_VERSION = "1.51"
MIN_API_VERSION = "1.24"


@dataclass(frozen=True, slots=True)
class About:
    """Facts that the composition root knows."""

    engine_id: str
    data_root: Path
    labels: list[str]
    debug: bool
    insecure_registries: list[str]
    mirrors: dict[str, list[str]]  # by the host whose mirrors they are
    log_driver: str
    runtimes: dict[str, str]  # name -> path
    default_runtime: str
    init_path: str
    address_pools: list[tuple[str, int]]
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class DiskUsage:
    """Bytes. `containers`: id -> (rw layer, rw layer and image)."""

    containers: dict[str, tuple[int, int]] = field(default_factory=dict)
    logs: dict[str, int] = field(default_factory=dict)
    volumes: dict[str, int] = field(default_factory=dict)
    layers: int = 0


class System:
    """`about` is called for each answer, as a reload changes it."""

    def __init__(
        self, services: Services, looks: Looks, events: EventBus, about: Callable[[], About]
    ) -> None:
        self._services = services
        self._events = events
        self._looks = looks
        self._about = about

    def version(self) -> dict[str, Any]:
        """`GET /version`."""
        facts = {
            "ApiVersion": API_VERSION,
            "Arch": architecture(),
            "BuildTime": "",
            "Experimental": "false",
            "GitCommit": "",
            "GoVersion": "",
            "KernelVersion": platform.release(),
            "MinAPIVersion": MIN_API_VERSION,
            "Os": "linux",
        }
        runtime = self._services.runtime
        return {
            "Platform": {"Name": "teu"},
            "Version": __version__,
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MIN_API_VERSION,
            "Os": "linux",
            "Arch": architecture(),
            "KernelVersion": platform.release(),
            "GitCommit": "",
            "GoVersion": f"python{platform.python_version()}",
            "BuildTime": "",
            "Components": [
                {"Name": "Engine", "Version": __version__, "Details": facts},
                {
                    "Name": runtime.default_runtime,
                    "Version": runtime.version(),
                    "Details": {"GitCommit": ""},
                },
            ],
        }

    def info(self) -> dict[str, Any]:
        """`GET /info`: first what clients read to decide, then the rest Docker also tells."""
        about = self._about()
        return {
            "ID": about.engine_id,
            **self._counts(),
            **_host_facts(),
            **_cgroup_facts(self._services.runtime),
            "Driver": "overlay2",
            "DriverStatus": [
                ["Backing Filesystem", filesystem_of(about.data_root)],
                ["Supports d_type", "true"],
                ["Using metacopy", "false"],
                ["Native Overlay Diff", "true"],
                ["userxattr", "false"],
            ],
            "DockerRootDir": str(about.data_root),
            "Debug": about.debug,
            "Labels": about.labels,
            "ServerVersion": __version__,
            "LoggingDriver": about.log_driver,
            "Plugins": {
                "Volume": self._services.volumes.driver_names(),
                "Network": ["bridge", "host", "ipvlan", "macvlan", "null", "vxlan"],
                "Authorization": None,
                "Log": logdrivers.names(),
            },
            "RegistryConfig": _registry_config(about),
            "Runtimes": {name: {"path": path} for name, path in about.runtimes.items()},
            "DefaultRuntime": about.default_runtime,
            "InitBinary": os.path.basename(about.init_path) or "docker-init",
            "SecurityOptions": self._services.runtime.security_options(),
            "DefaultAddressPools": [{"Base": b, "Size": s} for b, s in about.address_pools],
            "Swarm": {
                "NodeID": "",
                "NodeAddr": "",
                "LocalNodeState": "inactive",
                "ControlAvailable": False,
                "Error": "",
                "RemoteManagers": None,
            },
            "LiveRestoreEnabled": True,
            "ExperimentalBuild": False,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "Isolation": "",
            "HttpProxy": os.environ.get("HTTP_PROXY", ""),
            "HttpsProxy": os.environ.get("HTTPS_PROXY", ""),
            "NoProxy": os.environ.get("NO_PROXY", ""),
            "GenericResources": None,
            "ContainerdCommit": {"ID": ""},
            "RuncCommit": {"ID": _runtime_in_use(self._services.runtime)},
            "InitCommit": {"ID": ""},
            "CDISpecDirs": self._services.runtime.cdi_directories,
            "DiscoveredDevices": [
                {"Source": "cdi", "ID": name} for name in self._services.runtime.cdi_devices()
            ],
            "NEventsListener": self._events.listeners,
            "Warnings": [*_missing_limits(self._services.runtime), *about.warnings] or None,
        }

    def _counts(self) -> dict[str, int]:
        containers = self._services.containers
        return {
            "Containers": len(containers),
            "ContainersRunning": len(containers.in_status(Status.RUNNING, Status.RESTARTING)),
            "ContainersPaused": len(containers.in_status(Status.PAUSED)),
            "ContainersStopped": _stopped(containers),
            "Images": self._services.images.count(),
        }

    async def disk_usage(self, kinds: frozenset[str]) -> DiskUsage:
        """What `GET /system/df` adds up, for the kinds asked (`container`, `image`, `volume`)."""
        usage = DiskUsage()
        if "container" in kinds:
            for container in self._services.containers:
                usage.containers[container.id] = await self._looks.sizes(container)
                usage.logs[container.id] = await asyncio.to_thread(self._log_bytes, container.id)
        if "volume" in kinds:
            for volume in self._services.volumes.all():
                usage.volumes[volume.name] = await self._services.volumes.size(volume)
        if "image" in kinds:
            usage.layers = await asyncio.to_thread(self._services.images.layers_size)
        return usage

    def _log_bytes(self, container_id: str) -> int:
        """The log with its rotated files."""
        log = self._services.paths.log_file(container_id)
        total = 0
        for file in log.parent.glob(f"{log.name}*"):
            with contextlib.suppress(OSError):  # rotated away meanwhile
                total += file.stat().st_size
        return total


def architecture() -> str:
    """Go's name of this machine's architecture."""
    names = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
    return names.get(platform.machine(), platform.machine())


def _stopped(containers: Containers) -> int:
    return len(containers) - len(
        containers.in_status(Status.RUNNING, Status.PAUSED, Status.RESTARTING)
    )


def _host_facts() -> dict[str, Any]:
    release = platform.freedesktop_os_release() if os.path.exists("/etc/os-release") else {}
    return {
        "Name": platform.node(),
        "KernelVersion": platform.release(),
        "OperatingSystem": release.get("PRETTY_NAME", "Linux"),
        "OSVersion": release.get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": platform.machine(),
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "SystemTime": clock.format_ns(clock.now_ns()),
        "NFd": len(os.listdir("/proc/self/fd")),
        "NGoroutines": len(asyncio.all_tasks()),
        "IPv4Forwarding": _is_on("/proc/sys/net/ipv4/ip_forward"),
        "BridgeNfIptables": _is_on("/proc/sys/net/bridge/bridge-nf-call-iptables"),
        "BridgeNfIp6tables": _is_on("/proc/sys/net/bridge/bridge-nf-call-ip6tables"),
    }


def _cgroup_facts(runtime: RuntimeService) -> dict[str, Any]:
    facts = runtime.facts
    return {
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if runtime.cgroups.unified else "1",
        "MemoryLimit": facts.memory,
        "SwapLimit": facts.swap,
        "CpuCfsPeriod": facts.cpu_quota,
        "CpuCfsQuota": facts.cpu_quota,
        "CPUShares": facts.cpu_shares,
        "CPUSet": facts.cpuset,
        "PidsLimit": facts.pids,
        "OomKillDisable": facts.oom_kill_disable,
    }


def _runtime_in_use(runtime: RuntimeService) -> str:
    """Clients call it "runc version", whatever the runtime is."""
    return f"{runtime.default_runtime} {runtime.version()}".strip()


def _missing_limits(runtime: RuntimeService) -> list[str]:
    """Docker's warnings about limits that this host cannot set."""
    facts = runtime.facts
    missing = [
        (facts.memory, "memory limit"),
        (facts.swap, "swap limit"),
        (facts.oom_kill_disable or runtime.cgroups.unified, "oom kill disable"),
        (facts.pids, "pids limit"),
        (facts.cpu_quota, "cpu cfs quota"),
        (facts.cpu_quota, "cpu cfs period"),
        (facts.cpu_shares, "cpu shares"),
        (facts.cpuset, "cpuset"),
        (facts.blkio_throttle, "blkio throttle"),
    ]
    return [f"WARNING: No {what} support" for there, what in missing if not there]


def _registry_config(about: About) -> dict[str, Any]:
    networks = [entry for entry in about.insecure_registries if "/" in entry]
    insecure = [entry for entry in about.insecure_registries if "/" not in entry]
    hosts = dict.fromkeys([DEFAULT_DOMAIN, *insecure, *about.mirrors])
    return {
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8", *networks],
        "IndexConfigs": {
            host: {
                "Name": host,
                "Mirrors": about.mirrors.get(host, []),
                "Secure": host not in insecure,
                "Official": host == DEFAULT_DOMAIN,
            }
            for host in hosts
        },
        "Mirrors": about.mirrors.get(DEFAULT_DOMAIN, []),
    }


def _is_on(path: str) -> bool:
    try:
        return Path(path).read_text().strip() == "1"
    except OSError:
        return False
