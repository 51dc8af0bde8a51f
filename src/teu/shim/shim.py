"""One container's shim: starts it, holds its stdio, records its end, answers the daemon.

Life: hello -> launch -> (starting) -> running -> exited: output drained, log closed, exit.json
written, daemon told and its ack awaited, clients' sockets closed -> end of the process.
A shim whose daemon dies in the middle of a start completes it (once the runtime runs; before
that it gives up); the next daemon finds shim.sock.
A start that fails leaves nothing behind: no process, no file of the shim.
"""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from teu.shim.daemons import Connection, Daemons
from teu.shim.files import Directory, read_file
from teu.shim.logfile import LogFile
from teu.shim.loop import READ, Loop
from teu.shim.oom import OomCounter
from teu.shim.session import Session
from teu.shim.start import Start, StartError, exit_code, process_start_time
from teu.shim.wire import Message, close_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teu.shim.remotelog import RemoteLog

FAULT_LIMIT = 100
UNSEEN_LIMIT = 100  # ended execs that are kept for the next daemon
_KILL_LIMIT_S = 1.0


class Process:
    """The container's first process (`name` is "") or an exec."""

    def __init__(self, name: str, session: Session) -> None:
        self.name = name
        self.session = session
        self.pid = 0
        self.exit_code: int | None = None
        self.acknowledged = False  # a daemon has recorded the exit
        self.closed = False  # no client is left, and none will come

    def describe(self) -> Message:
        return {"exec": self.name, "pid": self.pid, "exit_code": self.exit_code}


class Shim:
    """Call `run`; it returns when there is nothing left to do. `executable` is what to execute
    for the runtime (see program.py)."""

    def __init__(self, connection: socket.socket, executable: str) -> None:
        self._executable = executable
        self._loop = Loop()
        self._daemons = Daemons(self._loop, self._handle)
        self._directory: Directory | None = None
        self._spec: Message = {}
        self._runtime: list[str] = []
        self._status = "waiting"
        self._init: Process | None = None
        self._execs: dict[str, Process] = {}
        self._starts: dict[int, Start] = {}
        self._children: dict[int, Callable[[int], None]] = {}
        self._waiting_for_state: list[tuple[Connection, object]] = []
        self._facts: Message = {}
        self._oom: OomCounter | None = None
        self._log: LogFile | RemoteLog | None = None
        self._daemons.add(connection)

    def run(self) -> None:
        wake_fds = self._watch_children()
        self._daemons.broadcast({"event": "hello", "shim_pid": os.getpid()})
        faults = 0
        while not self._done():
            try:
                self._loop.run_once()
            except Exception as error:
                faults += 1
                self._record_fault(error)
                if faults == FAULT_LIMIT:
                    raise
        signal.set_wakeup_fd(-1)
        close_all(wake_fds)
        if self._directory:
            self._directory.close()

    def _done(self) -> bool:
        if self._status == "waiting":
            return not self._daemons
        if self._status == "failed":
            return True
        return (
            self._status == "exited"
            and self._init is not None
            and self._init.closed
            and (self._log is None or self._log.finished)
            and all(process.closed for process in self._execs.values())
        )

    def _record_fault(self, error: Exception) -> None:
        import traceback

        fault = {"at_ns": time.time_ns(), "fault": "".join(traceback.format_exception(error))}
        if self._directory:
            with contextlib.suppress(OSError):
                self._directory.write_json("fault.json", fault)

    # Requests.

    def _handle(self, connection: Connection, message: Message, fds: list[int]) -> None:
        request = message.get("id")
        handler = self._HANDLERS.get(str(message.get("op")))
        try:
            if handler is None:
                raise StartError("invalid", f"unknown operation {message.get('op')!r}")
            if len(fds) != len(message.get("clients") or []):
                raise StartError("invalid", "one descriptor per client is needed")
            handler(self, connection, message, fds)
        except StartError as error:
            close_all(fds)
            _refuse(connection, request, error)
        except (KeyError, TypeError, ValueError) as error:
            close_all(fds)
            _refuse(connection, request, StartError("invalid", f"malformed request: {error!r}"))

    def _handle_launch(self, connection: Connection, message: Message, fds: list[int]) -> None:
        if self._status != "waiting":
            raise StartError("invalid", "this shim has a container already")
        self._spec = spec = message
        self._status = "starting"
        self._runtime = spec["runtime"]
        self._waiting_for_state.append((connection, message["id"]))
        try:
            self._prepare(spec)
            assert self._directory is not None
            assert self._init is not None
            self._attach_all(self._init, message, fds)
            if connection.is_gone():
                # The next daemon may have looked before shim.sock was there. From here on it
                # finds the shim.
                raise StartError("gone", "the daemon went away before the start")
            start = Start(
                self._loop,
                self._directory,
                "init",
                tty=spec["tty"],
                open_stdin=spec["open_stdin"],
                size=spec["size"],
                on_done=lambda error: self._launched(start, error),
            )
            verb = ["run", "-d", "--bundle", spec["bundle"]]
            command = [*self._runtime, *verb]
            start.spawn(self._executable, command, spec["container"], spec["timeout_s"])
        except (StartError, OSError) as error:
            self._fail(error if isinstance(error, StartError) else StartError("start", str(error)))
            return
        self._await_start(start)

    def _prepare(self, spec: Message) -> None:
        self._directory = directory = Directory(spec["directory"])
        directory.remove("exit.json", "state.json", "fault.json")
        directory.reserve("exit.json")
        self._daemons.listen(directory.listen("shim.sock", socket.SOCK_SEQPACKET))
        self._log = self._open_log(spec["log"])
        session = Session(
            self._loop,
            log=self._log,
            tty=spec["tty"],
            open_stdin=spec["open_stdin"],
            close_stdin=spec["stdin_once"],
            on_detached=lambda: self._daemons.broadcast({"event": "detached", "exec": ""}),
            on_closed=lambda: setattr(self._init, "closed", True),
        )
        self._init = Process("", session)

    def _open_log(self, options: Message) -> "LogFile | RemoteLog | None":
        """Raises: StartError, OSError."""
        if options.get("remote"):
            from teu.shim.remotelog import LogServerError, RemoteLog  # costs memory, and is rare

            try:
                return RemoteLog(self._loop, options, self._log_failed, self._log_unblocked)
            except LogServerError as error:
                raise StartError("log", str(error)) from error
        return LogFile(options, self._log_failed) if options.get("path") else None

    def _log_unblocked(self) -> None:
        if self._init:
            self._init.session.unblocked()

    def _handle_exec(self, connection: Connection, message: Message, fds: list[int]) -> None:
        if self._status != "running" or self._directory is None:
            raise StartError("gone", "the container is not running")
        name = message["exec"]
        if not name or name in self._execs:
            raise StartError("invalid", f"the exec id {name!r} is empty or in use")
        process = Process(name, self._exec_session(name, message))
        start = Start(
            self._loop,
            self._directory,
            f"exec-{name[:16]}",
            tty=message["tty"],
            open_stdin=message["stdin"],
            size=message["size"],
            on_done=lambda error: self._exec_started(
                process, start, error, connection, message["id"]
            ),
        )
        verb = ["exec", "-d", "--process", message["process"]]
        self._execs[name] = process
        self._attach_all(process, message, fds)
        try:
            command = [*self._runtime, *verb]
            start.spawn(self._executable, command, self._spec["container"], message["timeout_s"])
        except (StartError, OSError):
            self._execs.pop(name).session.abandon()
            raise
        self._await_start(start)

    def _exec_session(self, name: str, message: Message) -> Session:
        return Session(
            self._loop,
            log=None,
            tty=message["tty"],
            open_stdin=message["stdin"],
            close_stdin=True,
            on_detached=lambda: self._daemons.broadcast({"event": "detached", "exec": name}),
            on_closed=lambda: self._exec_closed(name),
        )

    def _handle_attach(self, connection: Connection, message: Message, fds: list[int]) -> None:
        self._attach_all(self._find(message["exec"]), message, fds)
        connection.send({"id": message["id"], "ok": {}})

    def _attach_all(self, process: Process, message: Message, fds: list[int]) -> None:
        while fds:
            options = message["clients"][-len(fds)]
            process.session.attach(fds.pop(0), options)

    def _handle_resize(self, connection: Connection, message: Message, _: list[int]) -> None:
        process = self._find(message["exec"])
        try:
            process.session.resize(int(message["height"]), int(message["width"]))
        except OSError as error:
            raise StartError("gone", f"cannot resize: {error.strerror}") from error
        connection.send({"id": message["id"], "ok": {}})

    def _find(self, name: str) -> Process:
        process = self._execs.get(name) if name else self._init
        if process is None or process.closed:
            raise StartError("gone", f"no such process {name!r}, or it has ended")
        return process

    def _handle_state(self, connection: Connection, message: Message, _: list[int]) -> None:
        if self._status == "waiting":
            raise StartError("invalid", "nothing was launched yet")
        self._waiting_for_state.append((connection, message["id"]))
        if self._status != "starting":
            self._answer_state()

    def _handle_ack(self, _: Connection, message: Message, __: list[int]) -> None:
        self._daemons.acknowledge(message["seq"])

    _HANDLERS: "dict[str, Callable[[Shim, Connection, Message, list[int]], None]]" = {  # noqa: RUF012
        "launch": _handle_launch,
        "exec": _handle_exec,
        "attach": _handle_attach,
        "resize": _handle_resize,
        "state": _handle_state,
        "ack": _handle_ack,
    }

    # Starting.

    def _await_start(self, start: Start) -> None:
        def ended(status: int) -> None:
            del self._starts[start.runtime_pid]
            start.ended(status)

        self._starts[start.runtime_pid] = start
        self._children[start.runtime_pid] = ended
        self._reap()

    def _launched(self, start: Start, error: StartError | None) -> None:
        if error:
            self._fail(error)
            return
        assert self._init is not None
        self._init.pid = start.pid
        self._facts = {
            "pid": start.pid,
            "pid_started": process_start_time(start.pid),
            "started_ns": time.time_ns(),
        }
        self._status = "running"
        self._answer_state()
        self._oom = OomCounter(start.pid, self._spec["bundle"])
        self._save_state()
        self._init.session.connect(start.stdio)
        self._children[start.pid] = self._container_ended

    def _fail(self, error: StartError) -> None:
        """The container could not be started: leaves nothing, tells who waits, ends."""
        _kill_children()
        self._daemons.stop_listening()
        if self._directory:
            self._directory.remove("shim.sock", "state.json", ".exit.json.tmp", ".state.json.tmp")
        for connection, request in self._waiting_for_state:
            _refuse(connection, request, error)
        if self._init:
            self._init.session.abandon()
        self._status = "failed"

    def _answer_state(self) -> None:
        waiting, self._waiting_for_state = self._waiting_for_state, []
        for connection, request in waiting:
            execs = [process.describe() for process in self._execs.values()]
            connection.send({"id": request, "ok": {**self._facts, "execs": execs}})

    def _exec_started(
        self,
        process: Process,
        start: Start,
        error: StartError | None,
        connection: Connection,
        request: object,
    ) -> None:
        if error:
            if start.pid:
                os.kill(start.pid, signal.SIGKILL)
            del self._execs[process.name]
            process.session.abandon()
            _refuse(connection, request, error)
            return
        process.pid = start.pid
        process.session.connect(start.stdio)
        self._children[start.pid] = lambda status: self._exec_ended(process, status)
        connection.send({"id": request, "ok": {"pid": start.pid}})

    # Ending.

    def _watch_children(self) -> list[int]:
        """Has `_reap` called after each SIGCHLD (its handler is set in the zygote)."""
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

        def woken(_: int) -> None:
            os.read(wake_read, 4096)
            self._reap()

        self._loop.watch(wake_read, READ, woken)
        return [wake_read, wake_write]

    def _reap(self) -> None:
        """Takes the status of every child that has ended.

        While a runtime runs, only known children are reaped: the process that it leaves behind
        may end before its pid is known, and stays a zombie, with its number, until then. A known
        process may not be ours yet (ECHILD): it becomes so, with another SIGCHLD, when the
        runtime's intermediate process ends.
        """
        ended = True
        while ended:
            ended = False
            for pid in list(self._children):
                ended |= self._reap_one(pid)
            if not self._starts:
                ended |= self._reap_one(-1)

    def _reap_one(self, pid: int) -> bool:
        try:
            pid, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return False
        if callback := self._children.pop(pid, None):
            callback(status)
        return True

    def _container_ended(self, status: int) -> None:
        assert self._init is not None
        code, by_signal = exit_code(status)
        self._init.exit_code = code
        self._exit = {
            "exit_code": code,
            "signal": by_signal,
            "finished_ns": time.time_ns(),
            "oom_killed": self._oom is not None and self._oom.killed(),
        }
        self._init.session.drain(self._report_exit)

    def _report_exit(self) -> None:
        assert self._directory is not None
        assert self._init is not None
        try:
            self._directory.write_json("exit.json", self._exit)
        except OSError as error:
            self._record_fault(error)
        self._daemons.stop_listening()
        self._directory.remove("shim.sock")
        session = self._init.session
        self._status = "exited"
        self._daemons.report({"event": "exit", **self._exit}, lambda _: session.finish())

    def _exec_ended(self, process: Process, status: int) -> None:
        code, _ = exit_code(status)
        finished_ns = time.time_ns()

        def report() -> None:
            process.exit_code = code
            event = {"event": "exec-exit", "exec": process.name, "exit_code": code}
            self._daemons.report({**event, "finished_ns": finished_ns}, told)

        def told(acknowledged: bool) -> None:
            process.acknowledged = acknowledged
            process.session.finish()

        process.session.drain(report)

    def _exec_closed(self, name: str) -> None:
        self._execs[name].closed = True
        ended = [process for process in self._execs.values() if process.closed]
        unseen = [process.name for process in ended if not process.acknowledged]
        for old in {process.name for process in ended} - {*unseen[-UNSEEN_LIMIT:]}:
            del self._execs[old]

    # Records.

    def _save_state(self, **more: Any) -> None:
        """What the next daemon needs if this shim is killed; a full disk costs only that."""
        assert self._directory is not None
        state = {"id": self._spec["container"], "shim_pid": os.getpid()}
        with contextlib.suppress(OSError):
            self._directory.write_json("state.json", {**state, **self._facts, **more})

    def _log_failed(self, message: str) -> None:
        self._daemons.broadcast({"event": "log-error", "message": message})
        if self._status != "exited":  # then the next shim of the container may own the file
            self._save_state(log_error=message)


def _refuse(connection: Connection, request: object, error: StartError) -> None:
    words = {"kind": error.kind, "message": error.message, "exit_code": error.exit_code}
    connection.send({"id": request, "error": words})


def _kill_children() -> None:
    """Kills and reaps all descendants: what a runtime that failed may have left."""
    deadline = time.monotonic() + _KILL_LIMIT_S
    while time.monotonic() < deadline:
        for pid in read_file(f"/proc/self/task/{os.getpid()}/children").split():
            os.kill(int(pid), signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.002)
        except ChildProcessError:
            return
