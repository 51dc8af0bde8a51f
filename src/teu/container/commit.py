"""A container's file system as an image, or as a tar stream."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from pathlib import Path

from teu.container.container import Container
from teu.container.lifecycle import Lifecycle
from teu.container.rootfs import RootFilesystems
from teu.container.services import Services
from teu.errors import Conflict, SystemFailure
from teu.model.config import ContainerConfig
from teu.model.container import Status
from teu.model.image import Image
from teu.sys.bytepipe import FromThread
from teu.sys.ownthread import run_apart
from teu.sys.pack import pack_tree

log = logging.getLogger(__name__)


class Committer:
    def __init__(self, services: Services, rootfs: RootFilesystems, lifecycle: Lifecycle) -> None:
        self._services = services
        self._rootfs = rootfs
        self._lifecycle = lifecycle

    async def commit(
        self,
        container: Container,
        *,
        name: str,
        author: str,
        comment: str,
        changes: list[str],
        override: ContainerConfig,
        pause: bool,
    ) -> Image:
        """The rw layer on top of the container's image. Paused meanwhile unless told otherwise.

        Raises: InvalidParameter (name, changes), SystemFailure.
        """
        paused = pause and await self._pause(container)
        try:
            image = await self._services.images.commit(
                self._services.paths.home(container.id) / "upper",
                parent_id=container.record.image_id,
                config=merged(container.record.config, override),
                container_id=container.id,
                name=name,
                author=author,
                comment=comment,
                changes=changes,
            )
            facts = {"comment": comment, "imageID": image.id, "imageRef": ""}
            if image.repo_tags:
                facts["imageRef"] = image.repo_tags[0]
            self._services.containers.tell(container, "commit", lasting=True, **facts)
        finally:
            if paused:
                await self._lifecycle.end_pause_for_now(container)
        return image

    async def _pause(self, container: Container) -> bool:
        """Whether it is paused by this. One that ends meanwhile holds still by itself."""
        if container.record.status is not Status.RUNNING:
            return False
        try:
            await self._lifecycle.pause_for_now(container)
        except (Conflict, SystemFailure) as error:
            log.info("committing %s without a pause: %s", container.id[:12], error.message)
            return False
        return True

    async def export(self, container: Container) -> AsyncGenerator[bytes, None]:
        """The whole file system as a tar stream (mount points appear empty)."""
        self._services.containers.tell(container, "export")
        async with (
            self._rootfs.mounted(container) as rootfs,
            contextlib.aclosing(packed_tree(rootfs)) as pieces,
        ):
            async for piece in pieces:
                yield piece


async def packed_tree(root: Path) -> AsyncGenerator[bytes, None]:
    """A directory's content as a tar stream, made in a thread of its own."""
    with FromThread() as pipe:
        work = run_apart(lambda: pipe.drain_from(lambda: pack_tree(root)), "export")
        try:
            async for piece in pipe:
                yield piece
        finally:
            pipe.close()
            await asyncio.wait({work})


def merged(config: ContainerConfig, override: ContainerConfig) -> ContainerConfig:
    """What the request's body says, over what the container has."""
    from msgspec.structs import replace

    changed = {
        name: value
        for name in ContainerConfig.__struct_fields__
        if (value := getattr(override, name)) not in (None, "", False)
    }
    return replace(config, **changed)
