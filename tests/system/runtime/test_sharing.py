"""Containers that join the namespaces of others."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from teu.runtime.namespaces import Joins

if TYPE_CHECKING:
    from .conftest import Bench


def test_joins_the_namespaces_of_another(bench: Bench) -> None:
    first, pid = bench.start(host={"ipc_mode": "shareable"})
    bench.exec(first, "touch /dev/shm/shared")
    joins = Joins(**{kind: f"/proc/{pid}/ns/{kind}" for kind in ("net", "pid", "ipc", "uts")})
    modes = {"ipc_mode": f"container:{first.id}", "pid_mode": f"container:{first.id}"}
    said = bench.output(
        "for n in net pid ipc uts; do readlink /proc/self/ns/$n; done; "
        "ls /dev/shm; ps | grep sleep",
        host=modes,
        joins=joins,
    )
    lines = said.splitlines()
    assert lines[:4] == [
        os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "pid", "ipc", "uts")
    ]
    assert lines[4] == "shared"
    assert any("sleep 600" in line for line in lines[5:])


def test_joins_a_network_namespace_by_path(bench: Bench) -> None:
    first, pid = bench.start()
    record = bench.record("readlink", "/proc/self/ns/net")
    record.sandbox = f"/proc/{pid}/ns/net"
    done = asyncio.run(bench.run(record))
    assert done.stdout.decode().strip() == os.readlink(record.sandbox)
    assert first.id != record.id
