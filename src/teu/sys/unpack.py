"""A tar archive becomes a directory tree, and can only ever touch that tree.

Every path is opened through a descriptor of its directory, found with openat2(RESOLVE_IN_ROOT);
the last component is created with O_EXCL or by a call that does not follow symlinks. So `..`,
absolute names, symlinks out of the tree and entries that swap a directory for a symlink all end
inside the tree, where a container would see them, or with an error.

With `whiteouts`, `.wh.NAME` and `.wh..wh..opq` become what overlayfs understands: a character
device 0/0, and the xattr trusted.overlay.opaque. Source: OCI image-spec layer.md; kernel
Documentation/filesystems/overlayfs.rst.
"""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from teu.sys.archivepath import clean_path, lexical_path
from teu.sys.atomicfile import write_fully
from teu.sys.beneath import open_beneath, open_directory, remove_tree, set_mode
from teu.sys.overlayfs import (
    OPAQUE_MARKER,
    OPAQUE_XATTR,
    WHITEOUT_META_PREFIX,
    WHITEOUT_PREFIX,
    is_whiteout,
    set_opaque,
)
from teu.sys.placement import check_space
from teu.sys.skeleton import SkeletonWriter
from teu.sys.tarheader import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Entry,
    InvalidArchive,
    clamp_time,
)
from teu.sys.tarstream import TarStream
from teu.sys.unpackerrors import shown, translated
from teu.sys.xattrs import set_xattr

_IMPLIED_MODE = 0o755
_CACHED_DIRECTORIES = 64
_MAX_SYMLINKS = 40
_SPACE_CHECK_BYTES = 64 << 20
_SPACE_CHECK_ENTRIES = 4096


@dataclass(slots=True)
class Unpacked:
    """`size_bytes` counts file lengths and symlink targets, as Docker sizes a layer. `implied`
    are directories that no entry described: they got mode 0755 and root as the owner."""

    size_bytes: int = 0
    entries: int = 0
    implied: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class _Place:
    """Where an entry goes: `path` is relative to the root and free of symlinks."""

    parent_fd: int
    name: bytes
    path: bytes


class Unpacker:
    """Unpacks archives below `root` (an existing directory). Close it after use.

    `keep_kinds` refuses to put a file where a directory is, and the other way round.
    `skeleton` records what is needed to make the archive again; the stream's `on_raw` must be its
    `raw`. Not for two threads at once. A container may change what is below `root` meanwhile:
    entries may get lost then, nothing outside of it is touched.
    """

    def __init__(
        self,
        root: Path,
        *,
        whiteouts: bool = False,
        skeleton: SkeletonWriter | None = None,
        keep_kinds: bool = False,
    ) -> None:
        self._keep_kinds = keep_kinds
        self._root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # Empty for `/`: what the root of a container's process is called.
        self._root_path = os.fsencode(os.readlink(f"/proc/self/fd/{self._root_fd}")).rstrip(b"/")
        self._whiteouts = whiteouts
        self._skeleton = skeleton
        self._directories: dict[bytes, tuple[int, bytes]] = {}
        self._stale_fds: list[int] = []
        self._times: dict[bytes, int] = {}
        self._implied: dict[bytes, None] = {}
        self._links: set[bytes] = set()
        self._unchecked_bytes = 0
        self._result = Unpacked()
        self._makers: dict[bytes, Callable[[Entry, _Place, TarStream], None]] = {
            REGULAR: self._regular,
            HARD_LINK: self._hard_link,
            SYMLINK: self._symlink,
            CHARACTER: self._node,
            BLOCK_DEVICE: self._node,
            FIFO: self._node,
            DIRECTORY: self._directory,
        }

    def run(self, stream: TarStream) -> Unpacked:
        """Unpacks the whole stream.

        Raises: InvalidArchive, naming the entry. SystemFailure when the kernel refuses.
        """
        self._check_space()
        while entry := stream.next():
            try:
                self._entry(entry, stream)
            except OSError as error:
                raise translated(error, entry) from error
            if self._stale_fds:
                self._close_stale()
            self._result.entries += 1
            if self._result.entries % _SPACE_CHECK_ENTRIES == 0:
                self._check_space()
        self._set_directory_times()
        self._result.implied = list(self._implied)
        return self._result

    def close(self) -> None:
        self._forget_directories()
        self._close_stale()
        os.close(self._root_fd)

    # --- one entry ----------------------------------------------------------------------

    def _entry(self, entry: Entry, stream: TarStream) -> None:
        path = clean_path(entry.name)
        maker = self._makers.get(entry.kind)
        if maker is None:
            raise InvalidArchive(
                f"{shown(entry)}: unhandled tar header type {entry.kind[0]} in the archive"
            )
        if not path:
            self._root_entry(entry)
            return
        parent, _, name = path.rpartition(b"/")
        if self._whiteouts and WHITEOUT_PREFIX in path:
            if WHITEOUT_META_PREFIX in path and name != OPAQUE_MARKER:
                return  # bookkeeping of AUFS
            if name.startswith(WHITEOUT_PREFIX):
                self._whiteout(parent, name, entry)
                return
        parent_fd, canonical = self._parent(parent)
        maker(
            entry, _Place(parent_fd, name, canonical + b"/" + name if canonical else name), stream
        )

    def _root_entry(self, entry: Entry) -> None:
        if entry.kind != DIRECTORY:
            raise InvalidArchive(f"{shown(entry)}: the root of the archive is not a directory")
        self._set_attributes(self._root_fd, entry)
        self._times[b""] = entry.mtime_ns

    def _regular(self, entry: Entry, place: _Place, stream: TarStream) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(place.name, flags, 0o600, dir_fd=place.parent_fd)
        except FileExistsError:
            self._clear_way(place)
            fd = os.open(place.name, flags, 0o600, dir_fd=place.parent_fd)
        try:
            if entry.size_bytes:
                if self._skeleton:
                    segments = entry.segments
                    whole = [(0, entry.size_bytes)]
                    self._skeleton.file(place.path, whole if segments is None else segments)
                self._write_payload(fd, entry, stream)
            self._set_attributes(fd, entry)
            os.utime(fd, ns=_times(entry.mtime_ns))
        finally:
            os.close(fd)
        self._result.size_bytes += entry.size_bytes

    def _write_payload(self, fd: int, entry: Entry, stream: TarStream) -> None:
        self._unchecked_bytes += entry.payload_bytes
        if entry.segments is not None:
            os.ftruncate(fd, entry.size_bytes)
            self._write_segments(fd, entry.segments, stream)
            return
        written = 0
        for piece in stream.payload():
            write_fully(fd, piece)
            written += len(piece)
            if written >= _SPACE_CHECK_BYTES:
                written = 0
                self._check_space()
        if self._unchecked_bytes >= _SPACE_CHECK_BYTES:
            self._check_space()

    def _write_segments(self, fd: int, segments: list[tuple[int, int]], stream: TarStream) -> None:
        pieces = stream.payload()
        piece = memoryview(b"")
        for start, length in segments:
            offset, end = start, start + length
            while offset < end:
                piece = piece or next(pieces)
                written = os.pwrite(fd, piece[: end - offset], offset)
                piece = piece[written:]
                offset += written

    def _hard_link(self, entry: Entry, place: _Place, stream: TarStream) -> None:
        parent, _, name = clean_path(entry.link).rpartition(b"/")
        try:
            source_fd = open_directory(self._root_fd, parent)
            try:
                self._link(entry, source_fd, name or b".", place)
            finally:
                os.close(source_fd)
        except FileNotFoundError as error:
            raise InvalidArchive(
                f"{shown(entry)}: a hard link to {os.fsdecode(entry.link)}, which is not in the "
                "archive before it"
            ) from error

    def _link(self, entry: Entry, source_fd: int, name: bytes, place: _Place) -> None:
        found = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            raise InvalidArchive(f"{shown(entry)}: a hard link to a directory")
        with suppress(FileNotFoundError):
            existing = os.stat(place.name, dir_fd=place.parent_fd, follow_symlinks=False)
            if (existing.st_dev, existing.st_ino) == (found.st_dev, found.st_ino):
                return
            self._clear_way(place)
        os.link(
            name, place.name, src_dir_fd=source_fd, dst_dir_fd=place.parent_fd,
            follow_symlinks=False,
        )  # fmt: skip
        self._links.add(place.path)
        if not stat.S_ISLNK(found.st_mode):  # the later entry's attributes win, as in Docker
            self._set_attributes_at(place, entry)

    def _symlink(self, entry: Entry, place: _Place, stream: TarStream) -> None:
        try:
            os.symlink(entry.link, place.name, dir_fd=place.parent_fd)
        except FileExistsError:
            self._clear_way(place)
            os.symlink(entry.link, place.name, dir_fd=place.parent_fd)
        self._set_attributes_at(place, entry)
        self._result.size_bytes += len(entry.link)

    def _node(self, entry: Entry, place: _Place, stream: TarStream) -> None:
        kind = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}
        mode = kind[entry.kind] | 0o600
        device = os.makedev(entry.major, entry.minor)
        try:
            os.mknod(place.name, mode, device, dir_fd=place.parent_fd)
        except FileExistsError:
            self._clear_way(place)
            os.mknod(place.name, mode, device, dir_fd=place.parent_fd)
        self._set_attributes_at(place, entry)

    def _directory(self, entry: Entry, place: _Place, stream: TarStream) -> None:
        opaque = False
        try:
            os.mkdir(place.name, 0o700, dir_fd=place.parent_fd)
        except FileExistsError:
            found = os.stat(place.name, dir_fd=place.parent_fd, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                # A whiteout of the same layer hides what is below; so does the new directory.
                opaque = self._whiteouts and is_whiteout(found)
                self._clear_way(place, directory=True)
                os.mkdir(place.name, 0o700, dir_fd=place.parent_fd)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(place.name, flags, dir_fd=place.parent_fd)
        try:
            self._set_attributes(fd, entry)
            if opaque:
                os.setxattr(fd, OPAQUE_XATTR, b"y")
        finally:
            os.close(fd)
        self._times[place.path] = entry.mtime_ns
        self._implied.pop(place.path, None)

    def _whiteout(self, parent: bytes, name: bytes, entry: Entry) -> None:
        parent_fd, _ = self._parent(parent)
        if name == OPAQUE_MARKER:
            set_opaque(parent_fd, b".")
            return
        hidden = name[len(WHITEOUT_PREFIX) :]
        if hidden in (b"", b".", b".."):
            raise InvalidArchive(f"{shown(entry)}: a whiteout of nothing")
        try:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent_fd)
        except FileExistsError:
            found = os.stat(hidden, dir_fd=parent_fd, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                set_opaque(parent_fd, hidden)

    # --- directories --------------------------------------------------------------------

    def _parent(self, path: bytes) -> tuple[int, bytes]:
        """The descriptor of a directory (made if missing) and its path free of symlinks."""
        if not path:
            return self._root_fd, b""
        known = self._directories.get(path)
        if known is None:
            fd = self._open_or_make(path)
            known = fd, self._canonical(fd)
            if len(self._directories) >= _CACHED_DIRECTORIES:
                os.close(self._directories.pop(next(iter(self._directories)))[0])
            self._directories[path] = known
        return known

    def _open_or_make(self, path: bytes) -> int:
        """Opens a directory; makes what is missing of it, through dangling symlinks too."""
        for _ in range(_MAX_SYMLINKS):
            try:
                return open_directory(self._root_fd, path)
            except FileNotFoundError:
                done, name, rest = self._first_missing(path)
            parent_fd = open_directory(self._root_fd, done)
            try:
                return self._make_chain(parent_fd, [name, *filter(None, rest.split(b"/"))])
            except FileExistsError:
                target = os.readlink(name, dir_fd=parent_fd)
                base = b"" if target.startswith(b"/") else done
                path = lexical_path(base + b"/" + target + b"/" + rest)
            finally:
                os.close(parent_fd)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))

    def _first_missing(self, path: bytes) -> tuple[bytes, bytes, bytes]:
        """The existing part of a path, the first name that leads nowhere, and the rest."""
        done, rest = b"", path
        while True:
            name, _, rest = rest.partition(b"/")
            here = done + b"/" + name if done else name
            try:
                os.close(open_directory(self._root_fd, here))
            except FileNotFoundError:
                return done, name, rest
            done = here

    def _make_chain(self, parent_fd: int, names: list[bytes]) -> int:
        """Makes directories inside each other; the innermost one's descriptor."""
        path = self._canonical(parent_fd)
        fd = os.dup(parent_fd)
        for name in names:
            try:
                os.mkdir(name, _IMPLIED_MODE, dir_fd=fd)
                os.chmod(name, _IMPLIED_MODE, dir_fd=fd)
                below = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
            path = path + b"/" + name if path else name
            self._implied[path] = None
        return fd

    def _canonical(self, fd: int) -> bytes:
        """A directory's path relative to the root, free of symlinks."""
        return os.fsencode(os.readlink(f"/proc/self/fd/{fd}"))[len(self._root_path) + 1 :]

    def _forget_directories(self) -> None:
        """A directory or symlink went, so what was found through it is void. The descriptors
        stay open until the entry at hand is done with its own."""
        self._stale_fds += [fd for fd, _ in self._directories.values()]
        self._directories.clear()

    def _close_stale(self) -> None:
        while self._stale_fds:
            os.close(self._stale_fds.pop())

    def _set_directory_times(self) -> None:
        """Last, because every entry made inside a directory changed its time."""
        self._forget_directories()
        for path, mtime_ns in self._times.items():
            fd = open_beneath(self._root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.utime(fd, ns=_times(mtime_ns))
            finally:
                os.close(fd)

    # --- replacing ----------------------------------------------------------------------

    def _clear_way(self, place: _Place, directory: bool = False) -> None:
        """Removes what an earlier entry put at this place (a later entry wins)."""
        found = os.stat(place.name, dir_fd=place.parent_fd, follow_symlinks=False)
        if self._keep_kinds and directory != stat.S_ISDIR(found.st_mode):
            old, new = ("non-directory", "directory") if directory else ("directory", "file")
            raise InvalidArchive(f'cannot overwrite {old} "{os.fsdecode(place.path)}" with {new}')
        if stat.S_ISREG(found.st_mode):
            self._drop_file(place.parent_fd, place.name, place.path, found)
        elif stat.S_ISDIR(found.st_mode):
            self._drop_directory(place)
        else:
            if stat.S_ISLNK(found.st_mode):
                self._forget_directories()
            os.unlink(place.name, dir_fd=place.parent_fd)
            self._links.discard(place.path)

    def _drop_file(self, parent_fd: int, name: bytes, path: bytes, found: os.stat_result) -> None:
        if path in self._links:
            self._links.discard(path)
        elif self._skeleton and found.st_size:
            self._skeleton.orphan(parent_fd, name, path)
            return
        os.unlink(name, dir_fd=parent_fd)

    def _drop_directory(self, place: _Place) -> None:
        self._forget_directories()
        if self._skeleton:
            self._save_orphans(place.path)
        remove_tree(place.parent_fd, place.name)
        below = place.path + b"/"
        for known in (self._times, self._implied):
            for path in [p for p in known if p == place.path or p.startswith(below)]:
                del known[path]
        self._links = {path for path in self._links if not path.startswith(below)}

    def _save_orphans(self, top: bytes) -> None:
        waiting = [top]
        while waiting:
            directory = waiting.pop()
            fd = open_beneath(self._root_fd, directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                for name in map(os.fsencode, os.listdir(fd)):
                    path = directory + b"/" + name
                    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append(path)
                    elif stat.S_ISREG(found.st_mode):
                        self._drop_file(fd, name, path, found)
            finally:
                os.close(fd)

    # --- attributes ---------------------------------------------------------------------

    def _set_attributes(self, fd: int, entry: Entry) -> None:
        """Owner first: changing it clears set-id bits and file capabilities. Always: a directory
        with the set-group-id bit gives its group to what is made in it."""
        os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        for name, value in entry.xattrs.items():
            set_xattr(fd, name, value)

    def _set_attributes_at(self, place: _Place, entry: Entry) -> None:
        """For what must not be opened, and for hard links: a needless chown would clear
        capabilities."""
        found = os.stat(place.name, dir_fd=place.parent_fd, follow_symlinks=False)
        if (found.st_uid, found.st_gid) != (entry.uid, entry.gid):
            os.chown(
                place.name, entry.uid, entry.gid, dir_fd=place.parent_fd, follow_symlinks=False
            )
        if entry.kind != SYMLINK:
            set_mode(place.parent_fd, place.name, entry.mode)
        path = b"/proc/self/fd/%d/%s" % (place.parent_fd, place.name)
        for name, value in entry.xattrs.items():
            set_xattr(path, name, value)
        os.utime(
            place.name, ns=_times(entry.mtime_ns), dir_fd=place.parent_fd, follow_symlinks=False
        )

    def _check_space(self) -> None:
        self._unchecked_bytes = 0
        check_space(self._root_fd)


def _times(mtime_ns: int) -> tuple[int, int]:
    instant = clamp_time(mtime_ns)
    return instant, instant
