"""Copying into and out of containers: `docker cp`, and the paths behind it.

A running container is seen through its own root (`/proc/PID/root`), so volumes and tmpfs are
there; of a stopped one the file system is mounted for the time of the copy, and a path below a
volume or bind mount leads to its source. Every name is resolved inside that root by the kernel
(openat2), so no symlink, also none swapped during the copy, leads out of it.
Source: API 1.51 ContainerArchive, ContainerArchiveInfo, PutContainerArchive.
"""

import asyncio
import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teu import clock
from teu.container.container import Container
from teu.container.rootfs import RootFilesystems
from teu.container.services import Services
from teu.errors import Forbidden, InvalidParameter, NotFound, SystemFailure
from teu.sys import beneath
from teu.sys.bytepipe import FromThread, PipeClosed, ToThread
from teu.sys.codec import decoded
from teu.sys.pack import pack_entry
from teu.sys.tarstream import TarStream
from teu.sys.unpack import Unpacker

_GO_MODES = (
    (stat.S_ISDIR, 1 << 31), (stat.S_ISLNK, 1 << 27), (stat.S_ISFIFO, 1 << 25),
    (stat.S_ISSOCK, 1 << 24), (stat.S_ISBLK, 1 << 26), (stat.S_ISCHR, 1 << 26 | 1 << 21),
)  # fmt: skip
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


class NoSuchPath(NotFound):
    def __init__(self, container: Container, path: str) -> None:
        super().__init__(f"Could not find the file {path} in container {container.id}")


@dataclass(frozen=True, slots=True)
class Place:
    """A root and a path in it."""

    root: Path
    path: str


class Archives:
    def __init__(self, services: Services, rootfs: RootFilesystems) -> None:
        self._services = services
        self._rootfs = rootfs

    async def stat(self, container: Container, path: str) -> dict[str, Any]:
        """What `X-Docker-Container-Path-Stat` carries. Raises: NoSuchPath, InvalidParameter."""
        async with self._place(container, path) as place:
            return self._stat(container, path, place)

    async def get(self, container: Container, path: str) -> AsyncIterator[bytes]:
        """The tar of a file or a directory, named by its last component.

        Raises: NoSuchPath before the first piece.
        """
        async with self._place(container, path) as place:
            with _opened_parent(container, path, place) as (parent_fd, name):
                shown = os.fsencode(posixpath.basename(place.path.rstrip("/"))) or b"."
                shown = shown if shown not in (b".", b"..") else name
                with FromThread() as pipe:
                    work = asyncio.ensure_future(
                        asyncio.to_thread(
                            pipe.drain_from, lambda: pack_entry(parent_fd, name, shown)
                        )
                    )
                    try:
                        async for piece in pipe:
                            yield piece
                    finally:
                        pipe.close()
                        await asyncio.wait({work})
        self._services.containers.tell(container, "archive-path")

    async def put(
        self,
        container: Container,
        path: str,
        stream: AsyncIterator[bytes],
        *,
        keep_kinds: bool,
    ) -> None:
        """Unpacks a tar (plain or compressed) below an existing directory.

        `keep_kinds`: a file never replaces a directory, nor the other way round.
        Raises: NoSuchPath, InvalidParameter (no directory), Forbidden (read-only), InvalidArchive.
        Failure: what was unpacked before it stays, as Docker leaves it.
        """
        async with container.lock, self._place(container, path) as place:
            self._check_writable(container, path)
            try:
                target_fd = beneath.open_in_root(place.root, place.path, os.O_PATH | os.O_DIRECTORY)
            except NotADirectoryError:
                raise InvalidParameter("extraction point is not a directory") from None
            except OSError as error:
                raise NoSuchPath(container, path) from error
            try:
                await self._unpack(target_fd, stream, keep_kinds)
            finally:
                os.close(target_fd)
        self._services.containers.tell(container, "extract-to-dir")

    async def _unpack(self, target_fd: int, stream: AsyncIterator[bytes], keep_kinds: bool) -> None:
        pipe = ToThread()

        def work() -> None:
            try:
                unpacker = Unpacker(Path(f"/proc/self/fd/{target_fd}"), keep_kinds=keep_kinds)
                try:
                    unpacker.run(TarStream(decoded(pipe)[0]))
                finally:
                    unpacker.close()
            finally:
                pipe.abandon()

        reading = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            async for chunk in stream:
                await pipe.send(chunk)
            pipe.finish()
        except PipeClosed:
            pass  # the reader has failed and says why
        except BaseException as error:
            pipe.fail(SystemFailure(f"the archive was cut short: {error}"))
            await asyncio.wait({reading})
            raise
        await asyncio.shield(reading)

    def _check_writable(self, container: Container, path: str) -> None:
        target = posixpath.normpath("/" + path)
        points = [
            p for p in container.record.mounts
            if target == p.destination or target.startswith(p.destination + "/")
        ]  # fmt: skip
        if points:
            point = max(points, key=lambda p: len(p.destination))
            if not point.rw:
                raise Forbidden(f"mounted volume is marked read-only: {point.destination}")
        elif container.record.host.readonly_rootfs:
            raise Forbidden("container rootfs is marked read-only")

    @contextlib.asynccontextmanager
    async def _place(self, container: Container, path: str) -> AsyncIterator[Place]:
        if not path:
            raise InvalidParameter("missing path")
        clean = "/" + path.lstrip("/")
        if container.running:
            yield Place(Path(f"/proc/{container.record.pid}/root"), clean)
            return
        async with self._rootfs.mounted(container) as rootfs:
            yield self._through_mounts(container, Place(rootfs, clean))

    @staticmethod
    def _through_mounts(container: Container, place: Place) -> Place:
        normal = posixpath.normpath(place.path)
        for point in sorted(container.record.mounts, key=lambda p: -len(p.destination)):
            inside = normal == point.destination or normal.startswith(point.destination + "/")
            if inside and point.type in ("bind", "volume") and os.path.isdir(point.source):
                rest = place.path[len(point.destination) :]
                return Place(Path(point.source), rest or "/.")
        return place

    def _stat(self, container: Container, path: str, place: Place) -> dict[str, Any]:
        with _opened_parent(container, path, place) as (parent_fd, name):
            found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            target = ""
            if stat.S_ISLNK(found.st_mode):
                link = os.readlink(name, dir_fd=parent_fd)
                base = posixpath.dirname("/" + path.lstrip("/"))
                target = posixpath.normpath(posixpath.join(base, os.fsdecode(link)))
            return {
                "name": posixpath.basename(posixpath.normpath("/" + path)) or "/",
                "size": found.st_size,
                "mode": go_mode(found.st_mode),
                "mtime": clock.format_ns(found.st_mtime_ns),
                "linkTarget": target,
            }


@contextlib.contextmanager
def _opened_parent(container: Container, path: str, place: Place) -> Iterator[tuple[int, bytes]]:
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
        raise _path_error(container, path, error) from error
    try:
        os.stat(tail, dir_fd=parent_fd, follow_symlinks=False)
        yield parent_fd, os.fsencode(tail)
    except FileNotFoundError as error:
        raise NoSuchPath(container, path) from error
    finally:
        os.close(parent_fd)


def _path_error(container: Container, path: str, error: OSError) -> Exception:
    if error.errno == errno.ENOTDIR:
        return InvalidParameter(f"not a directory: {path}")
    if error.errno in (errno.ENOENT, errno.ELOOP):
        return NoSuchPath(container, path)
    return SystemFailure(f"cannot open {path}: {error.strerror}")


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
