"""System calls that Python has no wrapper for, one function each, by ctypes.

Every wrapper raises OSError with the path in question; constants keep the kernel's names and
values (uapi headers). Calls release the interpreter lock, so the slow ones may run in a thread.
Source: mount(2), umount2(2), unshare(2), setns(2).
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from teu.errors import SystemFailure

CLONE_FS: Final = 0x200
CLONE_NEWNS: Final = 0x20000
CLONE_NEWNET: Final = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_mount = _libc.mount
_mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_umount2 = _libc.umount2
_umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_unshare = _libc.unshare
_unshare.argtypes = (ctypes.c_int,)
_setns = _libc.setns
_setns.argtypes = (ctypes.c_int, ctypes.c_int)


def mount(
    source: str, target: str | Path, fstype: str | None, flags: int = 0, data: str = ""
) -> None:
    """mount(2). Raises: OSError with the target's path."""
    result = _mount(
        os.fsencode(source),
        os.fsencode(target),
        fstype.encode() if fstype is not None else None,
        flags,
        os.fsencode(data) if data else None,
    )
    _checked(result, target)


def umount2(target: str | Path, flags: int = 0) -> None:
    """umount2(2). Raises: OSError with the target's path."""
    _checked(_umount2(os.fsencode(target), flags), target)


def unshare(flags: int) -> None:
    """unshare(2): gives the CALLING THREAD its own copy of what `flags` name. Raises: OSError."""
    _checked(_unshare(flags), "unshare")


def setns(namespace_fd: int, kind: int) -> None:
    """setns(2): moves the CALLING THREAD into another namespace. Raises: OSError."""
    _checked(_setns(namespace_fd, kind), "setns")


@contextmanager
def os_errors(what: str) -> Iterator[None]:
    """Turns an OSError inside into SystemFailure: `what: PATH: Permission denied`."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise SystemFailure(f"{what}: {where}{error.strerror or error}") from error


def _checked(result: int, subject: str | Path) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(subject))
    return result
