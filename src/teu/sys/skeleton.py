"""What a tar archive holds beside the contents of its files, so that the exact archive can be
made again from the unpacked tree.

An image's layer is named by the digest of its tar archive. Keeping that archive beside the tree
would double the disk space of every image; keeping its headers and padding costs about one
percent. A skeleton is a zstd stream of records:

    R  u32 length                            raw bytes follow
    F  u32 path length, u32 segment count    a path, then the segments (u64 offset, u64 length):
                                             these parts of that file come here

A file that a later entry of the same archive replaced is kept under `orphans/`, whose `index`
says which path it had: the first F record of that path means the first orphan, and so on.
"""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import zstandard

from teu.errors import DataLoss
from teu.sys.atomicfile import write_fully
from teu.sys.beneath import open_beneath

_RAW = struct.Struct("<cI")
_FILE = struct.Struct("<cII")
_SEGMENT = struct.Struct("<QQ")
_FLUSH_BYTES = 256 << 10
_READ_BYTES = 1 << 20
_LEVEL = 1


class SkeletonWriter:
    """Takes the pieces of an archive in order. `close` ends the file; it is not synced here."""

    def __init__(self, path: Path, orphans: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
        self._orphans = orphans
        self._orphan_paths: list[bytes] = []
        self._raw = bytearray()
        self._records = bytearray()

    def raw(self, data: bytes) -> None:
        self._raw += data
        if len(self._raw) >= _FLUSH_BYTES:
            self._flush_raw()

    def file(self, path: bytes, segments: list[tuple[int, int]]) -> None:
        """The next payload is in these segments of `path` (relative, free of symlinks)."""
        self._flush_raw()
        self._records += _FILE.pack(b"F", len(path), len(segments))
        self._records += path
        for segment in segments:
            self._records += _SEGMENT.pack(*segment)
        if len(self._records) >= _FLUSH_BYTES:
            self._flush_records()

    def orphan(self, parent_fd: int, name: bytes, path: bytes) -> None:
        """Moves a file out of the tree before another entry takes its path."""
        self._orphans.mkdir(mode=0o700, exist_ok=True)
        target = self._orphans / str(len(self._orphan_paths))
        os.rename(name, os.fsencode(target), src_dir_fd=parent_fd)
        self._orphan_paths.append(path)

    def finish(self) -> None:
        self._flush_raw()
        self._flush_records()
        write_fully(self._fd, self._compressor.flush())
        if self._orphan_paths:
            names = [path.hex() for path in self._orphan_paths]
            (self._orphans / "index").write_text(json.dumps(names))

    def close(self) -> None:
        """Releases the descriptor, finished or not (idempotent)."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _flush_raw(self) -> None:
        if self._raw:
            self._records += _RAW.pack(b"R", len(self._raw))
            self._records += self._raw
            self._raw.clear()
            if len(self._records) >= _FLUSH_BYTES:
                self._flush_records()

    def _flush_records(self) -> None:
        if data := self._compressor.compress(bytes(self._records)):
            write_fully(self._fd, data)
        self._records.clear()


def reassemble(skeleton: Path, tree: Path, orphans: Path) -> Iterator[bytes]:
    """The archive's bytes again. The caller checks their digest.

    Raises: DataLoss when the skeleton or a file of the tree is missing or shorter than it was.
    """
    try:
        waiting = _orphans_by_path(orphans)
        root_fd = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise DataLoss(f"layer {tree}: {error}") from error
    try:
        with open(skeleton, "rb") as file:
            yield from _records(_Records(file), root_fd, waiting)
    except (OSError, zstandard.ZstdError, struct.error) as error:
        raise DataLoss(f"layer {tree} is damaged: {error}") from error
    finally:
        os.close(root_fd)


def archive_bytes(skeleton: Path) -> int:
    """The length of the archive that `reassemble` gives. Raises: DataLoss."""
    total = 0
    try:
        with open(skeleton, "rb") as file:
            records = _Records(file)
            while kind := records.take(1):
                if kind == b"R":
                    (length,) = struct.unpack("<I", records.take(4))
                    records.take(length)
                    total += length
                else:
                    _, segments = _file_record(records)
                    total += sum(length for _, length in segments)
    except (OSError, zstandard.ZstdError, struct.error) as error:
        raise DataLoss(f"layer {skeleton} is damaged: {error}") from error
    return total


def _orphans_by_path(orphans: Path) -> dict[bytes, list[Path]]:
    waiting: dict[bytes, list[Path]] = {}
    if orphans.is_dir():
        for number, name in enumerate(json.loads((orphans / "index").read_text())):
            waiting.setdefault(bytes.fromhex(name), []).append(orphans / str(number))
    return waiting


class _Records:
    def __init__(self, file: object) -> None:
        self._reader = zstandard.ZstdDecompressor().stream_reader(file, read_size=_READ_BYTES)  # type: ignore[arg-type]

    def take(self, count: int) -> bytes:
        parts = []
        while count and (part := self._reader.read(count)):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def _records(records: _Records, root_fd: int, waiting: dict[bytes, list[Path]]) -> Iterator[bytes]:
    while kind := records.take(1):
        if kind == b"R":
            (length,) = struct.unpack("<I", records.take(4))
            yield records.take(length)
            continue
        path, segments = _file_record(records)
        orphans = waiting.get(path)
        if orphans:
            fd = os.open(orphans.pop(0), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        else:
            fd = open_beneath(root_fd, path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            for offset, length in segments:
                yield from _segment(fd, path, offset, length)
        finally:
            os.close(fd)


def _file_record(records: _Records) -> tuple[bytes, list[tuple[int, int]]]:
    path_length, count = struct.unpack("<II", records.take(8))
    path = records.take(path_length)
    return path, list(_SEGMENT.iter_unpack(records.take(_SEGMENT.size * count)))


def _segment(fd: int, path: bytes, offset: int, length: int) -> Iterator[bytes]:
    while length:
        data = os.pread(fd, min(length, _READ_BYTES), offset)
        if not data:
            raise DataLoss(f"a layer's file {os.fsdecode(path)} is shorter than it was unpacked")
        yield data
        offset += len(data)
        length -= len(data)
