"""What this host can limit: which controllers and kernel switches there are, CPUs, own limits.

Also what `info` shows of it (`MemoryLimit`, `SwapLimit`, `CPUSet`, `PidsLimit`, …).
"""

import os
import resource
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from teu.runtime import capabilities
from teu.sys.cgroup import Cgroups

_SYS_RESOURCE: Final = "CAP_SYS_RESOURCE"
ULIMITS: Final = {
    name: getattr(resource, f"RLIMIT_{name.upper()}", None)
    for name in (
        *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile"),
        *("nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
    )
}


class HostFacts(Struct, frozen=True, kw_only=True):
    """True where the host can do it. `cpus`, `memory_nodes`: the numbers that exist; None where
    the host does not say."""

    memory: bool = False
    swap: bool = False
    memory_reservation: bool = False
    memory_swappiness: bool = False
    oom_kill_disable: bool = False
    cpu_shares: bool = False
    cpu_quota: bool = False
    cpu_realtime: bool = False
    cpuset: bool = False
    pids: bool = False
    blkio_weight: bool = False
    blkio_weight_device: bool = False
    blkio_throttle: bool = False
    cpu_count: int = 1
    cpus: str = ""
    memory_nodes: str = ""
    ip_forward: bool = True
    can_raise_limits: bool = True
    open_files_limit: int = 1 << 20

    @classmethod
    def detect(cls, cgroups: Cgroups) -> "HostFacts":
        """Reads the host. Fast: a dozen of small files."""
        return cls(
            **(_unified(cgroups) if cgroups.unified else _version1(cgroups)),
            pids=cgroups.has("pids"),
            cpu_count=os.cpu_count() or 1,
            ip_forward=_text(Path("/proc/sys/net/ipv4/ip_forward")) != "0",
            can_raise_limits=_SYS_RESOURCE in capabilities.available(),
            open_files_limit=int(_text(Path("/proc/sys/fs/nr_open")) or 1 << 20),
        )

    def largest_ulimit(self, name: str) -> int:
        """The highest hard limit that a container can get here; -1: any.

        A root with CAP_SYS_RESOURCE may raise all limits, that of open files up to fs.nr_open.
        """
        number = ULIMITS[name]
        if self.can_raise_limits or number is None:
            return self.open_files_limit if name == "nofile" else -1
        return resource.getrlimit(number)[1]


def _unified(cgroups: Cgroups) -> dict[str, Any]:
    top = cgroups.mounts["cgroup.procs"]
    memory, cpu, io = (cgroups.has(name) for name in ("memory", "cpu", "io"))
    return {
        "memory": memory,
        "swap": memory and _own_group_has(top, "memory.swap.max"),
        "memory_reservation": memory,
        "cpu_shares": cpu,
        "cpu_quota": cpu,
        "cpuset": cgroups.has("cpuset"),
        "blkio_weight": io,
        "blkio_weight_device": io,
        "blkio_throttle": io,
        "cpus": _text(top / "cpuset.cpus.effective"),
        "memory_nodes": _text(top / "cpuset.mems.effective"),
    }


def _own_group_has(top: Path, name: str) -> bool:
    """Only groups below the root have limits; the daemon's own is one, except in an own
    namespace, where any first-level group tells as well."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        if line.startswith("0::") and (top / line[3:].lstrip("/") / name).exists():
            return True
    return next(top.glob(f"*/{name}"), None) is not None


def _version1(cgroups: Cgroups) -> dict[str, Any]:
    def has(controller: str, name: str) -> bool:
        top = cgroups.mounts.get(controller)
        return top is not None and (top / name).exists()

    cpuset = cgroups.mounts.get("cpuset")
    return {
        "memory": cgroups.has("memory"),
        "swap": has("memory", "memory.memsw.limit_in_bytes"),
        "memory_reservation": has("memory", "memory.soft_limit_in_bytes"),
        "memory_swappiness": has("memory", "memory.swappiness"),
        "oom_kill_disable": has("memory", "memory.oom_control"),
        "cpu_shares": has("cpu", "cpu.shares"),
        "cpu_quota": has("cpu", "cpu.cfs_quota_us"),
        "cpu_realtime": has("cpu", "cpu.rt_period_us"),
        "cpuset": cpuset is not None,
        "blkio_weight": has("blkio", "blkio.weight"),
        "blkio_weight_device": has("blkio", "blkio.weight_device"),
        "blkio_throttle": has("blkio", "blkio.throttle.read_bps_device"),
        "cpus": _text(cpuset / "cpuset.cpus") if cpuset else "",
        "memory_nodes": _text(cpuset / "cpuset.mems") if cpuset else "",
    }


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
