"""Whether an unpacked tree still is what its archive says: kinds, owners, modes, times, targets,
devices and xattrs of all entries. Contents are checked by the archive's digest, which is made from
them.

`differences` compares with the archive: quick, and enough where it finds nothing. Entries that
were written through a symlink which a later entry replaced look missing to it; `compared` with a
tree unpacked afresh from the archive is exact.
"""

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from teu.sys.archivepath import clean_path
from teu.sys.beneath import open_beneath, open_directory
from teu.sys.overlayfs import OVERLAY_XATTRS, WHITEOUT_PREFIX, is_whiteout
from teu.sys.tarheader import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Entry,
    clamp_time,
)
from teu.sys.tarstream import TarStream

_FORMATS = {
    REGULAR: stat.S_IFREG,
    SYMLINK: stat.S_IFLNK,
    CHARACTER: stat.S_IFCHR,
    BLOCK_DEVICE: stat.S_IFBLK,
    DIRECTORY: stat.S_IFDIR,
    FIFO: stat.S_IFIFO,
}


def differences(stream: TarStream, tree: Path) -> list[str]:
    """One line for each entry that the tree seems not to have, or to have otherwise; reads the
    whole stream. What is in the tree but not in the archive is not looked for.

    Raises: InvalidArchive; OSError when the tree itself cannot be opened.
    """
    root_fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    found: dict[bytes, str] = {}
    try:
        while entry := stream.next():
            path = clean_path(entry.name)
            _forget(found, path, entry)
            if reason := _difference(root_fd, path, entry):
                found[path] = reason
    finally:
        os.close(root_fd)
    return [f"/{os.fsdecode(path)}: {reason}" for path, reason in found.items()]


def compared(tree: Path, fresh: Path, implied: Collection[bytes]) -> list[str]:
    """One line for each path that differs between a tree and the one that it should equal;
    directories in `implied` have no attributes of their own. Raises: OSError."""
    found = []
    for path in sorted(_paths(tree) | _paths(fresh)):
        if reason := _against(tree, fresh, path, path in implied):
            found.append(f"/{os.fsdecode(path)}: {reason}")
    return found


def _paths(tree: Path) -> set[bytes]:
    root = os.fsencode(tree)
    return {
        os.path.relpath(os.path.join(directory, name), root)
        for directory, below, files in os.walk(root)
        for name in (*below, *files)
    }


def _against(tree: Path, fresh: Path, path: bytes, is_implied: bool) -> str:
    have, want = (os.path.join(os.fsencode(root), path) for root in (tree, fresh))
    if not os.path.lexists(want):
        return "does not belong there"
    if not os.path.lexists(have):
        return "is missing"
    parent_fd = os.open(os.path.dirname(have), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        here, there, expected = os.lstat(have), os.lstat(want), described(want)
        name = os.path.basename(have)
        if expected.kind != DIRECTORY and here.st_nlink != there.st_nlink:
            return "has other hard links"
        if is_implied or is_whiteout(there):
            return _wrong_thing(parent_fd, name, here, expected)
        return ", ".join(_attributes(parent_fd, name, here, expected, is_final=True))
    finally:
        os.close(parent_fd)


def described(path: bytes) -> Entry:
    """What an archive would say of a file. Raises: OSError."""
    found = os.lstat(path)
    [kind] = [kind for kind, form in _FORMATS.items() if form == stat.S_IFMT(found.st_mode)]
    entry = Entry(path, kind)
    entry.mode = stat.S_IMODE(found.st_mode)
    entry.uid, entry.gid = found.st_uid, found.st_gid
    entry.size_bytes, entry.mtime_ns = found.st_size, found.st_mtime_ns
    entry.major, entry.minor = os.major(found.st_rdev), os.minor(found.st_rdev)
    if kind == SYMLINK:
        entry.link = os.readlink(path)
    else:
        with suppress(OSError):  # a file system without xattrs
            entry.xattrs = {os.fsencode(n): os.getxattr(path, n) for n in os.listxattr(path)}
    return entry


def _forget(found: dict[bytes, str], path: bytes, entry: Entry) -> None:
    """A later entry takes the place of an earlier one, and of all below a directory."""
    if not found:
        return
    found.pop(path, None)
    if entry.kind != DIRECTORY:
        for below in [other for other in found if other.startswith(path + b"/")]:
            del found[below]


def _difference(root_fd: int, path: bytes, entry: Entry) -> str:
    parent, _, name = path.rpartition(b"/")
    if WHITEOUT_PREFIX in path:
        return "" if not name.startswith(WHITEOUT_PREFIX) else _whiteout(root_fd, parent, name)
    with ExitStack() as stack:
        try:
            parent_fd = open_directory(root_fd, parent)
            stack.callback(os.close, parent_fd)
            here = os.stat(name or b".", dir_fd=parent_fd, follow_symlinks=False)
        except OSError as error:
            return f"is missing ({error.strerror})"
        if entry.kind == HARD_LINK:
            return "" if here.st_nlink > 1 else "is no hard link any more"
        return ", ".join(_attributes(parent_fd, name or b".", here, entry))


def _whiteout(root_fd: int, parent: bytes, name: bytes) -> str:
    """The mark of a removed file; it may have been replaced by something of the same archive."""
    if name.startswith(WHITEOUT_PREFIX * 2):
        return ""
    try:
        parent_fd = open_directory(root_fd, parent)
    except OSError as error:
        return f"is missing ({error.strerror})"
    try:
        os.stat(name[len(WHITEOUT_PREFIX) :], dir_fd=parent_fd, follow_symlinks=False)
    except OSError as error:
        return f"its mark is missing ({error.strerror})"
    finally:
        os.close(parent_fd)
    return ""


def _attributes(
    parent_fd: int, name: bytes, here: os.stat_result, entry: Entry, *, is_final: bool = False
) -> Iterator[str]:
    if wrong := _wrong_thing(parent_fd, name, here, entry):
        yield wrong
    if here.st_nlink > 1 and entry.kind != DIRECTORY and not is_final:
        return  # a later link may have given its own attributes
    if (here.st_uid, here.st_gid) != (entry.uid, entry.gid):
        yield f"belongs to {here.st_uid}:{here.st_gid} instead of {entry.uid}:{entry.gid}"
    if entry.kind != SYMLINK and stat.S_IMODE(here.st_mode) != entry.mode:
        yield f"has mode {stat.S_IMODE(here.st_mode):04o} instead of {entry.mode:04o}"
    if here.st_mtime_ns != clamp_time(entry.mtime_ns):
        yield "has another time"
    if entry.xattrs and not wrong and entry.kind in (REGULAR, DIRECTORY):
        yield from _xattrs(parent_fd, name, entry)


def _wrong_thing(parent_fd: int, name: bytes, here: os.stat_result, entry: Entry) -> str:
    if stat.S_IFMT(here.st_mode) != _FORMATS[entry.kind]:
        return "is of another kind"
    if entry.kind == REGULAR and here.st_size != entry.size_bytes:
        return f"has {here.st_size} bytes instead of {entry.size_bytes}"
    if entry.kind == SYMLINK and os.readlink(name, dir_fd=parent_fd) != entry.link:
        return "points elsewhere"
    is_device = entry.kind in (CHARACTER, BLOCK_DEVICE)
    if is_device and here.st_rdev != os.makedev(entry.major, entry.minor):
        return "is another device"
    return ""


def _xattrs(parent_fd: int, name: bytes, entry: Entry) -> Iterator[str]:
    fd = open_beneath(parent_fd, name, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        try:
            have = set(os.listxattr(fd))
        except OSError:
            return  # a file system without xattrs
        for key, value in entry.xattrs.items():
            if key.startswith(OVERLAY_XATTRS):
                continue
            if os.fsdecode(key) in have and os.getxattr(fd, key) == value:
                continue
            yield f"has lost or changed xattr {os.fsdecode(key)}"
    finally:
        os.close(fd)
