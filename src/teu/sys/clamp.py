"""Times of a tree, for archives that must not depend on when they were made."""

import os
from pathlib import Path


def clamp_times(root: Path, latest_ns: int) -> None:
    """Nothing below `root` was changed later than `latest_ns` afterwards. Symlinks are not
    followed; nobody else changes the tree meanwhile. Raises: OSError."""
    for _, directories, files, fd in os.fwalk(root, follow_symlinks=False):
        for name in (*files, *directories):
            _clamp(name, fd, latest_ns)


def _clamp(name: str, directory_fd: int, latest_ns: int) -> None:
    found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    if found.st_mtime_ns > latest_ns:
        times = (found.st_atime_ns, latest_ns)
        os.utime(name, ns=times, dir_fd=directory_fd, follow_symlinks=False)
