"""Paths that cannot leave their root: openat2(2).

Everything a client, an archive or a container names is opened through here, so `..`, absolute
symlinks and symlinks swapped in between resolve inside the root, as a container would see them.
Needs Linux 5.6.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from teu.errors import SystemFailure

_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_RETRIES = 32
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_beneath(root_fd: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Opens `path` as if `root_fd` were `/`. The caller closes the descriptor.

    Raises: OSError as open(2) does. SystemFailure on a kernel without openat2.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    target = ctypes.c_char_p(path or b".")
    for _ in range(_RETRIES):
        fd = int(
            _libc.syscall(
                _OPENAT2, root_fd, target, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
            )
        )
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number == errno.ENOSYS:
            raise SystemFailure("this kernel has no openat2(2): teu needs Linux 5.6 or newer")
        if number not in (errno.EAGAIN, errno.EINTR):  # EAGAIN: a rename raced with the walk
            raise OSError(number, os.strerror(number), os.fsdecode(path))
    raise OSError(errno.EAGAIN, "the path keeps changing", os.fsdecode(path))


def open_in_root(root: Path, path: str, flags: int) -> int:
    """`open_beneath` for a root given by its path. The caller closes the descriptor."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_beneath(root_fd, os.fsencode(path), flags)
    finally:
        os.close(root_fd)


def open_directory(root_fd: int, path: bytes) -> int:
    """A path descriptor of a directory beneath the root. The caller closes it."""
    return open_beneath(root_fd, path, os.O_PATH | os.O_DIRECTORY)


def remove_tree(parent_fd: int, name: bytes) -> None:
    """Removes `name` and everything below it; symlinks are never followed; missing is fine.

    Depth is bounded by memory, not by the stack: a hostile tree can be thousands deep.
    """
    if _unlink(parent_fd, name):
        return
    stack: list[tuple[int, bytes, Iterator[bytes]]] = []
    try:
        _descend(stack, parent_fd, name)
        while stack:
            directory_fd, own_name, names = stack[-1]
            child = next(names, None)
            if child is not None:
                if not _unlink(directory_fd, child):
                    _descend(stack, directory_fd, child)
                continue
            os.close(directory_fd)
            stack.pop()
            os.rmdir(own_name, dir_fd=stack[-1][0] if stack else parent_fd)
    finally:
        for directory_fd, _, _ in stack:
            os.close(directory_fd)


def _descend(stack: list[tuple[int, bytes, Iterator[bytes]]], parent_fd: int, name: bytes) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory_fd = os.open(name, flags, dir_fd=parent_fd)
    stack.append((directory_fd, name, iter([os.fsencode(n) for n in os.listdir(directory_fd)])))


def _unlink(parent_fd: int, name: bytes) -> bool:
    """False for a directory."""
    try:
        os.unlink(name, dir_fd=parent_fd)
    except FileNotFoundError:
        return True
    except (IsADirectoryError, PermissionError):
        try:
            found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        except FileNotFoundError:
            return True
        if stat.S_ISDIR(found.st_mode):
            return False
        raise
    return True
