"""Network namespaces that live as a file: made, entered and removed.

A namespace is made by a thread that unshares, binds `/proc/thread-self/ns/net` onto a file, and
ends; the daemon's other threads never leave their own namespace. Work inside a namespace runs in a
thread of its own for the same reason: a thread that could not come back must not be used again.

Source: network_namespaces(7), unshare(2), setns(2), proc(5).
"""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from teu.sys.syscalls import CLONE_NEWNET, mount, setns, umount2, unshare

T = TypeVar("T")
_MS_BIND = 0x1000
_MNT_DETACH = 0x2
_UMOUNT_NOFOLLOW = 0x8


def create(path: Path, inside: Callable[[], T]) -> T:
    """A new namespace, kept alive by `path`; `inside` runs in it, its result is returned.

    Blocks about 0.5 ms. On failure the file may be there: `remove` it.
    Raises: OSError (EEXIST: `path` is there already), and what `inside` raises.
    """

    def work() -> T:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o444))
        unshare(CLONE_NEWNET)
        mount("/proc/thread-self/ns/net", path, None, _MS_BIND)
        return inside()

    return _in_own_thread(work)


def run_inside(path: Path, inside: Callable[[], T]) -> T:
    """Runs `inside` in the namespace behind `path` and returns its result.

    Raises: OSError (ENOENT, or EINVAL: not a namespace), and what `inside` raises.
    """

    def work() -> T:
        namespace_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(namespace_fd, CLONE_NEWNET)
        finally:
            os.close(namespace_fd)
        return inside()

    return _in_own_thread(work)


def remove(path: Path) -> None:
    """Lets go of the namespace; it ends with its last process. Accepts "already gone".

    The kernel reaps the links inside in the background.
    """
    try:
        umount2(path, _MNT_DETACH | _UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    path.unlink(missing_ok=True)


def _in_own_thread(work: Callable[[], T]) -> T:
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
