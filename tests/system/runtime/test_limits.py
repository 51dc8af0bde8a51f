"""Limits in the cgroup, update, pause, removal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from teu.model.config import ThrottleDevice
from teu.sys.cgroup import Cgroups
from teu.sys.process import CommandFailed, Completed

if TYPE_CHECKING:
    from .conftest import Bench


needs_v1 = pytest.mark.skipif(Cgroups.detect().unified, reason="needs cgroup v1")


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@needs_v1
def test_limits_in_the_cgroup(bench: Bench) -> None:
    record, _ = bench.start(
        host={
            "memory": 64 << 20,
            "memory_reservation": 32 << 20,
            "nano_cpus": 500_000_000,
            "cpu_shares": 512,
            "cpuset_cpus": "0",
            "pids_limit": 50,
            "memory_swappiness": 10,
        },
    )
    cgroups, path = bench.service.cgroups, bench.service.cgroup_path(record)

    def read(controller: str, name: str) -> str:
        top = cgroups.directory(path, controller)
        assert top is not None
        return (top / name).read_text().strip()

    assert read("memory", "memory.limit_in_bytes") == str(64 << 20)
    assert read("memory", "memory.memsw.limit_in_bytes") == str(128 << 20)
    assert read("memory", "memory.soft_limit_in_bytes") == str(32 << 20)
    assert read("memory", "memory.swappiness") == "10"
    assert read("cpu", "cpu.cfs_quota_us") == "50000"
    assert read("cpu", "cpu.cfs_period_us") == "100000"
    assert read("cpu", "cpu.shares") == "512"
    assert read("cpuset", "cpuset.cpus") == "0"
    assert read("pids", "pids.max") == "50"
    usage = cgroups.usage(path)
    assert usage.memory_limit_bytes == 64 << 20
    assert usage.pids_limit == 50
    assert usage.pids == 1
    assert usage.cpu_total_ns > 0
    assert usage.memory_detail


@needs_v1
def test_without_limits_there_are_none(bench: Bench) -> None:
    record, pid = bench.start(host={"pids_limit": 0})
    usage = bench.service.cgroups.usage(bench.service.cgroup_path(record))
    assert usage.memory_limit_bytes == usage.pids_limit == 2**63 - 1
    assert bench.service.processes(record) == [pid]


@needs_v1
def test_throttled_device(bench: Bench) -> None:
    disk = next((path for path in ("/dev/vda", "/dev/sda") if os.path.exists(path)), None)
    if disk is None:
        pytest.skip("no disk to throttle")
    throttle = [ThrottleDevice(path=disk, rate=1 << 20)]
    record, _ = bench.start(host={"blkio_device_read_bps": throttle})
    top = bench.service.cgroups.directory(bench.service.cgroup_path(record), "blkio")
    assert top is not None
    rdev = os.stat(disk).st_rdev
    line = f"{os.major(rdev)}:{os.minor(rdev)} {1 << 20}\n"
    assert (top / "blkio.throttle.read_bps_device").read_text() == line


def test_memory_limit_kills(bench: Bench) -> None:
    record = bench.record(
        *("sh", "-c", "head -c 100m /dev/zero | tail | wc -c; exit 3"),
        host={"memory": 8 << 20, "memory_swap": 8 << 20},
    )
    asyncio.run(bench.prepare(record))
    path = bench.service.cgroup_path(record)
    kills = 0

    async def work() -> Completed:
        nonlocal kills
        bundle = str(bench.bundle(record))
        done = asyncio.create_task(bench.call(record, "run", "--bundle", bundle, record.id))
        while not done.done():
            kills = max(kills, bench.service.cgroups.oom_kills(path))
            await asyncio.sleep(0.002)
        return done.result()

    done = asyncio.run(work())
    assert done.returncode in (3, 137)
    assert done.stdout.strip() != b"104857600"
    assert kills >= 1


def test_pids_limit_holds(bench: Bench) -> None:
    said = bench.output(
        "(for i in 1 2 3 4 5 6 7 8; do sleep 5 & done) 2>&1 || true", host={"pids_limit": 4}
    )
    assert "can't fork" in said


def test_update(bench: Bench) -> None:
    record, _ = bench.start(host={"memory": 64 << 20, "pids_limit": 10})
    record.host.memory, record.host.memory_swap = 32 << 20, 48 << 20
    record.host.pids_limit = 0
    record.host.nano_cpus = 200_000_000
    asyncio.run(bench.service.update(record))
    usage = bench.service.cgroups.usage(bench.service.cgroup_path(record))
    assert usage.memory_limit_bytes == 32 << 20
    assert usage.pids_limit == 2**63 - 1


def test_update_that_the_kernel_refuses(bench: Bench) -> None:
    record, _ = bench.start(host={"memory": 64 << 20})
    record.host.cpuset_cpus = "4000"
    with pytest.raises(CommandFailed, match="cpuset"):
        asyncio.run(bench.service.update(record))


def test_pause_and_resume(bench: Bench) -> None:
    record, _ = bench.start()
    path = bench.service.cgroup_path(record)
    assert bench.service.cgroups.frozen(path) is False
    asyncio.run(bench.service.pause(record))
    assert bench.service.cgroups.frozen(path) is True
    asyncio.run(bench.service.resume(record))
    assert bench.service.cgroups.frozen(path) is False


def test_delete_kills_a_paused_container(bench: Bench) -> None:
    record, pid = bench.start()
    asyncio.run(bench.service.pause(record))
    asyncio.run(bench.service.delete(record))
    until(lambda: not os.path.exists(f"/proc/{pid}"), "the container outlived its removal")
    assert bench.service.cgroups.frozen(bench.service.cgroup_path(record)) is None
    assert bench.service.processes(record) == []


def test_pause_of_what_does_not_run(bench: Bench) -> None:
    with pytest.raises(CommandFailed, match="pause"):
        asyncio.run(bench.service.pause(bench.record("true")))


def test_delete_of_what_never_was(bench: Bench) -> None:
    asyncio.run(bench.service.delete(bench.record("true")))


def test_cgroup_parent(bench: Bench) -> None:
    parent = f"/teu-test-{secrets.token_hex(4)}"
    record, pid = bench.start(host={"cgroup_parent": parent})
    assert bench.service.cgroup_path(record) == f"{parent}/{record.id}"
    assert f"{parent}/{record.id}" in Path(f"/proc/{pid}/cgroup").read_text()
    asyncio.run(bench.service.delete(record))
    for top in set(bench.service.cgroups.mounts.values()):
        with contextlib.suppress(OSError):
            (top / parent.lstrip("/")).rmdir()
