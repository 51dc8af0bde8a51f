"""Removing containers, and freeing what one run of a container held.

The order: the row says `removing` and gives the name up (one transaction) -> the caller is
answered -> mounts, network, cgroup, files, anonymous volumes go -> the row goes. A crash in
between leaves the row; the next start replays the rest, every step being idempotent.
"""

import asyncio
import contextlib
import errno
import logging
import os

from teu.container import state
from teu.container.container import Container, Outcome
from teu.container.mounting import Mounter
from teu.container.rootfs import UNMOUNT_TRIES, RootFilesystems
from teu.container.services import Services
from teu.errors import Conflict, EngineError, NotFound
from teu.model.container import Status

log = logging.getLogger(__name__)


class RemovalInProgress(Conflict):
    def __init__(self, ref: str) -> None:
        super().__init__(f"removal of container {ref} is already in progress")


class Remover:
    """Every method may be repeated after a crash or failure."""

    def __init__(self, services: Services, rootfs: RootFilesystems, mounter: Mounter) -> None:
        self._services = services
        self._rootfs = rootfs
        self._mounter = mounter

    def remove_exited(self, container: Container, *, volumes: bool = True) -> None:
        """Frees name and id now; the rest goes in the background. The container does not run."""
        if container.restart is not None:
            container.restart.cancel()
            container.restart = None
        previous = container.teardown
        state.move(container.record, Status.REMOVING)
        with self._services.containers.together():
            self._services.containers.begin_removal(container)
            going = self._begin_volumes(container) if volumes else []
            self._services.containers.tell(container, "destroy")
        for client in container.take_pending():
            os.close(client.fd)
        container.tell_removal(Outcome(container.record.exit_code))
        container.teardown = self._services.tasks.spawn(
            self._finish(container, previous, going), f"remove {container.id[:12]}"
        )

    async def finish_interrupted(self, container: Container) -> None:
        """Replays a removal that a crash cut short."""
        await self._finish(container, None, [])

    async def undo_creation(self, container: Container) -> None:
        """Takes away a container that a crash kept from being made, and its anonymous volumes."""
        await self._finish(container, None, self._begin_volumes(container))

    async def _finish(
        self, container: Container, previous: asyncio.Task[None] | None, volumes: list[str]
    ) -> None:
        if previous is not None:
            await asyncio.wait([previous])
        await self.tear_down(container)
        try:
            await self._remove_files(container)
        except (OSError, EngineError) as error:
            log.error(
                "container %s: its files cannot be removed (%s); tried again at the next start",
                container.id[:12],
                error,
            )
            return
        for name in volumes:
            try:
                await self._services.volumes.finish_removal(name)
            except EngineError as error:  # it stays, or goes at the next start
                log.warning("container %s: %s", container.id[:12], error.message)
        self._services.containers.end_removal(container)

    async def _remove_files(self, container: Container) -> None:
        """EBUSY passes: the kernel may hold a mount for a moment after its last process."""
        for attempt in range(UNMOUNT_TRIES):
            try:
                await asyncio.to_thread(self._rootfs.remove, container.id)
            except OSError as error:
                if error.errno != errno.EBUSY or attempt == UNMOUNT_TRIES - 1:
                    raise
                await asyncio.sleep(0.02 * (attempt + 1))
            else:
                return

    def _begin_volumes(self, container: Container) -> list[str]:
        """Frees the names of the container's anonymous volumes now; their data goes later."""
        going: list[str] = []
        for point in container.record.mounts:
            if point.type == "volume" and point.anonymous:
                with contextlib.suppress(Conflict, NotFound):  # another container shares it
                    self._services.volumes.begin_removal(point.name)
                    going.append(point.name)
        return going

    async def tear_down(self, container: Container) -> None:
        """Frees what a run held: cgroup, network, volumes, mount. Goes on after failures."""
        services = self._services
        record = container.record
        steps = (
            services.runtime.delete(record),
            services.networks.release(record.id, record.sandbox),
            self._mounter.release(record),
            self._unmount(record.id),
        )
        for step in steps:
            try:
                await step
            except (EngineError, OSError) as error:
                log.warning("container %s: teardown: %s", record.id[:12], error)

    async def _unmount(self, container_id: str) -> None:
        for attempt in range(UNMOUNT_TRIES):
            try:
                return await asyncio.to_thread(self._rootfs.unmount, container_id)
            except OSError as error:
                if error.errno != errno.EBUSY or attempt == UNMOUNT_TRIES - 1:
                    raise
                await asyncio.sleep(0.02 * (attempt + 1))
