"""Unpacked layers on disk.

    layers/NN            the tree, one directory of an overlay's `lowerdir`
    layers/NN.skeleton   what else the layer's archive held (sys/skeleton.py)
    layers/NN.orphans/   files that the archive held twice (rare)
    layers/NN.TOKEN.partial/   being unpacked; the random token makes ext4 choose another block
                         group each time, away from what was removed lately

A layer is unpacked on its own (whiteouts become overlayfs's), so layers of one image unpack in any
order and at the same time. `settle` gives it its final name once its parents are known. Rows in
table `layer` say which directories exist; whatever has no row is void and goes at the next start.

Durability: nothing is synced file by file. `sync` (one syncfs) comes after `settle` and before the
rows, so a row never speaks of something that a power failure can take.
"""

import hashlib
import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from msgspec import Struct

from teu.errors import DataLoss, EngineError, SystemFailure
from teu.store.images import LayerRow
from teu.sys.atomicfile import sync_filesystem
from teu.sys.beneath import open_beneath, remove_tree
from teu.sys.codec import Hashed, ReadAhead, Source, decoded
from teu.sys.pack import pack_tree
from teu.sys.placement import spread_subdirectories
from teu.sys.skeleton import SkeletonWriter, archive_bytes, reassemble
from teu.sys.tarheader import REGULAR, SYMLINK
from teu.sys.tarstream import TarStream
from teu.sys.treecheck import compared, differences
from teu.sys.unpack import Unpacker

_SUFFIXES = ("partial", "skeleton", "orphans")
_OVERLAY_XATTR = "trusted.overlay."


class StagedLayer(Struct):
    """A layer that is unpacked but not in the store: `settle` or `discard` it."""

    number: int
    diff_id: str
    size_bytes: int
    implied: list[bytes]
    compression: str = ""


class LayerFiles:
    """File work only; every method may run in a thread."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._root.mkdir(parents=True, exist_ok=True, mode=0o710)
        spread_subdirectories(root)
        self._lock = threading.Lock()
        numbers = [int(p.name.partition(".")[0]) for p in root.iterdir() if _is_ours(p.name)]
        self._next = max(numbers, default=0) + 1

    def path(self, directory: str) -> Path:
        return self._root / directory

    def stage(self, source: Source) -> StagedLayer:
        """Unpacks a layer's archive, compressed or not, in one pass.

        Raises: InvalidArchive, DamagedStream, SystemFailure; then nothing is left.
        """
        number = self._take_number()
        try:
            return self._unpack(number, source)
        except OSError as error:
            self._discard_number(number)
            raise SystemFailure(f"cannot unpack a layer: {error}") from error
        except BaseException:
            self._discard_number(number)
            raise

    def _unpack(self, number: int, source: Source) -> StagedLayer:
        tree = self._root / f"{number}.{secrets.token_hex(4)}.partial"
        tree.mkdir(mode=0o755)
        tree.chmod(0o755)
        with ExitStack() as stack:
            archive, compression = decoded(source)
            hashed = Hashed(archive)
            ahead = stack.enter_context(ReadAhead(hashed))
            skeleton = SkeletonWriter(
                self._root / f"{number}.skeleton", self._root / f"{number}.orphans"
            )
            stack.callback(skeleton.close)
            unpacker = Unpacker(tree, whiteouts=True, skeleton=skeleton)
            stack.callback(unpacker.close)
            result = unpacker.run(TarStream(ahead, skeleton.raw))
            skeleton.finish()
        return StagedLayer(number, hashed.digest, result.size_bytes, result.implied, compression)

    def adopt(self, tree: Path) -> StagedLayer:
        """Takes an overlay's upper directory as a layer: it is read once, nothing is copied.

        `tree` is on this file system, nobody writes to it any more; it is gone afterwards, also
        after a failure. Raises: SystemFailure.
        """
        number = self._take_number()
        partial = self._root / f"{number}.{secrets.token_hex(4)}.partial"
        try:
            os.rename(tree, partial)
            os.chmod(partial, 0o755)
            os.chown(partial, 0, 0)
            return self._described(number, partial)
        except OSError as error:
            self._discard_number(number)
            raise SystemFailure(f"cannot keep a layer: {error}") from error
        except BaseException:
            self._discard_number(number)
            raise

    def _described(self, number: int, tree: Path) -> StagedLayer:
        """The skeleton and the digest of a tree that is in place."""
        skeleton = SkeletonWriter(
            self._root / f"{number}.skeleton", self._root / f"{number}.orphans"
        )
        try:
            hashed = Hashed(Pieces(pack_tree(tree, whiteouts=True)))
            stream = TarStream(hashed, skeleton.raw)
            size_bytes = 0
            while entry := stream.next():
                if entry.kind == REGULAR and entry.size_bytes:
                    skeleton.file(entry.name, [(0, entry.size_bytes)])
                    for _ in stream.payload():
                        continue
                size_bytes += entry.size_bytes or len(entry.link if entry.kind == SYMLINK else b"")
            skeleton.finish()
        finally:
            skeleton.close()
        return StagedLayer(number, hashed.digest, size_bytes, [])

    def settle(self, layer: StagedLayer, parents: Iterable[str]) -> str:
        """Gives a staged layer its place above `parents` (directories, top first); its own
        directory's name.

        A directory that the layer only passes through is not described in its archive: it looks
        like the nearest parent's, as it does in an overlay that was written to.
        """
        [tree] = self._root.glob(f"{layer.number}.*.partial")
        try:
            lower = list(parents) if layer.implied else []
            for path in layer.implied:
                _inherit(tree, path, (self._root / name for name in lower))
            os.rename(tree, self._root / str(layer.number))
        except OSError as error:
            raise SystemFailure(f"cannot settle a layer: {error}") from error
        return str(layer.number)

    def discard(self, layer: StagedLayer) -> None:
        """Removes a staged or settled layer that did not get a row (idempotent)."""
        self._discard_number(layer.number)

    def sync(self) -> None:
        """Raises: SystemFailure when the disk refuses."""
        try:
            sync_filesystem(self._root)
        except OSError as error:
            raise SystemFailure(f"cannot write layers to the disk: {error}") from error

    def archive(self, row: LayerRow) -> Iterator[bytes]:
        """The layer's tar archive, exactly as it was unpacked.

        Raises: DataLoss, at the latest after the last piece, when it is not.
        """
        base = self._root / row.directory
        digest = hashlib.sha256()
        for piece in self._reassembled(row):
            digest.update(piece)
            yield piece
        if f"sha256:{digest.hexdigest()}" != row.diff_id:
            raise DataLoss(
                f"layer {row.diff_id} was changed or damaged on the disk ({base}): remove its "
                "images and pull or load them again"
            )

    def staged_archive(self, layer: StagedLayer) -> Iterator[bytes]:
        """The archive of a staged layer, as it came but uncompressed. Raises: DataLoss."""
        [tree] = self._root.glob(f"{layer.number}.*.partial")
        name = str(layer.number)
        return reassemble(self._beside(name, "skeleton"), tree, self._beside(name, "orphans"))

    def archive_bytes(self, row: LayerRow) -> int:
        """The length of `archive`. Raises: DataLoss."""
        return archive_bytes(self._beside(row.directory, "skeleton"))

    def check(self, row: LayerRow) -> list[str]:
        """What is wrong with a layer: nothing, when its archive can be made again and all its
        entries are in the tree as the archive has them."""
        base = self._root / row.directory
        try:
            pieces = Hashed(Pieces(self._reassembled(row)))
            found = differences(TarStream(pieces), base)
            if pieces.digest != row.diff_id:
                return [*found, "the contents of files were changed or damaged"]
            return self._confirmed(row) if found else []
        except (EngineError, OSError) as error:
            return [str(error)]

    def _confirmed(self, row: LayerRow) -> list[str]:
        """The differences to the tree that the layer's archive unpacks to."""
        fresh = self.clone(row)
        try:
            [tree] = self._root.glob(f"{fresh.number}.*.partial")
            return compared(self._root / row.directory, tree, set(fresh.implied))
        finally:
            self.discard(fresh)

    def _reassembled(self, row: LayerRow) -> Iterator[bytes]:
        name = row.directory
        return reassemble(
            self._beside(name, "skeleton"), self._root / name, self._beside(name, "orphans")
        )

    def clone(self, row: LayerRow) -> StagedLayer:
        """A second unpacked copy, for another place in a stack of layers. Raises: DataLoss."""
        return self.stage(Pieces(self.archive(row)))

    def remove(self, directory: str) -> None:
        """Removes a layer whose row is gone (idempotent)."""
        self._discard_number(int(directory))

    def clean(self, known: set[str]) -> None:
        """At start: removes every directory without a row."""
        for path in sorted(self._root.iterdir()):
            number = path.name.partition(".")[0]
            if _is_ours(path.name) and (number not in known or path.suffix == ".partial"):
                self._remove_path(path)

    def missing(self, rows: Iterable[LayerRow]) -> set[str]:
        """Chain ids whose directory is not there."""
        return {row.chain_id for row in rows if not self.path(row.directory).is_dir()}

    def _beside(self, directory: str, what: str) -> Path:
        return self._root / f"{directory}.{what}"

    def _take_number(self) -> int:
        with self._lock:
            number = self._next
            self._next += 1
        return number

    def _discard_number(self, number: int) -> None:
        for path in self._root.glob(f"{number}.*.partial"):
            self._remove_path(path)
        for name in (str(number), f"{number}.skeleton", f"{number}.orphans"):
            self._remove_path(self._root / name)

    def _remove_path(self, path: Path) -> None:
        root_fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(root_fd, os.fsencode(path.name))
        finally:
            os.close(root_fd)


class Pieces:
    """An iterator of bytes as a source."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, size: int = -1) -> bytes:
        return next(self._pieces, b"")


def _is_ours(name: str) -> bool:
    number, _, suffix = name.partition(".")
    return number.isdigit() and suffix.rpartition(".")[2] in ("", *_SUFFIXES)


def _inherit(tree: Path, path: bytes, parents: Iterable[Path]) -> None:
    """Mode, owner, time and xattrs of the nearest parent's directory at `path`."""
    for parent in parents:
        with ExitStack() as stack:
            lower_fd = _open_in(stack, parent, path)
            if lower_fd is None:
                continue
            upper_fd = _open_in(stack, tree, path)
            if lower_fd >= 0 and upper_fd is not None and upper_fd >= 0:
                _copy_attributes(lower_fd, upper_fd)
            return


def _open_in(stack: ExitStack, root: Path, path: bytes) -> int | None:
    """A descriptor; None where nothing is, -1 where something that is no directory is."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, root_fd)
    try:
        fd = open_beneath(root_fd, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError:
        return -1
    stack.callback(os.close, fd)
    return fd


def _copy_attributes(source_fd: int, target_fd: int) -> None:
    found = os.fstat(source_fd)
    os.fchown(target_fd, found.st_uid, found.st_gid)
    os.fchmod(target_fd, found.st_mode & 0o7777)
    for name in os.listxattr(source_fd):
        if not name.startswith(_OVERLAY_XATTR):
            with suppress(OSError):
                os.setxattr(target_fd, name, os.getxattr(source_fd, name))
    os.utime(target_fd, ns=(found.st_mtime_ns, found.st_mtime_ns))
