"""A directory tree becomes a tar archive, always the same for the same tree.

Entries come in byte order of their names, a directory before what is in it. The tree may belong
to a container that is running: every name is opened relative to its directory and never through a
symlink; a file that grows or shrinks while it is read is cut or filled to the size it had.

With `whiteouts` the tree is an overlay's upper directory: its character devices 0/0 become
`.wh.NAME`, its opaque directories get `.wh..wh..opq`. Source: OCI image-spec layer.md.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from teu.errors import SystemFailure
from teu.sys.overlayfs import OPAQUE_MARKER, OPAQUE_XATTR, WHITEOUT_PREFIX, is_whiteout
from teu.sys.tarheader import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    ZERO_BLOCK,
    Entry,
    build,
)

_CHUNK_BYTES = 1 << 20
_MAX_DEPTH = 500  # each level keeps a descriptor
_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")
_ELSEWHERE = ("trusted.overlay.redirect", "trusted.overlay.metacopy")
_KINDS = {
    stat.S_IFREG: REGULAR,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFIFO: FIFO,
}
END = ZERO_BLOCK * 2
Skip = Callable[[bytes, os.stat_result], bool]


def pack_tree(root: Path, *, whiteouts: bool = False, skip: Skip | None = None) -> Iterator[bytes]:
    """The archive's bytes, in pieces of about a megabyte. The root itself has no entry.

    `skip(path, stat)` leaves an entry out, with everything below it. Sockets are left out.
    Raises: SystemFailure when the tree cannot be read, or when an overlay keeps part of it
    elsewhere (redirects).
    """
    packer = _Packer(whiteouts, skip)
    try:
        root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield from _batched(packer.tree(root_fd))
        finally:
            os.close(root_fd)
    except OSError as error:
        raise SystemFailure(f"cannot read {root}: {error}") from error


def pack_entry(parent_fd: int, name: bytes, shown: bytes) -> Iterator[bytes]:
    """The archive of one file, or directory with all below it, called `shown` in the archive.

    Args: parent_fd: of the directory that has `name`; stays the caller's.
    Raises: SystemFailure.
    """
    try:
        yield from _batched(_Packer(False, None).entry(parent_fd, name, shown))
    except OSError as error:
        raise SystemFailure(f"cannot read {os.fsdecode(name)}: {error}") from error


class _Open:
    """A directory being read: its descriptor, its path with a slash, the names to come."""

    def __init__(self, fd: int, path: bytes, names: list[bytes] | None = None) -> None:
        self.fd = fd
        self.path = path
        if names is None:
            names = sorted(map(os.fsencode, os.listdir(fd)))
        self.names = iter(names)


class _Packer:
    def __init__(self, whiteouts: bool, skip: Skip | None) -> None:
        self._whiteouts = whiteouts
        self._skip = skip
        self._links: dict[tuple[int, int], bytes] = {}
        self._stack: list[_Open] = []

    def tree(self, root_fd: int) -> Iterator[bytes]:
        """Everything inside the root."""
        self._stack.append(_Open(root_fd, b""))
        yield from self._rest()

    def entry(self, parent_fd: int, name: bytes, shown: bytes) -> Iterator[bytes]:
        """One name of a directory, under another name."""
        here = _Open(parent_fd, b"", [])
        self._stack.append(here)
        yield from self._entry(here, name, shown)
        yield from self._rest()

    def _rest(self) -> Iterator[bytes]:
        try:
            while self._stack:
                here = self._stack[-1]
                name = next(here.names, None)
                if name is None:
                    self._leave()
                else:
                    yield from self._entry(here, name)
        finally:
            while self._stack:
                self._leave()

    def _leave(self) -> None:
        left = self._stack.pop()
        if left.path:
            os.close(left.fd)

    def _entry(self, here: _Open, name: bytes, shown: bytes = b"") -> Iterator[bytes]:
        path = here.path + (shown or name)
        try:
            found = os.stat(name, dir_fd=here.fd, follow_symlinks=False)
        except FileNotFoundError:
            return  # removed by the running container
        kind = _KINDS.get(stat.S_IFMT(found.st_mode))
        if kind is None or (self._skip is not None and self._skip(path, found)):
            return
        if self._whiteouts and is_whiteout(found):
            yield build(_marker(here.path + WHITEOUT_PREFIX + name))
            return
        entry = _described(path, kind, found)
        if kind != DIRECTORY and found.st_nlink > 1:
            first = self._links.setdefault((found.st_dev, found.st_ino), path)
            if first != path:
                entry.kind, entry.link, entry.size_bytes = HARD_LINK, first, 0
                yield build(entry)
                return
        if kind == REGULAR:
            yield from self._regular(here.fd, name, entry)
        elif kind == DIRECTORY:
            yield from self._subdirectory(here.fd, name, entry)
        else:
            if kind == SYMLINK:
                entry.link = os.readlink(name, dir_fd=here.fd)
            entry.xattrs = _xattrs(b"/proc/self/fd/%d/%s" % (here.fd, name))
            yield build(entry)

    def _regular(self, parent_fd: int, name: bytes, entry: Entry) -> Iterator[bytes]:
        fd = _open_regular(parent_fd, name)
        if fd is None:
            return
        try:
            entry.xattrs = _xattrs(fd)
            yield build(entry)
            yield from _content(fd, entry.size_bytes)
        finally:
            os.close(fd)

    def _subdirectory(self, parent_fd: int, name: bytes, entry: Entry) -> Iterator[bytes]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=parent_fd)
        except (FileNotFoundError, NotADirectoryError):
            return  # taken away, or replaced, by the running container
        entry.name += b"/"
        self._stack.append(_Open(fd, entry.name))
        if len(self._stack) > _MAX_DEPTH:
            raise SystemFailure(f"directories are nested deeper than {_MAX_DEPTH}")
        entry.xattrs = _xattrs(fd)
        yield build(entry)
        if self._whiteouts and _xattr(fd, OPAQUE_XATTR) == b"y":
            yield build(_marker(entry.name + OPAQUE_MARKER))


def _open_regular(parent_fd: int, name: bytes) -> int | None:
    """None when the running container took it away, or put something else there: opening a
    device has effects of its own, on the host's hardware."""
    try:
        path_fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    except FileNotFoundError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(path_fd).st_mode):
            return None
        return os.open(f"/proc/self/fd/{path_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(path_fd)


def _described(path: bytes, kind: bytes, found: os.stat_result) -> Entry:
    entry = Entry(path, kind)
    entry.mode = stat.S_IMODE(found.st_mode)
    entry.uid, entry.gid = found.st_uid, found.st_gid
    entry.mtime_ns = found.st_mtime_ns
    if kind == REGULAR:
        entry.size_bytes = found.st_size
    if kind in (CHARACTER, BLOCK_DEVICE):
        entry.major, entry.minor = os.major(found.st_rdev), os.minor(found.st_rdev)
    return entry


def _marker(path: bytes) -> Entry:
    entry = Entry(path, REGULAR)
    entry.mode = 0o600
    return entry


def _content(fd: int, size_bytes: int) -> Iterator[bytes]:
    left = size_bytes
    while left:
        data = os.read(fd, min(left, _CHUNK_BYTES))
        if not data:  # it shrank
            data = bytes(min(left, _CHUNK_BYTES))
        yield data
        left -= len(data)
    if padding := -size_bytes % len(ZERO_BLOCK):
        yield bytes(padding)


def _xattrs(target: int | bytes) -> dict[bytes, bytes]:
    found = {}
    follow = isinstance(target, int)
    with suppress(OSError):  # a file system without xattrs
        for name in os.listxattr(target, follow_symlinks=follow):
            if name.startswith(_ELSEWHERE):
                raise SystemFailure(
                    f"the tree has {name}: part of it is in another layer (mount overlays with "
                    "redirect_dir=off,metacopy=off)"
                )
            if not name.startswith(_OVERLAY_XATTRS):
                value = os.getxattr(target, name, follow_symlinks=follow)
                found[os.fsencode(name)] = value
    return found


def _xattr(fd: int, name: str) -> bytes:
    try:
        return os.getxattr(fd, name)
    except OSError:
        return b""


def _batched(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Small pieces joined; the two zero blocks at the end."""
    batch: list[bytes] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= _CHUNK_BYTES:
            yield b"".join(batch)
            batch, size = [], 0
    batch.append(END)
    yield b"".join(batch)
