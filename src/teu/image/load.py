"""Reading an image archive: docker-archive or OCI layout, in one pass over the stream.

Layers are unpacked as they come by, before the archive has said (at its end, mostly) which image
they belong to; nothing of them is spooled to the disk. Afterwards the metadata says which staged
layer is which (`archived.py`), and digests decide whether that is true.

What may turn out to be part of an artifact is spooled as it came: its digest is that of the very
bytes. Those are blobs that are no tar archives, or compressed ones.
"""

import os
import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct, field

from teu.content.blobs import BlobStore, WrongDigest, is_digest
from teu.errors import SystemFailure
from teu.image.layers import LayerFiles, StagedLayer
from teu.sys.archivepath import clean_path
from teu.sys.atomicfile import write_fully
from teu.sys.codec import CHUNK_BYTES, Hashed, Peeked, Source, decoded, detect
from teu.sys.tarheader import HARD_LINK, REGULAR, SYMLINK, Entry, InvalidArchive
from teu.sys.tarstream import TarStream

METADATA_LIMIT_BYTES = 8 << 20
_ALL_METADATA_LIMIT_BYTES = 64 << 20
_USTAR_MAGIC = slice(257, 262)
_MAX_ALIASES = 8
_MAX_ENTRIES = 200_000
LayerSeen = Callable[[str, int, int], None]


class ArchiveContents(Struct):
    """What an archive held, by name: small files, staged layers, spooled files; and names that
    mean another name. `discard` what is not used."""

    metadata: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, StagedLayer] = field(default_factory=dict)
    spooled: dict[str, Path] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def resolved(self, path: str) -> str:
        """The name that a path of a manifest means, through links; it may not be there."""
        name = posixpath.normpath(path).lstrip("/")
        for _ in range(_MAX_ALIASES):
            if name not in self.aliases:
                break
            name = self.aliases[name]
        return name

    def discard(self, layers: LayerFiles) -> None:
        """Removes what nobody took (idempotent)."""
        while self.layers:
            layers.discard(self.layers.popitem()[1])
        while self.spooled:
            self.spooled.popitem()[1].unlink(missing_ok=True)


def read_archive(
    source: Source, layers: LayerFiles, blobs: BlobStore, on_layer: LayerSeen
) -> ArchiveContents:
    """Reads it all (in a thread); the caller uses or discards what it gets.

    Raises: InvalidArchive, DamagedStream, WrongDigest, SystemFailure; then nothing is left of it.
    """
    reader = _Reader(layers, blobs, on_layer)
    try:
        reader.read(decoded(source)[0])
    except BaseException:
        reader.contents.discard(layers)
        raise
    return reader.contents


class _Reader:
    def __init__(self, layers: LayerFiles, blobs: BlobStore, on_layer: LayerSeen) -> None:
        self._files = layers
        self._blobs = blobs
        self._on_layer = on_layer
        self._metadata_bytes = 0
        self.contents = ArchiveContents()

    def read(self, source: Source) -> None:
        stream = TarStream(source)
        aliases = self.contents.aliases
        entries = 0
        while entry := stream.next():
            entries += 1
            if entries > _MAX_ENTRIES:
                raise InvalidArchive("the archive has more entries than any image archive needs")
            name = _text(clean_path(entry.name))
            if entry.kind == REGULAR:
                self._file(name, entry, stream)
            elif entry.kind == SYMLINK:
                target = posixpath.join(posixpath.dirname(name), _text(entry.link))
                aliases[name] = posixpath.normpath(target).lstrip("/")
            elif entry.kind == HARD_LINK:
                aliases[name] = _text(clean_path(entry.link))

    def _file(self, name: str, entry: Entry, stream: TarStream) -> None:
        known = self.contents
        if name in known.layers or name in known.metadata or name in known.spooled:
            raise InvalidArchive(f"{name} is in the archive twice")
        payload = _Payload(stream)
        peeked = Peeked(payload, min(512, entry.payload_bytes))
        promised = _promised(name)
        if _looks_like_layer(name, peeked.head):
            payload.on_progress = lambda done: self._on_layer(name, done, entry.size_bytes)
            digest = self._layer(name, peeked, promised)
        else:
            digest = self._other(name, peeked, entry.payload_bytes, promised)
        for _ in _pieces(payload):  # nobody wanted it
            pass
        if promised and digest != promised:
            raise WrongDigest(promised, digest, f"blob {name} of the archive")

    def _layer(self, name: str, source: Peeked, promised: str) -> str:
        """Unpacks it; the digest of a blob."""
        is_compressed = bool(detect(source.head))
        algorithm = promised.partition(":")[0] or "sha256"
        if not promised or (not is_compressed and algorithm == "sha256"):
            layer = self.contents.layers[name] = self._files.stage(source)
            return layer.diff_id
        hashed = Hashed(source, algorithm)
        if not is_compressed:
            self.contents.layers[name] = self._files.stage(hashed)
            return hashed.digest
        with self._spooling(name) as write:
            copied = _Copied(hashed, write)
            self.contents.layers[name] = self._files.stage(copied)
            for _ in _pieces(copied):  # what follows the end of the compressed stream
                pass
        return hashed.digest

    def _other(self, name: str, source: Source, size_bytes: int, promised: str) -> str:
        """Keeps what is not a layer; the digest of a blob."""
        hashed = Hashed(source, promised.partition(":")[0] or "sha256")
        if self._has_room(size_bytes):
            self.contents.metadata[name] = b"".join(_pieces(hashed))
        elif promised:
            with self._spooling(name) as write:
                for piece in _pieces(hashed):
                    write(piece)
        return hashed.digest

    def _has_room(self, size_bytes: int) -> bool:
        """Whether a file is small enough to be kept in memory, all those before it counted."""
        if size_bytes > METADATA_LIMIT_BYTES:
            return False
        if self._metadata_bytes + size_bytes > _ALL_METADATA_LIMIT_BYTES:
            return False
        self._metadata_bytes += size_bytes
        return True

    @contextmanager
    def _spooling(self, name: str) -> Iterator[Callable[[bytes], None]]:
        fd, path = self._blobs.spool()
        self.contents.spooled[name] = path
        try:
            yield lambda data: write_fully(fd, data)
        except OSError as error:
            raise SystemFailure(f"cannot keep {name} of the archive: {error}") from error
        finally:
            os.close(fd)


class _Payload:
    """A member's payload as a source; tells how far it is, if somebody wants to know."""

    def __init__(self, stream: TarStream) -> None:
        self._pieces = stream.payload()
        self.on_progress: Callable[[int], None] | None = None
        self._done = 0

    def read(self, size: int = -1) -> bytes:
        piece = bytes(next(self._pieces, b""))
        self._done += len(piece)
        if self.on_progress is not None:
            self.on_progress(self._done)
        return piece


class _Copied:
    """A source whose bytes go somewhere else too."""

    def __init__(self, source: Source, write: Callable[[bytes], None]) -> None:
        self._source = source
        self._write = write

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._write(data)
        return data


def _pieces(source: Source) -> Iterator[bytes]:
    while piece := source.read(CHUNK_BYTES):
        yield piece


def _promised(name: str) -> str:
    """The digest that a blob's name promises; "" for other files."""
    kind, _, rest = name.partition("/")
    digest = rest.replace("/", ":", 1)
    return digest if kind == "blobs" and is_digest(digest) else ""


def _looks_like_layer(name: str, head: bytes) -> bool:
    if name.endswith("layer.tar") or detect(head):
        return True
    return head[_USTAR_MAGIC] == b"ustar" or (len(head) >= 512 and not any(head))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
