"""The tar reader, the unpacker and the skeleton, against Python's own tarfile."""

import hashlib
import io
import os
import stat
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.imagelab import directory, hard_link, member, symlink, tar_of
from teu.errors import EngineError, InvalidParameter
from teu.sys.skeleton import SkeletonWriter, archive_bytes, reassemble
from teu.sys.tarheader import Entry, InvalidArchive, build, padded
from teu.sys.tarstream import TarStream
from teu.sys.unpack import Unpacked, Unpacker

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


class Chunked:
    """A source that gives pieces of an odd size."""

    def __init__(self, data: bytes, size: int = 700) -> None:
        self._file = io.BytesIO(data)
        self._size = size

    def read(self, size: int = -1) -> bytes:
        return self._file.read(self._size)


def entries_of(data: bytes, size: int = 700) -> list[tuple[Entry, bytes]]:
    stream = TarStream(Chunked(data, size))
    found = []
    while entry := stream.next():
        found.append((entry, b"".join(stream.payload())))
    return found


def unpack(data: bytes, root: Path, *, whiteouts: bool = False) -> Unpacked:
    """Unpacks, and checks that the archive can be made again byte for byte."""
    tree, skeleton = root / "tree", root / "skeleton"
    tree.mkdir()
    writer = SkeletonWriter(skeleton, root / "orphans")
    unpacker = Unpacker(tree, whiteouts=whiteouts, skeleton=writer)
    try:
        result = unpacker.run(TarStream(Chunked(data), writer.raw))
        writer.finish()
    finally:
        unpacker.close()
        writer.close()
    again = b"".join(reassemble(skeleton, tree, root / "orphans"))
    assert hashlib.sha256(again).digest() == hashlib.sha256(data).digest()
    assert archive_bytes(skeleton) == len(data)
    return result


# --- reading ---------------------------------------------------------------------------------

names = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=["Cs"]),
    min_size=1,
    max_size=120,
).filter(lambda n: n not in (".", ".."))
members = st.tuples(
    st.lists(names, min_size=1, max_size=4).map("/".join),
    st.binary(max_size=2000),
    st.integers(0, 0o7777),
    st.integers(0, 2**31),
    st.integers(0, 2**33) | st.floats(0, 4e9, allow_nan=False).map(lambda f: round(f, 6)),
    st.dictionaries(
        st.sampled_from(["user.a", "security.capability"]), st.text("ab\n=", max_size=9)
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(members, max_size=6), st.integers(1, 1500))
def test_reads_what_tarfile_wrote(items: list, chunk: int) -> None:
    packed = tar_of(
        *(
            member(
                name,
                data,
                mode=mode,
                uid=uid,
                mtime=mtime,
                pax_headers={f"SCHILY.xattr.{k}": v for k, v in xattrs.items()},
            )
            for name, data, mode, uid, mtime, xattrs in items
        )
    )
    read = entries_of(packed, chunk)
    assert len(read) == len(items)
    for (entry, payload), (name, data, mode, uid, mtime, xattrs) in zip(read, items, strict=True):
        assert entry.name == name.encode()
        assert payload == data
        assert (entry.mode, entry.uid) == (mode, uid)
        assert abs(entry.mtime_ns / 1e9 - mtime) < 1e-5
        # tarfile writes an empty value, which PAX reads as “no such record”
        assert entry.xattrs == {k.encode(): v.encode() for k, v in xattrs.items()}


@settings(max_examples=100, deadline=None)
@given(st.lists(members, max_size=5))
def test_writes_what_tarfile_reads(items: list) -> None:
    packed = b""
    for name, data, mode, uid, mtime, _ in items:
        entry = Entry(name.encode())
        entry.mode, entry.uid, entry.size_bytes = mode, uid, len(data)
        entry.mtime_ns = int(mtime * 10**9)
        packed += build(entry) + padded(data)
    with tarfile.open(fileobj=io.BytesIO(packed + bytes(1024))) as tar:
        for info, (name, data, mode, uid, mtime, _) in zip(tar, items, strict=True):
            assert info.name == name.rstrip("/")
            assert (info.mode, info.uid, info.size) == (mode, uid, len(data))
            assert abs(info.mtime - mtime) < 1e-5
            file = tar.extractfile(info)
            assert file is not None
            assert file.read() == data


@pytest.mark.parametrize("format_", FORMATS)
def test_long_names_and_large_numbers(format_: int) -> None:
    long = "d/" * 60 + "f" * 90
    ustar = format_ == tarfile.USTAR_FORMAT
    uid = 2_000_000 if ustar else 4_000_000_000
    packed = tar_of(
        member(long, b"x", uid=uid, mtime=2**33 - 1),
        symlink("l", "t" * (100 if ustar else 300)),
        format_=format_,
    )
    (file, payload), (link, _) = entries_of(packed)
    assert (file.name, payload, file.uid) == (long.encode(), b"x", uid)
    assert file.mtime_ns == (2**33 - 1) * 10**9
    assert link.link == b"t" * (100 if ustar else 300)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 3000), st.integers(0, 255), st.integers(0, 3000))
def test_damage_ends_with_an_error_or_other_content(at: int, value: int, cut: int) -> None:
    """Whatever happens to the bytes, the reader ends, and only with its own kinds of errors."""
    packed = bytearray(tar_of(member("a/b", b"x" * 600), member("c" * 150, b"y" * 700)))
    packed[at % len(packed)] = value
    data = bytes(packed[: len(packed) - cut % len(packed)])
    with suppress(InvalidArchive):
        entries_of(data)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=3000))
def test_noise_is_refused(data: bytes) -> None:
    try:
        assert entries_of(data) == []
    except InvalidArchive:
        return
    assert not data[:512].strip(b"\0")


# --- unpacking -------------------------------------------------------------------------------


def own(*items: tuple[tarfile.TarInfo, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Members that whoever runs the tests may unpack."""
    for info, _ in items:
        info.uid, info.gid = os.geteuid(), os.getegid()
    return list(items)


def test_an_ordinary_tree(tmp_path: Path) -> None:
    packed = tar_of(
        *own(
            directory("./", mode=0o711),
            directory("./etc/", mode=0o750, mtime=1_600_000_000),
            member("./etc/passwd", b"root\n", mode=0o640, mtime=1_650_000_000.25),
            symlink("etc/link", "../../../../outside"),
            hard_link("etc/second", "./etc/passwd", mode=0o640, mtime=1_650_000_000.25),
            member("/absolute/name", b"abs"),
            member("setuid", b"", mode=0o4755),
            member("pipe", type=tarfile.FIFOTYPE),
        )
    )
    result = unpack(packed, tmp_path)
    tree = tmp_path / "tree"
    assert (tree / "etc/passwd").read_bytes() == b"root\n"
    assert (tree / "etc/passwd").stat().st_mtime_ns == 1_650_000_000_250_000_000
    assert (tree / "etc").stat().st_mtime_ns == 1_600_000_000_000_000_000
    assert stat.S_IMODE((tree / "etc").stat().st_mode) == 0o750
    assert stat.S_IMODE(tree.stat().st_mode) == 0o711
    assert (tree / "etc/second").stat().st_ino == (tree / "etc/passwd").stat().st_ino
    assert os.readlink(tree / "etc/link") == "../../../../outside"
    assert (tree / "absolute/name").read_bytes() == b"abs"
    assert stat.S_IMODE((tree / "setuid").stat().st_mode) == 0o4755
    assert stat.S_ISFIFO((tree / "pipe").stat().st_mode)
    assert result.implied == [b"absolute"]
    assert result.size_bytes == 5 + 3 + len("../../../../outside")


def test_entries_that_replace_earlier_ones(tmp_path: Path) -> None:
    packed = tar_of(
        *own(
            member("f", b"first"),
            hard_link("g", "f"),
            member("f", b"second, longer"),
            directory("d"),
            member("d/inner/x", b"in d"),
            member("d", b"now a file"),
            symlink("l", "d"),
            directory("l"),
            member("l/y", b"in l"),
            member("f", b"third"),
            hard_link("g", "f"),
            member("h", b"one"),
            symlink("h", "f"),
        )
    )
    unpack(packed, tmp_path)
    tree = tmp_path / "tree"
    assert (tree / "f").read_bytes() == b"third"
    assert (tree / "g").stat().st_ino == (tree / "f").stat().st_ino
    assert (tree / "d").read_bytes() == b"now a file"
    assert (tree / "l/y").read_bytes() == b"in l"
    assert os.readlink(tree / "h") == "f"


def test_a_symlinked_directory_inside_the_tree_is_followed(tmp_path: Path) -> None:
    packed = tar_of(
        *own(
            directory("usr/lib"),
            symlink("lib", "usr/lib"),
            member("lib/a", b"through the link"),
            symlink("abs", "/usr/lib"),
            member("abs/b", b"through an absolute one"),
            symlink("later", "not/there/yet"),
            member("later/c", b"through a dangling one"),
        )
    )
    unpack(packed, tmp_path)
    tree = tmp_path / "tree"
    assert (tree / "usr/lib/a").read_bytes() == b"through the link"
    assert (tree / "usr/lib/b").read_bytes() == b"through an absolute one"
    assert (tree / "not/there/yet/c").read_bytes() == b"through a dangling one"


# What a hostile archive may try, and the error it gets (none: it ends harmlessly inside).
HOSTILE = {
    "dotdot": ([member("../escaped", b"x")], "outside of the archive's root"),
    "deep dotdot": ([member("a/../../escaped", b"x")], "outside of the archive's root"),
    "absolute dotdot": ([member("/../escaped", b"x")], "outside of the archive's root"),
    "through absolute link": ([symlink("l", "/"), member("l/escaped", b"x")], None),
    "through relative link": ([symlink("l", "../../.."), member("l/escaped", b"x")], None),
    "through own parent": (
        [directory("d"), symlink("d/up", ".."), member("d/up/../escaped", b"x")],
        None,
    ),
    "write through a final link": ([symlink("l", "../escaped"), member("l", b"x")], None),
    "directory swapped for a link": (
        [directory("d"), member("d/a", b"x"), symlink("d", "../.."), member("d/escaped", b"x")],
        None,
    ),
    "hard link outside": ([hard_link("h", "../../etc/passwd")], "outside of the archive's root"),
    "hard link through a link": (
        [symlink("l", "/etc"), hard_link("h", "l/passwd"), member("h", b"x")],
        "not in the archive before it",
    ),
    "hard link to a link outside": ([symlink("l", "/etc/passwd"), hard_link("h", "l")], None),
    "looping links": (
        [symlink("a", "b"), symlink("b", "a"), member("a/x", b"x")],
        "Too many levels of symbolic links",
    ),
    "file as a directory": ([member("f", b"x"), member("f/y", b"y")], "Not a directory"),
    "root as a file": ([member(".", b"x")], "root of the archive is not a directory"),
    "whiteout of nothing": ([member(".wh.", b"")], "a whiteout of nothing"),
    "whiteout of the parent": ([member("d/.wh...", b"")], "a whiteout of nothing"),
    "endless name": ([member("n" * 300, b"x")], "File name too long"),
    "device number too large": (
        [member("k", b"", type=b"3", devmajor=4096, devminor=3)],
        "bad device number",
    ),
    "unknown kind": ([member("k", b"", type=b"Z")], "unhandled tar header type"),
    "hard link to a directory": ([directory("d"), hard_link("h", "d")], "hard link to a directory"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_stay_inside(case: str, tmp_path: Path) -> None:
    items, message = HOSTILE[case]
    packed = tar_of(*own(*items))
    outer = tmp_path / "a" / "b"
    outer.mkdir(parents=True)
    before = Path("/etc/passwd").read_bytes()
    if message is None:
        unpack(packed, outer, whiteouts=True)
    else:
        with pytest.raises(EngineError, match=message):
            unpack(packed, outer, whiteouts=True)
    assert not list(tmp_path.glob("escaped")) + list(tmp_path.glob("a/escaped"))
    assert {p.name for p in outer.iterdir()} <= {"tree", "skeleton", "orphans"}
    assert not Path("/escaped").exists()
    assert Path("/etc/passwd").read_bytes() == before


@pytest.mark.parametrize("size", [2**33, 2**62, 2**63 - 1])
def test_a_gigantic_size_ends_with_the_archive(size: int, tmp_path: Path) -> None:
    entry = Entry(b"big")
    entry.size_bytes = size
    with pytest.raises(InvalidArchive, match="unexpected EOF"):
        unpack(build(entry) + b"x" * 4096, tmp_path)


def _gnu_sparse(name: str, size: int, segments: list[tuple[int, bytes]]) -> bytes:
    """An old GNU sparse member with up to four segments."""
    payload = b"".join(data for _, data in segments)
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode = len(payload), b"S", 0o644
    info.uid, info.gid = os.geteuid(), os.getegid()
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for number, (offset, data) in enumerate(segments):
        at = 386 + 24 * number
        block[at : at + 24] = b"%011o\0%011o\0" % (offset, len(data))
    block[483:495] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + padded(payload)


def _pax_sparse(name: str, size: int, segments: list[tuple[int, bytes]], version: str) -> bytes:
    sparse_map = [n for offset, data in segments for n in (offset, len(data))]
    headers = {"GNU.sparse.name": name}
    payload = b"".join(data for _, data in segments)
    if version == "0.1":
        headers |= {
            "GNU.sparse.size": str(size),
            "GNU.sparse.map": ",".join(map(str, sparse_map)),
        }
    else:
        headers |= {
            "GNU.sparse.realsize": str(size),
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
        }
        text = "".join(f"{n}\n" for n in [len(segments), *sparse_map]).encode()
        payload = padded(text) + payload
    packed = tar_of(*own(member("GNUSparseFile.0/x", payload, pax_headers=headers)))
    return padded(packed.rstrip(b"\0"))


SEGMENTS = [(4096, b"a" * 700), (100_000, b"b" * 1300)]


@pytest.mark.parametrize("kind", ["gnu", "0.1", "1.0"])
def test_sparse_files(kind: str, tmp_path: Path) -> None:
    size = 3_000_000
    if kind == "gnu":
        packed = _gnu_sparse("s", size, SEGMENTS)
    else:
        packed = _pax_sparse("s", size, SEGMENTS, kind)
    packed += tar_of(*own(member("after", b"z")))
    packed += bytes(-len(packed) % 10240)
    unpack(packed, tmp_path)
    expected = bytearray(size)
    for offset, data in SEGMENTS:
        expected[offset : offset + len(data)] = data
    file = tmp_path / "tree/s"
    assert file.read_bytes() == expected
    assert file.stat().st_blocks * 512 < size / 2
    assert (tmp_path / "tree/after").read_bytes() == b"z"


@pytest.mark.parametrize(
    "segments",
    [[(0, b"a"), (0, b"b")], [(2_999_999, b"ab")], [(2**40, b"a")]],
    ids=["overlapping", "past the end", "far past the end"],
)
def test_bad_sparse_maps(segments: list[tuple[int, bytes]], tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="bad sparse map"):
        unpack(_gnu_sparse("s", 3_000_000, segments) + bytes(1024), tmp_path)


# --- any sequence of entries -----------------------------------------------------------------

_paths = st.lists(st.sampled_from(["a", "b", "c", ".", "..", ""]), min_size=1, max_size=4).map(
    "/".join
)
_steps = st.one_of(
    st.tuples(st.just("file"), _paths, st.binary(max_size=600)),
    st.tuples(st.just("dir"), _paths, st.just(b"")),
    st.tuples(st.just("sym"), _paths, _paths.map(str.encode)),
    st.tuples(st.just("hard"), _paths, _paths.map(str.encode)),
    st.tuples(st.just("white"), _paths, st.just(b"")),
)


@settings(max_examples=80, deadline=None)
@given(steps=st.lists(_steps, max_size=12))
def test_any_archive_stays_inside_and_can_be_made_again(
    steps: list[tuple[str, str, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whiteouts stand for themselves here (they need root), so `white` is an odd name only."""
    items = []
    for kind, path, data in steps:
        match kind:
            case "file":
                items.append(member(path or "x", data))
            case "dir":
                items.append(directory(path or "x"))
            case "sym":
                items.append(symlink(path or "x", data.decode() or "."))
            case "hard":
                items.append(hard_link(path or "x", data.decode() or "."))
            case _:
                items.append(member(f"{path}/.wh.a"))
    root = tmp_path_factory.mktemp("any")
    inner = root / "outer" / "inner"
    inner.mkdir(parents=True)
    with suppress(EngineError):
        unpack(tar_of(*own(*items)), inner)
    assert [p.name for p in root.iterdir()] == ["outer"]
    assert [p.name for p in (root / "outer").iterdir()] == ["inner"]
    assert {p.name for p in inner.iterdir()} <= {"tree", "skeleton", "orphans"}
