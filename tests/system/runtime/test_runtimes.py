"""Other runtimes than crun, and runtimes that are not there."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from teu.errors import InvalidParameter, SystemFailure
from teu.runtime.config import RuntimeBinary, RuntimeConfig
from teu.runtime.service import RuntimeService

if TYPE_CHECKING:
    from .conftest import Bench


@pytest.mark.skipif(shutil.which("runc") is None, reason="needs runc")
def test_runc_runs_the_same(bench: Bench) -> None:
    said = bench.output(
        "id; grep -E 'Seccomp:|CapEff|NoNewPrivs' /proc/self/status; pwd; echo $HOME",
        user="bob",
        working_dir="/new",
        host={"runtime": "runc", "memory": 64 << 20, "pids_limit": 20, "tmpfs": {"/t": "size=1m"}},
    )
    assert "uid=1000(bob)" in said
    assert bench.field(said, "Seccomp") == "2"
    assert said.splitlines()[-2:] == ["/new", "/home/bob"]


@pytest.mark.skipif(shutil.which("runc") is None, reason="needs runc")
def test_runc_life_cycle(bench: Bench) -> None:
    record, pid = bench.start(host={"runtime": "io.containerd.runc.v2"})
    assert bench.service.processes(record) == [pid]
    asyncio.run(bench.service.pause(record))
    asyncio.run(bench.service.resume(record))
    record.host.pids_limit = 7
    asyncio.run(bench.service.update(record))
    assert bench.service.cgroups.usage(bench.service.cgroup_path(record)).pids_limit == 7
    asyncio.run(bench.service.delete(record))
    asyncio.run(bench.service.delete(record))


@pytest.mark.parametrize("name", ["nothing", "../crun", "/usr/bin/crun"])
def test_unknown_runtime(bench: Bench, name: str) -> None:
    with pytest.raises(InvalidParameter, match=f"unknown or invalid runtime name: {name}"):
        bench.service.binary(name)


def test_missing_default_runtime(tmp_path: Path) -> None:
    config = RuntimeConfig(
        exec_root=tmp_path, runtimes={"crun": RuntimeBinary(str(tmp_path / "no-crun"))}
    )
    with pytest.raises(SystemFailure, match="apt install crun"):
        asyncio.run(RuntimeService(config).start())


def test_missing_init(bench: Bench, make_bench: Callable[..., Bench]) -> None:
    other = make_bench(init_path="/no/such/init")
    record = other.record("true", host={"init": True})
    with pytest.raises(SystemFailure, match="the init-path /no/such/init cannot be executed"):
        asyncio.run(other.prepare(record))
