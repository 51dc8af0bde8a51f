"""A container's file system: its rw layer over the image's layers, mounted while it runs.

    HOME/upper  what the container changed      HOME/work  overlayfs's scratch
    HOME/rootfs where the whole is mounted

The mount lives in the daemon's mount namespace and outlives the daemon.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from teu.container.container import Container
from teu.container.services import Paths
from teu.container.state import is_active
from teu.errors import SystemFailure
from teu.image.service import ImageService
from teu.sys import mounts

_INIT_DIRECTORIES = ("dev/pts", "dev/shm", "etc", "proc", "sys")
_INIT_FILES = (".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf")


class RootFilesystems:
    """Creates, mounts, unmounts and removes container file systems."""

    def __init__(self, paths: Paths, images: ImageService) -> None:
        self._paths = paths
        self._images = images
        self._guests: dict[str, int] = {}  # container id -> how many look inside now

    def create(self, container_id: str) -> None:
        """Makes the empty rw layer. Raises: SystemFailure."""
        home = self._paths.home(container_id)
        try:
            home.mkdir(mode=0o710, parents=True)
            (home / "upper").mkdir(mode=0o755)
            (home / "work").mkdir(mode=0o700)
            (home / "rootfs").mkdir(mode=0o755)
        except OSError as error:
            raise SystemFailure(f"cannot make the container's directory: {error}") from error

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
                await self._last_left(container)

    async def _last_left(self, container: Container) -> None:
        async with container.lock:  # never under a start
            if container.id not in self._guests and not is_active(container.record):
                await asyncio.to_thread(self.unmount, container.id)

    def lower(self, container: Container) -> list[Path]:
        """The read-only layers, top first. Raises: DataLoss for a missing one."""
        return [self._init_layer(), *self._images.layer_directories(container.record.layers)]

    def _init_layer(self) -> Path:
        """A layer above every image's with the places that the engine mounts over, so that they
        never show up as changes of a container. Made once for a data root."""
        layer = self._paths.data_root / "init"
        if not layer.exists():
            partial = layer.with_name("init.partial")
            shutil.rmtree(partial, ignore_errors=True)
            for directory in _INIT_DIRECTORIES:
                (partial / directory).mkdir(mode=0o755, parents=True)
            for file in _INIT_FILES:
                (partial / file).touch(mode=0o644)
            (partial / "etc/mtab").symlink_to("/proc/mounts")
            partial.rename(layer)
        return layer
