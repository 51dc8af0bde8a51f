"""start, stop, kill, restart, pause, unpause, rename, remove.

Each takes the container's lock, looks at the record, acts, saves, tells. The lock is not held
while waiting for an exit that a signal will cause: exits are recorded without it.
"""

import asyncio
import contextlib
import logging
import signal
from functools import partial

from teu.container import state
from teu.container.container import Container, Outcome
from teu.container.exits import REMOVE, REMOVE_VOLUMES, RESTART, UNPAUSE, Exits
from teu.container.health import HealthMonitor
from teu.container.mounts import make_sources
from teu.container.plugevents import PlugEvents
from teu.container.removal import RemovalInProgress, Remover
from teu.container.services import Services
from teu.container.setup import Setup
from teu.container.signals import parse_signal
from teu.errors import (
    Conflict,
    DeadlineExceeded,
    EngineError,
    NotModified,
    SystemFailure,
)
from teu.model.container import Status
from teu.runtime.failures import StartFailed
from teu.runtime.shim import Shim
from teu.sys import pidfd
from teu.tx import Transaction

ENDING_LIMIT_S = 2.0  # from a process that is gone to its recorded exit
KILL_LIMIT_S = 30.0  # from SIGKILL to the recorded exit
log = logging.getLogger(__name__)


class Lifecycle:
    """The changes of one container's status."""

    def __init__(
        self,
        services: Services,
        setup: Setup,
        exits: Exits,
        remover: Remover,
        health: HealthMonitor,
        plugs: PlugEvents,
    ) -> None:
        self._services = services
        self._setup = setup
        self._exits = exits
        self._remover = remover
        self._health = health
        self._plugs = plugs
        exits.start = self.start_locked
        health.act = self.act_on_failure

    def close(self) -> None:
        """The daemon stops: restarts that are waited for are the next daemon's."""
        for container in self._services.containers:
            self._cancel_restart(container)

    # --- start ---------------------------------------------------------------------------

    async def start(self, container: Container) -> None:
        """Raises: NotModified when it runs; Conflict; StartFailed with the runtime's reason."""
        async with container.lock:
            record = container.record
            if record.status is Status.PAUSED:
                raise Conflict("cannot start a paused container, try unpause instead")
            if container.running:
                raise NotModified(f"container {container.id} is already running")
            self._refuse_if_going(container)
            self._cancel_restart(container)
            record.stopped_by_user = False
            record.restart_count = record.short_runs = 0
            await self.start_locked(container)

    async def start_locked(self, container: Container) -> None:
        """Caller holds the lock and has checked the status. On failure all is as before.

        Crash: the record says `starting`; recovery adopts the shim if there is one, else undoes.
        """
        record = container.record
        previous = Status.CREATED if record.status is Status.CREATED else Status.EXITED
        if container.teardown is not None:
            await asyncio.wait([container.teardown])
            container.teardown = None
        self._services.runtime.foresee_start()
        container.stopping = False
        state.move(record, Status.STARTING)
        record.error = ""
        record.oom_killed = False
        record.boot_id = self._services.defaults.boot_id
        self._services.containers.save(container)
        try:
            make_sources(record.mounts)
            async with Transaction("start", container.id[:12]) as tx:
                launch = await self._setup.prepare(container, tx)
                self._services.containers.save(container)  # what recovery needs to adopt it
                shim = await self._services.shims.launch(
                    launch,
                    container.take_pending(),
                    on_exit=partial(self._exits.exited, container),
                    on_detached=partial(self._services.containers.tell_detached, container),
                )
                tx.commit()
        except BaseException as error:
            self._start_failed(container, previous, error)
            raise
        self._setup.finish(container)
        self._started(container, shim)

    def _started(self, container: Container, shim: Shim) -> None:
        record = container.record
        state.move(record, Status.RUNNING)
        record.pid, record.pid_started = shim.pid, shim.pid_started
        record.started_ns = shim.started_ns
        record.finished_ns = 0
        record.exit_code = 0
        container.shim = shim
        self._health.begin(container)
        containers = self._services.containers
        with containers.together():
            containers.save(container)
            self._plugs.started(container)
            containers.tell(container, "start")

    def _start_failed(self, container: Container, previous: Status, error: BaseException) -> None:
        record = container.record
        state.move(record, previous)
        record.error = error.message if isinstance(error, EngineError) else str(error)
        record.exit_code = error.exit_code if isinstance(error, StartFailed) else 128
        record.pid = 0
        self._services.containers.save(container)
        self._setup.close_clients(container)
        if record.host.auto_remove:
            self._remover.remove_exited(container)

    @staticmethod
    def _refuse_if_going(container: Container) -> None:
        record = container.record
        going = record.intent in (REMOVE, REMOVE_VOLUMES)
        if going or record.status in (Status.REMOVING, Status.DEAD):
            raise Conflict("container is marked for removal and cannot be started")

    @staticmethod
    def _cancel_restart(container: Container) -> None:
        if container.restart is not None:
            container.restart.cancel()
            container.restart = None

    # --- stop ----------------------------------------------------------------------------

    async def stop(
        self, container: Container, *, timeout_s: int | None = None, signal_name: str = ""
    ) -> None:
        """The stop signal, then KILL after the timeout (-1: never). Raises: NotModified."""
        record = container.record
        if record.status is Status.RESTARTING:
            await self._stop_restarting(container)
            return
        async with container.lock:  # a start under way comes to its end first
            pass
        if not container.running:
            raise NotModified(f"container {container.id} is not running")
        number = parse_signal(signal_name or record.config.stop_signal or "SIGTERM")
        if timeout_s is None:
            timeout_s = record.config.stop_timeout
        if timeout_s is None:
            timeout_s = self._services.defaults.stop_timeout_s
        self._mark_stopped(container)
        exited = container.next_exit()
        self._signal(container, number)
        await self._wake_paused(container)
        try:
            async with asyncio.timeout(timeout_s if timeout_s >= 0 else None):
                await asyncio.shield(exited)
        except TimeoutError:
            log.info(
                "container %s did not end within %d s of signal %d; killing it",
                container.id[:12], timeout_s, number,
            )  # fmt: skip
            await self._kill_and_wait(container, exited)
        self._services.containers.tell(container, "stop")

    async def _stop_restarting(self, container: Container) -> None:
        self._mark_stopped(container)
        self._cancel_restart(container)
        async with container.lock:
            if container.record.status is Status.RESTARTING:
                state.move(container.record, Status.EXITED)
                self._services.containers.save(container)
                self._services.containers.tell(container, "stop")
                container.tell_exit(Outcome(container.record.exit_code))

    def _mark_stopped(self, container: Container) -> None:
        """Saved before the signal: after a crash the restart policy must know."""
        container.stopping = True
        container.record.stopped_by_user = True
        self._services.containers.save(container)

    async def _kill_and_wait(self, container: Container, exited: asyncio.Future[Outcome]) -> None:
        self._signal(container, signal.SIGKILL)
        await self._wake_paused(container)
        try:
            async with asyncio.timeout(KILL_LIMIT_S):
                await asyncio.shield(exited)
        except TimeoutError:
            raise DeadlineExceeded(
                f"container {container.id} did not end within {KILL_LIMIT_S:.0f} s of SIGKILL: a "
                "process of it is stuck in the kernel (a dead network file system is the usual "
                "cause; see `ps` for state D)"
            ) from None

    async def _wake_paused(self, container: Container) -> None:
        """A frozen process takes no signal."""
        if container.record.status is Status.PAUSED:
            await self._services.runtime.resume(container.record)
            if container.record.status is Status.PAUSED:
                state.move(container.record, Status.RUNNING)
                self._services.containers.save(container)

    def _signal(self, container: Container, number: int) -> None:
        record = container.record
        if record.pid:
            pidfd.send_signal(record.pid, record.pid_started, number)
            self._services.containers.tell(container, "kill", signal=str(number))

    async def kill(self, container: Container, signal_name: str = "") -> None:
        """Sends a signal (KILL by default). After KILL it waits for the exit, as Docker does.

        Raises: Conflict when it does not run, InvalidParameter, DeadlineExceeded.
        """
        number = parse_signal(signal_name or "SIGKILL")
        if container.record.status is Status.RESTARTING:
            await self._stop_restarting(container)
            return
        if not container.running:
            raise Conflict(f"container {container.id} is not running")
        stop_signal = parse_signal(container.record.config.stop_signal or "SIGTERM")
        if number in (signal.SIGKILL, stop_signal):
            self._mark_stopped(container)
        if number == signal.SIGKILL:
            await self._kill_and_wait(container, container.next_exit())
        else:
            self._signal(container, number)

    async def restart(
        self, container: Container, *, timeout_s: int | None = None, signal_name: str = ""
    ) -> None:
        """stop (if it runs) and start; a container with `--rm` is not removed in between."""
        self._refuse_if_going(container)
        self._intend(container, RESTART)
        try:
            if state.is_active(container.record):
                with contextlib.suppress(NotModified):  # it ended by itself meanwhile
                    await self.stop(container, timeout_s=timeout_s, signal_name=signal_name)
            await self.start(container)
        finally:
            if container.record.intent == RESTART:  # a removal may have come meanwhile
                self._intend(container, "")
        self._services.containers.tell(container, "restart")

    async def act_on_failure(self, container: Container, action: str) -> None:
        """What `health-on-failure` asks for. After `kill` the restart policy decides; a container
        that was stopped stays so."""
        with contextlib.suppress(NotModified, Conflict):  # it ended, or is being removed, meanwhile
            match action:
                case "kill":
                    self._signal(container, signal.SIGKILL)
                case "stop":
                    await self.stop(container)
                case "restart":
                    await self.restart(container)

    # --- pause ---------------------------------------------------------------------------

    async def pause(self, container: Container) -> None:
        async with container.lock:
            self._must_run(container)
            if container.record.status is Status.PAUSED:
                raise Conflict(f"container {container.id} is already paused")
            await self._services.runtime.pause(container.record)
            self._health.suspend(container)
            self._moved(container, Status.PAUSED, "pause")

    async def pause_for_now(self, container: Container) -> None:
        """`pause` for the time of another change: a crash in between ends it."""
        self._intend(container, UNPAUSE)
        try:
            await self.pause(container)
        except BaseException:
            self._intend(container, "")
            raise

    async def end_pause_for_now(self, container: Container) -> None:
        """Raises: SystemFailure when it stays paused."""
        try:
            if container.record.status is Status.PAUSED:
                await self.unpause(container)
        except (Conflict, SystemFailure):
            if not await self._ends(container):
                raise
        if container.record.intent == UNPAUSE:
            self._intend(container, "")

    @staticmethod
    async def _ends(container: Container) -> bool:
        """Whether it has ended, and its shim says so within a moment."""
        if container.running:
            await asyncio.wait([container.next_exit()], timeout=ENDING_LIMIT_S)
        return not container.running

    async def unpause(self, container: Container) -> None:
        async with container.lock:
            if container.record.status is not Status.PAUSED:
                raise Conflict(f"container {container.id} is not paused")
            await self._services.runtime.resume(container.record)
            self._moved(container, Status.RUNNING, "unpause")
            self._health.resume(container)

    def _moved(self, container: Container, status: Status, action: str) -> None:
        if not container.running:  # it ended meanwhile: that is recorded already
            return
        state.move(container.record, status)
        with self._services.containers.together():
            self._services.containers.save(container)
            self._services.containers.tell(container, action)

    @staticmethod
    def _must_run(container: Container) -> None:
        if container.record.status is Status.RESTARTING:
            raise Conflict(
                f"Container {container.id} is restarting, wait until the container is running"
            )
        if not container.running:
            raise Conflict(f"container {container.id} is not running")

    # --- rename --------------------------------------------------------------------------

    def rename(self, container: Container, new_name: str) -> None:
        """Raises: InvalidParameter, NameInUse."""
        old = container.name
        self._services.containers.rename(container, new_name)
        for settings in container.record.networks.values():
            if settings.dns_names:
                names = (container.name if one == old else one for one in settings.dns_names)
                settings.dns_names = list(dict.fromkeys(names))
        self._services.containers.save(container)
        self._services.networks.rename(container.id, container.name)

    # --- remove --------------------------------------------------------------------------

    async def remove(
        self, container: Container, *, force: bool = False, volumes: bool = False
    ) -> None:
        """Frees name and id; files go after the answer.

        Raises: Conflict (it runs; removal under way), DeadlineExceeded (will not die).
        """
        record = container.record
        if _is_going(container):
            raise RemovalInProgress(container.id)
        if state.is_active(record) and not force:
            self._refuse_removal(container)
        while not await self._remove_ended(container, volumes or record.host.auto_remove):
            if not force:
                self._refuse_removal(container)
            self._intend(container, REMOVE_VOLUMES if volumes else REMOVE)
            try:
                await self._end_for_removal(container)
            except BaseException:
                self._intend(container, "")
                raise

    async def _remove_ended(self, container: Container, volumes: bool) -> bool:
        """False if it runs, perhaps because a start was under way; no other begins after an intent
        to remove it."""
        if state.is_active(container.record):
            return False
        async with container.lock:
            if _is_going(container):  # `--rm`, or another client was faster
                return True
            if state.is_active(container.record):
                return False
            self._remover.remove_exited(container, volumes=volumes)
        return True

    def _intend(self, container: Container, intent: str) -> None:
        """Saved before the first step, so that recovery brings it to its end after a crash."""
        container.record.intent = intent
        self._services.containers.save(container)

    async def _end_for_removal(self, container: Container) -> None:
        self._mark_stopped(container)
        if container.record.status is Status.RESTARTING:
            await self._stop_restarting(container)
            return
        async with container.lock:  # a start under way comes to its end first
            if not container.running:
                return
            await self._kill_and_wait(container, container.next_exit())

    @staticmethod
    def _refuse_removal(container: Container) -> None:
        what = "paused" if container.record.status is Status.PAUSED else "running"
        if container.record.status is Status.RESTARTING:
            what = "restarting"
        hint = "unpause and then stop" if what == "paused" else "stop"
        raise Conflict(
            f'cannot remove container "{container.name}": container is {what}: {hint} the '
            "container before removing or force remove"
        )


def _is_going(container: Container) -> bool:
    return container.record.status is Status.REMOVING
