"""Everything that can be told apart about a file tree."""

import hashlib
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Seen = dict[str, dict[str, Any]]


def tree_of(root: Path) -> Seen:
    """By path: kind, mode, owner, times with ns, device, target, xattrs, content, hard links."""
    found: Seen = {}
    inodes: dict[tuple[int, int], str] = {}
    for path in sorted(root.rglob("*"), key=os.fsencode):
        info = path.lstat()
        shown = found[str(path.relative_to(root))] = {
            "mode": oct(info.st_mode),
            "owner": (info.st_uid, info.st_gid),
            "time": info.st_mtime_ns,
            "xattrs": _xattrs(path),
        }
        if stat.S_ISLNK(info.st_mode):
            shown["target"] = os.readlink(path)
        elif stat.S_ISREG(info.st_mode):
            shown["size"] = info.st_size
            shown["content"] = hashlib.sha256(path.read_bytes()).hexdigest()
            if info.st_nlink > 1:
                shown["same as"] = inodes.setdefault(
                    (info.st_dev, info.st_ino), str(path.relative_to(root))
                )
        elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
            shown["device"] = info.st_rdev
    return found


def _xattrs(path: Path) -> dict[str, str]:
    return {
        name: os.getxattr(path, name, follow_symlinks=False).hex()
        for name in os.listxattr(path, follow_symlinks=False)
        if not name.startswith("trusted.overlay.")
    }


def unlike(one: Seen, other: Seen) -> dict[str, Any]:
    """Paths that differ, and how."""
    return {
        path: (one.get(path), other.get(path))
        for path in one.keys() | other.keys()
        if one.get(path) != other.get(path)
    }


@contextmanager
def mounted(inspected: dict[str, Any], at: Path) -> Iterator[Path]:
    """The file system of an image, of what `inspect` says of its layers, read-only."""
    data = inspected["GraphDriver"]["Data"]
    layers = [data["UpperDir"], *filter(None, data.get("LowerDir", "").split(":"))]
    if len(layers) == 1:  # an overlay has two at least
        (at / "empty").mkdir(parents=True)
        layers.append(str(at / "empty"))
    merged = at / "merged"
    merged.mkdir(parents=True)
    options = f"ro,lowerdir={':'.join(layers)}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", merged], check=True)


def inspected(text: str) -> dict[str, Any]:
    """The one object of an `inspect`."""
    [found] = json.loads(text)
    assert isinstance(found, dict)
    return found
