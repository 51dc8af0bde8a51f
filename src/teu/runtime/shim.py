"""Containers' shims as the daemon sees them: launch, adopt, attach, exec, wait.

    ShimService ── Zygote ──fork──> shim process <── Channel ── Shim

The shim records a container's end durably before it tells anybody, and closes its clients'
sockets only after the daemon has acknowledged, so `on_exit` runs before a client can see the end
of its stream. What happens if something is killed:

- the daemon: shims go on, also one in the middle of a start; `adopt` finds them;
- the zygote: a new one is started, running shims do not notice;
- a shim: its container has lost its output, input and log, so it is killed (by pid, checked by
  start time) and recorded as exited with 255 and an error text; nothing waits for it in vain.
"""

import asyncio
import contextlib
import inspect
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from teu.clock import now_ns
from teu.errors import Conflict, DeadlineExceeded, Unavailable
from teu.runtime.channel import Channel, Executed, Facts, Packet, ShimGone, ShimRefused, connect
from teu.runtime.failures import ENGINE, StartFailed, log_failed, start_failed
from teu.runtime.logs import LogRequest
from teu.runtime.orphan import LOST, LOST_TEXT, ExitStatus, end_orphan, read_exit
from teu.runtime.zygote import Zygote
from teu.tasks import TaskOwner

START_LIMIT_S = 60.0
CALL_LIMIT_S = 10.0
LAUNCH_ATTEMPTS = 2
RECONNECT_ATTEMPTS = 3
HOOK_LIMIT_S = 30.0
log = logging.getLogger(__name__)

ExitHook = Callable[[ExitStatus], Awaitable[object] | object]
DetachedHook = Callable[[str], object]


class LogServer(Struct, kw_only=True):
    """Where a log goes to besides its file; see shim/wire.py, REMOTE."""

    driver: str
    settings: dict[str, str]
    target: dict[str, Any]
    extra: dict[str, str] = field(default_factory=dict)
    tls: dict[str, Any] | None = None


class LogTarget(Struct):
    """`path` empty: no file. `max_size` in bytes, 0 for no limit. `buffer_bytes`: what may wait
    for a slow server before lines are dropped; 0: the container's output is held back instead."""

    path: str = ""
    max_size: int = 0
    max_file: int = 1
    compress: bool = False
    attrs: dict[str, str] = field(default_factory=dict)
    remote: LogServer | None = None
    buffer_bytes: int = 0


class Client(Struct):
    """A socket to attach. `fd` is closed by whoever gets the Client, also after a failure.

    `detach_keys` is empty where Docker does not look for them (no terminal).
    """

    fd: int
    stdin: bool
    stdout: bool
    stderr: bool
    multiplexed: bool
    detach_keys: bytes = b""

    def options(self) -> dict[str, Any]:
        return {
            "stdin": self.stdin,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "multiplexed": self.multiplexed,
            "detach_keys": list(self.detach_keys),
        }


class LaunchSpec(Struct):
    """`directory` exists and is private: exec-root/containers/ID. `runtime`: program and global
    options. `console_size`: rows, columns."""

    id: str
    directory: Path
    bundle: Path
    runtime: list[str]
    tty: bool
    open_stdin: bool
    stdin_once: bool
    console_size: tuple[int, int] | None
    log: LogTarget
    timeout_s: float = START_LIMIT_S
    command: str = ""  # the program, for messages

    def message(self) -> dict[str, Any]:
        return {
            "container": self.id,
            "directory": str(self.directory),
            "bundle": str(self.bundle),
            "runtime": self.runtime,
            "tty": self.tty,
            "open_stdin": self.open_stdin,
            "stdin_once": self.stdin_once,
            "size": self.console_size,
            "log": msgspec.to_builtins(self.log),
            "timeout_s": self.timeout_s,
        }


class ExecSpec(Struct):
    """`process`: a file with the OCI process object; may be removed once `exec` has returned."""

    id: str
    process: Path
    tty: bool
    open_stdin: bool
    console_size: tuple[int, int] | None = None
    timeout_s: float = START_LIMIT_S
    command: str = ""  # the program, for messages


class ShimService:
    """Starts and finds shims. `scratch`: see Zygote."""

    def __init__(self, scratch: Path) -> None:
        self._zygote = Zygote(scratch)
        self._tasks = TaskOwner()
        self._shims: set[Shim] = set()

    @property
    def zygote_pid(self) -> int:
        return self._zygote.pid

    async def start(self) -> None:
        """Raises: CommandNotStarted."""
        await self._zygote.start()

    async def close(self) -> None:
        """Lets go of everything; containers run on."""
        for shim in list(self._shims):
            shim.let_go()
        await self._zygote.close()
        await self._tasks.drain(5.0)

    async def launch(
        self,
        spec: LaunchSpec,
        clients: list[Client],
        *,
        on_exit: ExitHook | None = None,
        on_detached: DetachedHook | None = None,
    ) -> "Shim":
        """Starts the container of a bundle; returns when its first process runs.

        `clients` are attached from the first byte on. `on_exit` is called once, with the exit,
        before any client sees it.
        Raises: StartFailed (nothing is left, not even a half start); Unavailable, DeadlineExceeded.
        Cancel: the shim completes the start; `adopt` finds it.  Crash: the same.
        """
        try:
            channel, facts = await self._launch(spec, clients)
        finally:
            _close_clients(clients)
        return self._own(spec.id, spec.directory, channel, facts, on_exit, on_detached)

    async def _launch(self, spec: LaunchSpec, clients: list[Client]) -> tuple[Channel, Facts]:
        fields = {**spec.message(), "clients": [client.options() for client in clients]}
        fds = [client.fd for client in clients]
        for attempt in range(LAUNCH_ATTEMPTS):
            channel = await self._fork_shim(spec.runtime[0])
            try:
                limit_s = spec.timeout_s + CALL_LIMIT_S
                return channel, await channel.request("launch", fields, fds, timeout_s=limit_s)
            except ShimRefused as refused:
                channel.close()
                raise _start_error(refused, "create", spec.command) from refused
            except ShimGone:
                channel.close()
                if channel.greeted or attempt + 1 == LAUNCH_ATTEMPTS:
                    raise  # it may have started something
            except BaseException:
                channel.close()
                raise
        raise AssertionError("unreachable")

    def _own(
        self,
        id: str,
        directory: Path,
        channel: Channel,
        facts: Facts,
        on_exit: ExitHook | None,
        on_detached: DetachedHook | None,
    ) -> "Shim":
        shim = Shim(id, directory, channel, facts, self._tasks)
        shim.on_exit = on_exit
        shim.on_detached = on_detached
        self._shims.add(shim)
        shim.on_left = lambda: self._shims.discard(shim)
        shim.listen()
        return shim

    async def _fork_shim(self, runtime: str) -> Channel:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                await self._zygote.fork({"role": "shim", "runtime": runtime}, [theirs.fileno()])
            except BaseException:
                ours.close()
                raise
        return Channel(ours)

    async def adopt(
        self,
        directory: Path,
        *,
        on_exit: ExitHook | None = None,
        on_detached: DetachedHook | None = None,
    ) -> "Shim | ExitStatus | None":
        """What has become of a container that another daemon launched.

        A live shim (the container runs; waits if it is in the middle of a start), how it ended,
        or None: it was never started, or its start failed.
        Raises: DeadlineExceeded: the shim is there but does not answer.
        """
        for _ in range(RECONNECT_ATTEMPTS):
            channel = await connect(directory)
            if channel is None:
                return read_exit(directory) or await end_orphan(directory)
            try:
                facts = await channel.request("state", {}, timeout_s=START_LIMIT_S)
            except ShimGone:
                continue  # it ended at this moment
            except ShimRefused:
                channel.close()
                return None
            except BaseException:
                channel.close()
                raise
            return self._own(directory.name, directory, channel, facts, on_exit, on_detached)
        raise Unavailable(f"the shim in {directory} drops every connection")

    async def read_logs(self, request: LogRequest, fd: int) -> None:
        """Hands `fd`, which is closed here, to a process that writes the log to it and closes it.

        Raises: Unavailable.
        """
        try:
            message = {"role": "logs", **msgspec.to_builtins(request)}
            await self._zygote.fork(message, [fd])
        finally:
            os.close(fd)


class ExecProcess:
    """A process that was started beside the container's first one."""

    def __init__(self, shim: "Shim", id: str, pid: int) -> None:
        self.id = id
        self.pid = pid
        self.on_exit: ExitHook | None = None
        self.finished: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self._shim = shim

    async def wait(self) -> int:
        """Its exit code; 255 if its shim was lost. Cancel: safe."""
        return (await asyncio.shield(self.finished)).exit_code

    async def resize(self, height: int, width: int) -> None:
        """Raises: Conflict: it has ended or has no terminal."""
        await self._shim.call("resize", {"exec": self.id, "height": height, "width": width})

    async def attach(self, client: Client) -> None:
        """Raises: Conflict: it has ended."""
        await self._shim.attach_to(self.id, client)


class Shim:
    """A running container. `pid_started` is field 22 of /proc/PID/stat.

    `on_detached` gets "" or an exec's id when a client typed its detach keys; `on_log_error` a
    text when output was dropped from the log. Adopted: `execs` holds what still runs, and what
    ended unseen.
    """

    def __init__(
        self, id: str, directory: Path, channel: Channel, facts: Facts, tasks: TaskOwner
    ) -> None:
        self.id = id
        self.pid = facts.pid
        self.pid_started = facts.pid_started
        self.started_ns = facts.started_ns
        self.on_exit: ExitHook | None = None
        self.on_detached: DetachedHook | None = None
        self.on_log_error: Callable[[str], object] | None = None
        self.execs: dict[str, ExecProcess] = {}
        self._directory = directory
        self._channel = channel
        self._tasks = tasks
        self._finished: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self._ending = False
        self.on_left: Callable[[], object] = lambda: None
        for executed in facts.execs:
            self._know(executed)

    async def wait(self) -> ExitStatus:
        """How the container ended; after `on_exit`. Cancel: safe."""
        return await asyncio.shield(self._finished)

    async def attach(self, client: Client) -> None:
        """The client gets the output from now on. Raises: Conflict: the container has ended."""
        await self.attach_to("", client)

    async def resize(self, height: int, width: int) -> None:
        """Raises: Conflict: the container has ended or has no terminal."""
        await self.call("resize", {"exec": "", "height": height, "width": width})

    async def exec(
        self, spec: ExecSpec, clients: list[Client], *, on_exit: ExitHook | None = None
    ) -> ExecProcess:
        """Starts one more process in the container; returns when it runs.

        Raises: StartFailed (the clients' sockets are closed here, but not shut down: a duplicate
        of one can still be told why); Conflict: the container has ended.
        """
        process = ExecProcess(self, spec.id, 0)
        process.on_exit = on_exit
        self.execs[spec.id] = process  # its exit may be reported right behind the answer
        fields = {
            "exec": spec.id,
            "process": str(spec.process),
            "tty": spec.tty,
            "stdin": spec.open_stdin,
            "size": spec.console_size,
            "timeout_s": spec.timeout_s,
            "command": spec.command,
        }
        try:
            facts = await self.call("exec", fields, clients, spec.timeout_s + CALL_LIMIT_S)
        except BaseException:
            self.execs.pop(spec.id, None)
            raise
        process.pid = facts.pid
        return process

    async def attach_to(self, exec_id: str, client: Client) -> None:
        await self.call("attach", {"exec": exec_id}, [client])

    async def call(
        self,
        op: str,
        fields: dict[str, Any],
        clients: list[Client] | None = None,
        timeout_s: float = CALL_LIMIT_S,
    ) -> Facts:
        clients = clients or []
        if clients:
            fields = {**fields, "clients": [client.options() for client in clients]}
        try:
            fds = [client.fd for client in clients]
            return await self._channel.request(op, fields, fds, timeout_s=timeout_s)
        except ShimRefused as refused:
            raise _call_error(refused, op, fields.get("command", "")) from refused
        except ShimGone as gone:
            raise Conflict(f"Container {self.id} is not running") from gone
        finally:
            _close_clients(clients)

    def let_go(self) -> None:
        """The daemon stops: closes the connection; the container runs on, `wait` never returns."""
        self._channel.listen(lambda _: None, lambda: None)
        self._channel.close()

    def listen(self) -> None:
        """Starts taking events; to be called once the hooks are set."""
        self._channel.listen(self._event, self._lost_connection)

    def _know(self, executed: Executed) -> None:
        process = ExecProcess(self, executed.exec, executed.pid)
        if executed.exit_code is not None:
            process.finished.set_result(ExitStatus(executed.exit_code, 0, False))
        self.execs[executed.exec] = process

    def _event(self, packet: Packet) -> None:
        match packet.event:
            case "exit":
                status = ExitStatus(packet.exit_code, packet.finished_ns, packet.oom_killed)
                _ = self._tasks.spawn(self._end(status, packet.seq), f"exit of {self.id}")
            case "exec-exit":
                _ = self._tasks.spawn(self._end_exec(packet), f"exit of exec {packet.exec}")
            case "detached" if self.on_detached:
                self.on_detached(packet.exec)
            case "log-error":
                log.error("container %s: %s", self.id, packet.message)
                if self.on_log_error:
                    self.on_log_error(packet.message)

    async def _end(self, status: ExitStatus, sequence: int = 0) -> None:
        if self._ending:
            return
        self._ending = True
        recorded = await _call_hook(self.on_exit, status)
        if recorded and sequence:
            with contextlib.suppress(ShimGone):
                await self._channel.send({"op": "ack", "seq": sequence})
        self._finished.set_result(status)

    async def _end_exec(self, packet: Packet) -> None:
        process = self.execs.get(packet.exec)
        status = ExitStatus(packet.exit_code, packet.finished_ns, False)
        recorded = process is None or await _call_hook(process.on_exit, status)
        if recorded:
            with contextlib.suppress(ShimGone):
                await self._channel.send({"op": "ack", "seq": packet.seq})
        if process and not process.finished.done():
            process.finished.set_result(status)
        self.execs.pop(packet.exec, None)

    def _lost_connection(self) -> None:
        if self._ending:
            self._leave()
        else:
            _ = self._tasks.spawn(self._find_out(), f"lost shim of {self.id}")

    def _leave(self) -> None:
        """The shim is gone: nobody will report an exec's end any more."""
        for process in self.execs.values():
            if not process.finished.done():
                process.finished.set_result(ExitStatus(LOST, now_ns(), False, LOST_TEXT))
        self.on_left()

    async def _find_out(self) -> None:
        """The connection ended without an exit report: reconnect, or learn how it ended."""
        channel = await connect(self._directory)
        if channel is not None:
            try:
                await channel.request("state", {}, timeout_s=CALL_LIMIT_S)
            except (ShimGone, ShimRefused, DeadlineExceeded):
                channel.close()
            else:
                self._channel = channel
                self.listen()
                return
        status = read_exit(self._directory) or await end_orphan(
            self._directory, self.pid, self.pid_started
        )
        await self._end(status or ExitStatus(LOST, now_ns(), False, LOST_TEXT))
        self._leave()


async def _call_hook(hook: ExitHook | None, status: ExitStatus) -> bool:
    """Whether the exit may be acknowledged: the hook, if any, did its work."""
    if hook is None:
        return True
    try:
        async with asyncio.timeout(HOOK_LIMIT_S):
            result = hook(status)
            if inspect.isawaitable(result):
                await result
    except Exception:
        log.exception("recording an exit failed")
        return False
    return True


def _start_error(refused: ShimRefused, verb: str, command: str) -> StartFailed:
    refusal = refused.refusal
    if refusal.kind == "start":
        return start_failed(refusal.message, verb, command)
    if refusal.kind == "log":
        return log_failed(refusal.message)
    return StartFailed(f"OCI runtime {verb} failed: {refusal.message}", ENGINE)


def _call_error(refused: ShimRefused, op: str, command: str) -> Exception:
    if refused.refusal.kind == "gone":
        return Conflict(refused.refusal.message)
    return _start_error(refused, op, command)


def _close_clients(clients: list[Client]) -> None:
    for client in clients:
        if client.fd >= 0:
            os.close(client.fd)
            client.fd = -1
