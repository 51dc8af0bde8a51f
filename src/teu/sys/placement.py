"""Where a file system puts new directories, and whether there is room."""

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

from teu.errors import SystemFailure

_GET_FLAGS = 0x80086601  # FS_IOC_GETFLAGS
_SET_FLAGS = 0x40086602  # FS_IOC_SETFLAGS
_RESERVE_BYTES = 64 << 20
_RESERVE_INODES = 1000
_TOP_DIRECTORY = 0x00020000  # FS_TOPDIR_FL, `chattr +T`


def spread_subdirectories(path: Path) -> None:
    """Tells ext4 that the directories in `path` have nothing to do with each other, so that each
    gets a block group of its own.

    A layer's thousands of files are then created next to each other in an empty group, instead of
    behind everything that was created or removed nearby: measured 4 us against 60 to 260 us for
    each file, after a layer of the same size was removed. Other file systems ignore it.
    Source: chattr(1), "T"; ext4 `find_group_orlov`.
    """
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = bytearray(8)
            fcntl.ioctl(fd, _GET_FLAGS, flags)
            (now,) = struct.unpack_from("=i", flags)
            fcntl.ioctl(fd, _SET_FLAGS, struct.pack("=ii", now | _TOP_DIRECTORY, 0))
        finally:
            os.close(fd)


def check_space(directory_fd: int) -> None:
    """Raises: SystemFailure while something is left, so that the rest of the machine goes on."""
    found = os.fstatvfs(directory_fd)
    if found.f_bavail * found.f_frsize < _RESERVE_BYTES:
        lacking = "space"
    elif found.f_files and found.f_favail < _RESERVE_INODES:
        lacking = "inodes"
    else:
        return
    path = os.readlink(f"/proc/self/fd/{directory_fd}")
    raise SystemFailure(
        f"no {lacking} left on the device that holds {path}: free some (for images: "
        "`teu image prune`) and try again"
    )
