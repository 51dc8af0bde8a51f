"""`--user` looked up in image files, friendly and hostile."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from teu.errors import EngineError, InvalidParameter, SystemFailure
from teu.runtime import users
from teu.runtime.users import User, resolve

PASSWD = """root:x:0:0:root:/root:/bin/sh
# a comment:x:1:1::/:
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin

broken
bad:x:notanumber:5::/bad:
huge:x:99999999999:5::/bad:
bob:x:1000:1000:Bob,,,:/home/bob:/bin/bash
bob:x:2000:2000:second:/home/second:/bin/bash
nohome:x:1001:1001:::
odd:x:1002:1002::relative/home:
1234:x:77:78::/digits:
"""
GROUP = """root:x:0:
daemon:x:1:
bob:x:1000:
wheel:x:10:bob,daemon
docker:x:999:bob
twin:x:50:
twin:x:51:
nonsense:x:abc:bob
"""


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", User(0, 0, (0,), "/root")),
        ("root", User(0, 0, (0,), "/root")),
        ("0", User(0, 0, (0,), "/root")),
        ("00", User(0, 0, (0,), "/root")),
        ("bob", User(1000, 1000, (1000, 10, 999), "/home/bob")),
        ("1000", User(1000, 1000, (1000, 10, 999), "/home/bob")),
        ("bob:wheel", User(1000, 10, (10,), "/home/bob")),
        ("bob:4242", User(1000, 4242, (4242,), "/home/bob")),
        ("bob:", User(1000, 1000, (1000, 10, 999), "/home/bob")),
        (":wheel", User(0, 10, (10,), "/root")),
        ("4242", User(4242, 0, (0,), "/")),
        ("4242:4343", User(4242, 4343, (4343,), "/")),
        ("2147483647:2147483647", User(2**31 - 1, 2**31 - 1, (2**31 - 1,), "/")),
        ("nohome", User(1001, 1001, (1001,), "/")),
        ("odd", User(1002, 1002, (1002,), "/")),
        ("1234", User(1234, 0, (0,), "/")),  # a number is never a name
        ("root:twin", User(0, 50, (50,), "/root")),
    ],
)
def test_lookup(rootfs: Path, user: str, expected: User) -> None:
    assert resolve(rootfs, user) == expected


def test_additional_groups(rootfs: Path) -> None:
    assert resolve(rootfs, "daemon", ["docker", "12345", "wheel"]).groups == (1, 10, 999, 12345)
    assert resolve(rootfs, "", ["0"]).groups == (0,)


@pytest.mark.parametrize(
    ("user", "groups", "message"),
    [
        ("nobody-here", [], "unable to find user nobody-here: no matching entries in passwd file"),
        ("bad", [], "unable to find user bad: no matching entries in passwd file"),
        ("-", [], "unable to find user -: no matching entries in passwd file"),
        ("root:nothing", [], "unable to find group nothing: no matching entries in group file"),
        ("root", ["nothing"], "unable to find group nothing: no matching entries in group file"),
        ("2147483648", [], "uids and gids must be in range 0-2147483647"),
        ("-1", [], "uids and gids must be in range 0-2147483647"),
        ("9" * 5000, [], "uids and gids must be in range 0-2147483647"),
        ("0:2147483648", [], "uids and gids must be in range 0-2147483647"),
        ("0", ["99999999999"], "uids and gids must be in range 0-2147483647"),
    ],
)
def test_refusals(rootfs: Path, user: str, groups: list[str], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        resolve(rootfs, user, groups)
    assert caught.value.message == message


def test_image_without_files(tmp_path: Path) -> None:
    assert resolve(tmp_path, "") == User(0, 0, (0,), "/")
    assert resolve(tmp_path, "5:6", ["7"]) == User(5, 6, (6, 7), "/")
    with pytest.raises(InvalidParameter, match="unable to find user bob"):
        resolve(tmp_path, "bob")


def test_links_cannot_leave_the_root(
    rootfs: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "passwd"
    outside.write_text("evil:x:1:1::/:\n")
    passwd = rootfs / "etc/passwd"
    for target in (
        str(outside),
        "../../../../../../.." + str(outside),
        "/proc/self/root/etc/passwd",
    ):
        passwd.unlink()
        passwd.symlink_to(target)
        with pytest.raises(InvalidParameter, match="unable to find user evil"):
            resolve(rootfs, "evil")


def test_absolute_link_is_resolved_inside(rootfs: Path) -> None:
    (rootfs / "real").write_text("inside:x:42:43::/in:\n")
    (rootfs / "etc/passwd").unlink()
    (rootfs / "etc/passwd").symlink_to("/real")
    assert resolve(rootfs, "inside").uid == 42


def test_etc_itself_may_be_a_hostile_link(tmp_path: Path) -> None:
    (tmp_path / "etc").symlink_to("/etc")  # itself, inside the root
    with pytest.raises(SystemFailure, match="symbolic links"):
        resolve(tmp_path, "root")


def test_special_files_are_refused_without_waiting(rootfs: Path) -> None:
    passwd = rootfs / "etc/passwd"
    passwd.unlink()
    os.mkfifo(passwd)
    with pytest.raises(SystemFailure, match="not a regular file"):
        resolve(rootfs, "bob")
    passwd.unlink()
    passwd.mkdir()
    with pytest.raises(SystemFailure, match="not a regular file"):
        resolve(rootfs, "bob")
    passwd.rmdir()
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(rootfs / "etc", os.O_PATH)
        listener.bind(f"/proc/self/fd/{folder}/passwd")
        with pytest.raises(SystemFailure, match="not a regular file"):
            resolve(rootfs, "bob")
        os.close(folder)


def test_too_large_file(rootfs: Path) -> None:
    with open(rootfs / "etc/passwd", "wb") as file:
        file.truncate(users.FILE_LIMIT_BYTES + 1)
    with pytest.raises(SystemFailure, match="larger than 4 MiB"):
        resolve(rootfs, "bob")


def test_etc_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("")
    assert resolve(tmp_path, "0") == User(0, 0, (0,), "/")


def test_descriptors_are_closed(rootfs: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    resolve(rootfs, "bob", ["docker"])
    with pytest.raises(InvalidParameter):
        resolve(rootfs, "nobody-here")
    assert len(os.listdir("/proc/self/fd")) == before


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    passwd=st.binary(max_size=200) | st.text(alphabet="ab:0123-\n#\0", max_size=80).map(str.encode),
    group=st.binary(max_size=200) | st.text(alphabet="ab:0,\n", max_size=80).map(str.encode),
    user=st.text(alphabet="ab:0123-+ \u0663", max_size=8) | st.text(max_size=8),
    extra=st.lists(st.text(alphabet="ab01-", max_size=3), max_size=2),
)
def test_whatever_is_in_the_files(
    rootfs: Path, passwd: bytes, group: bytes, user: str, extra: list[str]
) -> None:
    (rootfs / "etc/passwd").write_bytes(passwd)
    (rootfs / "etc/group").write_bytes(group)
    try:
        found = resolve(rootfs, user, extra)
    except EngineError:
        return
    assert 0 <= found.uid < 2**31
    assert all(0 <= number < 2**31 for number in (found.gid, *found.groups))
    assert found.groups[0] == found.gid
    assert found.home.startswith("/")
    assert "\0" not in found.home
