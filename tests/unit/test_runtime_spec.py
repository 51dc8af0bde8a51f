"""From a record to the OCI configuration: every option in a table, no kernel involved."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from teu.errors import InvalidParameter
from teu.model.config import ContainerConfig, HostConfig, TmpfsOptions, Ulimit
from teu.model.container import ContainerRecord, MountPoint
from teu.runtime import capabilities, devices, mountspec, processes, resources, spec
from teu.runtime.mountspec import Sources
from teu.runtime.namespaces import Joins
from teu.runtime.processes import Confinement, ExecRequest
from teu.runtime.security import SecurityOptions
from teu.runtime.users import User

ROOT = User(0, 0, (0,), "/root")
BOB = User(1000, 100, (100, 20), "/home/bob")
ID = "c0ffee" * 10 + "c0ff"


def record(
    *, host: dict[str, Any] | None = None, mounts: list[MountPoint] | None = None, **config: Any
) -> ContainerRecord:
    return ContainerRecord(
        id=ID,
        name="test",
        created_ns=0,
        image_id="",
        config=ContainerConfig(**config),
        host=HostConfig(**(host or {})),
        args=["sleep", "1"],
        mounts=mounts or [],
    )


def built(made: ContainerRecord, **facts: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "rootfs": Path("/rootfs"),
        "user": ROOT,
        "cgroups_path": f"/teu/{ID}",
        "unified": False,
        "own_hostname": "outer",
        **facts,
    }
    config = spec.build(made, spec.Facts(**values))
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(config))
    return decoded


def mount_at(config: dict[str, Any], destination: str) -> dict[str, Any]:
    found = [mount for mount in config["mounts"] if mount["destination"] == destination]
    assert len(found) == 1, found
    mount: dict[str, Any] = found[0]
    return mount


def namespace_types(config: dict[str, Any]) -> dict[str, str]:
    return {entry["type"]: entry.get("path", "") for entry in config["linux"]["namespaces"]}


# --- the whole


def test_nothing_asked() -> None:
    config = built(record())
    assert config["process"] == {
        "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
        "args": ["sleep", "1"],
        "env": [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME=c0ffeec0ffee",
            "HOME=/root",
        ],
        "cwd": "/",
        "capabilities": {
            name: list(capabilities.DEFAULT) for name in ("bounding", "effective", "permitted")
        },
        "oomScoreAdj": 0,
    }
    assert config["root"] == {"path": "/rootfs", "readonly": False}
    assert config["hostname"] == "c0ffeec0ffee"
    assert namespace_types(config) == dict.fromkeys(("mount", "network", "uts", "pid", "ipc"), "")
    assert config["linux"]["resources"] == {"devices": list(devices.DEFAULT_RULES)}
    assert config["linux"]["cgroupsPath"] == f"/teu/{ID}"
    assert "/proc/kcore" in config["linux"]["maskedPaths"]
    assert "/proc/sys" in config["linux"]["readonlyPaths"]
    assert "seccomp" not in config["linux"]
    assert "annotations" not in config
    assert [mount["destination"] for mount in config["mounts"]] == [
        *("/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm")
    ]


def test_building_does_not_change_the_record() -> None:
    made = record(host={"privileged": True, "tmpfs": {"/t": "ro"}, "readonly_rootfs": True})
    before = msgspec.json.encode(made)
    first = built(made)
    assert msgspec.json.encode(made) == before
    assert built(made) == first


def test_seccomp_section_is_embedded_as_it_is() -> None:
    raw = msgspec.Raw(b'{"defaultAction":"SCMP_ACT_ALLOW"}')
    config = built(record(), seccomp=raw, annotations={"a": "b"})
    assert config["linux"]["seccomp"] == {"defaultAction": "SCMP_ACT_ALLOW"}
    assert config["annotations"] == {"a": "b"}


def test_own_annotations_win_over_the_users() -> None:
    made = record(host={"annotations": {"run.oci.seccomp_bpf_data": "mine", "x": "y"}})
    config = built(made, annotations={"run.oci.seccomp_bpf_data": "ours"})
    assert config["annotations"] == {"run.oci.seccomp_bpf_data": "ours", "x": "y"}


# --- namespaces and names


@pytest.mark.parametrize(
    ("host", "missing"),
    [
        ({"network_mode": "host"}, "network"),
        ({"pid_mode": "host"}, "pid"),
        ({"ipc_mode": "host"}, "ipc"),
        ({"uts_mode": "host"}, "uts"),
    ],
)
def test_host_namespace_is_left_out(host: dict[str, Any], missing: str) -> None:
    assert missing not in namespace_types(built(record(host=host)))


def test_joins() -> None:
    joins = Joins(net="/n", pid="/p", ipc="/i", uts="/u")
    found = namespace_types(built(record(), joins=joins))
    assert found == {"mount": "", "network": "/n", "pid": "/p", "ipc": "/i", "uts": "/u"}


def test_sandbox_of_the_record_is_the_network() -> None:
    made = record()
    made.sandbox = "/run/teu/netns/x"
    assert namespace_types(built(made))["network"] == "/run/teu/netns/x"
    assert namespace_types(built(made, joins=Joins(net="/other")))["network"] == "/other"


def test_disabled_network_is_never_the_hosts() -> None:
    made = record(host={"network_mode": "host"}, network_disabled=True)
    assert namespace_types(built(made))["network"] == ""


@pytest.mark.parametrize(
    ("mode", "unified", "private"),
    [
        ("", False, False),
        ("", True, True),
        ("host", True, False),
        ("private", False, True),
    ],
)
def test_cgroup_namespace(mode: str, unified: bool, private: bool) -> None:
    config = built(record(host={"cgroupns_mode": mode}), unified=unified)
    assert ("cgroup" in namespace_types(config)) is private


@pytest.mark.parametrize(
    ("host", "hostname", "expected"),
    [
        ({}, "box", "box"),
        ({}, "", "c0ffeec0ffee"),
        ({"network_mode": "host"}, "", "outer"),
        ({"network_mode": "host"}, "box", "box"),
    ],
)
def test_hostname(host: dict[str, Any], hostname: str, expected: str) -> None:
    config = built(record(host=host, hostname=hostname))
    assert config["hostname"] == expected
    assert f"HOSTNAME={expected}" in config["process"]["env"]


def test_no_hostname_in_a_shared_uts_namespace() -> None:
    config = built(record(host={"uts_mode": "host"}, domainname="x.test"))
    assert "hostname" not in config
    assert "kernel.domainname" not in config["linux"]["sysctl"]
    assert "HOSTNAME=outer" in config["process"]["env"]
    assert "hostname" not in built(record(), joins=Joins(uts="/u"))


def test_sysctls() -> None:
    config = built(
        record(host={"sysctls": {"net.ipv4.ping_group_range": "1 0", "a": "b"}}, domainname="d")
    )
    assert config["linux"]["sysctl"] == {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "1 0",
        "kernel.domainname": "d",
        "a": "b",
    }
    for mode in ("host", "container:x"):
        assert "sysctl" not in built(record(host={"network_mode": mode}))["linux"]


# --- the process


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ([], ["PATH=" + processes.DEFAULT_PATH, "HOSTNAME=h", "HOME=/home"]),
        (["PATH=/x"], ["PATH=/x", "HOSTNAME=h", "HOME=/home"]),
        (
            ["HOME=/y", "A=1", "A=2"],
            [f"PATH={processes.DEFAULT_PATH}", "HOSTNAME=h", "HOME=/y", "A=2"],
        ),
        (["HOSTNAME"], ["PATH=" + processes.DEFAULT_PATH, "HOME=/home"]),
        (["A=1", "A"], ["PATH=" + processes.DEFAULT_PATH, "HOSTNAME=h", "HOME=/home"]),
        (["A="], ["PATH=" + processes.DEFAULT_PATH, "HOSTNAME=h", "A=", "HOME=/home"]),
    ],
)
def test_environment(asked: list[str], expected: list[str]) -> None:
    assert processes.environment(asked, hostname="h", home="/home", tty=False) == expected


def test_terminal() -> None:
    process = built(record(tty=True, host={"console_size": [24, 80]}))["process"]
    assert process["terminal"] is True
    assert process["consoleSize"] == {"height": 24, "width": 80}
    assert "TERM=xterm" in process["env"]
    assert "consoleSize" not in built(record(tty=True, host={"console_size": [0, 0]}))["process"]
    assert "consoleSize" not in built(record(host={"console_size": [24, 80]}))["process"]


def test_user_other_than_root_has_only_the_bounding_set() -> None:
    process = built(record(), user=BOB)["process"]
    assert process["user"] == {"uid": 1000, "gid": 100, "additionalGids": [100, 20]}
    assert set(process["capabilities"]) == {"bounding"}


def test_confinement() -> None:
    confinement = Confinement(
        no_new_privileges=True,
        apparmor="teu-default",
        ulimits={
            "nofile": Ulimit(name="nofile", soft=1, hard=2),
            "nproc": Ulimit(name="nproc", soft=3, hard=4),
        },
    )
    limits = [Ulimit(name="nofile", soft=-1, hard=-1)]
    process = built(record(host={"ulimits": limits}), confinement=confinement)["process"]
    assert process["noNewPrivileges"] is True
    assert process["apparmorProfile"] == "teu-default"
    assert process["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 2**64 - 1, "hard": 2**64 - 1},
        {"type": "RLIMIT_NPROC", "soft": 3, "hard": 4},
    ]


def test_init_goes_in_front() -> None:
    config = built(record(), sources=Sources(init=Path("/usr/bin/tini")))
    assert config["process"]["args"] == ["/sbin/docker-init", "--", "sleep", "1"]
    mount = mount_at(config, "/sbin/docker-init")
    assert (mount["source"], mount["options"]) == ("/usr/bin/tini", ["bind", "ro"])


def test_exec() -> None:
    made = record(env=["A=1", "B=1"], working_dir="/work", host={"oom_score_adj": 7})
    request = ExecRequest(cmd=["id"], env=["B=2", "C"], tty=True, console_size=[1, 2])
    process = processes.exec_process(made, request, BOB, Confinement(), hostname="box")
    assert process["args"] == ["id"]
    assert {"A=1", "B=2", "HOSTNAME=box", "TERM=xterm", "HOME=/home/bob"} <= set(process["env"])
    assert (process["cwd"], process["terminal"], process["oomScoreAdj"]) == ("/work", True, 7)
    plain = processes.exec_process(made, ExecRequest(cmd=["id"]), ROOT, Confinement(), hostname="")
    assert plain["capabilities"]["effective"] == list(capabilities.DEFAULT)
    strong = ExecRequest(cmd=["id"], privileged=True, working_dir="/")
    process = processes.exec_process(made, strong, ROOT, Confinement(), hostname="")
    assert process["capabilities"]["effective"] == list(capabilities.available())
    assert process["cwd"] == "/"


# --- mounts


def test_shm_variants() -> None:
    config = built(record(host={"shm_size": 123}))
    assert "size=123" in mount_at(config, "/dev/shm")["options"]
    config = built(record(), sources=Sources(shm_bytes=456))
    assert "size=456" in mount_at(config, "/dev/shm")["options"]
    config = built(record(host={"ipc_mode": "host"}))
    assert mount_at(config, "/dev/shm")["source"] == "/dev/shm"
    config = built(record(host={"ipc_mode": "shareable"}), sources=Sources(shm=Path("/s")))
    assert mount_at(config, "/dev/shm") == {
        "destination": "/dev/shm",
        "type": "bind",
        "source": "/s",
        "options": ["rbind", "rprivate"],
    }
    config = built(record(host={"ipc_mode": "none"}))
    assert "/dev/shm" not in [mount["destination"] for mount in config["mounts"]]


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ({}, ["rbind", "rprivate"]),
        ({"rw": False}, ["rbind", "rro", "rprivate"]),
        ({"rw": False, "options": ["ro"]}, ["rbind", "ro", "rprivate"]),
        ({"rw": False, "options": ["bind"]}, ["bind", "ro", "private"]),
        ({"options": ["bind"], "propagation": "rslave"}, ["bind", "slave"]),
        ({"propagation": "rshared"}, ["rbind", "rshared"]),
        ({"options": ["rbind", "rslave"]}, ["rbind", "rslave"]),
        ({"options": ["rbind", "rbind"]}, ["rbind", "rprivate"]),
    ],
)
def test_bind_options(point: dict[str, Any], expected: list[str]) -> None:
    made = MountPoint(type="bind", source="/src", destination="/dst", **point)
    mount = mount_at(built(record(mounts=[made])), "/dst")
    assert mount == {
        "destination": "/dst",
        "type": "bind",
        "source": "/src",
        "options": expected,
    }


def test_read_only_bind_on_an_old_kernel() -> None:
    point = MountPoint(type="volume", source="/src", destination="/dst", rw=False)
    config = built(record(mounts=[point]), sources=Sources(recursive_read_only=False))
    assert mount_at(config, "/dst")["options"] == ["rbind", "ro", "rprivate"]
    point.options = ["rro"]
    with pytest.raises(InvalidParameter, match="/dst cannot be read-only recursively"):
        built(record(mounts=[point]), sources=Sources(recursive_read_only=False))


@pytest.mark.parametrize(
    ("propagation", "expected"),
    [
        ("", None),
        ("rprivate", None),
        ("shared", "shared"),
        ("rshared", "shared"),
        ("slave", "rslave"),
    ],
)
def test_root_propagation(propagation: str, expected: str | None) -> None:
    point = MountPoint(type="bind", source="/s", destination="/d", propagation=propagation)
    linux = built(record(mounts=[point]))["linux"]
    assert linux.get("rootfsPropagation") == expected


def test_shared_wins_over_slave() -> None:
    points = [
        MountPoint(type="bind", source="/s", destination=f"/{name}", propagation=name)
        for name in ("rslave", "rshared")
    ]
    assert built(record(mounts=points))["linux"]["rootfsPropagation"] == "shared"


def test_order_is_by_depth_and_etc_files_come_last() -> None:
    points = [
        MountPoint(type="bind", source="/s", destination=path) for path in ("/a/b/c", "/z", "/a/b")
    ]
    sources = Sources(etc_files={"/etc/hosts": Path("/h"), "/etc/hostname": Path("/n")})
    config = built(record(mounts=points, host={"tmpfs": {"/a/": ""}}), sources=sources)
    assert [mount["destination"] for mount in config["mounts"]][7:] == [
        *("/z", "/a", "/a/b", "/a/b/c", "/etc/hosts", "/etc/hostname")
    ]


def test_asked_mounts_replace_defaults() -> None:
    points = [MountPoint(type="bind", source="/s", destination=path) for path in ("/dev", "/sys")]
    config = built(record(mounts=points))
    assert [mount["destination"] for mount in config["mounts"]] == [
        *("/proc", "/sys/fs/cgroup", "/dev", "/sys")
    ]
    hosts = MountPoint(type="bind", source="/mine", destination="/etc/hosts")
    sources = Sources(etc_files={"/etc/hosts": Path("/theirs")})
    assert (
        mount_at(built(record(mounts=[hosts]), sources=sources), "/etc/hosts")["source"] == "/mine"
    )


def test_mount_wins_over_tmpfs_at_the_same_place() -> None:
    point = MountPoint(type="bind", source="/s", destination="/t")
    assert (
        mount_at(built(record(mounts=[point], host={"tmpfs": {"/t": ""}})), "/t")["type"] == "bind"
    )


def test_read_only_root() -> None:
    points = [MountPoint(type="bind", source="/s", destination="/data")]
    sources = Sources(etc_files={"/etc/hosts": Path("/h")}, init=Path("/i"))
    config = built(record(mounts=points, host={"readonly_rootfs": True}), sources=sources)
    assert config["root"]["readonly"] is True
    writable = {
        mount["destination"]
        for mount in config["mounts"]
        if not {"ro", "rro"} & set(mount["options"])
    }
    assert writable == {"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/data"}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ([], ["noexec", "nosuid", "nodev", "rprivate"]),
        (["exec", "size=1m"], ["nosuid", "nodev", "rprivate", "exec", "size=1m"]),
        (["size=1", "size=2"], ["noexec", "nosuid", "nodev", "rprivate", "size=2"]),
        (["defaults", "rw", "ro"], ["noexec", "nosuid", "nodev", "rprivate", "ro"]),
        (["rshared"], ["noexec", "nosuid", "nodev", "rshared"]),
        (["noexec"], ["nosuid", "nodev", "rprivate", "noexec"]),
        (["mode=1777", ""], ["noexec", "nosuid", "nodev", "rprivate", "mode=1777"]),
    ],
)
def test_tmpfs_words(asked: list[str], expected: list[str]) -> None:
    made = record(host={"tmpfs": {"/t": ",".join(asked)}})
    assert mount_at(built(made), "/t")["options"] == expected


@pytest.mark.parametrize(
    "word", ["bogus", "size", "size=", "lowerdir=/etc", "exec=1", "upperdir=x"]
)
def test_bad_tmpfs_words(word: str) -> None:
    shown = " ".join(f'"{part}"' for part in word.split("=", 1))
    with pytest.raises(InvalidParameter) as caught:
        mountspec.tmpfs_words([word])
    assert caught.value.message == f"invalid tmpfs option [{shown}]"


def test_tmpfs_as_a_mount() -> None:
    words = mountspec.tmpfs_words_of_mount(
        TmpfsOptions(size_bytes=5, mode=0o1770, options=[["uid", "7"], ["exec"]])
    )
    assert words == ["uid=7", "exec", "mode=1770", "size=5"]
    assert mountspec.tmpfs_words_of_mount(None) == []
    point = MountPoint(type="tmpfs", source="", destination="/t", options=words, rw=False)
    assert mount_at(built(record(mounts=[point])), "/t")["options"] == [
        *("nosuid", "nodev", "rprivate", "uid=7", "exec", "mode=1770", "size=5", "ro")
    ]


# --- confinement of paths, devices and cgroups


def test_privileged() -> None:
    config = built(record(host={"privileged": True}))
    assert config["linux"]["maskedPaths"] == config["linux"]["readonlyPaths"] == []
    assert config["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    paths = [device["path"] for device in config["linux"]["devices"]]
    assert "/dev/null" in paths
    assert "/dev/console" not in paths
    assert not any(path.startswith(("/dev/pts/", "/dev/shm/", "/dev/fd/")) for path in paths)
    assert "ro" not in mount_at(config, "/sys")["options"]
    assert "ro" not in mount_at(config, "/sys/fs/cgroup")["options"]
    assert config["process"]["capabilities"]["effective"] == list(capabilities.available())


@pytest.mark.parametrize(("asked", "read_only"), [(None, True), (False, True), (True, False)])
def test_writable_cgroups(asked: bool | None, read_only: bool) -> None:
    config = built(record(), security=SecurityOptions(writable_cgroups=asked))
    assert ("ro" in mount_at(config, "/sys/fs/cgroup")["options"]) is read_only
    strict = built(
        record(host={"privileged": True}), security=SecurityOptions(writable_cgroups=False)
    )
    assert "ro" in mount_at(strict, "/sys/fs/cgroup")["options"]


def test_paths_can_be_chosen() -> None:
    linux = built(record(host={"masked_paths": [], "readonly_paths": ["/x"]}))["linux"]
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == ([], ["/x"])
    linux = built(record(), security=SecurityOptions(unconfined_paths=True))["linux"]
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == ([], [])


# --- limits


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({}, {}),
        ({"memory": 100}, {"memory": {"limit": 100, "swap": 200}}),
        ({"memory": 100, "memory_swap": -1}, {"memory": {"limit": 100, "swap": -1}}),
        ({"memory": 100, "memory_swap": 150}, {"memory": {"limit": 100, "swap": 150}}),
        ({"memory_reservation": 50}, {"memory": {"reservation": 50}}),
        ({"memory_swappiness": 0}, {"memory": {"swappiness": 0}}),
        ({"memory_swappiness": -1}, {}),
        ({"oom_kill_disable": True}, {"memory": {"disableOOMKiller": True}}),
        ({"oom_kill_disable": False}, {}),
        ({"nano_cpus": 1_500_000_000}, {"cpu": {"period": 100000, "quota": 150000}}),
        ({"cpu_quota": 5000, "cpu_period": 20000}, {"cpu": {"period": 20000, "quota": 5000}}),
        ({"cpu_quota": -1}, {"cpu": {"quota": -1}}),
        ({"cpu_shares": 2, "cpuset_cpus": "0", "cpuset_mems": "0"},
         {"cpu": {"shares": 2, "cpus": "0", "mems": "0"}}),
        ({"cpu_realtime_period": 3, "cpu_realtime_runtime": 2},
         {"cpu": {"realtimePeriod": 3, "realtimeRuntime": 2}}),
        ({"pids_limit": 5}, {"pids": {"limit": 5}}),
        ({"pids_limit": 0}, {}),
        ({"pids_limit": -1}, {}),
        ({"blkio_weight": 300}, {"blockIO": {"weight": 300}}),
    ],
)  # fmt: skip
def test_resources(host: dict[str, Any], expected: dict[str, Any]) -> None:
    assert resources.build(HostConfig(**host), unified=False) == expected


def test_what_version_2_does_not_know_is_left_out() -> None:
    host = HostConfig(memory_swappiness=5, oom_kill_disable=True)
    assert resources.build(host, unified=True) == {}
