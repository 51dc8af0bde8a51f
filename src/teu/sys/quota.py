"""Limiting the space below a directory: project quotas of ext4 and xfs.

A project is a number that files carry and hand on to what is made below them; the kernel counts
each project's blocks and refuses more than its limit. The file system must be mounted with
`prjquota` (xfs: `pquota`). Source: quotactl_fd(2) (Linux 5.14), ioctl_xfs_fsgetxattr(2),
uapi/linux/quota.h.
"""

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from teu.errors import SystemFailure
from teu.sys.mounts import mount_of

_FSGETXATTR: Final = 0x801C581F
_FSSETXATTR: Final = 0x401C5820
_FSXATTR: Final = struct.Struct("=IIIII8x")  # xflags, extsize, nextents, project, cowextsize
_INHERIT: Final = 0x200
_QUOTACTL_FD: Final = 443  # the same number on every architecture
_SET_PROJECT_QUOTA: Final = 0x800008 << 8 | 2
_DQBLK: Final = struct.Struct("=QQQQQQQQI4x")  # hard and soft block limits first
_BLOCK_LIMITS: Final = 1
_BLOCK_BYTES: Final = 1024
_FIRST_PROJECT: Final = 0x7465_0000  # far from what administrators number by hand
_libc = ctypes.CDLL(None, use_errno=True)


def available(directory: Path) -> bool:
    """Whether the file system that holds `directory` counts projects."""
    mount = mount_of(directory)
    return mount.fstype in ("ext4", "xfs") and "prjquota" in mount.super_options.split(",")


def project_of(directory: Path) -> int:
    """The directory's project; 0: none. Raises: OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return int(_attributes(fd)[3])
    finally:
        os.close(fd)


def free_project(used: set[int]) -> int:
    """A project number that none of `used` is."""
    return max(used | {_FIRST_PROJECT}) + 1


def limit(directories: list[Path], project: int, size_bytes: int) -> None:
    """Makes empty directories one project that may hold `size_bytes` together.

    Raises: SystemFailure with the kernel's reason.
    """
    for directory in directories:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            xflags, extsize, nextents, _, cowextsize = _attributes(fd)
            changed = _FSXATTR.pack(xflags | _INHERIT, extsize, nextents, project, cowextsize)
            fcntl.ioctl(fd, _FSSETXATTR, changed)
            _set_limit(fd, project, size_bytes)
        except OSError as error:
            raise SystemFailure(
                f"cannot limit the space of {directory}: {error.strerror}: project quotas need "
                "Linux 5.14 and a file system mounted with prjquota"
            ) from error
        finally:
            os.close(fd)


def _attributes(fd: int) -> tuple[int, ...]:
    return _FSXATTR.unpack(fcntl.ioctl(fd, _FSGETXATTR, bytes(_FSXATTR.size)))


def _set_limit(fd: int, project: int, size_bytes: int) -> None:
    blocks = -(-size_bytes // _BLOCK_BYTES)
    wanted = _DQBLK.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS)
    if _libc.syscall(_QUOTACTL_FD, fd, _SET_PROJECT_QUOTA, project, wanted) < 0:
        number = ctypes.get_errno() or errno.EINVAL
        raise OSError(number, os.strerror(number))
