"""What an exit means: record it, tell it, and decide whether the container starts again.

`exited` runs in one step of the loop, before the shim's report is acknowledged: whoever learns of
the exit (a waiter, a client whose stream ends) finds it recorded.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from teu import clock
from teu.container import state
from teu.container.container import Container, Outcome
from teu.container.health import HealthMonitor
from teu.container.plugevents import PlugEvents
from teu.container.removal import Remover
from teu.container.services import Services
from teu.errors import EngineError
from teu.model.container import ContainerRecord, Status
from teu.runtime.orphan import ExitStatus

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 60.0
RESTART = "restart"  # intents of a record
REMOVE = "remove"
REMOVE_VOLUMES = "remove-volumes"
UNPAUSE = "unpause"  # it is paused for the time of a commit
LONG_RUN_S = 10.0  # a run this long resets the delay
log = logging.getLogger(__name__)


def wants_restart(record: ContainerRecord, exit_code: int) -> bool:
    """The restart policy's answer to an exit that nobody asked for."""
    policy = record.host.restart_policy
    match policy.name:
        case "always" | "unless-stopped":
            return True
        case "on-failure":
            limit = policy.maximum_retry_count
            return exit_code != 0 and (not limit or record.restart_count < limit)
    return False


def wants_start_at_boot(record: ContainerRecord) -> bool:
    """Whether a daemon that finds the container not running starts it."""
    match record.host.restart_policy.name:
        case "always":
            return record.status is not Status.CREATED
        case "unless-stopped":
            return record.status is not Status.CREATED and not record.stopped_by_user
        case "on-failure":
            return record.exit_code != 0 and not record.stopped_by_user and record.started_ns > 0
    return False


def restart_delay_s(short_runs: int) -> float:
    """0.1 s, doubled by each further short run, a minute at most."""
    return float(min(FIRST_DELAY_S * 2 ** min(max(short_runs - 1, 0), 12), LONGEST_DELAY_S))


class Exits:
    """`start` is the life cycle's, for restarts (a cycle that the composition root closes)."""

    def __init__(
        self, services: Services, remover: Remover, health: HealthMonitor, plugs: PlugEvents
    ) -> None:
        self._services = services
        self._remover = remover
        self._health = health
        self._plugs = plugs
        self.start: Callable[[Container], Awaitable[None]] = _unset

    def exited(self, container: Container, status: ExitStatus) -> None:
        """Records, tells, and schedules what follows. Never raises for a removed container."""
        record = container.record
        if not state.is_active(record):
            return
        container.shim = None
        with self._services.containers.together():
            again = self._record(container, status)
            self._follow_up(container, again)

    def _record(self, container: Container, status: ExitStatus) -> bool:
        """Stores and tells the exit; whether the container is started again."""
        record = container.record
        record.pid = 0
        record.exit_code = status.exit_code
        record.finished_ns = status.finished_ns
        record.oom_killed = status.oom_killed
        if status.oom_killed:
            self._services.containers.tell(container, "oom")
        again = not container.stopping and wants_restart(record, status.exit_code)
        self._health.suspend(container)
        state.move(record, Status.RESTARTING if again else Status.EXITED)
        if again:
            _count_restart(record)
        self._services.containers.save(container)
        duration_s = max(0, record.finished_ns - record.started_ns) // 1_000_000_000
        self._services.containers.tell(
            container,
            "die",
            exitCode=str(record.exit_code),
            execDuration=str(duration_s),
        )
        self._plugs.ended(container)
        return again

    def _follow_up(self, container: Container, again: bool) -> None:
        outcome = Outcome(container.record.exit_code, container.record.error)
        restarting = container.record.intent == RESTART
        if not again and not restarting and container.record.host.auto_remove:
            self._remover.remove_exited(container)
            container.tell_exit(outcome)
            return
        container.teardown = self._services.tasks.spawn(
            self._remover.tear_down(container), f"teardown {container.id[:12]}"
        )
        container.tell_exit(outcome)
        if again:
            self.schedule_restart(container)

    def schedule_restart(self, container: Container) -> None:
        """Starts it when the delay since its end is over, unless it is stopped before."""
        waited_s = (clock.now_ns() - container.record.finished_ns) / 1e9
        delay_s = max(0.0, restart_delay_s(container.record.short_runs) - max(0.0, waited_s))
        container.restart = self._services.tasks.spawn(
            self._restart(container, delay_s), f"restart {container.id[:12]}"
        )

    async def _restart(self, container: Container, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        async with container.lock:
            container.restart = None
            if container.record.status is not Status.RESTARTING:
                return
            with contextlib.suppress(EngineError):
                await self.start(container)
                return
            self.start_failed(container)

    def start_failed(self, container: Container) -> None:
        """A start by the engine itself that fails is tried again, like a run that ends at once.

        Caller holds the container's lock.
        """
        record = container.record
        log.warning("container %s: start failed: %s", container.id[:12], record.error)
        if record.status is Status.EXITED and wants_restart(record, record.exit_code or 1):
            record.finished_ns = record.started_ns = clock.now_ns()
            state.move(record, Status.RESTARTING)
            _count_restart(record)
            self._services.containers.save(container)
            self.schedule_restart(container)


def _count_restart(record: ContainerRecord) -> None:
    record.restart_count += 1
    ran_s = (record.finished_ns - record.started_ns) / 1e9
    record.short_runs = 1 if ran_s >= LONG_RUN_S else record.short_runs + 1


async def _unset(container: Container) -> None:
    raise AssertionError(f"no start for {container.id}")
