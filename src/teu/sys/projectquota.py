"""Limits on the space that a directory takes: project quotas of ext4 and xfs.

Every file made below a directory inherits its project id; the file system counts the blocks of
each project and refuses more than its limit (EDQUOT). Owner and mode do not matter.
Source: quotactl(2), ioctl FS_IOC_FSSETXATTR (linux/fs.h), linux/dqblk_xfs.h.
"""

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from teu.errors import InvalidParameter, SystemFailure
from teu.sys import mounts

_FS_IOC_FSGETXATTR: Final = 0x801C581F
_FS_IOC_FSSETXATTR: Final = 0x401C5820
_PROJINHERIT: Final = 0x200
_FSXATTR: Final = struct.Struct("=IIIII8s")
_DISK_QUOTA: Final = struct.Struct("=bbHI6QiiHHbbbb3QiHh8s")
_Q_XSETQLIM_PROJECT: Final = 0x5804 << 8 | 2
_PROJECT: Final = 2
_BLOCK_LIMITS: Final = 1 << 2 | 1 << 3
_BLOCK_BYTES: Final = 512
_libc = ctypes.CDLL(None, use_errno=True)
_libc.quotactl.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p)


class NoProjectQuota(InvalidParameter):
    """The file system does not count projects, or is not mounted so that it would."""

    def __init__(self, directory: Path, fstype: str, reason: str) -> None:
        super().__init__(
            f"quota size requested but no quota support: {directory} is on {fstype}, which "
            f"{reason}; use ext4 (mkfs -O quota,project; mount with prjquota) or xfs (mount with "
            "pquota), or create the volume without a size"
        )


def limit(directory: Path, project_id: int, size_bytes: int) -> None:
    """Gives an empty directory a project and the project a limit; both may be repeated.

    Raises: NoProjectQuota, SystemFailure.
    """
    place = mounts.mount_of(directory)
    if place.fstype not in ("ext4", "xfs"):
        raise NoProjectQuota(directory, place.fstype, "has no project quotas")
    blocks = -(-size_bytes // _BLOCK_BYTES)
    wanted = _DISK_QUOTA.pack(
        1, _PROJECT, _BLOCK_LIMITS, project_id, blocks, blocks, *[0] * 18, b""
    )  # fmt: skip
    buffer = ctypes.create_string_buffer(wanted, len(wanted))
    done = _libc.quotactl(_Q_XSETQLIM_PROJECT, os.fsencode(place.source), project_id, buffer)
    if done < 0:
        code = ctypes.get_errno()
        if code in (errno.ENOSYS, errno.ESRCH, errno.EINVAL, errno.ENOTSUP, errno.ENOTBLK):
            raise NoProjectQuota(directory, place.fstype, "is not mounted with project quotas")
        raise SystemFailure(f"cannot limit {directory}: {os.strerror(code)}")
    _join(directory, project_id)


def project_of(directory: Path) -> int:
    """The directory's project; 0 without one, or where there are none."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        raw = bytearray(_FSXATTR.size)
        fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, raw)
        return int(_FSXATTR.unpack(raw)[3])
    except OSError:
        return 0
    finally:
        os.close(fd)


def _join(directory: Path, project_id: int) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        raw = bytearray(_FSXATTR.size)
        fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, raw)
        flags, extent, extents, _, cow, padding = _FSXATTR.unpack(raw)
        joined = _FSXATTR.pack(flags | _PROJINHERIT, extent, extents, project_id, cow, padding)
        fcntl.ioctl(fd, _FS_IOC_FSSETXATTR, joined)
    except OSError as error:
        raise SystemFailure(f"cannot put {directory} in a project: {error.strerror}") from error
    finally:
        os.close(fd)
