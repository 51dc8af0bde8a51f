"""A container's file system as an image, or as a tar stream."""

import contextlib
from collections.abc import AsyncIterator

from teu.container.container import Container
from teu.container.lifecycle import Lifecycle
from teu.container.rootfs import RootFilesystems
from teu.container.services import Services
from teu.model.config import ContainerConfig
from teu.model.container import Status
from teu.model.image import Image


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
        async with contextlib.AsyncExitStack() as stack:
            if pause and container.record.status is Status.RUNNING:
                await stack.enter_async_context(self._lifecycle.paused(container))
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
        self._services.containers.tell(container, "commit", imageID=image.id, imageRef=name)
        return image

    async def export(self, container: Container) -> AsyncIterator[bytes]:
        """The whole file system as a tar stream (mount points appear empty)."""
        async with self._rootfs.mounted(container) as rootfs:
            async for chunk in self._services.images.archive_tree(rootfs):
                yield chunk
        self._services.containers.tell(container, "export")


def merged(config: ContainerConfig, override: ContainerConfig) -> ContainerConfig:
    """What the request's body says, over what the container has."""
    from msgspec.structs import replace

    changed = {
        name: value
        for name in ContainerConfig.__struct_fields__
        if (value := getattr(override, name)) not in (None, "", False)
    }
    return replace(config, **changed)
