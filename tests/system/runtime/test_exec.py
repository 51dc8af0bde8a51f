"""Further processes in a running container."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from teu.errors import InvalidParameter
from teu.runtime import capabilities

if TYPE_CHECKING:
    from .conftest import Bench


def test_exec_sees_the_container(bench: Bench) -> None:
    record, _ = bench.start(env=["A=1", "B=2"], working_dir="/tmp", hostname="box")
    done = bench.exec(record, "env; pwd; id", env=["B=3", "C=4"])
    lines = done.stdout.decode().splitlines()
    assert {"A=1", "B=3", "C=4", "HOSTNAME=box", "HOME=/root", "/tmp"} <= {*lines}


def test_exec_as_another_user(bench: Bench) -> None:
    record, _ = bench.start(host={"group_add": ["more"]})
    done = bench.exec(
        record, "id; pwd; echo $HOME; grep CapEff /proc/self/status", user="bob", working_dir="/tmp"
    )
    ident, folder, home, caps = done.stdout.decode().splitlines()
    assert ident.startswith("uid=1000(bob) gid=1000(bob) groups=1000(bob),2000(extra),3000(more)")
    assert (folder, home) == ("/tmp", "/home/bob")
    assert int(caps.split()[1], 16) == 0


def test_exec_as_root_in_a_users_container(bench: Bench) -> None:
    record, _ = bench.start(user="bob")
    assert b"uid=1000(bob)" in bench.exec(record, "id").stdout
    done = bench.exec(record, "id -u; grep CapEff /proc/self/status", user="0")
    uid, caps = done.stdout.decode().splitlines()
    assert uid == "0"
    assert set(capabilities.decode(int(caps.split()[1], 16))) == set(capabilities.DEFAULT)


def test_privileged_exec(bench: Bench) -> None:
    record, _ = bench.start()
    done = bench.exec(record, "grep CapEff /proc/self/status", privileged=True)
    found = capabilities.decode(int(done.stdout.split()[1], 16))
    assert set(found) == set(capabilities.available())


def test_exec_of_an_unknown_user(bench: Bench) -> None:
    record, _ = bench.start()
    with pytest.raises(InvalidParameter, match="unable to find user nobody-here: no matching"):
        bench.exec(record, "true", user="nobody-here")
