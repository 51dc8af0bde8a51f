"""A container's file system as somebody who copies sees it: its root, and what lies where in it.

    running   the root of its own process (`/proc/PID/root`): volumes, tmpfs and all are there
    stopped   its file system, mounted for the time of the use; its volumes and binds are mounted
              over it for the one thread that does the work (a mount namespace of its own, which
              the kernel takes away with the thread)

Every name is resolved inside the root by the kernel (openat2), so no symlink, also none swapped
during the copy, leads out of it. All of it happens in a thread apart from the loop: the file
system may belong to the container (FUSE) and never answer.
"""

import asyncio
import contextlib
import os
import posixpath
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from teu.container.container import Container
from teu.container.rootfs import RootFilesystems
from teu.errors import Conflict
from teu.model.container import MountPoint
from teu.sys import beneath, mounts, pidfd, syscalls
from teu.sys.ownthread import run_apart
from teu.volume.service import VolumeService

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """A path below a root directory. `root_fd` belongs to the work that gets it."""

    root_fd: int
    path: str

    def open(self, path: str, flags: int) -> int:
        """Opens a path below the root. Raises: OSError."""
        return beneath.open_beneath(self.root_fd, os.fsencode(path), flags)


class Views:
    def __init__(self, rootfs: RootFilesystems, volumes: VolumeService) -> None:
        self._rootfs = rootfs
        self._volumes = volumes

    @contextlib.asynccontextmanager
    async def of(self, container: Container, path: str) -> AsyncIterator["View"]:
        """The file system for the time of the context.

        Raises: SystemFailure, DataLoss; what the drivers of a stopped container's volumes raise.
        """
        clean = "/" + path.lstrip("/")
        if container.running:
            root_fd = _open_root(container)
            try:
                yield View(root_fd, clean, [])
            finally:
                os.close(root_fd)
            return
        async with self._rootfs.mounted(container) as rootfs, self._sources(container) as points:
            root_fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY)
            view = View(root_fd, clean, points, rootfs)
            try:
                yield view
            finally:
                os.close(root_fd)
                await view.ended()

    @contextlib.asynccontextmanager
    async def _sources(self, container: Container) -> AsyncIterator[list[MountPoint]]:
        """What a stopped container has mounted, with its volumes' drivers at work."""
        async with contextlib.AsyncExitStack() as stack:
            points = []
            for point in container.record.mounts:
                if point.type == "volume":
                    volume = self._volumes.get(point.name)
                    path = await stack.enter_async_context(self._volumes.in_use(volume))
                    points.append(replace(point, source=str(path)))
                elif point.type == "bind":
                    points.append(point)
            yield points


@contextlib.asynccontextmanager
async def view_of(root: Path, path: str) -> AsyncIterator["View"]:
    """A plain directory as somebody who copies sees it."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    view = View(root_fd, "/" + path.lstrip("/"), [])
    try:
        yield view
    finally:
        os.close(root_fd)
        await view.ended()


class View:
    def __init__(
        self, root_fd: int, path: str, points: list[MountPoint], rootfs: Path | None = None
    ) -> None:
        self._root_fd = root_fd
        self._path = path
        self._points = points
        self._rootfs = rootfs
        self._works: set[asyncio.Future[object]] = set()

    def run(self, work: Callable[[Place], T], name: str) -> "asyncio.Future[T]":
        """Does `work` in a thread of its own; a future of its result."""
        own_fd = os.dup(self._root_fd)

        def body() -> T:
            with contextlib.ExitStack() as stack:
                stack.callback(os.close, own_fd)
                place = self._place(own_fd)
                if place.root_fd != own_fd:
                    stack.callback(os.close, place.root_fd)
                return work(place)

        future = run_apart(body, name)
        self._works.add(future)  # type: ignore[arg-type]  # only waited for
        return future

    async def ended(self) -> None:
        """Waits for the threads, which need the mount."""
        if waiting := {work for work in self._works if not work.done()}:
            await asyncio.wait(waiting)

    def _place(self, own_fd: int) -> Place:
        if self._rootfs is None or not self._points:
            return Place(own_fd, self._path)
        syscalls.unshare(syscalls.CLONE_NEWNS)
        mounts.make_private(Path("/"))
        # The mount as this namespace has it; the descriptor still means the daemon's.
        root_fd = os.open(self._rootfs, os.O_PATH | os.O_DIRECTORY)
        missing = [p for p in sorted(self._points, key=_depth) if not _mounted(root_fd, p)]
        for point in sorted(missing, key=_depth, reverse=True):
            if not is_below(self._path, point):
                continue
            with contextlib.suppress(OSError):
                source_fd = _open_source(point, os.O_PATH | os.O_DIRECTORY)
                os.close(root_fd)
                return Place(source_fd, self._path[len(point.destination) :] or "/.")
        return Place(root_fd, self._path)


def is_below(path: str, point: MountPoint) -> bool:
    normal = posixpath.normpath("/" + path.lstrip("/"))
    return normal == point.destination or normal.startswith(point.destination.rstrip("/") + "/")


def _depth(point: MountPoint) -> int:
    return len(point.destination)


def _mounted(root_fd: int, point: MountPoint) -> bool:
    """Mounts a volume or bind where the container would have it; False when there is no such
    place yet (a container that was never started)."""
    try:
        target_fd = beneath.open_beneath(root_fd, os.fsencode(point.destination), os.O_PATH)
    except OSError:
        return False
    try:
        target = Path(f"/proc/self/fd/{target_fd}")
        source_fd = _open_source(point, os.O_PATH)
        try:
            mounts.bind(Path(f"/proc/self/fd/{source_fd}"), target, recursive=True)
        finally:
            os.close(source_fd)
        if not point.rw:
            inside_fd = beneath.open_beneath(root_fd, os.fsencode(point.destination), os.O_PATH)
            try:
                mounts.make_read_only(Path(f"/proc/self/fd/{inside_fd}"))
            finally:
                os.close(inside_fd)
    except OSError:  # the source is gone, or a file over a directory
        return False
    finally:
        os.close(target_fd)
    return True


def _open_source(point: MountPoint, flags: int) -> int:
    """What is mounted there, as a descriptor; a sub-path cannot leave its volume."""
    if point.subpath:
        return beneath.open_in_root(Path(point.source), point.subpath, flags)
    return os.open(point.source, flags)


def _open_root(container: Container) -> int:
    """The root of the container's process. Raises: Conflict when it has ended."""
    record = container.record
    try:
        root_fd = os.open(f"/proc/{record.pid}/root", os.O_PATH | os.O_DIRECTORY)
    except OSError:
        raise _has_ended(container) from None
    if pidfd.start_time(record.pid) != record.pid_started:  # the pid is another process's now
        os.close(root_fd)
        raise _has_ended(container)
    return root_fd


def _has_ended(container: Container) -> Conflict:
    return Conflict(f"container {container.id} has just ended; try again")
