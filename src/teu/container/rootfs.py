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
from teu.errors import SystemFailure
from teu.image.initlayer import init_layer
from teu.image.service import ImageService
from teu.sys import mounts


class RootFilesystems:
    """Creates, mounts, unmounts and removes container file systems."""

    def __init__(self, paths: Paths, images: ImageService) -> None:
        self._paths = paths
        self._images = images
        self._guests: dict[str, int] = {}  # container id -> uses of a mount made for a stopped one

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
        """Unmounts (idempotent, accepts "never mounted"); may take long: call it in a thread."""
        while mounts.unmount(self._paths.rootfs(container_id)):
            pass

    def remove(self, container_id: str) -> None:
        """Removes everything of it on disk (idempotent); call it in a thread.

        Raises: OSError.
        """
        self.unmount(container_id)
        for directory in (self._paths.home(container_id), self._paths.run(container_id)):
            if directory.exists():
                shutil.rmtree(directory)

    @contextlib.asynccontextmanager
    async def mounted(self, container: Container) -> AsyncIterator[Path]:
        """The file system for a look inside: the live mount, or one made for the time of the use.

        The caller holds the container's lock if it changes anything.
        """
        already = self.is_mounted(container.id) and container.id not in self._guests
        target = self.mount(container)
        if already:
            yield target
            return
        self._guests[container.id] = self._guests.get(container.id, 0) + 1
        try:
            yield target
        finally:
            self._guests[container.id] -= 1
            if not self._guests[container.id]:
                del self._guests[container.id]
                if not container.running:
                    await asyncio.to_thread(self.unmount, container.id)

    def lower(self, container: Container) -> list[Path]:
        """The read-only layers, top first. Raises: DataLoss for a missing one."""
        layers = self._images.layer_directories(container.record.layers)
        return [init_layer(self._paths.data_root), *layers]
