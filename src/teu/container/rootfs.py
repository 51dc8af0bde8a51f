"""A container's file system: its rw layer over the image's layers, mounted while it runs.

    HOME/upper  what the container changed      HOME/work  overlayfs's scratch
    HOME/rootfs where the whole is mounted

The mount lives in the daemon's mount namespace and outlives the daemon.
"""

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from teu.container.container import Container
from teu.container.services import Paths
from teu.container.state import is_active
from teu.errors import InvalidParameter, SystemFailure
from teu.image.initlayer import init_layer
from teu.image.service import ImageService
from teu.sys import mounts, quota
from teu.units import parse_size

UNMOUNT_TRIES = 50  # with growing pauses: some 25 s


class RootFilesystems:
    """Creates, mounts, unmounts and removes container file systems."""

    def __init__(self, paths: Paths, images: ImageService) -> None:
        self._paths = paths
        self._images = images
        self._leaving: set[asyncio.Task[None]] = set()
        self._guests: dict[str, int] = {}  # container id -> how many look inside now

    def create(self, container_id: str, *, limit_bytes: int = 0) -> None:
        """Makes the empty rw layer; with a limit, no more fits into it. Raises: SystemFailure."""
        home = self._paths.home(container_id)
        try:
            home.mkdir(mode=0o710, parents=True)
            (home / "upper").mkdir(mode=0o755)
            (home / "work").mkdir(mode=0o700)
            (home / "rootfs").mkdir(mode=0o755)
        except OSError as error:
            raise SystemFailure(f"cannot make the container's directory: {error}") from error
        if limit_bytes:
            project = quota.free_project(self._projects())
            quota.limit([home / "upper", home / "work"], project, limit_bytes)

    def _projects(self) -> set[int]:
        """The projects of all rw layers there are."""
        uppers = (self._paths.data_root / "containers").glob("*/upper")
        found: set[int] = set()
        for upper in uppers:
            with contextlib.suppress(OSError):  # being removed
                found.add(quota.project_of(upper))
        return found

    def check_storage(self, options: dict[str, str]) -> int:
        """`--storage-opt`: the limit in bytes, 0 for none. Raises: InvalidParameter."""
        for name in options:
            if name.lower() != "size":
                raise InvalidParameter(f"Unknown option {name}")
        if "size" not in {name.lower() for name in options}:
            return 0
        text = next(iter(options.values()))
        try:
            size_bytes = parse_size(text)
        except ValueError:
            raise InvalidParameter(f"invalid size: '{text}'") from None
        if not quota.available(self._paths.data_root):
            raise InvalidParameter(
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option, "
                f"or ext4 with 'prjquota': {self._paths.data_root} is on "
                f"{mounts.mount_of(self._paths.data_root).fstype} without it"
            )
        return size_bytes

    def is_mounted(self, container_id: str) -> bool:
        return os.path.ismount(self._paths.rootfs(container_id))

    def mount(self, container: Container) -> Path:
        """Mounts (idempotent); the mount point.

        Raises: DataLoss for a missing layer, SystemFailure with the kernel's reason.
        """
        home = self._paths.home(container.id)
        target = home / "rootfs"
        if os.path.ismount(target):
            return target
        lower = self.lower(container)
        mounts.mount_overlay(lower, home / "upper", home / "work", target)
        return target

    def unmount(self, container_id: str) -> None:
        """Unmounts (idempotent, accepts "never mounted"); may take long: call it in a thread.

        While somebody looks inside, nothing: the last one of them unmounts. Raises: OSError.
        """
        while container_id not in self._guests and mounts.unmount(self._paths.rootfs(container_id)):
            pass

    def remove(self, container_id: str) -> None:
        """Removes everything of it on disk (idempotent); call it in a thread.

        Raises: OSError.
        """
        looked_at = container_id in self._guests
        while mounts.unmount(self._paths.rootfs(container_id), lazy=looked_at):
            pass
        for directory in (self._paths.home(container_id), self._paths.run(container_id)):
            if directory.exists():
                shutil.rmtree(directory)

    @contextlib.asynccontextmanager
    async def mounted(self, container: Container) -> AsyncIterator[Path]:
        """The file system for a look inside: the live mount, or one made for the time of the use.

        A container may start, and be removed, meanwhile; its lock must not be held by the caller.
        """
        self._guests[container.id] = self._guests.get(container.id, 0) + 1
        try:
            yield self.mount(container)
        finally:
            self._guests[container.id] -= 1
            if not self._guests[container.id]:
                del self._guests[container.id]
                leaving = asyncio.create_task(self._last_left(container), name="unmount")
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)
                await asyncio.shield(leaving)

    async def _last_left(self, container: Container) -> None:
        """EBUSY passes: a client that left twice did not wait for the thread that read for it."""
        for attempt in range(UNMOUNT_TRIES):
            async with container.lock:  # never under a start
                if container.id in self._guests or is_active(container.record):
                    return
                try:
                    return await asyncio.to_thread(self.unmount, container.id)
                except OSError as error:
                    if error.errno != errno.EBUSY or attempt == UNMOUNT_TRIES - 1:
                        raise
            await asyncio.sleep(0.02 * (attempt + 1))

    def lower(self, container: Container) -> list[Path]:
        """The read-only layers, top first. Raises: DataLoss for a missing one."""
        layers = self._images.layer_directories(container.record.layers)
        return [init_layer(self._paths.data_root), *layers]
