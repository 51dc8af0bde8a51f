"""System calls that Python has no wrapper for, one function each, by ctypes.

Every wrapper raises OSError with the path in question; constants keep the kernel's names and
values (uapi headers). Calls release the interpreter lock, so the slow ones may run in a thread.
Source: openat2(2), mount(2), umount2(2), unshare(2), setns(2).
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from teu.errors import SystemFailure

CLONE_FS: Final = 0x200
CLONE_NEWNET: Final = 0x40000000

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

_SYS_OPENAT2: Final = 437  # on every architecture

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
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


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def openat2(dir_fd: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    """A new close-on-exec descriptor for `path` below `dir_fd`; the caller closes it.

    `resolve` limits how names are followed; with RESOLVE_IN_ROOT the directory is the root even
    for absolute symlinks and `..`. Raises: OSError (EAGAIN: the kernel saw a rename race; the
    caller may try again).
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    return _checked(
        _syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(dir_fd),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        ),
        path,
    )


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
