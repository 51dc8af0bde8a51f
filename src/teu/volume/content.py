"""The files of a volume: filling it from an image, copying it, its size.

Copying is done by cp(1) in a process of its own: it keeps owner, mode, times, xattrs, hard links
and holes, shares blocks where the file system can (reflink), and takes nothing of the loop's time.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from teu.sys import atomicfile, beneath, process, syscalls

COPY_LIMIT_S: Final = 6 * 3600.0
_PARTIAL: Final = ".teu-copyup.partial"
_WHOLE: Final = ".teu-copyup"
_OWN: Final = frozenset({_PARTIAL, _WHOLE})


async def copy(source: Path | str, target: Path) -> None:
    """The content and attributes of one directory into another one, which exists.

    Raises: SystemFailure with cp's words. Failure, crash: a part of it is there, and nobody adds
    to it.
    """
    copying = ["cp", "-a", "--reflink=auto", "--", f"{source}/.", f"{target}/"]
    # A daemon that comes after a crash must not find somebody else still writing.
    await process.run(["setpriv", "--pdeathsig", "KILL", "--", *copying], timeout_s=COPY_LIMIT_S)


async def copy_up(source_fd: int, data: Path, staging: Path, *, may_block: bool) -> bool:
    """Fills an empty directory with the content of the one behind `source_fd`; False: not empty.

    The content is copied to `staging` (a directory of the same mount, `data` itself at worst),
    made durable, and then moved in by name. So a container that has `data` mounted already goes on
    with the same directory, a crash leaves nothing half-copied in sight (`resume` brings it to its
    end, the next copy-up does too), and what somebody else wrote meanwhile is not replaced.
    `may_block`: `data` is on a file system that may not answer; it is looked at in a thread.
    Raises: SystemFailure.
    """
    if not may_block and not any((staging / name).exists() for name in _OWN):
        empty = _is_empty(data)
    else:
        empty = await asyncio.to_thread(_resume_and_look, data, staging)
    if not empty:
        return False
    source = f"/proc/{os.getpid()}/fd/{source_fd}"
    if _is_empty(source):
        _copy_attributes(source, data)
        return True
    partial = staging / _PARTIAL
    partial.mkdir(mode=0o700)
    try:
        await copy(source, partial)
        await asyncio.to_thread(_settle, partial, staging / _WHOLE)
    except BaseException:
        await asyncio.to_thread(_remove, partial)
        raise
    await asyncio.to_thread(resume, data, staging)
    return True


def _resume_and_look(data: Path, staging: Path) -> bool:
    resume(data, staging)
    return _is_empty(data)


def _is_empty(directory: Path | str) -> bool:
    with os.scandir(directory) as entries:
        return all(entry.name in _OWN for entry in entries)


def resume(data: Path, staging: Path) -> None:
    """Brings an interrupted copy-up to its end, or undoes it. Raises: SystemFailure."""
    with syscalls.os_errors("cannot fill the volume"):
        _remove(staging / _PARTIAL)
        whole = staging / _WHOLE
        if not whole.exists():
            return
        os.chown(data, whole.stat().st_uid, whole.stat().st_gid)
        for name in os.listdir(whole):
            if not os.path.lexists(data / name):
                os.rename(whole / name, data / name)
        _copy_attributes(whole, data)
        _remove(whole)


def _settle(partial: Path, whole: Path) -> None:
    """The copy is durable before it counts as whole."""
    with syscalls.os_errors("cannot write the volume"):
        atomicfile.sync_filesystem(partial)
        os.rename(partial, whole)


def _remove(directory: Path) -> None:
    if directory.exists():
        parent_fd = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            beneath.remove_tree(parent_fd, os.fsencode(directory.name))
        finally:
            os.close(parent_fd)


def _copy_attributes(source: Path | str, target: Path) -> None:
    found = os.stat(source)
    os.chown(target, found.st_uid, found.st_gid)
    shutil.copystat(source, target)


def size(directory: Path) -> int:
    """Bytes on disk below it; a file with several names counts once. Blocks: use a thread."""
    total = 0
    seen: set[tuple[int, int]] = set()
    for root, _, files in os.walk(directory):
        for entry in files:
            with contextlib.suppress(OSError):  # gone meanwhile
                found = os.lstat(os.path.join(root, entry))
                if found.st_nlink > 1:
                    if (found.st_dev, found.st_ino) in seen:
                        continue
                    seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
    return total


def change_owner(directory_fd: int, uid: int, gid: int) -> int:
    """Gives everything that the descriptor shows to one owner; the number of things changed.

    Symlinks themselves are changed, never what they point to; other file systems below are left
    alone. Set-user-id bits go, as chown(2) does it. Raises: SystemFailure. Blocks: use a thread.
    """
    changed = 0
    with syscalls.os_errors("cannot change the owner"):
        top = os.stat(directory_fd)
        is_here: Callable[[os.stat_result], bool] = lambda found: found.st_dev == top.st_dev  # noqa: E731
        if (top.st_uid, top.st_gid) != (uid, gid):
            os.chown(f"/proc/{os.getpid()}/fd/{directory_fd}", uid, gid)
            changed += 1
        if not os.path.isdir(f"/proc/{os.getpid()}/fd/{directory_fd}"):
            return changed
        for _, directories, files, fd in os.fwalk(".", dir_fd=directory_fd, follow_symlinks=False):
            for name in [*directories, *files]:
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if is_here(found) and (found.st_uid, found.st_gid) != (uid, gid):
                    os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
                    changed += 1
            directories[:] = [
                name for name in directories
                if is_here(os.stat(name, dir_fd=fd, follow_symlinks=False))
            ]  # fmt: skip
    return changed
