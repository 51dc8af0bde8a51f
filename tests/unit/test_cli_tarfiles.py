"""`cp`'s archives: what is packed comes out again, and nothing gets out of the directory."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from teu.cli.commands.cp import _landing
from teu.cli.session import Failure
from teu.cli.tarfiles import Unpacker, pack


def unpack(folder: Path, name: str, pieces: Iterator[bytes] | list[bytes]) -> None:
    Unpacker(str(folder), name, keep_owner=False).unpack(iter(pieces))


def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> list[bytes]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry, data in entries:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return [buffer.getvalue()]


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o755
    return info


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "a").write_bytes(b"one")
    (root / "sub" / "big").write_bytes(os.urandom(3_000_001))
    (root / "sub" / "big").chmod(0o4711)
    os.utime(root / "sub" / "big", (1e9, 1e9))
    os.link(root / "a", root / "hard")
    (root / "soft").symlink_to("sub/big")
    os.mkfifo(root / "fifo")
    (root / ("n" * 120)).write_bytes(b"")
    os.utime(root / "sub", (1e9, 1e9))
    return root


@pytest.mark.parametrize("name", ["new", ""])
def test_round_trip(tree: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    unpack(target, name, pack(str(tree), name))
    copy = target / name
    assert sorted(p.name for p in copy.iterdir()) == sorted(p.name for p in tree.iterdir())
    assert (copy / "sub" / "big").read_bytes() == (tree / "sub" / "big").read_bytes()
    assert (copy / "sub" / "big").stat().st_mode == (tree / "sub" / "big").stat().st_mode
    assert (copy / "sub" / "big").stat().st_mtime == (copy / "sub").stat().st_mtime == 1e9
    assert (copy / "a").stat().st_ino == (copy / "hard").stat().st_ino
    assert (copy / "soft").readlink() == Path("sub/big")
    assert (copy / "fifo").is_fifo()


@pytest.mark.parametrize(
    "entries",
    [
        [(entry("x/../../out"), b"bad")],
        [(entry("x/link", tarfile.SYMTYPE, "/"), b""), (entry("x/link/tmp/out"), b"bad")],
        [(entry("x/link", tarfile.SYMTYPE, ".."), b""), (entry("x/link/out"), b"bad")],
        [(entry("x/hard", tarfile.LNKTYPE, "../../secret"), b"")],
        [(entry("x/s", tarfile.SYMTYPE, ".."), b""),
         (entry("x/h", tarfile.LNKTYPE, "x/s/secret"), b"")],
    ],
)  # fmt: skip
def test_hostile_archives_stay_inside(
    tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "secret").write_text("s")
    with pytest.raises(Failure):
        unpack(target, "x", archive(*entries))
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "secret").stat().st_nlink == 1


def test_content_gets_a_new_parent(tmp_path: Path) -> None:
    folder, inner = entry("./", tarfile.DIRTYPE), entry("./sub/file")
    unpack(tmp_path, "new", archive((folder, b""), (inner, b"1")))
    assert (tmp_path / "new" / "sub" / "file").read_bytes() == b"1"


def test_absolute_names_land_inside(tmp_path: Path) -> None:
    unpack(tmp_path, "", archive((entry("/etc/x"), b"1")))
    assert (tmp_path / "etc" / "x").read_bytes() == b"1"


def test_a_link_in_the_way_is_replaced_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("keep")
    (tmp_path / "x").symlink_to(victim)
    unpack(tmp_path, "x", archive((entry("x"), b"new")))
    assert victim.read_text() == "keep"
    assert not (tmp_path / "x").is_symlink()


@pytest.mark.parametrize("kinds", [(tarfile.DIRTYPE, False), (tarfile.REGTYPE, True)])
def test_files_and_directories_do_not_replace_each_other(
    tmp_path: Path, kinds: tuple[bytes, bool]
) -> None:
    kind, is_folder = kinds
    (tmp_path / "x").mkdir() if is_folder else (tmp_path / "x").write_text("1")
    with pytest.raises(Failure, match="cannot overwrite"):
        unpack(tmp_path, "x", archive((entry("x", kind), b"")))


@pytest.mark.parametrize("cut", [1, 600, 1500])
def test_damaged_archives_are_reported(tmp_path: Path, cut: int) -> None:
    whole = archive((entry("x"), b"1" * 2000))[0]
    with pytest.raises(Failure, match=r"damaged|cannot write"):
        unpack(tmp_path, "x", [whole[:cut]])
    with pytest.raises(Failure, match="damaged"):
        unpack(tmp_path, "x", [b"x" * 2000])


def land(target: str, **settings: bool) -> tuple[str, str]:
    facts = {"exists": False, "is_folder": False, "source_is_folder": False, "content_only": False}
    return _landing(target, source_name="s", **(facts | settings))


def test_where_copies_land() -> None:
    assert land("/a/b", exists=True, is_folder=True) == ("/a/b", "s")
    assert land("/a/b") == ("/a", "b")
    assert land("b") == (".", "b")
    assert land("/b") == ("/", "b")
    assert land("/a/b", exists=True) == ("/a", "b")
    assert land("/a/b", source_is_folder=True) == ("/a", "b")
    assert land("/a/b/", source_is_folder=True) == ("/a", "b")
    folder = {"exists": True, "is_folder": True, "source_is_folder": True}
    assert land("/a/b", content_only=True, **folder) == ("/a/b", "")
    assert land("/a/b", content_only=True, source_is_folder=True) == ("/a", "b")
    for settings, problem in (
        ({"exists": True, "source_is_folder": True}, "cannot copy directory"),
        ({}, "no such directory"),
        ({"exists": True}, "not a directory"),
    ):
        target = "/a/b" if problem == "cannot copy directory" else "/a/b/"
        with pytest.raises(Failure, match=problem):
            land(target, **settings)
