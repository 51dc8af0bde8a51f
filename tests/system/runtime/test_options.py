"""What can be asked for, looked at from inside."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from teu.errors import InvalidParameter
from teu.model.config import DeviceMapping, Ulimit
from teu.model.container import MountPoint
from teu.runtime import capabilities
from teu.sys import mounts, syscalls

if TYPE_CHECKING:
    from .conftest import Bench


def test_user_and_groups(bench: Bench) -> None:
    script = "id; echo $HOME; cat /proc/self/status"
    said = bench.output(script, user="bob", host={"group_add": ["more", "4000"]})
    ident, home, *status = said.splitlines()
    assert ident.startswith(
        "uid=1000(bob) gid=1000(bob) groups=1000(bob),2000(extra),3000(more),4000"
    )
    assert home == "/home/bob"
    text = "\n".join(status)
    assert int(bench.field(text, "CapEff"), 16) == 0
    found = capabilities.decode(int(bench.field(text, "CapBnd"), 16))
    assert set(found) == set(capabilities.DEFAULT)


def test_numeric_user_that_nobody_knows(bench: Bench) -> None:
    said = bench.output("id; echo $HOME", user="4242:4343")
    assert said.splitlines() == ["uid=4242 gid=4343 groups=4343", "/"]


def test_working_directory_is_created(bench: Bench) -> None:
    assert bench.output("pwd", working_dir="/new/deep") == "/new/deep"


def test_working_directory_is_created_below_a_read_only_root(bench: Bench) -> None:
    said = bench.output("pwd", working_dir="/new/deep", host={"readonly_rootfs": True})
    assert said == "/new/deep"


def test_read_only_root(bench: Bench) -> None:
    said = bench.output(
        "touch /x 2>&1 || true; (echo x >> /etc/hosts) 2>&1 || true; touch /dev/shm/ok /run/ok",
        host={"readonly_rootfs": True, "tmpfs": {"/run": ""}},
    )
    assert said.count("Read-only file system") == 2


def test_environment(bench: Bench) -> None:
    said = bench.output("env", env=["A=b=c", "PATH=/bin", "HOME=/elsewhere", "EMPTY=", "GONE"])
    lines = said.splitlines()
    assert {"A=b=c", "PATH=/bin", "HOME=/elsewhere", "EMPTY="} <= {*lines}
    assert not any(line.startswith("GONE") for line in lines)


def test_hostname_and_domain(bench: Bench) -> None:
    said = bench.output(
        "hostname; cat /proc/sys/kernel/domainname; echo $HOSTNAME",
        hostname="box",
        domainname="example.test",
    )
    assert said.splitlines() == ["box", "example.test", "box"]


def test_tmpfs_options(bench: Bench) -> None:
    said = bench.output(
        "cat /proc/self/mounts; stat -c %a /t; stat -c %a:%u /u",
        host={"tmpfs": {"/t": "size=64k,mode=1770", "/u": "uid=7,exec"}},
    )
    *lines, first, second = said.splitlines()
    table = {line.split()[1]: set(line.split()[3].split(",")) for line in lines}
    assert {"size=64k", "noexec", "nosuid", "nodev"} <= table["/t"]
    assert "noexec" not in table["/u"]
    assert first == "1770"
    assert second.endswith(":7")


def test_binds_and_their_modes(bench: Bench, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    (outer / "inner").mkdir(parents=True)
    mounts.tmpfs(outer / "inner")
    (outer / "file").write_text("from the host")
    points = [
        MountPoint(type="bind", source=str(outer), destination="/rw"),
        MountPoint(type="bind", source=str(outer), destination="/ro", rw=False),
        MountPoint(
            type="bind", source=str(outer), destination="/flat", rw=False, options=["rbind", "ro"]
        ),
        MountPoint(type="bind", source=str(outer), destination="/one", options=["bind"]),
        MountPoint(type="bind", source=str(outer / "file"), destination="/rw/nested/file"),
    ]
    said = bench.output(
        "cat /rw/nested/file; echo; touch /rw/ok /rw/inner/ok /flat/inner/ok2; "
        "ls /one/inner | wc -l; "
        "for f in /ro/x /ro/inner/x /flat/x; do touch $f 2>&1 || true; done",
        mounts=points,
    )
    mounts.unmount(outer / "inner")
    content, one, *denied = said.splitlines()
    assert content == "from the host"
    assert one == "0"
    assert len(denied) == 3
    assert all("Read-only" in line for line in denied)
    assert (outer / "ok").exists()


def test_asked_mount_replaces_the_default_one(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("mine\n")
    point = MountPoint(type="bind", source=str(tmp_path / "hosts"), destination="/etc/hosts")
    said = bench.output(
        "cat /etc/hosts; cat /proc/self/mounts",
        mounts=[point],
        host={"tmpfs": {"/dev/shm": "size=8k"}},
    )
    assert said.splitlines()[0] == "mine"
    shm = [line for line in said.splitlines() if " /dev/shm " in line]
    assert len(shm) == 1
    assert "size=8k" in shm[0]


def test_slave_propagation(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "shared"
    source.mkdir()
    mounts.tmpfs(source)
    syscalls.mount("none", source, None, mounts.MS_SHARED)
    (source / "late").mkdir()
    point = MountPoint(type="bind", source=str(source), destination="/s", propagation="rslave")
    record, _ = bench.start(mounts=[point])
    mounts.tmpfs(source / "late")
    (source / "late/seen").write_text("")
    assert bench.exec(record, "ls /s/late").stdout == b"seen\n"


needs_fuse = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")


@needs_fuse
def test_asked_devices(bench: Bench) -> None:
    said = bench.output(
        "ls -l /dev/myfuse /dev/extra/zero; (: < /dev/myfuse) && echo readable; "
        "(: > /dev/myfuse) 2>&1 || true",
        host={
            "devices": [
                DeviceMapping(
                    path_on_host="/dev/fuse",
                    path_in_container="/dev/myfuse",
                    cgroup_permissions="r",
                ),
                DeviceMapping(path_on_host="/dev/zero", path_in_container="/dev/extra/zero"),
            ]
        },
    )
    assert "readable" in said
    assert "not permitted" in said
    assert "/dev/extra/zero" in said


@needs_fuse
def test_device_folder_and_rule(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "devs" / "deep"
    folder.mkdir(parents=True)
    os.mknod(folder / "zero", 0o20666, os.makedev(1, 5))
    (tmp_path / "devs" / "file").write_text("no device")
    said = bench.output(
        "ls /dev/mine /dev/mine/deep; mknod /tmp/fuse c 10 229; : < /tmp/fuse",
        host={
            "devices": [
                DeviceMapping(path_on_host=str(tmp_path / "devs"), path_in_container="/dev/mine")
            ],
            "device_cgroup_rules": ["c 10:* rwm"],
        },
    )
    assert "zero" in said
    assert "file" not in said


def test_missing_device_is_refused(bench: Bench) -> None:
    record = bench.record(
        "true", host={"devices": [DeviceMapping(path_on_host="/dev/no-such-device")]}
    )
    with pytest.raises(
        InvalidParameter, match=r'custom device "/dev/no-such-device": no such file'
    ):
        asyncio.run(bench.prepare(record))


def test_privileged(bench: Bench) -> None:
    said = bench.output(
        "grep Seccomp: /proc/self/status; ls /dev; cat /proc/interrupts | wc -c; "
        "mount -t tmpfs none /tmp && echo mounted; mknod /dev/x c 1 11; "
        "dd if=/dev/x of=/dev/null bs=8192 count=1 && echo opened; "
        "cat /proc/self/mounts",
        host={"privileged": True},
    )
    lines = said.splitlines()
    assert lines[0].split() == ["Seccomp:", "0"]
    assert "kmsg" in lines
    assert "mounted" in lines
    assert "opened" in lines
    sysfs = next(line for line in lines if " /sys sysfs " in line)
    assert "rw" in sysfs.split()[3].split(",")


def test_ulimits(bench: Bench) -> None:
    said = bench.output(
        "ulimit -n; ulimit -Hn; ulimit -c",
        host={
            "ulimits": [
                Ulimit(name="nofile", soft=100, hard=200),
                Ulimit(name="core", soft=0, hard=0),
            ]
        },
    )
    assert said.splitlines() == ["100", "200", "0"]


def test_unlimited_ulimit(bench: Bench) -> None:
    host = {"ulimits": [Ulimit(name="fsize", soft=-1, hard=-1)]}
    assert bench.output("ulimit -f", host=host) == "unlimited"


def test_daemons_ulimits_are_defaults(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(default_ulimits={"nofile": Ulimit(name="nofile", soft=64, hard=128)})
    assert bench.output("ulimit -n") == "64"
    host = {"ulimits": [Ulimit(name="nofile", soft=32, hard=32)]}
    assert bench.output("ulimit -n", host=host) == "32"


def test_sysctls(bench: Bench) -> None:
    said = bench.output(
        "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward; "
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range",
        host={"sysctls": {"kernel.msgmax": "9000", "net.ipv4.ip_forward": "1"}},
    )
    assert said.split() == ["9000", "1", "0", "0", "2147483647"]


def test_no_new_privileges(bench: Bench, make_bench: Callable[..., Bench]) -> None:
    host = {"security_opt": ["no-new-privileges"]}
    assert bench.output("grep NoNewPrivs /proc/self/status", host=host).endswith("1")
    strict = make_bench(no_new_privileges=True)
    assert strict.output("grep NoNewPrivs /proc/self/status").endswith("1")
    host = {"security_opt": ["no-new-privileges=false"]}
    assert strict.output("grep NoNewPrivs /proc/self/status", host=host).endswith("0")


def test_oom_score(bench: Bench) -> None:
    assert bench.output("cat /proc/self/oom_score_adj", host={"oom_score_adj": 500}) == "500"


def test_shared_memory_size(bench: Bench) -> None:
    said = bench.output("df -k /dev/shm | tail -1", host={"shm_size": 2 << 20})
    assert said.split()[1] == "2048"
    assert bench.output("ls /dev/shm 2>&1 || true", host={"ipc_mode": "none"}).startswith("ls:")


def test_init(bench: Bench) -> None:
    said = bench.output("echo $$; cat /proc/1/cmdline | head -c 17", host={"init": True})
    pid, one = said.splitlines()
    assert pid != "1"
    assert one.startswith("/sbin/docker-init")


def test_init_is_not_put_into_a_shared_pid_namespace(bench: Bench) -> None:
    said = bench.output("ls /sbin 2>&1 || true", host={"init": True, "pid_mode": "host"})
    assert "docker-init" not in said


def test_annotations_reach_the_runtime(bench: Bench) -> None:
    record = bench.record("true", host={"annotations": {"org.example": "x"}})
    asyncio.run(bench.prepare(record))
    config = json.loads((bench.bundle(record) / "config.json").read_text())
    assert config["annotations"]["org.example"] == "x"
