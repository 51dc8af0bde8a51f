"""Files below a root that is not to be trusted, as `docker cp` sees them.

Every name is resolved inside the root by the kernel (openat2), so no symlink, also none swapped
during a copy, leads out of it.
"""

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teu import clock
from teu.errors import EngineError, InvalidParameter, SystemFailure
from teu.sys import beneath
from teu.sys.pack import pack_entry
from teu.sys.tarpipe import packed

_GO_MODES = (
    (stat.S_ISDIR, 1 << 31), (stat.S_ISLNK, 1 << 27), (stat.S_ISFIFO, 1 << 25),
    (stat.S_ISSOCK, 1 << 24), (stat.S_ISBLK, 1 << 26), (stat.S_ISCHR, 1 << 26 | 1 << 21),
)  # fmt: skip
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))
Missing = Callable[[], EngineError]


@dataclass(frozen=True, slots=True)
class Place:
    """A root and a path in it."""

    root: Path
    path: str


def stat_of(place: Place, shown: str, missing: Missing) -> dict[str, Any]:
    """What `X-Docker-Container-Path-Stat` carries; `shown` is the path as the client wrote it.

    Raises: what `missing` makes, InvalidParameter, SystemFailure.
    """
    with opened_parent(place, shown, missing) as (parent_fd, name):
        found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        target = ""
        if stat.S_ISLNK(found.st_mode):
            link = os.readlink(name, dir_fd=parent_fd)
            base = posixpath.dirname("/" + shown.lstrip("/"))
            target = posixpath.normpath(posixpath.join(base, os.fsdecode(link)))
        return {
            "name": posixpath.basename(posixpath.normpath("/" + shown)) or "/",
            "size": found.st_size,
            "mode": go_mode(found.st_mode),
            "mtime": clock.format_ns(found.st_mtime_ns),
            "linkTarget": target,
        }


async def packed_place(place: Place, shown: str, missing: Missing) -> AsyncIterator[bytes]:
    """The tar of a file or a directory, named by its last component. Raises: as `stat_of`."""
    with opened_parent(place, shown, missing) as (parent_fd, name):
        label = os.fsencode(posixpath.basename(place.path.rstrip("/"))) or b"."
        label = label if label not in (b".", b"..") else name
        async for piece in packed(lambda: pack_entry(parent_fd, name, label)):
            yield piece


@contextlib.contextmanager
def opened_parent(place: Place, shown: str, missing: Missing) -> Iterator[tuple[int, bytes]]:
    """The directory that holds the last component, and its name there (`.` for a root).

    A trailing slash or `/.` follows a last symlink, as in a shell.
    """
    follows = place.path.endswith(("/", "/.")) or posixpath.normpath(place.path) == "/"
    head, tail = posixpath.split(place.path.rstrip("/"))
    if follows or tail in ("..", ""):
        head, tail = place.path, "."
    try:
        parent_fd = beneath.open_in_root(place.root, head or "/", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _path_error(shown, missing, error) from error
    try:
        os.stat(tail, dir_fd=parent_fd, follow_symlinks=False)
        yield parent_fd, os.fsencode(tail)
    except FileNotFoundError as error:
        raise missing() from error
    finally:
        os.close(parent_fd)


def _path_error(shown: str, missing: Missing, error: OSError) -> EngineError:
    if error.errno == errno.ENOTDIR:
        return InvalidParameter(f"not a directory: {shown}")
    if error.errno in (errno.ENOENT, errno.ELOOP):
        return missing()
    return SystemFailure(f"cannot open {shown}: {error.strerror}")


def go_mode(mode: int) -> int:
    """Unix mode bits as Go's `os.FileMode`, which the API uses."""
    result = stat.S_IMODE(mode) & 0o777
    for test, bit in _GO_MODES:
        if test(mode):
            result |= bit
    for unix_bit, bit in _GO_BITS:
        if mode & unix_bit:
            result |= bit
    return result
