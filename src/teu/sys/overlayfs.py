"""How a layer says that something below it is gone: in archives by names, on disk by overlayfs's
own marks.

Source: OCI image-spec layer.md, "Whiteouts"; kernel Documentation/filesystems/overlayfs.rst.
"""

import os
import stat

WHITEOUT_PREFIX = b".wh."
WHITEOUT_META_PREFIX = b".wh..wh."
OPAQUE_MARKER = b".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"
OVERLAY_XATTRS = (b"trusted.overlay.", b"user.overlay.")


def is_whiteout(found: os.stat_result) -> bool:
    """A character device 0/0."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def set_opaque(parent_fd: int, name: bytes) -> None:
    """Hides what lower layers have in a directory."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=parent_fd)
    try:
        os.setxattr(fd, OPAQUE_XATTR, b"y")
    finally:
        os.close(fd)
