"""What every container gets: namespaces, capabilities, masked paths, devices."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from teu.runtime import capabilities

if TYPE_CHECKING:
    from .conftest import Bench


def own_namespace(kind: str) -> str:
    return os.readlink(f"/proc/self/ns/{kind}")


def test_runs_and_sees_its_own_world(bench: Bench) -> None:
    said = bench.output("echo $$; hostname; id; pwd; echo $HOME $PATH; cat /etc/hosts; env")
    pid, host, ident, folder, home, etc, *variables = said.splitlines()
    assert pid == "1"
    assert len(host) == 12
    assert ident == "uid=0(root) gid=0(root) groups=0(root)"
    assert folder == "/"
    assert home == "/root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert etc == "hosts of the test"
    assert f"HOSTNAME={host}" in variables
    assert not any(variable.startswith("TERM=") for variable in variables)


def test_namespaces_are_its_own(bench: Bench) -> None:
    kinds = ("pid", "mnt", "uts", "ipc", "net")
    said = bench.output("; ".join(f"readlink /proc/self/ns/{kind}" for kind in kinds))
    for kind, found in zip(kinds, said.splitlines(), strict=True):
        assert found != own_namespace(kind)


def test_namespaces_of_the_host(bench: Bench) -> None:
    modes = ("pid_mode", "uts_mode", "ipc_mode", "network_mode", "cgroupns_mode")
    kinds = ("pid", "uts", "ipc", "net", "cgroup")
    said = bench.output(
        "; ".join(f"readlink /proc/self/ns/{kind}" for kind in kinds) + "; hostname",
        host=dict.fromkeys(modes, "host"),
    )
    *found, name = said.splitlines()
    assert found == [own_namespace(kind) for kind in kinds]
    assert name == os.uname().nodename


def test_own_cgroup_namespace(bench: Bench) -> None:
    said = bench.output(
        "readlink /proc/self/ns/cgroup; cat /proc/self/cgroup", host={"cgroupns_mode": "private"}
    )
    namespace, *lines = said.splitlines()
    assert namespace != own_namespace("cgroup")
    assert all(line.endswith(":/") for line in lines)


def test_default_capabilities_and_filter(bench: Bench) -> None:
    said = bench.output("cat /proc/self/status")
    for field in ("CapEff", "CapPrm", "CapBnd"):
        found = capabilities.decode(int(bench.field(said, field), 16))
        assert set(found) == set(capabilities.DEFAULT)
    assert int(bench.field(said, "CapInh"), 16) == 0
    assert int(bench.field(said, "CapAmb"), 16) == 0
    assert bench.field(said, "NoNewPrivs") == "0"
    assert bench.field(said, "Seccomp") == "2"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({"cap_drop": ["ALL"]}, set()),
        ({"cap_drop": ["all"], "cap_add": ["net_admin"]}, {"CAP_NET_ADMIN"}),
        ({"cap_drop": ["CAP_CHOWN"]}, set(capabilities.DEFAULT) - {"CAP_CHOWN"}),
        ({"cap_add": ["IPC_LOCK"]}, {*capabilities.DEFAULT, "CAP_IPC_LOCK"}),
        ({"cap_add": ["ALL"]}, set(capabilities.available())),
        ({"privileged": True}, set(capabilities.available())),
    ],
)
def test_asked_capabilities(bench: Bench, host: dict[str, Any], expected: set[str]) -> None:
    said = bench.output("cat /proc/self/status", host=host)
    assert set(capabilities.decode(int(bench.field(said, "CapEff"), 16))) == expected


def test_masked_and_read_only_paths(bench: Bench) -> None:
    said = bench.output(
        "head -c 1 /proc/kcore | wc -c; cat /proc/interrupts | wc -c; ls /sys/firmware | wc -l; "
        "for f in /proc/sys/kernel/msgmax /sys/kernel/x "
        "$(ls -d /proc/irq/*/smp_affinity /sys/fs/cgroup/cgroup.procs "
        "/sys/fs/cgroup/*/cgroup.procs 2>/dev/null); do "
        "(echo 1 > $f) 2>&1 || true; done"
    )
    kcore, interrupts, firmware, *denied = said.splitlines()
    assert (kcore, interrupts, firmware) == ("0", "0", "0")
    assert len(denied) >= 4
    assert all("Read-only" in line for line in denied), denied


def test_unconfined_system_paths(bench: Bench) -> None:
    host = {"security_opt": ["systempaths=unconfined"]}
    assert int(bench.output("cat /proc/interrupts | wc -c", host=host)) > 0
    empty = {"masked_paths": [], "readonly_paths": []}
    said = bench.output(
        "cat /proc/interrupts | wc -c; echo 9000 > /proc/sys/kernel/msgmax", host=empty
    )
    assert int(said) > 0


def test_default_mounts(bench: Bench) -> None:
    said = bench.output("cat /proc/self/mounts")
    table = {line.split()[1]: line.split() for line in said.splitlines()}
    assert table["/proc"][2] == "proc"
    assert table["/dev"][2] == "tmpfs"
    assert table["/dev/pts"][2] == "devpts"
    assert table["/dev/mqueue"][2] == "mqueue"
    assert table["/sys"][2] == "sysfs"
    assert "ro" in table["/sys"][3].split(",")
    assert "size=65536k" in table["/dev/shm"][3]
    assert {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} <= table.keys()


def test_devices(bench: Bench) -> None:
    said = bench.output(
        "ls /dev; echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; "
        "mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem || true"
    )
    names, lines = said.splitlines()[:-2], said.splitlines()[-2:]
    assert {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd"} <= {
        *names
    }
    assert lines == ["4", "4"]
