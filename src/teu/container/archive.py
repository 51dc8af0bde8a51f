"""Copying into and out of containers: `docker cp`, and the paths behind it.

A running container is seen through its own root (`/proc/PID/root`), so volumes and tmpfs are
there; of a stopped one the file system is mounted for the time of the copy, and a path below a
volume or bind mount leads to its source. Every name is resolved inside that root by the kernel
(openat2), so no symlink, also none swapped during the copy, leads out of it.
Source: API 1.51 ContainerArchive, ContainerArchiveInfo, PutContainerArchive.
"""

import contextlib
import os
import posixpath
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from teu.container.container import Container
from teu.container.places import Place, packed_place, stat_of
from teu.container.rootfs import RootFilesystems
from teu.container.services import Services
from teu.errors import Forbidden, InvalidParameter, NotFound
from teu.model.container import MountPoint
from teu.sys import beneath
from teu.sys.tarpipe import unpack_into


class NoSuchPath(NotFound):
    def __init__(self, container: Container, path: str) -> None:
        super().__init__(f"Could not find the file {path} in container {container.id}")


class Archives:
    def __init__(self, services: Services, rootfs: RootFilesystems) -> None:
        self._services = services
        self._rootfs = rootfs

    async def stat(self, container: Container, path: str) -> dict[str, Any]:
        """What `X-Docker-Container-Path-Stat` carries. Raises: NoSuchPath, InvalidParameter."""
        async with self._place(container, path) as place:
            return stat_of(place, path, partial(NoSuchPath, container, path))

    async def get(self, container: Container, path: str) -> AsyncIterator[bytes]:
        """The tar of a file or a directory, named by its last component.

        Raises: NoSuchPath before the first piece.
        """
        async with self._place(container, path) as place:
            async for piece in packed_place(place, path, partial(NoSuchPath, container, path)):
                yield piece
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
                await unpack_into(target_fd, stream, keep_kinds=keep_kinds)
            finally:
                os.close(target_fd)
        self._services.containers.tell(container, "extract-to-dir")

    def _check_writable(self, container: Container, path: str) -> None:
        point = _point_above(container, posixpath.normpath("/" + path))
        if point is not None:
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
        async with contextlib.AsyncExitStack() as stack:
            point = _point_above(container, posixpath.normpath(clean))
            if point is not None and point.type == "volume":
                volume = self._services.volumes.get(point.name)
                source = await stack.enter_async_context(self._services.volumes.in_use(volume))
            elif point is not None and point.type == "bind" and os.path.isdir(point.source):
                source = Path(point.source)
            else:
                yield Place(await stack.enter_async_context(self._rootfs.mounted(container)), clean)
                return
            if point.subpath:
                source = stack.enter_context(_subdirectory(container, path, source, point.subpath))
            yield Place(source, clean[len(point.destination) :] or "/.")


def _point_above(container: Container, path: str) -> MountPoint | None:
    """The mount of the container that a path lies on."""
    above = [
        p for p in container.record.mounts
        if path == p.destination or path.startswith(p.destination + "/")
    ]  # fmt: skip
    return max(above, key=lambda p: len(p.destination), default=None)


@contextlib.contextmanager
def _subdirectory(container: Container, path: str, root: Path, subpath: str) -> Iterator[Path]:
    try:
        fd = beneath.open_in_root(root, subpath, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise NoSuchPath(container, path) from error
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
