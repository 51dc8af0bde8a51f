"""Checks the limits that a container asks for against Docker's rules and this host.

What the host cannot do is taken out of the request, with a warning, as Docker does; what makes no
sense is refused. Texts are Docker's.
"""

from collections.abc import Iterator

from teu.errors import InvalidParameter
from teu.model.config import HostConfig, Ulimit
from teu.runtime.hostfacts import ULIMITS, HostFacts

MINIMUM_MEMORY_BYTES = 6 << 20
_MOST_CPUS = 8192
_THROTTLES = {
    "blkio_device_read_bps": "BPS Block I/O read",
    "blkio_device_write_bps": "BPS Block I/O write",
    "blkio_device_read_iops": "IOPS Block read",
    "blkio_device_write_iops": "IOPS Block write",
}


def check(host: HostConfig, facts: HostFacts, *, update: bool = False) -> list[str]:
    """Warnings; `host` is changed where a limit is discarded.

    Args:   update: for `update`, where a swap limit may come without a memory limit.
    Raises: InvalidParameter.
    """
    warnings = [
        *_memory(host, facts, update=update),
        *_cpu(host, facts),
        *_cpuset(host, facts),
        *_block_io(host, facts),
        *_pids(host, facts),
    ]
    for limit in host.ulimits or ():
        check_ulimit(limit, facts)
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidParameter(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    return warnings


def check_ulimit(limit: Ulimit, facts: HostFacts) -> None:
    """Raises: InvalidParameter, also for a hard limit that this host does not let us set."""
    if limit.name not in ULIMITS:
        raise InvalidParameter(f"invalid ulimit type: {limit.name}")
    soft, hard = limit.soft, limit.hard
    if soft < 0 <= hard:
        raise InvalidParameter(
            "ulimit soft limit must be less than or equal to hard limit: "
            f"soft: -1 (unlimited), hard: {hard}"
        )
    if 0 <= hard < soft:
        raise InvalidParameter(
            f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )
    largest = facts.largest_ulimit(limit.name)
    if largest >= 0 and not 0 <= hard <= largest:
        asked = "unlimited" if hard < 0 else str(hard)
        raise InvalidParameter(
            f"ulimit {limit.name}: the hard limit {asked} is above this host's hard limit "
            f"{largest}; ask for at most {largest}, or raise the host's "
            f"({_where_to_raise(limit.name, facts)})"
        )


def _where_to_raise(name: str, facts: HostFacts) -> str:
    if facts.can_raise_limits:
        return "sysctl fs.nr_open"
    return f"the daemon's own limit, Limit{name.upper()}= in its unit"


def _memory(host: HostConfig, facts: HostFacts, *, update: bool) -> Iterator[str]:
    if host.memory_swappiness == -1:  # how old clients say "not set"
        host.memory_swappiness = None
    if host.memory and host.memory < MINIMUM_MEMORY_BYTES:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if host.memory > 0 and not facts.memory:
        yield _unsupported("memory limit capabilities", "Limitation discarded.")
        host.memory, host.memory_swap = 0, -1
    if host.memory > 0 and host.memory_swap != -1 and not facts.swap:
        yield _unsupported("swap limit capabilities", "Memory limited without swap.")
        host.memory_swap = -1
    if host.memory > 0 and 0 < host.memory_swap < host.memory:
        raise InvalidParameter(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if host.memory == 0 and host.memory_swap > 0 and not update:
        raise InvalidParameter(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    yield from _memory_details(host, facts)
    yield from _oom(host, facts)


def _memory_details(host: HostConfig, facts: HostFacts) -> Iterator[str]:
    if host.memory_swappiness is not None and not facts.memory_swappiness:
        yield _unsupported("memory swappiness capabilities", "Memory swappiness discarded.")
        host.memory_swappiness = None
    if host.memory_swappiness is not None and not 0 <= host.memory_swappiness <= 100:
        raise InvalidParameter(
            f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100"
        )
    if host.memory_reservation > 0 and not facts.memory_reservation:
        yield _unsupported("memory soft limit capabilities", "Limitation discarded.")
        host.memory_reservation = 0
    if 0 < host.memory_reservation < MINIMUM_MEMORY_BYTES:
        raise InvalidParameter("Minimum memory reservation allowed is 6MB")
    if 0 < host.memory < host.memory_reservation:
        raise InvalidParameter(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )


def _oom(host: HostConfig, facts: HostFacts) -> Iterator[str]:
    if host.oom_kill_disable is not None and not facts.oom_kill_disable:
        if host.oom_kill_disable:
            yield "Your kernel does not support OomKillDisable. OomKillDisable discarded."
        host.oom_kill_disable = None
    if host.oom_kill_disable and not host.memory:
        yield (
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )


def _cpu(host: HostConfig, facts: HostFacts) -> Iterator[str]:
    _check_nano_cpus(host, facts)
    if host.cpu_shares < 0:
        raise InvalidParameter(
            f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer"
        )
    if host.cpu_shares and not facts.cpu_shares:
        yield _unsupported("CPU shares", "Shares discarded.")
        host.cpu_shares = 0
    if (host.cpu_period or host.cpu_quota) and not facts.cpu_quota:
        yield "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded."
        host.cpu_period = host.cpu_quota = 0
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidParameter(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < host.cpu_quota < 1000:
        raise InvalidParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.cpu_percent > 0:
        yield "linux does not support CPU percent. Percent discarded."
        host.cpu_percent = 0
    if (host.cpu_realtime_period or host.cpu_realtime_runtime) and not facts.cpu_realtime:
        raise InvalidParameter("kernel does not support CPU real-time scheduler")
    if 0 < host.cpu_realtime_period < host.cpu_realtime_runtime:
        raise InvalidParameter("cpu real-time runtime cannot be higher than cpu real-time period")


def _check_nano_cpus(host: HostConfig, facts: HostFacts) -> None:
    if host.nano_cpus > 0 and host.cpu_period > 0:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host.nano_cpus > 0 and host.cpu_quota > 0:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if host.nano_cpus > 0 and not facts.cpu_quota:
        raise InvalidParameter(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler "
            "or the cgroup is not mounted"
        )
    if not 0 <= host.nano_cpus <= facts.cpu_count * 1_000_000_000:
        count = facts.cpu_count
        raise InvalidParameter(
            f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        )


def _cpuset(host: HostConfig, facts: HostFacts) -> Iterator[str]:
    if (host.cpuset_cpus or host.cpuset_mems) and not facts.cpuset:
        yield _unsupported("cpuset", "Cpuset discarded.")
        host.cpuset_cpus = host.cpuset_mems = ""
    kinds = (
        (host.cpuset_cpus, facts.cpus, "cpuset cpus", "CPUs"),
        (host.cpuset_mems, facts.memory_nodes, "cpuset mems", "memory nodes"),
    )
    for asked, existing, what, plural in kinds:
        try:
            wanted = number_list(asked)
        except ValueError as error:
            raise InvalidParameter(f"Invalid value {asked} for {what}: {error}") from error
        if existing and not wanted <= number_list(existing):
            raise InvalidParameter(
                f"Requested {plural} are not available - requested {asked}, available: {existing}"
            )


def number_list(text: str) -> set[int]:
    """`0-2,7` -> {0, 1, 2, 7}. Raises: ValueError."""
    found: set[int] = set()
    for part in filter(None, text.split(",")) if text else ():
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else True)):
            raise ValueError(f"invalid format: {text}")
        low, high = int(first), int(last or first)
        if high < low:
            raise ValueError(f"invalid format: {text}")
        if high > _MOST_CPUS:
            raise ValueError(f"value of out range, maximum is {_MOST_CPUS}")
        found.update(range(low, high + 1))
    return found


def _block_io(host: HostConfig, facts: HostFacts) -> Iterator[str]:
    if host.io_maximum_bandwidth or host.io_maximum_iops:
        raise InvalidParameter(
            "Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps"
        )
    if host.blkio_weight and not facts.blkio_weight:
        yield _unsupported("Block I/O weight", "Weight discarded.")
        host.blkio_weight = 0
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidParameter("Range of blkio weight is from 10 to 1000")
    if host.blkio_weight_device and not facts.blkio_weight_device:
        yield _unsupported("Block I/O weight_device", "Weight-device discarded.")
        host.blkio_weight_device = None
    if facts.blkio_throttle:
        return
    for field, what in _THROTTLES.items():
        if getattr(host, field):
            yield _unsupported(f"{what} limit", f"{what} limit discarded.")
            setattr(host, field, None)


def _pids(host: HostConfig, facts: HostFacts) -> Iterator[str]:
    if host.pids_limit is not None and not facts.pids:
        if host.pids_limit > 0:
            yield _unsupported("PIDs limit capabilities", "PIDs limit discarded.")
        host.pids_limit = None


def _unsupported(what: str, consequence: str) -> str:
    return f"Your kernel does not support {what} or the cgroup is not mounted. {consequence}"
