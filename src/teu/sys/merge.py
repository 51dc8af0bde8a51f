"""Layers on disk (overlayfs's form) merged into one.

Regular files are shared with their layers by hard links: layers never change.
"""

import os
import stat
from pathlib import Path

from teu.sys.beneath import remove_tree
from teu.sys.overlayfs import OPAQUE_XATTR, is_whiteout, set_opaque

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def merge_layer(layer: Path, target: Path) -> None:
    """Puts `layer` on top of what `target` holds. Its whiteouts stay: what they hide may be below
    `target`, too. Both are on one file system. Raises: OSError."""
    source_fd = os.open(layer, _FLAGS)
    try:
        target_fd = os.open(target, _FLAGS)
        try:
            _merge(source_fd, target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


def _merge(source_fd: int, target_fd: int) -> None:
    for name in os.listdir(source_fd):
        found = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            _directory(source_fd, target_fd, name, found)
            continue
        remove_tree(target_fd, os.fsencode(name))
        if is_whiteout(found):
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=target_fd)
        else:
            os.link(name, name, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)


def _directory(source_fd: int, target_fd: int, name: str, found: os.stat_result) -> None:
    inner_fd = os.open(name, _FLAGS, dir_fd=source_fd)
    try:
        hides = _is_opaque(inner_fd)
        replaced = not _is_directory(target_fd, name)
        if hides or replaced:
            hides = hides or _exists(target_fd, name)
            remove_tree(target_fd, os.fsencode(name))
            os.mkdir(name, dir_fd=target_fd)
        made_fd = os.open(name, _FLAGS, dir_fd=target_fd)
        try:
            if hides:
                set_opaque(made_fd, b".")
            _merge(inner_fd, made_fd)
            os.fchown(made_fd, found.st_uid, found.st_gid)
            os.fchmod(made_fd, stat.S_IMODE(found.st_mode))
            for attribute in os.listxattr(inner_fd):
                if not attribute.startswith("trusted.overlay."):
                    os.setxattr(made_fd, attribute, os.getxattr(inner_fd, attribute))
            os.utime(made_fd, ns=(found.st_mtime_ns, found.st_mtime_ns))
        finally:
            os.close(made_fd)
    finally:
        os.close(inner_fd)


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, OPAQUE_XATTR) == b"y"
    except OSError:
        return False


def _exists(fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_directory(fd: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
