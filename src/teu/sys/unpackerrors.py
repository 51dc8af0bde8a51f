"""Why an entry of an archive could not be unpacked: the kernel's reason, in the user's terms."""

import errno
import os

from teu.errors import EngineError, SystemFailure
from teu.sys.tarheader import BLOCK_DEVICE, CHARACTER, Entry, InvalidArchive

_SHOWN_NAME = 200
_HOSTILE = (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EFBIG, errno.EISDIR)


def shown(entry: Entry) -> str:
    """The entry's name, cut when it is very long."""
    name = os.fsdecode(entry.name)
    return name if len(name) <= _SHOWN_NAME else f"{name[:_SHOWN_NAME]}…"


def translated(error: OSError, entry: Entry) -> EngineError:
    """InvalidArchive when the entry itself is to blame, else SystemFailure."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _HOSTILE:
        return InvalidArchive(f"cannot unpack {shown(entry)}: {reason}")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SystemFailure(
            f"cannot unpack {shown(entry)}: {reason}: free some disk space (for images: "
            "`teu image prune`) and try again"
        )
    if error.errno == errno.EPERM and entry.kind in (CHARACTER, BLOCK_DEVICE):
        reason += " (device nodes need root)"
    return SystemFailure(f"cannot unpack {shown(entry)}: {reason}")
