"""Checks at create, apart from limits: modes, paths, names, conflicts."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from teu.errors import InvalidParameter
from teu.model.config import ContainerConfig, DeviceMapping, HostConfig, Ulimit
from teu.runtime import validate
from teu.runtime.binaries import Runtimes
from teu.runtime.config import RuntimeBinary, RuntimeConfig
from teu.runtime.service import RuntimeService
from teu.sys.cgroup import Cgroups

MIB = 1 << 20


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"ipc_mode": "bogus"}, "invalid IPC mode: bogus"),
        ({"ipc_mode": "container:"}, "invalid IPC mode: container:"),
        ({"pid_mode": "private"}, "invalid PID mode: private"),
        ({"pid_mode": "container:"}, "invalid PID mode: container:"),
        ({"uts_mode": "container:x"}, "invalid UTS mode: container:x"),
        ({"userns_mode": "private"}, "invalid user namespace mode: private"),
        ({"cgroupns_mode": "x"}, "invalid cgroup namespace mode: x"),
        ({"cap_add": ["BOGUS"]}, 'invalid CapAdd: unknown capability: "CAP_BOGUS"'),
        ({"cap_drop": ["x y"]}, 'invalid CapDrop: unknown capability: "CAP_X Y"'),
        ({"security_opt": ["bogus"]}, 'invalid --security-opt 1: "bogus"'),
        ({"shm_size": -1}, "SHM size can not be less than 0"),
        ({"isolation": "hyperv"}, "invalid isolation 'hyperv' on linux"),
        (
            {"annotations": {"": "x"}},
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ),
        ({"masked_paths": ["x"]}, "masked and read-only paths must be absolute: x"),
        (
            {"sysctls": {"net.ipv4.x": "1"}, "network_mode": "host"},
            "sysctl 'net.ipv4.x' is not allowed in the host network namespace; set it on the host",
        ),
        (
            {"sysctls": {"kernel.msgmax": "1"}, "ipc_mode": "host"},
            "sysctl 'kernel.msgmax' is not allowed in the host IPC namespace; set it on the host",
        ),
        (
            {"sysctls": {"kernel.hostname": "1"}, "uts_mode": "host"},
            "sysctl 'kernel.hostname' is not allowed in the host UTS namespace; set it on the host",
        ),
        (
            {"sysctls": {"kernel.panic": "1"}},
            "sysctl 'kernel.panic' is not allowed: it is not kept apart for containers; "
            "set it on the host",
        ),
        ({"sysctls": {"net/../kernel": "1"}}, "sysctl 'net/../kernel' is not allowed"),
        ({"sysctls": {"net..x": "1"}}, "sysctl 'net..x' is not allowed"),
        (
            {"devices": [DeviceMapping(path_on_host="/dev/null", path_in_container="x")]},
            "x is not an absolute path",
        ),
        (
            {"devices": [DeviceMapping(path_on_host="/dev/null", cgroup_permissions="q")]},
            "invalid device mode: q",
        ),
        ({"device_cgroup_rules": ["x"]}, "invalid device cgroup rule format: 'x'"),
        ({"tmpfs": {"t": ""}}, "invalid mount path: 't' mount path must be absolute"),
        ({"tmpfs": {"/../": ""}}, "invalid specification: destination can't be '/'"),
        ({"tmpfs": {"//": ""}}, "invalid specification: destination can't be '/'"),
        ({"tmpfs": {"/t": "bogus"}}, 'invalid tmpfs option ["bogus"]'),
    ],
)
def test_refused_host_configuration(host: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        validate.check_host(HostConfig(**host))
    assert caught.value.message == message


def test_accepted_host_configuration() -> None:
    validate.check_host(
        HostConfig(
            ipc_mode="container:x",
            pid_mode="container:x",
            uts_mode="host",
            userns_mode="host",
            cgroupns_mode="private",
            cap_add=["ALL"],
            cap_drop=["sys_resource"],
            security_opt=["seccomp=unconfined", "label=disable"],
            sysctls={"net.core.somaxconn": "1", "kernel.shm_rmid_forced": "1", "fs.mqueue.x": "1"},
            tmpfs={"/run": "", "/t": "size=1g,mode=700,exec"},
            device_cgroup_rules=["c *:* rwm"],
            masked_paths=[],
            isolation="default",
        )
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hostname": "x" * 65}, f'hostname "{"x" * 65}" is too long (maximum 64 bytes)'),
        (
            {"working_dir": "relative"},
            "the working directory 'relative' is invalid, it needs to be an absolute path",
        ),
        ({"env": ["=x"]}, "invalid environment variable: =x"),
        ({"env": [""]}, "invalid environment variable: "),
        ({"env": ["a=\0"]}, "an environment variable contains a zero byte"),
    ],
)
def test_refused_configuration(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        validate.check_config(ContainerConfig(**config))
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("asked", "kept"),
    [("", ""), ("/", "/"), ("//a/../b/", "/b"), ("/../..", "/"), ("/a//b", "/a/b")],
)
def test_working_directory_is_cleaned(asked: str, kept: str) -> None:
    config = ContainerConfig(working_dir=asked, env=["A", "B=", "C=d=e"])
    validate.check_config(config)
    assert config.working_dir == kept


@pytest.mark.parametrize(
    ("host", "config", "what"),
    [
        ({"uts_mode": "host"}, {"hostname": "x"}, "hostname and the UTS mode"),
        (
            {"network_mode": "host", "links": ["x"]},
            {},
            "host type networking can't be used with links. "
            "This would result in undefined behavior",
        ),
        (
            {"network_mode": "container:x", "links": ["x"]},
            {},
            "container type network can't be used with links. "
            "This would result in undefined behavior",
        ),
        ({"network_mode": "container:x"}, {"hostname": "x"}, "hostname and the network mode"),
        ({"network_mode": "container:x", "dns": ["1.1.1.1"]}, {}, "dns and the network mode"),
        (
            {"network_mode": "container:x", "extra_hosts": ["a:1.1.1.1"]},
            {},
            "custom host-to-IP mapping and the network mode",
        ),
        (
            {"network_mode": "container:x", "publish_all_ports": True},
            {},
            "port publishing and the container type network mode",
        ),
        (
            {"network_mode": "container:x"},
            {"exposed_ports": {"80/tcp": {}}},
            "port exposing and the container type network mode",
        ),
        (
            {"network_mode": "container:x"},
            {"mac_address": "02:00:00:00:00:01"},
            "mac-address and the network mode",
        ),
    ],
)
def test_conflicts(host: dict[str, Any], config: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        validate.check_conflicts(HostConfig(**host), ContainerConfig(**config))
    assert caught.value.message == f"conflicting options: {what}"


def test_joined_container_needs_a_name() -> None:
    with pytest.raises(InvalidParameter, match=r"invalid container format container:<name\|id>"):
        validate.check_conflicts(HostConfig(network_mode="container:"), ContainerConfig())


# --- the service in front of them


def service(tmp_path: Path, **config: Any) -> RuntimeService:
    return RuntimeService(RuntimeConfig(exec_root=tmp_path, **config))


def test_service_validates_runtime_and_profile(tmp_path: Path) -> None:
    made = service(tmp_path)
    with pytest.raises(InvalidParameter, match="unknown or invalid runtime name: kata"):
        made.validate(HostConfig(runtime="kata"), ContainerConfig())
    with pytest.raises(InvalidParameter, match="Decoding seccomp profile failed"):
        made.validate(HostConfig(security_opt=["seccomp={"]), ContainerConfig())
    assert made.validate(HostConfig(runtime="io.containerd.runc.v2"), ContainerConfig()) == []


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    made = service(tmp_path, default_shm_size=5, default_runtime="runc", ipc_mode="shareable")
    host = HostConfig(memory=8 * MIB)
    made.fill_defaults(host)
    assert (host.runtime, host.shm_size, host.ipc_mode) == ("runc", 5, "shareable")
    assert host.memory_swap == 16 * MIB
    assert host.cgroupns_mode == "host"
    made.fill_defaults(host)
    asked = HostConfig(
        runtime="crun",
        shm_size=1,
        ipc_mode="host",
        memory=1,
        memory_swap=-1,
        cgroupns_mode="private",
    )
    made.fill_defaults(asked)
    assert (asked.runtime, asked.shm_size, asked.ipc_mode) == ("crun", 1, "host")
    assert (asked.memory_swap, asked.cgroupns_mode) == (-1, "private")


def test_hidden_paths_are_filled_in(tmp_path: Path) -> None:
    made = service(tmp_path)
    plain = HostConfig()
    made.fill_defaults(plain)
    assert "/proc/kcore" in (plain.masked_paths or [])
    assert "/proc/sys" in (plain.readonly_paths or [])
    assert plain.oom_kill_disable is False
    assert plain.security_opt is None
    privileged = HostConfig(privileged=True)
    made.fill_defaults(privileged)
    assert privileged.masked_paths is privileged.readonly_paths is None
    assert privileged.security_opt == ["label=disable"]
    shown = HostConfig(security_opt=["systempaths=unconfined"])
    made.fill_defaults(shown)
    assert shown.masked_paths == shown.readonly_paths == []
    chosen = HostConfig(masked_paths=["/x"], pid_mode="host", security_opt=["label=user:u"])
    made.fill_defaults(chosen)
    assert chosen.masked_paths == ["/x"]
    assert chosen.security_opt == ["label=user:u"]


@pytest.mark.parametrize(
    ("configured", "privileged", "expected"),
    [("", False, "host"), ("private", False, "private"), ("private", True, "host")],
)
def test_default_cgroup_namespace_on_version_1(
    tmp_path: Path, configured: str, privileged: bool, expected: str
) -> None:
    host = HostConfig(privileged=privileged)
    service(tmp_path, cgroupns_mode=configured).fill_defaults(host)
    assert host.cgroupns_mode == expected


def test_commands_of_runtimes(tmp_path: Path) -> None:
    made = service(
        tmp_path,
        runtimes={"mine": RuntimeBinary("/opt/mine", ("--debug",))},
        default_runtime="mine",
    )
    expected = ["/opt/mine", "--debug", "--root", str(tmp_path / "runtimes/mine")]
    assert made.command("mine") == made.command("") == expected
    assert made.binary("mine").path == "/opt/mine"


@pytest.mark.skipif(shutil.which("crun") is None, reason="needs crun")
def test_bad_default_ulimit_stops_the_start(tmp_path: Path) -> None:
    limit = Ulimit(name="nofile", soft=2, hard=1)
    made = service(tmp_path, default_ulimits={"nofile": limit})
    with pytest.raises(InvalidParameter, match="must be less than or equal to hard limit"):
        asyncio.run(made.start())


@pytest.mark.skipif(shutil.which("crun") is None, reason="needs crun")
def test_reload_keeps_what_running_containers_need(tmp_path: Path) -> None:
    made = service(tmp_path, runtimes={"mine": RuntimeBinary("/opt/mine")})
    new = RuntimeConfig(
        exec_root=tmp_path, runtimes={"other": RuntimeBinary("crun")}, default_shm_size=7
    )
    asyncio.run(made.reload(new))
    assert made.binary("mine").path == "/opt/mine"
    assert made.binary("other").path == "crun"
    host = HostConfig()
    made.fill_defaults(host)
    assert host.shm_size == 7
    broken = RuntimeConfig(exec_root=tmp_path, default_runtime="nothing")
    with pytest.raises(InvalidParameter, match="unknown or invalid runtime name: nothing"):
        asyncio.run(made.reload(broken))
    assert made.default_runtime == "crun"


@pytest.mark.parametrize(
    ("says", "program", "recursive"),
    [
        ("crun version 1.8.1", True, True),
        ("crun version 1.29.1", True, True),
        ("crun version 1.7", True, True),
        ("crun version 1.6", False, True),
        ("crun version 0.17", False, False),
        ("crun version 2.0", False, True),
        ("runc version 1.1.5+ds1", False, True),
        ("runc version 1.0.0", False, False),
        ("youki version 9.9", False, False),
        ("", False, False),
    ],
)
def test_what_a_runtime_is_trusted_with(
    tmp_path: Path, says: str, program: bool, recursive: bool
) -> None:
    """A runtime that does not know a compiled filter, or `rro`, ignores it without a word."""
    fake = tmp_path / "runtime"
    fake.write_text(f"#!/bin/sh\necho '{says}'\necho 'commit: 1'\n")
    fake.chmod(0o755)
    config = RuntimeConfig(
        exec_root=tmp_path, runtimes={"x": RuntimeBinary(str(fake))}, default_runtime="x"
    )
    runtimes = Runtimes(config)
    asyncio.run(runtimes.start(Cgroups(False, {})))
    assert runtimes.takes_seccomp_program("x") is program
    assert runtimes.takes_recursive_read_only("") is recursive
    manager = "--cgroup-manager=cgroupfs"
    assert (manager in runtimes.command("x")) is says.startswith("crun")
