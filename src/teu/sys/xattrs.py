"""Extended attributes, set where the file system has them."""

import errno
import os

from teu.sys.overlayfs import OVERLAY_XATTRS


def set_xattr(target: int | bytes, name: bytes, value: bytes) -> None:
    """An archive never sets overlayfs's own xattrs: they redirect to other layers' files."""
    if name.startswith(OVERLAY_XATTRS):
        return
    try:
        os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
    except OSError as error:
        not_on_this_kind = error.errno == errno.EPERM and name.startswith(b"user.")
        if error.errno != errno.ENOTSUP and not not_on_this_kind:
            raise
