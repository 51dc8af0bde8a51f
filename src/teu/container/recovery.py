"""What a new daemon makes of what the last one left, however it ended.

| record says | reality | becomes |
| --- | --- | --- |
| creating | whatever | nothing: undone |
| removing | whatever | nothing: the removal is finished |
| starting, running, paused | shim alive | running (paused) again, adopted |
| | exit recorded | what the exit means (restart policy included) |
| | neither, or another boot | exited, 255; a start that never happened is undone |
| restarting | | the restart is scheduled again |

Nothing is started before everything is adopted, so addresses and ports of living containers are
taken first.
"""

import asyncio
import logging
from functools import partial

from teu import clock
from teu.container import state
from teu.container.autostart import AutoStart
from teu.container.container import Container
from teu.container.exec import Execs
from teu.container.exits import REMOVE, REMOVE_VOLUMES, RESTART, UNPAUSE, Exits, wants_start_at_boot
from teu.container.health import HealthMonitor
from teu.container.lifecycle import Lifecycle
from teu.container.mounting import Mounter
from teu.container.removal import Remover
from teu.container.rootfs import RootFilesystems
from teu.container.services import Services
from teu.errors import EngineError
from teu.model.container import ContainerRecord, Status
from teu.network.service import Live
from teu.runtime.orphan import ExitStatus
from teu.runtime.shim import Shim

LOST_EXIT_CODE = 255
ADOPT_LIMIT_S = 20.0
_HAD_PROCESS = frozenset({Status.STARTING, Status.RUNNING, Status.PAUSED})
log = logging.getLogger(__name__)


class Recovery:
    """Runs once, before the daemon listens."""

    def __init__(
        self,
        services: Services,
        rootfs: RootFilesystems,
        lifecycle: Lifecycle,
        exits: Exits,
        remover: Remover,
        execs: Execs,
        health: HealthMonitor,
        mounter: Mounter,
    ) -> None:
        self._services = services
        self._rootfs = rootfs
        self._lifecycle = lifecycle
        self._exits = exits
        self._remover = remover
        self._execs = execs
        self._health = health
        self._mounter = mounter

    async def run(self) -> None:
        """Reconciles every record with reality. One broken container never stops the others."""
        containers = self._services.containers
        kept: list[Container] = []
        for record in containers.load():
            if record.status in (Status.CREATING, Status.REMOVING):
                await self._finish_off(record)
            else:
                kept.append(containers.adopt(record))
        found = await asyncio.gather(*(self._look(c) for c in kept))
        adopted = [c for c, what in zip(kept, found, strict=True) if isinstance(what, Shim)]
        await self._services.networks.restore(
            [Live(c.id, c.name, self._services.etc.servers(c.record)) for c in adopted]
        )
        await self._services.networks.reap({c.id for c in adopted})
        for container, what in zip(kept, found, strict=True):
            self._settle(container, what)
        await asyncio.gather(*(self._fulfil(c) for c in kept if c.record.intent))
        await self._services.volumes.unmount_unused()
        if adopted:
            log.info("adopted %d running containers", len(adopted))

    async def _fulfil(self, container: Container) -> None:
        """Brings a change of several steps to its end."""
        intent = container.record.intent
        log.info("container %s: finishing its interrupted %s", container.id[:12], intent)
        try:
            if intent in (REMOVE, REMOVE_VOLUMES):
                volumes = intent == REMOVE_VOLUMES
                await self._lifecycle.remove(container, force=True, volumes=volumes)
            elif intent == UNPAUSE:
                container.record.intent = ""
                if container.record.status is Status.PAUSED:
                    await self._lifecycle.unpause(container)
                self._services.containers.save(container)
            elif intent == RESTART:
                container.record.intent = ""
                if not container.running:
                    await self._lifecycle.start(container)
        except EngineError as error:
            log.error("container %s: %s: %s", container.id[:12], intent, error)

    def start_wanted(self) -> None:
        """Starts, in the background, what its restart policy wants running."""
        wanted = [
            container
            for container in self._services.containers
            if container.record.status is Status.EXITED and wants_start_at_boot(container.record)
        ]
        if wanted:
            starter = AutoStart(self._lifecycle, self._exits, wanted)
            self._services.tasks.start(starter.run(), "autostart")

    async def _finish_off(self, record: ContainerRecord) -> None:
        container = Container(record)
        log.info("container %s: finishing its interrupted %s", record.id[:12], record.status)
        if record.status is Status.CREATING:  # nobody was told of it, nor of its volumes
            record.status = Status.REMOVING
            await self._remover.undo_creation(container)
        else:
            await self._remover.finish_interrupted(container)

    async def _look(self, container: Container) -> Shim | ExitStatus | None:
        record = container.record
        if record.status not in _HAD_PROCESS or record.boot_id != self._services.defaults.boot_id:
            return None
        try:
            async with asyncio.timeout(ADOPT_LIMIT_S):
                found = await self._services.shims.adopt(
                    self._services.paths.run(record.id),
                    on_exit=partial(self._exits.exited, container),
                    on_detached=partial(self._services.containers.tell_detached, container),
                )
        except (EngineError, TimeoutError) as error:
            log.error("container %s: cannot be adopted: %s", record.id[:12], error)
            return None
        if isinstance(found, Shim):
            self._execs.restore(container, found)
        return found

    def _settle(self, container: Container, found: Shim | ExitStatus | None) -> None:
        record = container.record
        if isinstance(found, Shim):
            self._adopt(container, found)
        elif record.status in _HAD_PROCESS:
            self._ended(container, found)
        else:
            if record.status is Status.RESTARTING:
                self._exits.schedule_restart(container)
            if self._rootfs.is_mounted(record.id):
                self._tear_down(container)

    def _adopt(self, container: Container, shim: Shim) -> None:
        record = container.record
        if record.status is Status.STARTING:
            state.move(record, Status.RUNNING)
            self._services.containers.tell(container, "start")
        self._agree_on_pause(container)
        record.pid, record.pid_started = shim.pid, shim.pid_started
        record.started_ns = shim.started_ns
        container.shim = shim
        container.stopping = record.stopped_by_user
        self._services.containers.save(container)
        self._mounter.adopt(record)
        if record.status is Status.RUNNING:
            self._health.resume(container)

    def _agree_on_pause(self, container: Container) -> None:
        """The last daemon may have died between freezing (or thawing) and saying so."""
        record = container.record
        frozen = self._services.runtime.is_paused(record)
        if frozen and record.status is Status.RUNNING:
            state.move(record, Status.PAUSED)
            self._services.containers.tell(container, "pause")
        elif frozen is False and record.status is Status.PAUSED:
            state.move(record, Status.RUNNING)
            self._services.containers.tell(container, "unpause")

    def _ended(self, container: Container, status: ExitStatus | None) -> None:
        record = container.record
        if status is None and record.status is Status.STARTING:
            state.move(record, Status.EXITED if record.started_ns else Status.CREATED)
            record.pid = 0
            self._services.containers.save(container)
            self._tear_down(container)
            return
        if status is None:
            record.error = "the container ended while no daemon or shim was there to see it"
            status = ExitStatus(LOST_EXIT_CODE, clock.now_ns(), False)
            container.stopping = True  # `start_wanted` decides, not the restart delay
        else:
            container.stopping = record.stopped_by_user
        self._exits.exited(container, status)

    def _tear_down(self, container: Container) -> None:
        container.teardown = self._services.tasks.spawn(
            self._remover.tear_down(container), f"teardown {container.id[:12]}"
        )
