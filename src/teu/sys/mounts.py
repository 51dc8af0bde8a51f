"""Mounts: overlay, bind, tmpfs, unmounting, and what is mounted now.

Paths are absolute and belong to the engine; a path that a client or an image names must be
resolved first (`beneath.open_beneath`). All functions block for as long as the
kernel does: fractions of a millisecond for overlay, bind and tmpfs; unmounting may write back.
Source: mount(2), umount2(2), proc_pid_mountinfo(5), Documentation/filesystems/overlayfs.rst.
"""

import contextlib
import errno
import os
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from teu.errors import SystemFailure
from teu.sys import syscalls

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_SHARED: Final = 1 << 20
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

MAX_LAYERS: Final = 500  # OVL_MAX_STACK in the kernel
_OPTIONS_LIMIT: Final = os.sysconf("SC_PAGE_SIZE") - 1  # mount(2) copies one page, zero included


class MountInfo(Struct, frozen=True):
    """One line of mountinfo. `options` are the mount's, `super_options` the file system's."""

    target: Path
    source: str
    fstype: str
    root: str
    options: str
    super_options: str
    propagation: str


def mount_overlay(lower: Sequence[Path], upper: Path, work: Path, target: Path) -> None:
    """Stacks read-only layers under one writable directory and shows the result at `target`.

    Args:   lower: topmost first, 1 to MAX_LAYERS.  upper, work: empty or earlier used together,
            on one file system.  target: an existing directory.
    The options of mount(2) must fit in one page: 165 layers at `/var/lib/teu/layers/NNN`. Longer
    lists name the layers relative to their common parent, so short directory names reach
    MAX_LAYERS below any data root.
    Raises: SystemFailure with the kernel's reason and what to do.
    Crash:  the mount is found by `mounts_under`.
    """
    if not 1 <= len(lower) <= MAX_LAYERS:
        raise SystemFailure(
            f"cannot mount {target}: an image of {len(lower)} layers; "
            f"overlay takes 1 to {MAX_LAYERS}"
        )
    options = _overlay_options(":".join(map(_escaped_layer, lower)), upper, work)
    try:
        if len(os.fsencode(options)) <= _OPTIONS_LIMIT:
            syscalls.mount("overlay", target, "overlay", 0, options)
        else:
            _from_parent(lower, target, lambda stacked: _overlay_options(stacked, upper, work))
    except OSError as error:
        raise SystemFailure(_overlay_failure(error, target)) from error


def mount_layers(layers: Sequence[Path], target: Path) -> None:
    """Stacks at least two read-only layers, topmost first, with nothing to write to.

    Raises: SystemFailure with the kernel's reason and what to do.
    """
    stacked = ":".join(map(_escaped_layer, layers))
    options = f"lowerdir={stacked}"
    try:
        if len(os.fsencode(options)) <= _OPTIONS_LIMIT:
            syscalls.mount("overlay", target, "overlay", MS_RDONLY, options)
        else:
            _from_parent(layers, target, lambda stacked: f"lowerdir={stacked}", MS_RDONLY)
    except OSError as error:
        raise SystemFailure(_overlay_failure(error, target)) from error


def bind(source: Path, target: Path, *, recursive: bool = False, read_only: bool = False) -> None:
    """Shows `source` at `target` too. Raises: OSError; nothing is left mounted then."""
    syscalls.mount(str(source), target, None, MS_BIND | (MS_REC if recursive else 0))
    if read_only:
        try:
            make_read_only(target)
        except OSError:
            unmount(target)
            raise


def make_read_only(target: Path) -> None:
    """Nobody writes through this mount any more. Raises: OSError."""
    syscalls.mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY)


def tmpfs(target: Path, *, size_bytes: int = 0, mode: int = 0o755, flags: int = 0) -> None:
    """An empty file system in memory (size 0: half of the memory). Raises: OSError."""
    size = f",size={size_bytes}" if size_bytes else ""
    syscalls.mount("tmpfs", target, "tmpfs", flags, f"mode={mode:o}{size}")


def make_private(target: Path) -> None:
    """Mounts below `target` no longer appear elsewhere, nor others' here. Raises: OSError."""
    syscalls.mount("none", target, None, MS_REC | MS_PRIVATE)


def unmount(path: Path, *, lazy: bool = False) -> bool:
    """Takes the topmost mount at `path` away; False when nothing was mounted there.

    Args:   lazy: detach now even when busy; the file system ends with its last user.
    Raises: OSError (EBUSY: something still uses it).
    """
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)
    try:
        syscalls.umount2(path, flags)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


def unmount_all_under(prefix: Path) -> list[str]:
    """Takes away every mount at or below `prefix`, deepest first, busy ones lazily.

    Goes on after a failure; returns one line for each.
    """
    failures = []
    for mounted in reversed(mounts_under(prefix)):
        try:
            with contextlib.suppress(OSError):
                unmount(mounted.target)
                continue
            unmount(mounted.target, lazy=True)
        except OSError as error:
            failures.append(f"cannot unmount {mounted.target}: {error.strerror}")
    return failures


def mounts_under(prefix: Path) -> list[MountInfo]:
    """Every mount at or below `prefix` in this mount namespace, in the order of mounting."""
    wanted = os.fspath(prefix).rstrip("/")
    with open("/proc/self/mountinfo", "rb") as table:
        lines = os.fsdecode(table.read()).splitlines()
    found = []
    for line in lines:
        if wanted and wanted not in line and "\\" not in line:
            continue
        mounted = _parse(line)
        target = os.fspath(mounted.target)
        if target == wanted or target.startswith(wanted + "/"):
            found.append(mounted)
    return found


def is_mounted(path: Path) -> bool:
    """Whether a mount's own target is exactly `path`."""
    return any(mounted.target == path for mounted in mounts_under(path))


def mount_of(path: Path) -> MountInfo:
    """The mount that a path lies on. Raises: SystemFailure when there is none (no /proc)."""
    found: MountInfo | None = None
    for mount in map(_parse, Path("/proc/self/mountinfo").read_text().splitlines()):
        deeper = found is None or len(mount.target.parts) >= len(found.target.parts)
        if deeper and path.is_relative_to(mount.target):  # a later mount hides an earlier one
            found = mount
    if found is None:
        raise SystemFailure(f"no mount holds {path}: is /proc mounted?")
    return found


def filesystem_of(path: Path) -> str:
    """The kind of file system, in Docker's words: `extfs`, `xfs`, `btrfs`, …"""
    kind = mount_of(path).fstype
    return "extfs" if kind in ("ext2", "ext3", "ext4") else kind


def _parse(line: str) -> MountInfo:
    before, _, after = line.partition(" - ")
    fields = before.split(" ")
    fstype, source, super_options = [*after.split(" "), "", ""][:3]
    return MountInfo(
        target=Path(_unescaped(fields[4])),
        source=_unescaped(source),
        fstype=fstype,
        root=_unescaped(fields[3]),
        options=fields[5],
        super_options=super_options,
        propagation=_propagation(fields[6:]),
    )


def _propagation(tags: Sequence[str]) -> str:
    if any(tag.startswith("shared:") for tag in tags):
        return "shared"
    if any(tag.startswith("master:") for tag in tags):
        return "slave"
    return "unbindable" if "unbindable" in tags else "private"


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    raw = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), os.fsencode(text))
    return os.fsdecode(raw)


def _escaped(path: Path) -> str:
    r"""In an option, `\` and `,` are written with a backslash."""
    return os.fspath(path).replace("\\", "\\\\").replace(",", "\\,")


def _overlay_options(stacked: str, upper: Path, work: Path) -> str:
    # Off whatever the kernel's default is: a layer must hold its files itself, for `commit`.
    return (
        f"lowerdir={stacked},upperdir={_escaped(upper)},workdir={_escaped(work)},"
        "redirect_dir=off,metacopy=off"
    )


def _escaped_layer(path: Path) -> str:
    return _escaped(path).replace(":", "\\:")


def _from_parent(
    lower: Sequence[Path], target: Path, options_of: Callable[[str], str], flags: int = 0
) -> None:
    """Layers named relative to their common parent, in a thread with a working directory of its
    own: `unshare(CLONE_FS)` keeps the change of directory from the rest of the process."""
    parent = os.path.commonpath([path.parent for path in lower])
    stacked = ":".join(_escaped_layer(path.relative_to(parent)) for path in lower)
    options = options_of(stacked)
    failures: list[OSError] = []

    def mount_from_parent() -> None:
        try:
            syscalls.unshare(syscalls.CLONE_FS)
            os.chdir(parent)
            syscalls.mount("overlay", target, "overlay", flags, options)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=mount_from_parent, name="overlay mount")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _overlay_failure(error: OSError, target: Path) -> str:
    text = f"cannot mount the overlay file system at {target}: {error.strerror}"
    hints = {
        errno.ENODEV: "this kernel has no overlay file system; load it with: modprobe overlay",
        errno.EINVAL: "the data root's file system may not carry overlay (it needs d_type and "
        "extended attributes, and must not be an overlay itself); see the kernel's log (dmesg)",
        errno.EPERM: "the daemon lacks CAP_SYS_ADMIN here",
        errno.ENOENT: "a layer's directory is missing",
        errno.ESTALE: "upper and work directory were used with other layers",
    }
    hint = hints.get(error.errno or 0)
    return f"{text}: {hint}" if hint else text
