"""Control groups: which version the host has, who is in a group, what it has used.

Runtimes create, limit and remove the groups of containers; this module reads them, and does what
runtimes leave undone (`remove`, `lift_pids_limit`). Version 1 has one tree for each controller,
version 2 a single one for all; hosts with both (hybrid) keep the controllers in version 1 and count
as such here.

A group's `path` is relative to the root of each tree: `/teu/ID`. A group that is gone reads as
empty, zero or None, never as an error: containers end at any moment.
Source: cgroups(7); Documentation/admin-guide/cgroup-v1, cgroup-v2.rst.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

ROOT: Final = Path("/sys/fs/cgroup")
UNLIMITED: Final = 2**63 - 1
_PAGE_COUNTER_MAX: Final = 0x7FFFFFFFFFFFF000  # how version 1 writes "no limit"
_NS_PER_US: Final = 1000
_NS_PER_TICK: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class IoCounter(Struct, frozen=True):
    """One device and direction (`read`, `write`, …) of a block I/O counter."""

    major: int
    minor: int
    op: str
    value: int


class Usage(Struct, frozen=True):
    """What a group has used so far. Times in nanoseconds, sizes in bytes; limit UNLIMITED: none.

    `memory_detail` is the kernel's memory.stat as it is.
    """

    cpu_total_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    cpu_each_ns: tuple[int, ...] = ()
    throttled_periods: int = 0
    periods: int = 0
    throttled_ns: int = 0
    memory_bytes: int = 0
    memory_peak_bytes: int = 0
    memory_limit_bytes: int = UNLIMITED
    memory_failures: int = 0
    memory_detail: Mapping[str, int] = {}
    pids: int = 0
    pids_limit: int = UNLIMITED
    io_bytes: tuple[IoCounter, ...] = ()
    io_operations: tuple[IoCounter, ...] = ()


class Cgroups(Struct, frozen=True):
    """The host's trees. `mounts`: controller -> root of its tree (the same for all on v2).

    `trees`: all roots, also of trees without a controller (systemd's).
    `stray`: on a hybrid host, controllers that nobody mounted as version 1, so that the kernel
    offers them in the version 2 tree at `/sys/fs/cgroup/unified`.
    """

    unified: bool
    mounts: Mapping[str, Path]
    trees: tuple[Path, ...] = ()
    stray: frozenset[str] = frozenset()

    @classmethod
    def detect(cls, root: Path = ROOT, proc: Path = Path("/proc")) -> "Cgroups":
        """Reads the host's facts; a fresh call sees a change of mounts."""
        controllers = _first_line(root / "cgroup.controllers")
        if controllers is not None:
            names = [*controllers.split(), "cgroup.procs"]
            return cls(True, dict.fromkeys(names, root), (root,))
        stray = _first_line(root / "unified/cgroup.controllers") or ""
        trees = tuple(target for target, _ in _cgroup_mounts(proc))
        return cls(False, dict(_version1_mounts(proc)), trees, frozenset(stray.split()))

    def has(self, controller: str) -> bool:
        return controller in self.mounts

    def directory(self, path: str, controller: str = "pids") -> Path | None:
        """Where a group's files of that controller are; None without the controller."""
        root = self.mounts.get(controller)
        if root is None and self.unified:
            root = self.mounts["cgroup.procs"]
        return root / path.lstrip("/") if root is not None else None

    def processes(self, path: str) -> list[int]:
        """Host pids of all processes in the group and below it, ascending."""
        top = self.directory(path, "pids") or self.directory(path, "memory")
        if top is None:
            return []
        found: set[int] = set()
        for folder, _, files in os.walk(top):
            if "cgroup.procs" in files:
                text = _text(Path(folder) / "cgroup.procs") or ""
                found.update(int(line) for line in text.split())
        return sorted(found)

    def frozen(self, path: str) -> bool | None:
        """Whether the group is paused; None when it does not exist."""
        if self.unified:
            top = self.directory(path)
            assert top is not None
            events = _table(top / "cgroup.events")
            return bool(events["frozen"]) if "frozen" in events else None
        top = self.directory(path, "freezer")
        state = _first_line(top / "freezer.state") if top else None
        return None if state is None else state != "THAWED"

    def usage(self, path: str) -> Usage:
        """The counters of now; zero for what the host does not count."""
        return _usage_unified(self, path) if self.unified else _usage_version1(self, path)

    def oom_kills(self, path: str) -> int:
        """How many processes of the group the kernel killed for memory."""
        top = self.directory(path, "memory")
        if top is None:
            return 0
        name = "memory.events" if self.unified else "memory.oom_control"
        return _table(top / name).get("oom_kill", 0)

    def remove(self, path: str) -> None:
        """Removes the group, and those below it, from all trees; gone is fine.

        Raises: OSError (EBUSY: there are processes in it).
        """
        if not path.strip("/"):
            raise ValueError("the root group cannot be removed")
        for tree in self.trees:
            top = tree / path.lstrip("/")
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(folder)

    def rejoin(self) -> None:
        """Moves the calling process into the group where it is: nothing changes, except that the
        next moves, of any process, are quick.

        Before a move the kernel waits for an RCU grace period (5 to 20 ms) unless another move was
        just before. Whoever foresees a move calls this, in a thread, and then does what can be
        done beside the wait. Never raises: it only costs the benefit.
        Source: cgroup_attach_lock and cgroup_threadgroup_rwsem in kernel/cgroup/cgroup.c.
        """
        with contextlib.suppress(OSError):
            (self._own() / "cgroup.procs").write_text("0")

    def _own(self) -> Path:
        """The group of this process in one of the trees. Raises: FileNotFoundError."""
        for line in (_text(Path("/proc/self/cgroup")) or "").splitlines():
            _, names, path = line.split(":", 2)
            root = self.mounts.get(names.partition(",")[0] or "cgroup.procs")
            if root is not None:
                return root / path.lstrip("/")
        raise FileNotFoundError("this process is in no known cgroup")

    def lift_pids_limit(self, path: str) -> None:
        """Any number of processes from now on. Raises: OSError."""
        top = self.directory(path, "pids")
        if top is not None and (top / "pids.max").exists():
            (top / "pids.max").write_text("max")


def _cgroup_mounts(proc: Path) -> Iterator[tuple[Path, list[str]]]:
    """Root and options of each mounted tree."""
    for line in (_text(proc / "self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith(("cgroup ", "cgroup2 ")):
            yield Path(before.split(" ")[4]), after.split(" ")[2].split(",")


def _version1_mounts(proc: Path) -> Iterator[tuple[str, Path]]:
    enabled = _enabled_controllers(proc)
    for target, options in _cgroup_mounts(proc):
        for option in options:
            if option in enabled:
                yield option, target


def _enabled_controllers(proc: Path) -> set[str]:
    lines = (_text(proc / "cgroups") or "").splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    return {row[0] for row in rows if len(row) == 4 and row[3] == "1"}


def _usage_unified(cgroups: Cgroups, path: str) -> Usage:
    top = cgroups.directory(path)
    assert top is not None
    cpu = _table(top / "cpu.stat")
    memory = _table(top / "memory.stat")
    return Usage(
        cpu_total_ns=cpu.get("usage_usec", 0) * _NS_PER_US,
        cpu_user_ns=cpu.get("user_usec", 0) * _NS_PER_US,
        cpu_system_ns=cpu.get("system_usec", 0) * _NS_PER_US,
        periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_ns=cpu.get("throttled_usec", 0) * _NS_PER_US,
        memory_bytes=_number(top / "memory.current"),
        memory_peak_bytes=_number(top / "memory.peak"),
        memory_limit_bytes=_limit(top / "memory.max"),
        memory_failures=_table(top / "memory.events").get("max", 0),
        memory_detail=memory,
        pids=_number(top / "pids.current"),
        pids_limit=_limit(top / "pids.max"),
        io_bytes=tuple(_io_stat(top, {"rbytes": "read", "wbytes": "write"})),
        io_operations=tuple(_io_stat(top, {"rios": "read", "wios": "write"})),
    )


def _usage_version1(cgroups: Cgroups, path: str) -> Usage:
    cpu, cpuacct, memory, pids, blkio = (
        cgroups.directory(path, name) or Path("/nonexistent")
        for name in ("cpu", "cpuacct", "memory", "pids", "blkio")
    )
    throttling = _table(cpu / "cpu.stat")
    times = _table(cpuacct / "cpuacct.stat")
    each = (_text(cpuacct / "cpuacct.usage_percpu") or "").split()
    return Usage(
        cpu_total_ns=_number(cpuacct / "cpuacct.usage"),
        cpu_user_ns=times.get("user", 0) * _NS_PER_TICK,
        cpu_system_ns=times.get("system", 0) * _NS_PER_TICK,
        cpu_each_ns=tuple(int(value) for value in each),
        periods=throttling.get("nr_periods", 0),
        throttled_periods=throttling.get("nr_throttled", 0),
        throttled_ns=throttling.get("throttled_time", 0),
        memory_bytes=_number(memory / "memory.usage_in_bytes"),
        memory_peak_bytes=_number(memory / "memory.max_usage_in_bytes"),
        memory_limit_bytes=_limit(memory / "memory.limit_in_bytes"),
        memory_failures=_number(memory / "memory.failcnt"),
        memory_detail=_table(memory / "memory.stat"),
        pids=_number(pids / "pids.current"),
        pids_limit=_limit(pids / "pids.max"),
        io_bytes=tuple(_blkio(blkio / "blkio.throttle.io_service_bytes")),
        io_operations=tuple(_blkio(blkio / "blkio.throttle.io_serviced")),
    )


def _io_stat(top: Path, names: Mapping[str, str]) -> Iterator[IoCounter]:
    """`8:0 rbytes=1 wbytes=2 …`, one line for each device."""
    for line in (_text(top / "io.stat") or "").splitlines():
        device, *pairs = line.split()
        major, minor = device.split(":")
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        for name, op in names.items():
            if name in values:
                yield IoCounter(int(major), int(minor), op, int(values[name]))


def _blkio(file: Path) -> Iterator[IoCounter]:
    """`8:0 Read 1`, one line for each device and direction; the last one is a total."""
    for line in (_text(file) or "").splitlines():
        fields = line.split()
        if len(fields) == 3:
            major, minor = fields[0].split(":")
            yield IoCounter(int(major), int(minor), fields[1].lower(), int(fields[2]))


def _table(file: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    rows = [line.split() for line in (_text(file) or "").splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def _number(file: Path) -> int:
    line = _first_line(file)
    return int(line) if line and line.isdigit() else 0


def _limit(file: Path) -> int:
    line = _first_line(file)
    if not line or line == "max":
        return UNLIMITED
    value = int(line)
    return UNLIMITED if value >= _PAGE_COUNTER_MAX else value


def _first_line(file: Path) -> str | None:
    text = _text(file)
    return None if text is None else text.partition("\n")[0].strip()


def _text(file: Path) -> str | None:
    """None when the file, or its group, is not there (any more)."""
    try:
        return file.read_text()
    except OSError:
        return None
