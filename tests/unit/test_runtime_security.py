"""Capabilities, security options, devices and AppArmor: tables of good and bad input."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from teu.errors import InvalidParameter, SystemFailure
from teu.model.config import DeviceMapping
from teu.runtime import apparmor, capabilities, devices, security
from teu.runtime.apparmor import AppArmor
from teu.runtime.security import SecurityOptions

ALLOWED = tuple(name for name in capabilities.NAMES if name != "CAP_SYS_RESOURCE")


# --- capabilities


def test_names_are_by_bit() -> None:
    assert capabilities.NAMES.index("CAP_CHOWN") == 0
    assert capabilities.NAMES.index("CAP_NET_ADMIN") == 12
    assert capabilities.NAMES.index("CAP_SYS_ADMIN") == 21
    assert capabilities.NAMES.index("CAP_CHECKPOINT_RESTORE") == 40
    assert capabilities.decode(0b1001) == ("CAP_CHOWN", "CAP_FOWNER")
    assert capabilities.decode(1 << 63) == ()
    assert set(capabilities.DEFAULT) <= set(capabilities.NAMES)
    assert len(capabilities.DEFAULT) == 14


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], set(capabilities.DEFAULT)),
        (["net_admin"], [], {*capabilities.DEFAULT, "CAP_NET_ADMIN"}),
        (["CAP_LEASE", "LEASE", "Cap_lease"], [], {*capabilities.DEFAULT, "CAP_LEASE"}),
        (["CHOWN"], [], set(capabilities.DEFAULT)),
        ([], ["chown", "SYS_ADMIN"], set(capabilities.DEFAULT) - {"CAP_CHOWN"}),
        ([], ["ALL"], set()),
        ([], ["cap_all"], set()),
        (["NET_ADMIN"], ["all"], {"CAP_NET_ADMIN"}),
        (["ALL"], [], set(ALLOWED)),
        (["ALL"], ["CHOWN"], set(ALLOWED) - {"CAP_CHOWN"}),
        (["ALL"], ["ALL"], set(ALLOWED)),
        (["ALL", "CHOWN"], ["CHOWN"], set(ALLOWED) - {"CAP_CHOWN"}),
    ],
)  # fmt: skip
def test_tweak(add: list[str], drop: list[str], expected: set[str]) -> None:
    found = capabilities.tweak(add, drop, privileged=False, allowed=ALLOWED)
    assert set(found) == expected
    assert len(found) == len(expected)
    assert capabilities.tweak(add, drop, privileged=True, allowed=ALLOWED) == list(ALLOWED)


def test_what_the_daemon_lacks_is_not_in_the_default() -> None:
    few = ("CAP_CHOWN", "CAP_KILL")
    assert set(capabilities.tweak((), (), privileged=False, allowed=few)) == set(few)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("BOGUS", 'unknown capability: "CAP_BOGUS"'),
        ("", 'unknown capability: "CAP_"'),
        ("NET ADMIN", 'unknown capability: "CAP_NET ADMIN"'),
        (
            "SYS_RESOURCE",
            "capability not supported by your kernel or not available in the current environment: "
            '"CAP_SYS_RESOURCE"',
        ),
    ],
)
def test_bad_capabilities(name: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        capabilities.normalize([name], ALLOWED)
    assert caught.value.message == message


# --- --security-opt


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], SecurityOptions()),
        (["no-new-privileges"], SecurityOptions(no_new_privileges=True)),
        (["no-new-privileges:true"], SecurityOptions(no_new_privileges=True)),
        (["no-new-privileges=0"], SecurityOptions(no_new_privileges=False)),
        (["seccomp=unconfined"], SecurityOptions(seccomp="unconfined")),
        (["seccomp:unconfined"], SecurityOptions(seccomp="unconfined")),
        (['seccomp={"a":"b=c"}'], SecurityOptions(seccomp='{"a":"b=c"}')),
        (["apparmor=x", "apparmor=y"], SecurityOptions(apparmor="y")),
        (["label=disable", "label=user:u", "disable"],
         SecurityOptions(labels=("disable", "user:u", "disable"))),
        (["systempaths=unconfined"], SecurityOptions(unconfined_paths=True)),
        (["writable-cgroups"], SecurityOptions(writable_cgroups=True)),
        (["writable-cgroups=false"], SecurityOptions(writable_cgroups=False)),
    ],
)  # fmt: skip
def test_security_options(options: list[str], expected: SecurityOptions) -> None:
    assert security.parse(options) == expected


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("bogus", 'invalid --security-opt 1: "bogus"'),
        ("", 'invalid --security-opt 1: ""'),
        ("bogus=1", 'invalid --security-opt 2: "bogus=1"'),
        ("no-new-privileges=maybe", 'invalid --security-opt 2: "no-new-privileges=maybe"'),
        ("no-new-privileges=", 'invalid --security-opt 2: "no-new-privileges="'),
        ("systempaths=confined", 'invalid --security-opt 2: "systempaths=confined"'),
        ("seccomp", 'invalid --security-opt 1: "seccomp"'),
    ],
)
def test_bad_security_options(option: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        security.parse([option])
    assert caught.value.message == message


# --- devices


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c 1:3 r", {"type": "c", "major": 1, "minor": 3, "access": "r"}),
        ("b 8:* rwm", {"type": "b", "major": 8, "access": "rwm"}),
        ("a *:* rwm", {"type": "a", "access": "rwm"}),
    ],
)
def test_rule(text: str, expected: dict[str, Any]) -> None:
    assert devices.rule_from_text(text) == {"allow": True, **expected}


@pytest.mark.parametrize(
    "text", ["", "c 1:3", "c 1:3 rwx", "d 1:3 r", "c 1 r", "c -1:3 r", "c 1:3 r ", "c 1:3 rwmr"]
)
def test_bad_rule(text: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        devices.rule_from_text(text)
    assert caught.value.message == f"invalid device cgroup rule format: '{text}'"


def test_device_mapping() -> None:
    nodes, rules = devices.from_mapping(
        DeviceMapping(path_on_host="/dev/null", path_in_container="/dev/x", cgroup_permissions="r")
    )
    assert [(node["path"], node["type"], node["major"], node["minor"]) for node in nodes] == [
        ("/dev/x", "c", 1, 3)
    ]
    assert nodes[0]["fileMode"] == 0o666
    assert rules == [{"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}]


def test_device_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    nodes, _ = devices.from_mapping(DeviceMapping(path_on_host=str(tmp_path / "link")))
    assert nodes[0]["path"] == str(tmp_path / "link")
    assert nodes[0]["minor"] == 3


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "fifo", "loop"])
def test_bad_device(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "device"
    if kind == "file":
        path.write_text("")
    elif kind == "empty":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    with pytest.raises(InvalidParameter) as caught:
        devices.from_mapping(DeviceMapping(path_on_host=str(path)))
    prefix = f'error gathering device information while adding custom device "{path}": '
    assert caught.value.message.startswith(prefix)


@pytest.mark.parametrize("permissions", ["x", "rwmx", "rrrr", "r w"])
def test_bad_permissions(permissions: str) -> None:
    mapping = DeviceMapping(path_on_host="/dev/null", cgroup_permissions=permissions)
    with pytest.raises(InvalidParameter, match="invalid device mode"):
        devices.from_mapping(mapping)


# --- AppArmor


@pytest.fixture
def kernel(tmp_path: Path) -> AppArmor:
    (tmp_path / "enabled").write_text("Y\n")
    (tmp_path / "profiles").write_text(
        "teu-default (enforce)\nmy own (complain)\nsnap.x (enforce)\n"
    )
    return AppArmor(tmp_path / "enabled", tmp_path / "profiles")


@pytest.mark.parametrize(
    ("asked", "privileged", "expected"),
    [
        ("", False, "teu-default"),
        ("", True, "unconfined"),
        ("unconfined", False, "unconfined"),
        ("my own", False, "my own"),
        ("my own", True, "my own"),
    ],
)
def test_apparmor_profile(kernel: AppArmor, asked: str, privileged: bool, expected: str) -> None:
    name = kernel.profile_for(asked, privileged=privileged)
    assert name == expected
    assert asyncio.run(kernel.ensure(name)) == expected


def test_apparmor_profile_that_is_not_loaded(kernel: AppArmor) -> None:
    with pytest.raises(SystemFailure, match="AppArmor profile 'my' is not loaded"):
        asyncio.run(kernel.ensure("my"))


@pytest.mark.parametrize("content", [None, "N\n", ""])
def test_kernel_without_apparmor(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "enabled").write_text(content)
    without = AppArmor(tmp_path / "enabled", tmp_path / "profiles")
    assert not without.available
    assert without.profile_for("whatever", privileged=False) == ""
    asyncio.run(without.start())
    assert asyncio.run(without.ensure("")) == ""


def test_apparmor_text_with_and_without_the_distributions_rules(tmp_path: Path) -> None:
    bare = apparmor.profile_text("p", abstractions=tmp_path)
    assert "#include" not in bare
    assert "@{PROC}=/proc/" in bare
    for name in ("tunables/global", "abstractions/base"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("")
    full = apparmor.profile_text("p", abstractions=tmp_path)
    assert "#include <tunables/global>" in full
    assert "#include <abstractions/base>" in full
    assert "profile p flags=" in full
    assert "peer=p," in full
