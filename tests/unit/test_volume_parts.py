"""Words of mounts, id maps, options of volumes, and who holds what: without a kernel or daemon."""

import asyncio
import errno
from pathlib import Path

import pytest

from teu.container.mountpoints import AUTO, from_mount, parse_bind, parse_id_map
from teu.container.volumework import _renamed_binds
from teu.errors import InvalidParameter
from teu.model.config import BindOptions, Mount, TmpfsOptions, VolumeOptions
from teu.model.volume import VolumeRecord
from teu.sys import mountoptions, projectquota
from teu.sys.userns import IdRange
from teu.volume.local import check_options, with_addresses
from teu.volume.uses import Uses


@pytest.mark.parametrize(
    ("text", "flags", "propagation", "data"),
    [
        ("", 0, 0, ""),
        ("defaults,rw", 0, 0, ""),
        ("bind", 4096, 0, ""),
        ("rbind,ro", 4096 | 16384 | 1, 0, ""),
        ("ro,rw", 0, 0, ""),
        ("size=2m,nosuid,uid=3,noexec,exec", 2, 0, "size=2m,uid=3"),
        ("rshared,bind", 4096, 1 << 20 | 16384, ""),
        ("addr=1.2.3.4,,vers=4", 0, 0, "addr=1.2.3.4,vers=4"),
    ],
)
def test_mount_words(text: str, flags: int, propagation: int, data: str) -> None:
    assert mountoptions.parse(text) == mountoptions.MountOptions(flags, propagation, data)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("", {"rw": True, "propagation": "rprivate"}),
        ("ro", {"rw": False}),
        ("rro", {"rw": False, "options": ["rbind", "rprivate", "rro"]}),
        ("z,ro,rslave", {"rw": False, "propagation": "rslave"}),
        ("cached", {"rw": True}),
        ("U", {"chown": True, "id_map": ""}),
        ("idmap,ro", {"id_map": AUTO, "rw": False}),
        ("idmap=uids=1-2-3;gids=4-5-6", {"id_map": "uids=1-2-3;gids=4-5-6"}),
    ],
)
def test_modes(mode: str, expected: dict[str, object]) -> None:
    point = parse_bind(f"/a:/b:{mode}")
    assert {name: getattr(point, name) for name in expected} == expected
    assert (point.type, point.source, point.destination) == ("bind", "/a", "/b")


@pytest.mark.parametrize(
    "text",
    ["", ":/a", "/a:/b:c", "/a:/b:ro,rw", "/a:/b:z,Z", "/a:/b:ro,ro", "/a:rw", "a:b:c:d", "v:/",
     "v:/..", "v:rel", "/a:/b:idmap=", "/a:/b:idmap=1-2", "v:/b:shared", "/a:/b:nocopy"],
)  # fmt: skip
def test_bad_binds(text: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_bind(text)


def test_id_maps() -> None:
    one, two = IdRange(1, 2, 3), IdRange(4, 5, 6)
    assert parse_id_map("uids=1-2-3#4-5-6;gids=4-5-6") == ([one, two], [two])
    assert parse_id_map("uids=1-2-3") == ([one], [one])
    assert parse_id_map("gids=4-5-6") == ([two], [two])
    for bad in ("uids=1-2-0", "uids=4294967295-0-1", "uids=0-0-9999999999", ";", "x", "uids=1-2"):
        with pytest.raises(InvalidParameter, match="invalid idmap"):
            parse_id_map(bad)


@pytest.mark.parametrize(
    ("mount", "text"),
    [
        (Mount(type="bind", source="/", target="/x", volume_options=VolumeOptions()), "VolumeOpt"),
        (Mount(type="volume", target="/x", bind_options=BindOptions()), "BindOptions"),
        (Mount(type="tmpfs", target="/x", bind_options=BindOptions()), "BindOptions"),
        (Mount(type="image", source="i", target="/x", tmpfs_options=TmpfsOptions()), "TmpfsOpt"),
        (Mount(type="tmpfs", target="/x", chown=True), "Chown or IdMap"),
        (Mount(type="bind", source="rel", target="/x"), "must be absolute"),
        (Mount(type="bind", source="/no/such", target="/x"), "does not exist: /no/such"),
        (Mount(type="bind", source="/", target="x"), "must be absolute"),
        (Mount(type="npipe", source="/", target="/x"), "mount type unknown"),
        (Mount(type="volume", source="v", target="/x", consistency="odd"), "consistency"),
    ],
)  # fmt: skip
def test_bad_mounts(mount: Mount, text: str) -> None:
    with pytest.raises(InvalidParameter, match=text):
        from_mount(mount)


def test_sizes_of_volumes() -> None:
    assert check_options(VolumeRecord(name="vv", options={"size": "10m"})) == 10 << 20
    assert check_options(VolumeRecord(name="vv")) == 0


def test_names_of_servers_become_addresses() -> None:
    def done(*words: str) -> tuple[str, str]:
        return asyncio.run(with_addresses(*words))

    assert done("nfs", ":/x", "addr=127.0.0.1,rw") == (":/x", "addr=127.0.0.1,rw")
    assert done("nfs", ":/x", "rw,addr=localhost,soft")[1] in (
        "rw,addr=127.0.0.1,soft", "rw,addr=::1,soft",
    )  # fmt: skip
    assert done("nfs", ":/x", "mountaddr=10.0.0.1") == (":/x", "mountaddr=10.0.0.1")
    assert done("cifs", "//127.0.0.1/share/a", "") == ("//127.0.0.1/share/a", "")


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (0, None, ""),
        (errno.ESRCH, projectquota.NoProjectQuota, "not mounted with project quotas"),
        (errno.EPERM, Exception, "cannot limit"),
    ],
)
def test_a_quota_is_asked_of_the_file_system(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    kind: type[Exception] | None,
    text: str,
) -> None:
    """What quotactl(2) is called with: the kernel's structure, in blocks of 512 bytes."""
    calls = []

    def quotactl(command: int, special: bytes, project: int, structure: object) -> int:
        calls.append((command, project, bytes(structure)))  # type: ignore[call-overload]
        return -1 if code else 0

    place = projectquota.mounts.MountInfo(tmp_path, "/dev/x", "ext4", "/", "", "", "private")
    monkeypatch.setattr(projectquota.mounts, "mount_of", lambda path: place)
    monkeypatch.setattr(projectquota._libc, "quotactl", quotactl)
    monkeypatch.setattr(projectquota.ctypes, "get_errno", lambda: code)
    joined: list[int] = []
    monkeypatch.setattr(projectquota, "_join", lambda directory, project: joined.append(project))
    if kind is None:
        projectquota.limit(tmp_path, 7, 1000)
        assert joined == [7]
    else:
        with pytest.raises(kind, match=text):
            projectquota.limit(tmp_path, 7, 1000)
        assert not joined
    ((command, project, structure),) = calls
    assert (command, project) == (0x580402, 7)  # QCMD(Q_XSETQLIM, PRJQUOTA)
    assert len(structure) == 112
    assert structure[:8] == b"\x01\x02\x0c\x00\x07\x00\x00\x00"
    assert structure[8:16] == structure[16:24] == (2).to_bytes(8, "little")
    assert not any(structure[24:])


def test_a_file_system_without_projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = projectquota.mounts.MountInfo(tmp_path, "none", "tmpfs", "/", "", "", "private")
    monkeypatch.setattr(projectquota.mounts, "mount_of", lambda path: place)
    with pytest.raises(projectquota.NoProjectQuota, match="tmpfs, which has no project quotas"):
        projectquota.limit(tmp_path, 7, 1000)


def test_renamed_binds() -> None:
    binds = ["old:/a:ro", "older:/b", "/old:/c", "/d"]
    assert list(_renamed_binds(binds, "old", "new")) == ["new:/a:ro", "older:/b", "/old:/c", "/d"]


def test_uses() -> None:
    async def whole() -> None:
        uses = Uses()
        with uses.holding() as hold:
            hold("v")
            with uses.holding() as again:
                again("v")
            assert uses.is_held("v")
        assert not uses.is_held("v")
        uses.add("v", "a")
        uses.add("v", "b")
        assert uses.discard("v", "a")
        assert not uses.discard("v", "a")
        with pytest.raises(TimeoutError):
            await uses.until_idle("v", 0.01)
        waiting = asyncio.ensure_future(uses.until_idle("v", 5))
        await asyncio.sleep(0)
        assert uses.discard("v", "b")
        uses.tell_idle("v")
        await waiting
        await uses.until_idle("v", 0)

    asyncio.run(whole())
