"""Paths that cannot leave their root: openat2(2).

Everything a client, an archive or a container names is opened through here, so `..`, absolute
symlinks and symlinks swapped in between resolve inside the root, as a container would see them.
Needs Linux 5.6.
"""

import ctypes
import errno
import os
import secrets
import stat
from pathlib import Path

from teu.errors import SystemFailure

_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_RETRIES = 32
_MAX_LEVELS = 64
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


def set_mode(parent_fd: int, name: bytes, mode: int) -> None:
    """chmod(2) that follows no symlink, also none that a container has just put there.

    Raises: OSError.
    """
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


def remove_tree(parent_fd: int, name: bytes) -> None:
    """Removes `name` and everything below it; symlinks are never followed; missing is fine.

    A tree of any depth needs few descriptors: what lies too deep is moved up first.
    """
    if _unlink(parent_fd, name):
        return
    stack = [_Level.open(parent_fd, name)]
    try:
        while stack:
            level = stack[-1]
            if not level.names:
                os.close(level.fd)
                stack.pop()
                os.rmdir(level.name, dir_fd=stack[-1].fd if stack else parent_fd)
                continue
            child = level.names.pop()
            if _unlink(level.fd, child):
                continue
            if len(stack) < _MAX_LEVELS:
                stack.append(_Level.open(level.fd, child))
            else:
                moved = b".moved-%s" % secrets.token_hex(8).encode()
                os.rename(child, moved, src_dir_fd=level.fd, dst_dir_fd=stack[0].fd)
                stack[0].names.append(moved)
    finally:
        for level in stack:
            os.close(level.fd)


class _Level:
    """A directory whose entries are being removed."""

    def __init__(self, fd: int, name: bytes) -> None:
        self.fd = fd
        self.name = name
        self.names = [os.fsencode(n) for n in os.listdir(fd)]

    @classmethod
    def open(cls, parent_fd: int, name: bytes) -> "_Level":
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return cls(os.open(name, flags, dir_fd=parent_fd), name)


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


def make_directories(root_fd: int, path: bytes, mode: int = 0o755) -> tuple[int, list[bytes]]:
    """Opens a directory beneath the root and makes what is missing of it.

    Returns: a descriptor that the caller closes, and the paths that were made, outermost first.
    Raises: OSError (ENOTDIR: something else is in the way; EEXIST: a dangling symlink is).
    """
    made: list[bytes] = []
    parts = [part for part in path.split(b"/") if part and part != b"."]
    fd = open_beneath(root_fd, b"", os.O_RDONLY | os.O_DIRECTORY)
    for count in range(1, len(parts) + 1):
        prefix = b"/".join(parts[:count])
        try:
            inner = open_beneath(root_fd, prefix, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            try:
                os.mkdir(parts[count - 1], 0o700, dir_fd=fd)
                inner = os.open(
                    parts[count - 1],
                    os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                    dir_fd=fd,
                )
            except OSError:
                os.close(fd)
                raise
            os.fchmod(inner, mode)
            made.append(prefix)
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
        fd = inner
    return fd, made
