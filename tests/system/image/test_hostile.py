"""Properties of unpacking, whatever the archive: nothing outside is touched, only our own errors
are raised, nothing is left after one; and what was unpacked is what the archive says.

More examples: HYPOTHESIS_PROFILE=explore, or `tests/fuzz/archives.py`.
"""

import gzip
import os
import tempfile
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given

from harness import hostile
from harness.imagelab import Lab, directory, member, symlink, tar_of
from teu.errors import EngineError, SystemFailure
from teu.image.layers import LayerFiles, Pieces
from teu.store.images import LayerRow
from teu.sys.pack import pack_tree
from teu.sys.tarheader import Entry, InvalidArchive, build, padded
from teu.sys.tarstream import TarStream
from teu.sys.unpack import Unpacker

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes device nodes")


def unpack_and_look(data: bytes, root: Path) -> str:
    """Unpacks a layer below `root`; what became of it. Fails when a promise is broken."""
    layers = LayerFiles(root / "layers")
    try:
        staged = layers.stage(Pieces(iter([data[:511], data[511:]])))
    except EngineError as error:
        assert os.listdir(root / "layers") == []
        return str(error)
    name = layers.settle(staged, [])
    row = LayerRow("c", "", staged.diff_id, name, staged.size_bytes)
    assert layers.check(row) == []
    assert b"".join(layers.archive(row)) == data
    packed = b"".join(pack_tree(layers.path(name), whiteouts=True))
    again = layers.stage(Pieces(iter([packed])))
    other = layers.settle(again, [])
    assert b"".join(pack_tree(layers.path(other), whiteouts=True)) == packed
    layers.remove(name)
    layers.remove(other)
    assert os.listdir(root / "layers") == []
    return ""


@given(hostile.archives)
def test_any_archive_stays_inside_and_means_what_it_says(data: bytes) -> None:
    with (
        tempfile.TemporaryDirectory() as root,
        hostile.nothing_outside(Path(root)) as inner,
    ):
        unpack_and_look(data, inner)


@given(hostile.archives)
def test_any_archive_copied_into_a_container_stays_inside(data: bytes) -> None:
    """`cp` and `PUT archive`: onto a tree that is there, without whiteouts."""
    with (
        tempfile.TemporaryDirectory() as root,
        hostile.nothing_outside(Path(root)) as inner,
    ):
        (inner / "d/d").mkdir(parents=True)
        (inner / "l").symlink_to("../../../tmp")
        (inner / "a").write_text("there before")
        unpacker = Unpacker(inner, keep_kinds=True)
        try:
            unpacker.run(TarStream(Pieces(iter([data]))))
        except EngineError:
            pass
        finally:
            unpacker.close()


def zeros(count: int) -> Iterator[bytes]:
    chunk = bytes(1 << 20)
    for _ in range(count):
        yield chunk


def bomb(*parts: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(9, wbits=31)
    for part in parts:
        for piece in part:
            if packed := packer.compress(piece):
                yield packed
    yield packer.flush()


BOMB_MEGABYTES = 120


@pytest.mark.parametrize("where", ["file", "trailer", "header"])
def test_a_bomb_of_zeros_takes_no_memory(where: str, tmp_path: Path) -> None:
    entry = Entry(b"zeros")
    entry.mode = 0o644
    size = BOMB_MEGABYTES << 20
    if where == "file":
        entry.size_bytes = size
        parts = [iter([build(entry)]), zeros(BOMB_MEGABYTES), iter([bytes(1024)])]
    elif where == "trailer":
        parts = [iter([build(entry), bytes(1024)]), zeros(BOMB_MEGABYTES)]
    else:  # an extended header that never ends
        extended = Entry(b"x", b"x")
        extended.size_bytes = size
        parts = [iter([build(extended)]), zeros(BOMB_MEGABYTES)]
    layers = LayerFiles(tmp_path / "layers")
    tracemalloc.start()
    try:
        source = Pieces(bomb(*parts))
        if where == "header":
            with pytest.raises(InvalidArchive, match="an extended header of"):
                layers.stage(source)
            assert os.listdir(tmp_path / "layers") == []
        else:
            staged = layers.stage(source)
            assert staged.size_bytes == (size if where == "file" else 0)
            layers.discard(staged)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


class Disk:
    """A file system that is full after a few looks at it. `low`: the field that gets low."""

    def __init__(self, looks: int, **low: int) -> None:
        self._looks = looks
        self._low = low

    def __call__(self, fd: int) -> SimpleNamespace:
        self._looks -= 1
        plenty = {"f_bavail": 1 << 30, "f_frsize": 4096, "f_files": 1 << 30, "f_favail": 1 << 30}
        return SimpleNamespace(**(plenty if self._looks >= 0 else plenty | self._low))


def test_a_layer_that_fills_the_disk_ends_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reserve is what the rest of the machine lives on."""
    monkeypatch.setattr("teu.sys.placement.os.fstatvfs", Disk(2, f_bavail=1))
    entry = Entry(b"zeros")
    entry.size_bytes = 200 << 20
    layers = LayerFiles(tmp_path / "layers")
    with pytest.raises(SystemFailure, match=r"no space left .*teu image prune"):
        layers.stage(Pieces(bomb(iter([build(entry)]), zeros(200), iter([bytes(1024)]))))
    assert os.listdir(tmp_path / "layers") == []


def test_a_layer_that_takes_all_inodes_ends_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teu.sys.placement.os.fstatvfs", Disk(1, f_favail=5))
    block = [build(_empty(f"d{n}/")) for n in range(4100)]
    layers = LayerFiles(tmp_path / "layers")
    with pytest.raises(SystemFailure, match="no inodes left on the device"):
        layers.stage(Pieces(iter([*block, bytes(1024)])))
    assert os.listdir(tmp_path / "layers") == []


def _empty(name: str) -> Entry:
    entry = Entry(name.encode(), b"5")
    entry.mode = 0o755
    return entry


def test_an_image_archive_of_nothing_but_links_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teu.image.load._MAX_ENTRIES", 1000)
    links = tar_of(*(symlink(f"l{n}", "x") for n in range(1001)))
    with pytest.raises(InvalidArchive, match="more entries than any image archive needs"):
        Lab(tmp_path).load(links, 1 << 16)


def test_a_symlink_swapped_in_between_entries(tmp_path: Path) -> None:
    """Each entry is resolved anew: what was looked up through the directory is void."""
    data = tar_of(
        directory("d"),
        member("d/one", b"1"),
        symlink("d", "../../../../tmp"),
        member("d/x", b"evil"),
        directory("d"),
        member("d/two", b"2"),
    )
    with hostile.nothing_outside(tmp_path) as inner:
        assert unpack_and_look(data, inner) == ""


@pytest.mark.parametrize("count", [200])
def test_many_links_to_one_file(count: int, tmp_path: Path) -> None:
    data = tar_of(
        member("file", b"x" * 100),
        *(member(f"link{n}", type=b"1", linkname="file") for n in range(count)),
        member("file", b"new"),
    )
    assert unpack_and_look(data, tmp_path) == ""


def test_a_sparse_file_of_a_petabyte(tmp_path: Path) -> None:
    """GNU sparse: it says a size that no disk has; nothing is written, nothing is left."""
    headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "huge",
        "GNU.sparse.realsize": str(1 << 50),
    }
    payload = padded(b"1\n0\n1\n") + b"x"
    data = tar_of(member("GNUSparseFile.0/x", payload, pax_headers=headers))
    said = unpack_and_look(data, tmp_path)
    assert "huge" in said or said == ""


def test_a_sparse_file_whose_holes_count_nothing(tmp_path: Path) -> None:
    packed = gzip.compress(tar_of(member("f", bytes(5_000_000))))
    layers = LayerFiles(tmp_path / "layers")
    staged = layers.stage(Pieces(iter([packed])))
    assert staged.size_bytes == 5_000_000
    layers.discard(staged)
