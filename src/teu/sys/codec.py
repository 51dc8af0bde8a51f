"""Compressed streams: found by their first bytes, decoded with bounded memory.

gzip goes through isal (twice zlib's speed), zstd through zstandard, xz and bzip2 through the
standard library. A decoder never returns more than `CHUNK_BYTES` at once, however small the input
that produced it (a megabyte of gzip can hold a gigabyte of zeros).
"""

import bz2
import contextlib
import hashlib
import lzma
import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol, cast

import zstandard
from isal import igzip_lib

from teu.errors import InvalidParameter

CHUNK_BYTES = 1 << 20
_XZ_MEMORY_LIMIT_BYTES = 256 << 20
_QUEUED_CHUNKS = 4
_ISAL_ERROR = cast(type[Exception], igzip_lib.error)  # its stub says it is an instance


class Source(Protocol):
    """Anything that gives bytes: at most `size` of them where it can, b"" only at the end."""

    def read(self, size: int = -1, /) -> bytes: ...


class DamagedStream(InvalidParameter):
    """Compressed data that ends early or does not decode."""


class Peeked:
    """A source whose first bytes were looked at."""

    def __init__(self, source: Source, want_bytes: int) -> None:
        self._source = source
        self.head = b""
        while len(self.head) < want_bytes and (more := source.read(CHUNK_BYTES)):
            self.head += more
        self._rest: bytes | None = self.head

    def read(self, size: int = -1) -> bytes:
        if self._rest is not None:
            first, self._rest = self._rest, None
            if first:
                return first
        return self._source.read(CHUNK_BYTES if size < 0 else size)


class Hashed:
    """A source whose bytes are summed as they pass, and counted."""

    def __init__(self, source: Source, algorithm: str = "sha256") -> None:
        self._source = source
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._hash.update(data)
        self.count += len(data)
        return data

    @property
    def digest(self) -> str:
        return f"{self._algorithm}:{self._hash.hexdigest()}"


def detect(head: bytes) -> str:
    """`gzip`, `zstd`, `xz`, `bzip2`, or an empty string for anything else."""
    if head[:3] == b"\x1f\x8b\x08":
        return "gzip"
    if head[:4] == b"\x28\xb5\x2f\xfd":
        return "zstd"
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
        return "zstd"  # a skippable frame comes first
    if head[:6] == b"\xfd7zXZ\x00":
        return "xz"
    if head[:3] == b"BZh" and head[4:10] == b"1AY&SY":
        return "bzip2"
    return ""


def decoded(source: Source) -> tuple[Source, str]:
    """The source without its compression, and which one it had."""
    peeked = Peeked(source, 10)
    compression = detect(peeked.head)
    match compression:
        case "gzip":
            return _Members(peeked, "gzip", _gzip_decoder), compression
        case "xz":
            return _Members(peeked, "xz", _xz_decoder), compression
        case "bzip2":
            return _Members(peeked, "bzip2", bz2.BZ2Decompressor), compression
        case "zstd":
            return _Zstd(peeked), compression
        case _:
            return peeked, compression


def _gzip_decoder() -> Any:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _xz_decoder() -> Any:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_LIMIT_BYTES)


class _Members:
    """Members one after the other, as gzip(1) and xz(1) accept them; zero padding is skipped."""

    def __init__(self, source: Source, name: str, new: Callable[[], Any]) -> None:
        self._source = source
        self._name = name
        self._new = new
        self._decoder = new()
        self._fed = False  # has the current member had any input?
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        want = CHUNK_BYTES if size < 0 else min(size, CHUNK_BYTES)
        while not self._ended:
            try:
                data = self._step(want)
            except (EOFError, OSError, ValueError, lzma.LZMAError, _ISAL_ERROR) as error:
                raise DamagedStream(f"the {self._name} data is damaged: {error}") from error
            if data:
                return data
        return b""

    def _step(self, want: int) -> bytes:
        if self._decoder.eof:
            rest = self._decoder.unused_data.lstrip(b"\0")
            while not rest and (more := self._source.read(CHUNK_BYTES)):
                rest = more.lstrip(b"\0")
            if not rest:
                self._ended = True
                return b""
            self._decoder, self._fed = self._new(), False
            return self._decode(rest, want)
        if not self._decoder.needs_input and self._fed:
            return self._decode(b"", want)
        more = self._source.read(CHUNK_BYTES)
        if not more:
            raise DamagedStream(f"the {self._name} data ends too early: unexpected EOF")
        return self._decode(more, want)

    def _decode(self, data: bytes, want: int) -> bytes:
        self._fed = True
        return bytes(self._decoder.decompress(data, want))


class _Zstd:
    """A stream cut off between two blocks just ends; its reader misses the rest."""

    def __init__(self, source: Source) -> None:
        file: Any = source  # of a file it takes only `read`
        self._reader = zstandard.ZstdDecompressor().stream_reader(
            file, read_size=CHUNK_BYTES, read_across_frames=True
        )

    def read(self, size: int = -1) -> bytes:
        want = CHUNK_BYTES if size < 0 else min(size, CHUNK_BYTES)
        try:
            return bytes(self._reader.read(want))
        except zstandard.ZstdError as error:
            raise DamagedStream(f"the zstd data is damaged: {error}") from error


class ReadAhead:
    """Reads a source in a thread of its own, a few chunks ahead, so decoding overlaps writing."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(_QUEUED_CHUNKS)
        self._stop = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        item: bytes | BaseException = b"-"
        while item and not isinstance(item, BaseException):
            try:
                item = self._source.read(CHUNK_BYTES)
            except BaseException as error:
                item = error
            self._queue.put(item)
            if self._stop.is_set():
                return

    def read(self, size: int = -1) -> bytes:
        if self._ended:
            return b""
        item = self._queue.get()
        if isinstance(item, BaseException):
            self._ended = True
            raise item
        self._ended = not item
        return item

    def close(self) -> None:
        """Ends the thread; waits while it is inside the source's `read`."""
        self._stop.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._queue.get_nowait()
            self._thread.join(0.01)

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
