"""`HostConfig`'s limits as the OCI runtime reads them (`linux.resources`).

Used for a new container and, without the device rules, for `update`.
"""

from collections.abc import Sequence
from typing import Any

from teu.model.config import HostConfig, ThrottleDevice, WeightDevice
from teu.runtime.devices import OciObject, block_numbers

CPU_PERIOD_US = 100_000


def build(host: HostConfig, *, unified: bool) -> dict[str, Any]:
    """Limits without device rules; what is not limited is left out.

    Raises: InvalidParameter when a throttled device does not exist.
    """
    parts = {
        "memory": _memory(host, unified=unified),
        "cpu": _cpu(host),
        "pids": _pids(host),
        "blockIO": _block_io(host),
    }
    return {name: part for name, part in parts.items() if part}


def _memory(host: HostConfig, *, unified: bool) -> dict[str, Any]:
    memory: dict[str, Any] = {}
    if host.memory > 0:
        memory["limit"] = host.memory
        # Memory plus swap. Docker's default is as much swap as memory.
        memory["swap"] = host.memory_swap or 2 * host.memory
    if host.memory_reservation > 0:
        memory["reservation"] = host.memory_reservation
    if host.memory_swappiness is not None and host.memory_swappiness >= 0 and not unified:
        memory["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable and not unified:
        memory["disableOOMKiller"] = True
    return memory


def _cpu(host: HostConfig) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    if host.nano_cpus > 0:
        cpu["period"] = CPU_PERIOD_US
        cpu["quota"] = host.nano_cpus * CPU_PERIOD_US // 1_000_000_000
    asked = {
        "shares": host.cpu_shares,
        "period": host.cpu_period,
        "quota": host.cpu_quota,
        "realtimePeriod": host.cpu_realtime_period,
        "realtimeRuntime": host.cpu_realtime_runtime,
        "cpus": host.cpuset_cpus,
        "mems": host.cpuset_mems,
    }
    cpu.update({name: value for name, value in asked.items() if value})
    return cpu


def _pids(host: HostConfig) -> dict[str, Any]:
    # 0 and -1 both mean no limit. crun 1.8 refuses -1, so lifting one is not the runtime's part.
    limit = host.pids_limit or 0
    return {"limit": limit} if limit > 0 else {}


def _block_io(host: HostConfig) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "weight": host.blkio_weight,
        "weightDevice": _weights(host.blkio_weight_device or ()),
        "throttleReadBpsDevice": _throttles(host.blkio_device_read_bps or ()),
        "throttleWriteBpsDevice": _throttles(host.blkio_device_write_bps or ()),
        "throttleReadIOPSDevice": _throttles(host.blkio_device_read_iops or ()),
        "throttleWriteIOPSDevice": _throttles(host.blkio_device_write_iops or ()),
    }
    return {name: value for name, value in asked.items() if value}


def _weights(asked: Sequence[WeightDevice]) -> list[OciObject]:
    return [_with_numbers(device.path, weight=device.weight) for device in asked]


def _throttles(asked: Sequence[ThrottleDevice]) -> list[OciObject]:
    return [_with_numbers(device.path, rate=device.rate) for device in asked]


def _with_numbers(path: str, **value: int) -> OciObject:
    major, minor = block_numbers(path)
    return {"major": major, "minor": minor, **value}
