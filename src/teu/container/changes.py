"""What a container changed in its image's files: `docker diff`."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from teu.sys.overlayfs import is_whiteout

MODIFIED, ADDED, DELETED = 0, 1, 2


def changes(upper: Path, lower: list[Path]) -> list[tuple[str, int]]:
    """(path, kind) of each change, in path order; a directory is listed before its entries.

    `lower`: the image's layers, top first. May take long for many files: call it in a thread.
    """
    return sorted(_walk(upper, "", lower))


def _walk(upper: Path, prefix: str, lower: list[Path]) -> Iterator[tuple[str, int]]:
    try:
        entries = list(os.scandir(upper))
    except FileNotFoundError:  # removed while it was read
        return
    for entry in entries:
        path = f"{prefix}/{entry.name}"
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if is_whiteout(found):
            yield path, DELETED
            continue
        yield path, MODIFIED if _exists_below(path, lower) else ADDED
        if stat.S_ISDIR(found.st_mode):
            yield from _walk(upper / entry.name, path, lower)


def _exists_below(path: str, lower: list[Path]) -> bool:
    for layer in lower:
        try:
            found = os.lstat(f"{layer}{path}")
        except OSError:
            continue
        return not is_whiteout(found)
    return False
