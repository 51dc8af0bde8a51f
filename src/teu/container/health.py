"""Watches the health of running containers: runs their probes, keeps the results, acts on them.

A probe is an exec in the container's shim, under a name that the next daemon knows it by: what a
killed daemon left running is ended, with all that it started. Its process description is written
once per run of the container. Results are stored when they change something, else every
`SAVE_INTERVAL_S`, so that a healthy machine does not keep its disk busy; the events of probes are
told, but not kept in the history, which they would flood.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from teu import clock, ids
from teu.container import healthcheck
from teu.container.container import Container
from teu.container.exec import shown_line
from teu.container.healthcheck import HealthCheck
from teu.container.probeoutput import ProbeOutput
from teu.container.services import Services
from teu.errors import EngineError
from teu.model.container import Health, HealthResult, Status
from teu.runtime.orphan import ExitStatus
from teu.runtime.processes import ExecRequest
from teu.runtime.shim import ExecProcess, ExecSpec, Shim
from teu.sys import pidfd
from teu.tasks import TaskOwner

PARALLEL_STARTS = 32
SAVE_INTERVAL_S = 10.0
START_LIMIT_S = 30.0
OUTPUT_LIMIT_S = 1.0
KILL_LIMIT_S = 10.0
_PROBE = "probe-"
log = logging.getLogger(__name__)


class HealthMonitor:
    """`act` is the life cycle's (a cycle that the composition root closes)."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tasks = TaskOwner()
        self._starts = asyncio.Semaphore(PARALLEL_STARTS)
        self.act: Callable[[Container, str], Coroutine[Any, Any, None]] = _unset

    def begin(self, container: Container) -> None:
        """The container has started: its health is unknown until the first probe."""
        if healthcheck.resolve(container.record) is None:
            container.record.health = None
            return
        before = container.record.health
        log_before = before.log if before else []
        container.record.health = Health(status=healthcheck.STARTING, log=log_before)
        self.resume(container)

    def resume(self, container: Container) -> None:
        """Goes on watching: after a start, a pause, or in a new daemon."""
        check = healthcheck.resolve(container.record)
        if check is None or container.record.health is None or container.shim is None:
            return
        for process in list(container.shim.execs.values()):
            if process.id.startswith(_PROBE) and not process.finished.done():
                self._kill(container, process.pid)
        watch = _Watch(self, container, container.shim, check)
        container.health_watch = self._tasks.spawn(watch.run(), f"health {container.id[:12]}")

    def suspend(self, container: Container) -> None:
        """The container was paused or has ended: no probe, and as Docker says, not healthy."""
        if container.health_watch is not None:
            container.health_watch.cancel()
            container.health_watch = None
        if container.record.health is not None:
            container.record.health.status = healthcheck.UNHEALTHY

    async def close(self) -> None:
        """The daemon stops: saves what is known, ends the probes under way."""
        for container in self._services.containers:
            if container.health_watch is not None:
                container.health_watch.cancel()
                self._services.containers.save(container)
        await self._tasks.drain(KILL_LIMIT_S)

    # --- for a watch -----------------------------------------------------------------------

    async def probe(
        self, container: Container, shim: Shim, check: HealthCheck, process: Path
    ) -> HealthResult:
        """One run of the check. Raises: EngineError. Cancel: the probe's processes are killed."""
        exec_id = ids.new_id()
        start_ns = clock.now_ns()
        line = shown_line(check.command)
        self._tell(container, exec_id, f"exec_create: {line}")
        output = ProbeOutput(healthcheck.OUTPUT_BYTES)
        try:
            spec = ExecSpec(
                id=_PROBE + exec_id,
                process=process,
                tty=False,
                open_stdin=False,
                timeout_s=START_LIMIT_S,
            )
            self._tell(container, exec_id, f"exec_start: {line}")
            running = await self._start(container, shim, spec, output)
            code = await self._wait(container, running, check.timeout_s)
            await output.ended(OUTPUT_LIMIT_S)
        finally:
            output.close()
        text = output.text()
        if code is None:
            code = -1
            late = f"Health check exceeded timeout ({check.timeout_text})"
            text = f"{late}: {text}" if text else late
        return HealthResult(start_ns=start_ns, end_ns=clock.now_ns(), exit_code=code, output=text)

    async def _start(
        self, container: Container, shim: Shim, spec: ExecSpec, output: ProbeOutput
    ) -> ExecProcess:
        """Cancel: the shim starts it nevertheless, so it is killed once it runs."""

        exec_id = spec.id.removeprefix(_PROBE)

        async def start() -> ExecProcess:
            async with self._starts:
                on_exit = partial(self._died, container, exec_id)
                return await shim.exec(spec, [output.client()], on_exit=on_exit)

        starting = self._tasks.spawn(start(), f"probe of {container.id[:12]}")
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(lambda task: self._drop(container, task))
            raise

    def _drop(self, container: Container, started: "asyncio.Task[ExecProcess]") -> None:
        if not started.cancelled() and started.exception() is None:
            self._kill(container, started.result().pid)

    async def _wait(
        self, container: Container, running: ExecProcess, timeout_s: float
    ) -> int | None:
        """The exit code; None after the time limit, when nothing of the probe is left."""
        try:
            async with asyncio.timeout(timeout_s):
                return await running.wait()
        except TimeoutError:
            self._kill(container, running.pid)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KILL_LIMIT_S):
                    await running.wait()
            return None
        except asyncio.CancelledError:
            self._kill(container, running.pid)
            raise

    def _kill(self, container: Container, pid: int) -> None:
        """The probe and all that it started: the runtime gives each exec a session."""
        if pid:
            pidfd.kill_session(pid, lambda: self._services.runtime.processes(container.record))

    def _died(self, container: Container, exec_id: str, status: ExitStatus) -> None:
        self._tell(container, exec_id, "exec_die", exitCode=str(status.exit_code))

    def _tell(self, container: Container, exec_id: str, action: str, **attributes: str) -> None:
        self._services.containers.tell(
            container, action, lasting=False, execID=exec_id, **attributes
        )

    def description(self, container: Container, check: HealthCheck) -> Path:
        """Writes the probe's process description. Raises: InvalidParameter (user), OSError."""
        services = self._services
        record = container.record
        process = services.runtime.exec_process(
            record, ExecRequest(cmd=check.command), services.paths.rootfs(record.id)
        )
        path = services.paths.run(record.id) / "health.json"
        path.write_bytes(msgspec.json.encode(process))
        return path

    def take(self, container: Container, check: HealthCheck, result: HealthResult) -> bool:
        """Keeps a result and acts on it; whether it was stored."""
        record = container.record
        before = record.health
        if before is None or record.status is not Status.RUNNING:
            return False
        after = record.health = healthcheck.judge(before, check, result, record.started_ns)
        changed = after.status != before.status
        counts = after.failing_streak != before.failing_streak
        if not changed and (not counts or after.failing_streak > check.retries):
            return False
        with self._services.containers.together():
            self._services.containers.save(container)
            if changed:
                self._services.containers.tell(container, f"health_status: {after.status}")
        if changed and after.status == healthcheck.UNHEALTHY and check.on_failure != "none":
            log.info("container %s is unhealthy: %s", container.id[:12], check.on_failure)
            self._services.tasks.start(
                self.act(container, check.on_failure), f"unhealthy {container.id[:12]}"
            )
        return True

    def save(self, container: Container) -> None:
        self._services.containers.save(container)


class _Watch:
    """One container's probes, one after the other, from a start (or adoption) to its end."""

    def __init__(
        self, monitor: HealthMonitor, container: Container, shim: Shim, check: HealthCheck
    ) -> None:
        self._monitor = monitor
        self._container = container
        self._shim = shim
        self._check = check
        self._process: Path | None = None

    async def run(self) -> None:
        container = self._container
        saved_ns = clock.now_ns()
        while True:
            await asyncio.sleep(self._pause_s())
            result = await self._probe()
            if container.shim is not self._shim:
                return
            if self._monitor.take(container, self._check, result):
                saved_ns = result.end_ns
            elif result.end_ns - saved_ns > SAVE_INTERVAL_S * 1e9:
                self._monitor.save(container)
                saved_ns = result.end_ns

    def _pause_s(self) -> float:
        record = self._container.record
        age_s = (clock.now_ns() - record.started_ns) / 1e9
        return self._check.pause_s(healthcheck.status_of(record), age_s)

    async def _probe(self) -> HealthResult:
        """Never raises: a probe that cannot run has failed."""
        start_ns = clock.now_ns()
        monitor = self._monitor
        try:
            if self._process is None:
                self._process = monitor.description(self._container, self._check)
            return await monitor.probe(self._container, self._shim, self._check, self._process)
        except (EngineError, OSError) as error:
            return HealthResult(
                start_ns=start_ns, end_ns=clock.now_ns(), exit_code=-1, output=str(error)
            )


async def _unset(container: Container, action: str) -> None:
    raise AssertionError(f"no life cycle for {container.id}: {action}")
