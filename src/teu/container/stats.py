"""What containers use: the counters behind `docker stats`.

One sample is a reading of the container's control groups and of its network devices. A stream is
one sample a second, each carrying the one before it (`precpu_stats`), from which clients compute
the CPU percentage. Source: API 1.51 ContainerStats.
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from teu import clock
from teu.container.container import Container
from teu.container.services import Services
from teu.sys.cgroup import UNLIMITED, IoCounter, Usage

INTERVAL_S = 1.0
NOT_RUNNING = "0001-01-01T00:00:00Z"
_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_NET_FIELDS = (
    "rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "tx_bytes", "tx_packets", "tx_errors",
    "tx_dropped",
)  # fmt: skip
_NET_COLUMNS = (0, 1, 2, 3, 8, 9, 10, 11)


class Stats:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def stream(self, container: Container) -> AsyncGenerator[dict[str, Any], None]:
        """A sample a second, until the container is removed."""
        before = self.sample(container)
        while True:
            await asyncio.sleep(INTERVAL_S)
            if self._services.containers.find(container.id) is None:
                return
            now = self.sample(container)
            yield with_previous(now, before)
            before = now

    async def once(self, container: Container, *, one_shot: bool) -> dict[str, Any]:
        """One sample; unless `one_shot`, a second one a second later with the first inside."""
        before = self.sample(container)
        if one_shot or not container.running:
            return with_previous(before, None)
        await asyncio.sleep(INTERVAL_S)
        return with_previous(self.sample(container), before)

    def sample(self, container: Container) -> dict[str, Any]:
        """The counters of now; a container that does not run has none."""
        base: dict[str, Any] = {"name": f"/{container.name}", "id": container.id}
        if not container.running:
            return {**base, "read": NOT_RUNNING, **_empty()}
        runtime = self._services.runtime
        usage = runtime.cgroups.usage(runtime.cgroup_path(container.record))
        return {
            **base,
            "read": clock.format_ns(clock.now_ns()),
            "num_procs": 0,
            "pids_stats": {"current": usage.pids, **_limit("limit", usage.pids_limit)},
            "blkio_stats": _blkio(usage),
            "cpu_stats": _cpu(usage),
            "memory_stats": _memory(usage),
            "storage_stats": {},
            "networks": network_counters(container.record.pid),
        }


def with_previous(now: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    previous = before or {"read": NOT_RUNNING, "cpu_stats": _no_cpu()}
    return {**now, "preread": previous["read"], "precpu_stats": previous["cpu_stats"]}


def _empty() -> dict[str, Any]:
    return {
        "num_procs": 0,
        "pids_stats": {},
        "blkio_stats": {"io_service_bytes_recursive": None},
        "cpu_stats": _no_cpu(),
        "memory_stats": {},
        "storage_stats": {},
    }


def _no_cpu() -> dict[str, Any]:
    return {
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }


def _limit(name: str, value: int) -> dict[str, int]:
    return {name: 2**64 - 1 if value >= UNLIMITED else value}


def _cpu(usage: Usage) -> dict[str, Any]:
    used: dict[str, Any] = {
        "total_usage": usage.cpu_total_ns,
        "usage_in_kernelmode": usage.cpu_system_ns,
        "usage_in_usermode": usage.cpu_user_ns,
    }
    if usage.cpu_each_ns:
        used["percpu_usage"] = list(usage.cpu_each_ns)
    return {
        "cpu_usage": used,
        "system_cpu_usage": host_cpu_ns(),
        "online_cpus": len(os.sched_getaffinity(0)),
        "throttling_data": {
            "periods": usage.periods,
            "throttled_periods": usage.throttled_periods,
            "throttled_time": usage.throttled_ns,
        },
    }


def host_cpu_ns() -> int:
    """All CPUs' time since boot: user, nice, system, idle, iowait, irq, softirq, steal."""
    fields = Path("/proc/stat").read_text().split(None, 9)[1:9]
    return sum(int(ticks) for ticks in fields) * _NS_PER_TICK


def _memory(usage: Usage) -> dict[str, Any]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shown: dict[str, Any] = {
        "usage": usage.memory_bytes,
        "stats": dict(usage.memory_detail),
        "limit": min(usage.memory_limit_bytes, total),
    }
    if usage.memory_peak_bytes:
        shown["max_usage"] = usage.memory_peak_bytes
    if usage.memory_failures:
        shown["failcnt"] = usage.memory_failures
    return shown


def _blkio(usage: Usage) -> dict[str, Any]:
    return {
        "io_service_bytes_recursive": [_counter(c) for c in usage.io_bytes],
        "io_serviced_recursive": [_counter(c) for c in usage.io_operations],
        "io_queue_recursive": None,
        "io_service_time_recursive": None,
        "io_wait_time_recursive": None,
        "io_merged_recursive": None,
        "io_time_recursive": None,
        "sectors_recursive": None,
    }


def _counter(counter: IoCounter) -> dict[str, Any]:
    return {
        "major": counter.major,
        "minor": counter.minor,
        "op": counter.op,
        "value": counter.value,
    }


def network_counters(pid: int) -> dict[str, dict[str, int]]:
    """By device of the process's network namespace, without loopback. Source: proc_pid_net(5)."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except OSError:
        return {}
    devices: dict[str, dict[str, int]] = {}
    for line in lines:
        name, _, numbers = line.partition(":")
        if name.strip() != "lo":
            columns = numbers.split()
            values = (int(columns[i]) for i in _NET_COLUMNS)
            devices[name.strip()] = dict(zip(_NET_FIELDS, values, strict=True))
    return devices
