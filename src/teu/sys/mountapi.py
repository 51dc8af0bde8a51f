"""Mounts by descriptor: take a piece of a tree, change its attributes, put it somewhere.

What is mounted is what the descriptor shows, whatever its path leads to by then, so a symlink
that somebody swaps in between changes nothing.
Source: open_tree(2), move_mount(2), mount_setattr(2) (Linux 5.2 and 5.12).
"""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from teu.errors import SystemFailure
from teu.sys import syscalls

_OPEN_TREE: Final = 428  # the same numbers on every architecture
_MOVE_MOUNT: Final = 429
_MOUNT_SETATTR: Final = 442
_OPEN_TREE_CLONE: Final = 1
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_AT_FDCWD: Final = -100
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_ATTR_IDMAP: Final = 0x00100000
_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def clone_tree(fd: int, *, recursive: bool = True) -> int:
    """A detached copy of the mount that `fd` lies on, with `fd` as its root.

    The caller closes it; unless `attach`ed before, the copy ends with its descriptor.
    Raises: OSError; SystemFailure on a kernel without open_tree.
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    return _called(_OPEN_TREE, fd, b"", ctypes.c_uint(flags), needs="5.2")


def attach(tree_fd: int, target: Path) -> None:
    """Shows a detached tree at `target`, which is a directory or file like its root."""
    path = os.fsencode(target)
    _called(
        _MOVE_MOUNT, tree_fd, b"", _AT_FDCWD, path, ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
        needs="5.2",
    )  # fmt: skip


def map_ids(tree_fd: int, userns_fd: int) -> None:
    """Shows the owners of a detached tree through the map of a user namespace.

    Raises: OSError; SystemFailure where the kernel or the tree's file system cannot.
    """
    attributes = _MountAttr(_ATTR_IDMAP, 0, 0, userns_fd)
    flags = ctypes.c_uint(_AT_EMPTY_PATH | _AT_RECURSIVE)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    try:
        _called(
            _MOUNT_SETATTR, tree_fd, b"", flags, ctypes.byref(attributes), size, needs="5.12"
        )  # fmt: skip
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise SystemFailure(
            "this file system cannot show other owners (idmapped mounts): ext4, xfs and btrfs "
            "can, tmpfs since Linux 6.3; or a file system below is mapped already"
        ) from error


def bind_fd(fd: int, target: Path) -> None:
    """Shows what `fd` (a path descriptor) is at `target`, with all mounts below it.

    Raises: OSError; nothing is left mounted then.
    """
    try:
        tree_fd = clone_tree(fd)
    except SystemFailure:  # before Linux 5.2; procfs's link is the descriptor, not its path
        syscalls.mount(f"/proc/self/fd/{fd}", target, None, 4096 | 16384)
        return
    try:
        attach(tree_fd, target)
    finally:
        os.close(tree_fd)


def _called(number: int, *arguments: object, needs: str) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        if code == errno.ENOSYS:
            raise SystemFailure(f"this kernel is too old for this kind of mount: Linux {needs}")
        raise OSError(code, os.strerror(code))
    return result
