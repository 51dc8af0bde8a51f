"""Layers on a real file system: devices, owners, xattrs, whiteouts under a real overlay mount."""

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.imagelab import directory, hard_link, member, symlink, tar_of
from teu.errors import DataLoss
from teu.image.layers import LayerFiles, Pieces, StagedLayer
from teu.store.images import LayerRow
from teu.sys.pack import pack_tree

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@pytest.fixture
def layers(tmp_path: Path) -> LayerFiles:
    return LayerFiles(tmp_path / "layers")


def stage(layers: LayerFiles, data: bytes) -> StagedLayer:
    return layers.stage(Pieces(iter([data[:700], data[700:]])))


def settled(layers: LayerFiles, *tars: bytes) -> list[Path]:
    """Directories of a stack of layers, top first."""
    found: list[str] = []
    for data in tars:
        found.insert(0, layers.settle(stage(layers, data), found))
    return [layers.path(name) for name in found]


@contextmanager
def overlay(lower: list[Path], base: Path) -> Iterator[Path]:
    """A writable overlay; gives its merged directory, `base/upper` has the changes."""
    for name in ("upper", "work", "merged"):
        (base / name).mkdir(parents=True)
    options = (
        f"lowerdir={':'.join(map(str, lower))},upperdir={base}/upper,workdir={base}/work,"
        "redirect_dir=off,metacopy=off"
    )
    merged = base / "merged"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", merged], check=True)


def test_owners_devices_and_xattrs(layers: LayerFiles, tmp_path: Path) -> None:
    # tarfile cannot write binary xattrs from text headers, except through surrogates
    capability = CAPABILITY.decode("utf-8", "surrogateescape")
    data = tar_of(
        member("ping", b"#!", mode=0o755, uid=7, pax_headers={"SCHILY.xattr.user.note": "hello"}),
        member("owned", b"x", mode=0o6755, uid=1_000_000, gid=3_000_000_000, mtime=1.5),
        member("null", type=b"3", mode=0o666, devmajor=1, devminor=3),
        member("disk", type=b"4", mode=0o660, gid=6, devmajor=8, devminor=1),
        symlink("link", "nowhere"),
        member("caps", b"", pax_headers={"SCHILY.xattr.security.capability": capability}),
        member("evil", b"", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/etc"}),
    )
    [tree] = settled(layers, data)
    assert os.getxattr(tree / "ping", "user.note") == b"hello"
    assert os.getxattr(tree / "caps", "security.capability")[:8] == CAPABILITY[:8]
    found = (tree / "owned").stat()
    assert (found.st_uid, found.st_gid) == (1_000_000, 3_000_000_000)
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o6755, 1_500_000_000)
    null, disk = (tree / "null").stat(), (tree / "disk").stat()
    assert stat.S_ISCHR(null.st_mode)
    assert null.st_rdev == os.makedev(1, 3)
    assert stat.S_IMODE(null.st_mode) == 0o666
    assert stat.S_ISBLK(disk.st_mode)
    assert (disk.st_rdev, disk.st_gid) == (os.makedev(8, 1), 6)
    assert os.listxattr(tree / "evil") == []


def test_whiteouts_hide_lower_layers(layers: LayerFiles, tmp_path: Path) -> None:
    base = tar_of(
        directory("etc", mode=0o750, uid=3, mtime=1_600_000_000),
        member("etc/keep", b"1"),
        member("etc/gone", b"2"),
        directory("opaque"),
        member("opaque/old", b"3"),
        directory("swap"),
        member("swap/old", b"4"),
        directory("late"),
        member("late/old", b"5"),
        member("both", b"6"),
    )
    top = tar_of(
        member("etc/.wh.gone"),
        member("opaque/.wh..wh..opq"),
        member("opaque/new", b"n"),
        member(".wh.swap"),  # removed, and made again in the same layer
        directory("swap"),
        member("swap/new", b"n"),
        directory("late"),
        member("late/new", b"n"),
        member(".wh.late"),
        member(".wh.both"),
        member("both", b"new"),
        member(".wh..wh.plnk/x", b"AUFS"),
        member("etc/added", b"a"),
    )
    lower = settled(layers, base, top)
    with overlay(lower, tmp_path / "mount") as merged:
        assert sorted(os.listdir(merged)) == ["both", "etc", "late", "opaque", "swap"]
        assert sorted(os.listdir(merged / "etc")) == ["added", "keep"]
        for name in ("opaque", "swap", "late"):
            assert os.listdir(merged / name) == ["new"], name
        assert (merged / "both").read_bytes() == b"new"
        # `etc` is not described in the upper layer, so it looks as it did below
        found = (merged / "etc").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o750, 3)
        assert found.st_mtime_ns == 1_600_000_000 * 10**9


def test_changes_of_a_container_become_a_layer(layers: LayerFiles, tmp_path: Path) -> None:
    """What pack_tree makes of an upper directory gives, on the same layers, the same tree."""
    base = tar_of(
        directory("etc"),
        member("etc/a", b"a"),
        member("etc/b", b"b"),
        directory("dir"),
        member("dir/x", b"x"),
    )
    lower = settled(layers, base)
    with overlay(lower, tmp_path / "one") as merged:
        (merged / "etc/a").unlink()
        (merged / "etc/b").write_bytes(b"changed")
        (merged / "dir/x").unlink()
        (merged / "dir").rmdir()
        (merged / "dir").mkdir(mode=0o700)
        (merged / "dir/y").write_bytes(b"y")
        os.link(merged / "dir/y", merged / "etc/y")
        os.mknod(merged / "dev", stat.S_IFCHR | 0o600, os.makedev(1, 5))
        os.symlink("../x", merged / "etc/link")
        os.setxattr(merged / "dir/y", "user.k", b"\0\xff")
        os.chown(merged / "etc/link", 12, 13, follow_symlinks=False)
        os.mkfifo(merged / "etc/pipe")
        expected = listing(merged)
    upper = tmp_path / "one/upper"
    packed = b"".join(pack_tree(upper, whiteouts=True))
    assert packed == b"".join(pack_tree(upper, whiteouts=True))
    layer = stage(layers, packed)
    top = layers.settle(layer, [p.name for p in lower])
    with overlay([layers.path(top), *lower], tmp_path / "two") as merged:
        assert listing(merged) == expected
        assert os.getxattr(merged / "dir/y", "user.k") == b"\0\xff"
    row = LayerRow("c", "", layer.diff_id, top, 0)
    assert b"".join(layers.archive(row)) == packed


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything that can be told apart, by path."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        content: object = None
        if stat.S_ISLNK(info.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(info.st_mode):
            content = path.read_bytes()
        when = None if stat.S_ISDIR(info.st_mode) else info.st_mtime_ns
        name = str(path.relative_to(root))
        found[name] = (info.st_mode, info.st_uid, info.st_gid, info.st_rdev, when, content)
    return found


def test_a_running_container_may_change_files_meanwhile(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "a").write_bytes(b"a" * 5_000_000)
    (root / "b").write_bytes(b"b")
    pieces = pack_tree(root)
    packed = next(pieces)
    os.truncate(root / "a", 10)
    (root / "b").unlink()
    packed += b"".join(pieces)
    out = subprocess.run(["tar", "-tvf", "-"], input=packed, capture_output=True, check=True)
    assert b"5000000" in out.stdout
    assert b" b\n" not in out.stdout


def test_damage_is_found(layers: LayerFiles) -> None:
    data = tar_of(member("a", b"content"), hard_link("b", "a"))
    layer = stage(layers, data)
    name = layers.settle(layer, [])
    row = LayerRow("c", "", layer.diff_id, name, 0)
    (layers.path(name) / "a").write_bytes(b"CONTENT")
    with pytest.raises(DataLoss, match="changed or damaged on the disk"):
        b"".join(layers.archive(row))
    (layers.path(name) / "a").write_bytes(b"c")
    with pytest.raises(DataLoss, match="shorter than it was unpacked"):
        b"".join(layers.archive(row))
    (layers.path(name) / "a").unlink()
    with pytest.raises(DataLoss, match="damaged"):
        b"".join(layers.archive(row))


def test_very_deep_trees_are_unpacked_and_removed(layers: LayerFiles, tmp_path: Path) -> None:
    deep = "/".join(["d"] * 1500)
    layer = stage(layers, tar_of(member(f"{deep}/x", b"1")))
    assert len(layer.implied) == 1500
    layers.discard(layer)
    assert list((tmp_path / "layers").iterdir()) == []


def test_clean_removes_what_has_no_row(layers: LayerFiles, tmp_path: Path) -> None:
    kept = layers.settle(stage(layers, tar_of(member("a", b"1"))), [])
    layers.settle(stage(layers, tar_of(member("b", b"1"))), [])
    stage(layers, tar_of(member("c", b"1")))
    (tmp_path / "layers/not-ours").touch()
    LayerFiles(tmp_path / "layers").clean({kept})
    found = sorted(p.name for p in (tmp_path / "layers").iterdir())
    assert found == [kept, f"{kept}.skeleton", "not-ours"]
