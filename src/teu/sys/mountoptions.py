"""mount(8)'s option words as mount(2) takes them: flags here, the rest as the file system's data.

Source: mount(8) "FILESYSTEM-INDEPENDENT MOUNT OPTIONS", mount(2).
"""

from pathlib import Path
from typing import Final

from msgspec import Struct

from teu.sys import syscalls
from teu.sys.mounts import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SHARED,
    MS_SLAVE,
    unmount,
)  # fmt: skip

_SYNCHRONOUS: Final = 16
_MANDLOCK: Final = 64
_DIRSYNC: Final = 128
_NOATIME: Final = 1024
_NODIRATIME: Final = 2048
_UNBINDABLE: Final = 1 << 17
_RELATIME: Final = 1 << 21
_STRICTATIME: Final = 1 << 24
_SETS: Final = {
    "ro": MS_RDONLY, "nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC,
    "sync": _SYNCHRONOUS, "remount": MS_REMOUNT, "mand": _MANDLOCK, "dirsync": _DIRSYNC,
    "noatime": _NOATIME, "nodiratime": _NODIRATIME, "bind": MS_BIND, "rbind": MS_BIND | MS_REC,
    "relatime": _RELATIME, "strictatime": _STRICTATIME,
}  # fmt: skip
_CLEARS: Final = {
    "defaults": 0, "rw": MS_RDONLY, "suid": MS_NOSUID, "dev": MS_NODEV, "exec": MS_NOEXEC,
    "async": _SYNCHRONOUS, "nomand": _MANDLOCK, "atime": _NOATIME, "diratime": _NODIRATIME,
    "norelatime": _RELATIME, "nostrictatime": _STRICTATIME,
}  # fmt: skip
_KINDS: Final = {
    "private": MS_PRIVATE, "shared": MS_SHARED, "slave": MS_SLAVE, "unbindable": _UNBINDABLE
}  # fmt: skip
_PROPAGATIONS: Final = {
    **_KINDS, **{f"r{word}": kind | MS_REC for word, kind in _KINDS.items()}
}  # fmt: skip
_REMOUNT_ONLY: Final = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | _NOATIME | _NODIRATIME


class MountOptions(Struct, frozen=True):
    """`propagation` is set by a call of its own; 0: unchanged."""

    flags: int
    propagation: int
    data: str


def parse(text: str) -> MountOptions:
    """`rw,size=1m,uid=3` and the like; a later word wins over an earlier one."""
    flags = propagation = 0
    data = []
    for word in filter(None, text.split(",")):
        if word in _SETS:
            flags |= _SETS[word]
        elif word in _CLEARS:
            flags &= ~_CLEARS[word]
        elif word in _PROPAGATIONS:
            propagation = _PROPAGATIONS[word]
        else:
            data.append(word)
    return MountOptions(flags, propagation, ",".join(data))


def mount(device: str, target: Path, fstype: str, options: MountOptions) -> None:
    """Mounts with all that the options say. Raises: OSError; nothing is left mounted then.

    May block as long as a server far away does not answer.
    """
    syscalls.mount(device, target, fstype, options.flags, options.data)
    try:
        if options.flags & MS_BIND and options.flags & _REMOUNT_ONLY:
            syscalls.mount(device, target, None, options.flags | MS_REMOUNT)
        if options.propagation:
            syscalls.mount("none", target, None, options.propagation)
    except OSError:
        unmount(target, lazy=True)
        raise
