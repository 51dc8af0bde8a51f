"""Running further commands in a running container.

An exec lives in the container's shim like the container's own process. Its exit code is recorded
before its client's stream ends. Execs are forgotten with their container, and a while after their
end. What a running one was asked is noted in the container's bundle, for the next daemon:

    EXEC_ROOT/containers/ID/exec-EXEC.asked   the request (API's `ExecConfig`), until it ends
"""

import asyncio
import contextlib
import os
import struct
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from teu import ids
from teu.container.container import Container
from teu.container.services import Services
from teu.errors import Conflict, EngineError, InvalidParameter, NotFound
from teu.model.config import Wire
from teu.model.container import Status
from teu.runtime.failures import StartFailed
from teu.runtime.orphan import ExitStatus
from teu.runtime.processes import ExecRequest
from teu.runtime.shim import Client, ExecProcess, ExecSpec, Shim

_NOTE = ".asked"
KEPT_FINISHED = 256  # finished execs a client may still inspect
START_FAILED_CODE = 126
LAUNCH_LIMIT_S = 10.0  # how long a resize waits for a start under way


class ExecConfig(Wire):
    """API 1.51 `ExecConfig`."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str | None = None
    tty: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""
    console_size: list[int] | None = None


class NoSuchExec(NotFound):
    def __init__(self, exec_id: str) -> None:
        super().__init__(f"No such exec instance: {exec_id}")


@dataclass(eq=False, slots=True)
class Exec:
    """`exit_code` is None until it ended."""

    id: str
    container: Container
    config: ExecConfig
    command: list[str]
    started: bool = False
    running: bool = False
    exit_code: int | None = None
    process: ExecProcess | None = None
    launched: asyncio.Event = field(default_factory=asyncio.Event)  # it runs, or never will

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0


class Execs:
    """All execs of this daemon's life, by id."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._execs: dict[str, Exec] = {}
        self._finished: list[str] = []

    def get(self, exec_id: str) -> Exec:
        """Raises: NoSuchExec."""
        found = self._execs.get(exec_id)
        if found is None or (found.container.record.status is Status.REMOVING):
            raise NoSuchExec(exec_id)
        return found

    def create(self, container: Container, config: ExecConfig) -> Exec:
        """Raises: Conflict (not running, paused), InvalidParameter (no command)."""
        self._must_run(container)
        command = _words(config)
        if not command:
            raise InvalidParameter("No exec command specified")
        self._services.runtime.foresee_start()
        item = Exec(ids.new_id(), container, config, command)
        self._execs[item.id] = item
        container.exec_ids.append(item.id)
        self._tell(item, f"exec_create: {shown_line(command)}")
        return item

    @staticmethod
    def _must_run(container: Container) -> None:
        if container.record.status is Status.RESTARTING:
            raise Conflict(
                f"Container {container.id} is restarting, wait until the container is running"
            )
        if not container.running:
            raise Conflict(f"container {container.id} is not running")
        if container.record.status is Status.PAUSED:
            raise Conflict(f"container {container.id} is paused, unpause the container before exec")

    def check_startable(self, item: Exec) -> None:
        """Raises: Conflict."""
        self._must_run(item.container)
        if item.exit_code is not None:
            raise Conflict(f"exec command {item.id} has already run")
        if item.started:
            raise Conflict(f"exec command {item.id} is already running")

    async def start(
        self, item: Exec, client: Client | None, console_size: tuple[int, int] | None
    ) -> None:
        """Starts the command with its client, whose descriptor is given away.

        A command that cannot start is told to the client in the stream, as Docker does, and its
        exit code is 126 or 127. Raises (without a client): StartFailed, InvalidParameter (user).
        """
        item.started = True
        spare_fd = os.dup(client.fd) if client else -1
        try:
            await self._launch(item, client, console_size)
        except EngineError as error:
            code = error.exit_code if isinstance(error, StartFailed) else START_FAILED_CODE
            item.exit_code = code if code in (126, 127) else START_FAILED_CODE
            self._ended(item)
            if client is None:
                raise
            _write_error(spare_fd, error.message, multiplexed=client.multiplexed)
        except BaseException:
            item.exit_code = START_FAILED_CODE
            self._ended(item)
            raise
        finally:
            if client and client.fd >= 0:
                os.close(client.fd)
                client.fd = -1
            if spare_fd >= 0:
                os.close(spare_fd)

    async def _launch(
        self, item: Exec, client: Client | None, console_size: tuple[int, int] | None
    ) -> None:
        services = self._services
        record = item.container.record
        config = item.config
        shim = item.container.shim
        if shim is None:
            raise Conflict(f"container {record.id} is not running")
        process = services.runtime.exec_process(
            record,
            ExecRequest(
                cmd=item.command,
                env=config.env or [],
                user=config.user,
                working_dir=config.working_dir,
                tty=config.tty,
                privileged=config.privileged,
                console_size=list(console_size) if console_size else None,
            ),
            services.paths.rootfs(record.id),
        )
        description = services.paths.run(record.id) / f"exec-{item.id}.json"
        description.write_bytes(msgspec.json.encode(process))
        self._note(item.container, item.id).write_bytes(msgspec.json.encode(config))
        item.running = True
        self._tell(item, f"exec_start: {shown_line(item.command)}")
        try:
            item.process = await shim.exec(
                ExecSpec(
                    id=item.id,
                    process=description,
                    tty=config.tty,
                    open_stdin=config.attach_stdin,
                    console_size=console_size,
                    command=item.command[0],
                ),
                [client] if client else [],
                on_exit=lambda status: self._exited(item, status),
            )
        except BaseException:
            item.running = False
            raise
        finally:
            description.unlink(missing_ok=True)
        item.launched.set()

    async def resize(self, item: Exec, height: int, width: int) -> None:
        """Clients ask for it as soon as they have the head of the start's answer: the launch may be
        under way still.

        Raises: Conflict (does not run).
        """
        if item.started and item.exit_code is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAUNCH_LIMIT_S):
                    await item.launched.wait()
        if item.process is None or not item.running:
            raise Conflict(f"exec {item.id} is not running")
        await item.process.resize(height, width)

    def _exited(self, item: Exec, status: ExitStatus) -> None:
        """Runs before the shim's report is acknowledged, so before the client's stream ends."""
        item.running = False
        item.exit_code = status.exit_code
        self._tell(item, "exec_die", exitCode=str(status.exit_code))
        self._ended(item)

    def _note(self, container: Container, exec_id: str) -> Path:
        return self._services.paths.run(container.id) / f"exec-{exec_id}{_NOTE}"

    def restore(self, container: Container, shim: Shim) -> None:
        """Takes over what runs, or ended unseen, beside an adopted container's process.

        Called before the shim's first event can be handled.
        """
        for exec_id, process in shim.execs.items():
            try:
                noted = self._note(container, exec_id).read_bytes()
                config = msgspec.json.decode(noted, type=ExecConfig)
            except (FileNotFoundError, msgspec.MsgspecError):
                continue  # a health check's, or cut short by a crash before it was started
            item = Exec(exec_id, container, config, _words(config), started=True, process=process)
            self._execs[exec_id] = item
            if process.finished.done():
                item.exit_code = process.finished.result().exit_code
                self._ended(item)
            else:
                item.running = True
                item.launched.set()
                container.exec_ids.append(exec_id)
                process.on_exit = partial(self._exited, item)
        for note in self._services.paths.run(container.id).glob(f"exec-*{_NOTE}"):
            if note.name.removeprefix("exec-").removesuffix(_NOTE) not in shim.execs:
                note.unlink(missing_ok=True)

    def _ended(self, item: Exec) -> None:
        item.launched.set()
        self._note(item.container, item.id).unlink(missing_ok=True)
        with contextlib.suppress(ValueError):
            item.container.exec_ids.remove(item.id)
        self._finished.append(item.id)
        if len(self._finished) > KEPT_FINISHED:
            self._execs.pop(self._finished.pop(0), None)

    def _tell(self, item: Exec, action: str, **attributes: str) -> None:
        self._services.containers.tell(
            item.container, action, lasting=True, execID=item.id, **attributes
        )


def shown_line(command: list[str]) -> str:
    """A command in an event, as Docker has it: with a space behind a lone program."""
    return f"{command[0]} {' '.join(command[1:])}"


def _words(config: ExecConfig) -> list[str]:
    return [config.cmd] if isinstance(config.cmd, str) else list(config.cmd or [])


def _write_error(fd: int, message: str, *, multiplexed: bool) -> None:
    """Best effort: the client may be gone."""
    data = message.encode() + b"\r\n"
    if multiplexed:
        data = struct.pack(">BxxxI", 1, len(data)) + data
    with contextlib.suppress(OSError):
        os.write(fd, data)
