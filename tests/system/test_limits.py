"""Limits that the kernel must enforce; the same on cgroup v1 and v2."""

import os
import re
from pathlib import Path

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names
from harness.waiting import PATIENCE, until

V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()


def _read(cli: Cli, name: str, v1: str, v2: str) -> str:
    """A control file as the container itself sees it."""
    return cli.ok("exec", name, "cat", f"/sys/fs/cgroup/{v2 if V2 else v1}").strip()


def test_memory_limit_kills(cli: Cli, engine: Engine, names: Names) -> None:
    hungry = ["run", "--name", names("a"), "-m", "32m", "busybox", "tail", "/dev/zero"]
    assert cli.run(*hungry, timeout_s=60).code == 137
    state = engine.api.state(names("a"))
    assert (state["OOMKilled"], state["ExitCode"], state["Status"]) == (True, 137, "exited")
    assert "137" in cli.ok("ps", "-a", "--format", "{{.Status}}", "--filter", f"name={names('a')}")


def test_a_child_killed_for_memory_is_no_end(cli: Cli, engine: Engine, names: Names) -> None:
    script = "tail /dev/zero; echo child $?; exit 3"
    done = cli.run("run", "--name", names("a"), "-m", "32m", "busybox", "sh", "-c", script)
    assert (done.code, done.out) == (3, "child 137\n")


def test_memory_is_what_was_asked(cli: Cli, names: Names) -> None:
    options = ["-m", "64m", "--memory-reservation", "32m", "--memory-swap", "64m"]
    cli.ok("run", "-d", "--name", names("a"), *options, "busybox", "sleep", "1000")
    limit = _read(cli, names("a"), "memory/memory.limit_in_bytes", "memory.max")
    assert limit == str(64 << 20)
    soft = _read(cli, names("a"), "memory/memory.soft_limit_in_bytes", "memory.low")
    assert soft == str(32 << 20)


def test_cpus_are_throttled(cli: Cli, names: Names) -> None:
    """A busy loop with a tenth of a CPU is stopped in most periods."""
    burn = ["sh", "-c", "while :; do :; done"]
    cli.ok("run", "-d", "--name", names("a"), "--cpus", "0.1", "busybox", *burn)
    if V2:
        assert _read(cli, names("a"), "", "cpu.max") == "10000 100000"
    else:
        assert _read(cli, names("a"), "cpu/cpu.cfs_quota_us", "") == "10000"

    def throttled() -> bool:
        stat = _read(cli, names("a"), "cpu/cpu.stat", "cpu.stat")
        found = re.search(r"^nr_throttled (\d+)$", stat, re.MULTILINE)
        return found is not None and int(found.group(1)) >= 3

    until("the loop was throttled", throttled, 15)


def test_cpu_shares_and_sets(cli: Cli, names: Names) -> None:
    options = ["--cpu-shares", "512", "--cpuset-cpus", "0"]
    cli.ok("run", "-d", "--name", names("a"), *options, "busybox", "sleep", "1000")
    if V2:
        assert _read(cli, names("a"), "", "cpu.weight") in ("20", "59", "60")
    else:
        assert _read(cli, names("a"), "cpu/cpu.shares", "") == "512"
    allowed = cli.ok("exec", names("a"), "grep", "Cpus_allowed_list", "/proc/self/status")
    assert allowed.split() == ["Cpus_allowed_list:", "0"]


def test_pids_limit(cli: Cli, names: Names) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 50 & done; wait"
    done = cli.run("run", "--rm", "--pids-limit", "5", "busybox", "sh", "-c", script)
    assert done.code != 0
    assert re.search(r"(?i)can't fork|resource temporarily unavailable", done.err)
    cli.ok("run", "-d", "--name", names("a"), "--pids-limit", "7", "busybox", "sleep", "1000")
    assert _read(cli, names("a"), "pids/pids.max", "pids.max") == "7"


def test_ulimits(cli: Cli) -> None:
    options = ["--ulimit", "nofile=99:123", "--ulimit", "core=0"]
    script = "ulimit -Sn; ulimit -Hn; ulimit -c"
    out = cli.ok("run", "--rm", *options, "busybox", "sh", "-c", script)
    assert out.split() == ["99", "123", "0"]


def test_update_changes_a_running_container(cli: Cli, names: Names) -> None:
    cli.ok("run", "-d", "--name", names("a"), "-m", "64m", "busybox", "sleep", "1000")
    cli.ok("update", "-m", "48m", "--memory-swap", "48m", "--pids-limit", "9", names("a"))
    limit = _read(cli, names("a"), "memory/memory.limit_in_bytes", "memory.max")
    assert limit == str(48 << 20)
    assert _read(cli, names("a"), "pids/pids.max", "pids.max") == "9"


# --- devices ------------------------------------------------------------------------------------


Device = tuple[str, int, int]


@pytest.fixture(scope="module")
def device() -> Device:
    """A character device that the host may open and no container may: path, major, minor."""
    for path in ("/dev/fuse", "/dev/loop-control", "/dev/hwrng"):
        try:
            os.close(os.open(path, os.O_RDWR))
        except OSError:
            continue
        number = Path(path).stat().st_rdev
        return path, os.major(number), os.minor(number)
    pytest.skip("this machine has no device to try with")


def test_devices_are_closed_by_default(cli: Cli, device: Device) -> None:
    """Even root with mknod cannot open a device that is not on the list."""
    _, major, minor = device
    script = f"mknod /z c 1 5; head -c1 /z | wc -c; mknod /d c {major} {minor}; : < /d; echo opened"
    done = cli.run("run", "--rm", "busybox", "sh", "-c", script)
    assert done.out == "1\n"
    assert re.search(r"(?i)/d.*operation not permitted", done.err)


def test_a_device_can_be_given(cli: Cli, device: Device) -> None:
    path, major, minor = device
    given = ["run", "--rm", "--device", f"{path}:/dev/given:r", "busybox"]
    out = cli.ok(*given, "sh", "-c", "stat -c '%t:%T %F' /dev/given; : < /dev/given && echo opened")
    assert out == f"{major:x}:{minor:x} character special file\nopened"
    read_only = cli.run(*given, "sh", "-c", ": >> /dev/given")
    assert read_only.code != 0
    assert re.search(r"(?i)operation not permitted", read_only.err)


def test_a_device_rule_opens_a_class(cli: Cli, device: Device) -> None:
    _, major, minor = device
    rule = ["--device-cgroup-rule", f"c {major}:* rm"]
    script = f"mknod /d c {major} {minor} && : < /d && echo opened"
    assert cli.ok("run", "--rm", *rule, "busybox", "sh", "-c", script) == "opened"


def test_privileged_sees_the_hosts_devices(cli: Cli, engine: Engine, device: Device) -> None:
    if engine.kind == "dockerd" and not _has_all_capabilities():
        pytest.skip("docker cannot start privileged containers without all capabilities")
    script = f": < {device[0]} && grep Seccomp: /proc/self/status"
    out = cli.ok("run", "--rm", "--privileged", "busybox", "sh", "-c", script)
    assert out.split() == ["Seccomp:", "0"]


def _has_all_capabilities() -> bool:
    status = Path("/proc/self/status").read_text()
    bounding = int(re.findall(r"^CapBnd:\s+(\w+)$", status, re.MULTILINE)[0], 16)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    return bounding == (1 << (last + 1)) - 1


# --- isolation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"])
def test_masked_paths_are_empty(cli: Cli, path: str) -> None:
    if not Path(path).exists():
        pytest.skip(f"this kernel has no {path}")
    script = f"if [ -d {path} ]; then ls -A {path}; else cat {path}; fi"
    done = cli.run("run", "--rm", "busybox", "sh", "-c", script)
    assert done.out == ""


def test_read_only_paths_cannot_be_written(cli: Cli) -> None:
    paths = ["/proc/sys/kernel/printk", "/sys/x"]
    if Path("/proc/sysrq-trigger").exists():
        paths.append("/proc/sysrq-trigger")
    script = "; ".join(f"echo 0 > {path}" for path in paths)
    done = cli.run("run", "--rm", "busybox", "sh", "-c", script)
    assert len(re.findall(r"(?i)read-only|permission denied", done.err)) == len(paths)


def test_default_capabilities(cli: Cli) -> None:
    status = ["grep", "CapBnd", "/proc/self/status"]
    assert cli.ok("run", "--rm", "busybox", *status).split()[1] == "00000000a80425fb"
    bare = cli.ok("run", "--rm", "--cap-drop=ALL", "--cap-add=CHOWN", "busybox", *status)
    assert int(bare.split()[1], 16) == 1
    more = cli.ok("run", "--rm", "--cap-add=NET_ADMIN", "busybox", *status)
    assert int(more.split()[1], 16) == 0xA80425FB | 1 << 12


def test_seccomp_is_on_unless_told_otherwise(cli: Cli) -> None:
    status = ["grep", "^Seccomp:", "/proc/self/status"]
    assert cli.ok("run", "--rm", "busybox", *status).split()[1] == "2"
    assert cli.run("run", "--rm", "busybox", "unshare", "-m", "true").code != 0
    off = ["--security-opt", "seccomp=unconfined"]
    assert cli.ok("run", "--rm", *off, "busybox", *status).split()[1] == "0"


def test_no_new_privileges(cli: Cli) -> None:
    status = ["grep", "NoNewPrivs", "/proc/self/status"]
    assert cli.ok("run", "--rm", "busybox", *status).split()[1] == "0"
    option = ["--security-opt", "no-new-privileges"]
    assert cli.ok("run", "--rm", *option, "busybox", *status).split()[1] == "1"


def test_apparmor_profile_where_the_kernel_has_it(cli: Cli) -> None:
    if not Path("/sys/kernel/security/apparmor/profiles").exists():
        pytest.skip("this kernel has no AppArmor")
    confined = cli.ok("run", "--rm", "busybox", "cat", "/proc/self/attr/current")
    assert confined.endswith("(enforce)")
    free = ["--security-opt", "apparmor=unconfined"]
    assert cli.ok("run", "--rm", *free, "busybox", "cat", "/proc/self/attr/current") == "unconfined"


@pytest.mark.parametrize("kind", ["pid", "mnt", "net", "uts", "ipc", "cgroup"])
def test_namespaces_are_not_the_hosts(cli: Cli, kind: str) -> None:
    if kind == "cgroup" and not V2:
        pytest.skip("docker makes cgroup namespaces on cgroup v2 only")
    inside = cli.ok("run", "--rm", "busybox", "readlink", f"/proc/self/ns/{kind}")
    assert inside != str(Path(f"/proc/self/ns/{kind}").readlink())


@pytest.mark.parametrize(
    ("option", "kind"), [("--pid=host", "pid"), ("--ipc=host", "ipc"), ("--uts=host", "uts")]
)
def test_a_namespace_of_the_host_can_be_shared(cli: Cli, option: str, kind: str) -> None:
    inside = cli.ok("run", "--rm", option, "busybox", "readlink", f"/proc/self/ns/{kind}")
    assert inside == str(Path(f"/proc/self/ns/{kind}").readlink())


def test_namespaces_of_another_container(cli: Cli, names: Names) -> None:
    cli.ok("run", "-d", "--name", names("a"), "--ipc=shareable", "busybox", "sleep", "1000")
    other = f"container:{names('a')}"
    for kind in ("pid", "ipc"):
        own = cli.ok("exec", names("a"), "readlink", f"/proc/self/ns/{kind}")
        shared = ["run", "--rm", f"--{kind}", other, "busybox"]
        assert cli.ok(*shared, "readlink", f"/proc/self/ns/{kind}") == own


def test_pause_stops_and_unpause_goes_on(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("clock")
    cli.ok("run", "-d", "--name", name, "clock")
    until("the clock ticks", lambda: "tick 2 " in cli.ok("logs", name))
    assert cli.ok("pause", name) == name
    assert engine.api.state(name)["Status"] == "paused"
    assert "(Paused)" in cli.ok("ps", "--format", "{{.Status}}")
    frozen = cli.ok("logs", name)
    assert cli.ok("logs", name) == frozen
    assert cli.ok("unpause", name) == name
    until("the clock ticks again", lambda: len(cli.ok("logs", name)) > len(frozen), 10 * PATIENCE)
