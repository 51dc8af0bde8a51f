"""One detached call of the OCI runtime, `run -d` or `exec -d`, from its spawn to its success.

What the process gets as stdio, the runtime gets first. Nothing is copied before the runtime has
ended well, so when it failed, the pipes hold its own words and no client has seen them.
"""

import array
import contextlib
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from teu.shim.files import Directory, read_file
from teu.shim.loop import READ, Loop
from teu.shim.session import Stdio, set_window_size

_WORDS_BYTES = 1 << 16
_ENVIRONMENT = dict(os.environb)
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores them; containers must not


class StartError(Exception):
    """`kind`, `message` and `exit_code` as in wire.py."""

    def __init__(self, kind: str, message: str, exit_code: int = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.exit_code = exit_code


class Start:
    """`on_done(error)` is called once; after None, `pid` and `stdio` are the process's.

    The owner reaps: it calls `ended` with the wait status of `runtime_pid`. `name` makes file
    names in the directory unique.
    """

    def __init__(
        self,
        loop: Loop,
        directory: Directory,
        name: str,
        *,
        tty: bool,
        open_stdin: bool,
        size: list[int] | None,
        on_done: Callable[[StartError | None], None],
    ) -> None:
        self.runtime_pid = 0
        self.pid = 0
        self.stdio = Stdio(None, None, None)
        self._loop = loop
        self._directory = directory
        self._pid_file = f"{name}.pid"
        self._socket_name = f"{name}.sock"
        self._tty = tty
        self._open_stdin = open_stdin
        self._size = size
        self._on_done = on_done
        self._console: socket.socket | None = None
        self._master: int | None = None
        self._pipes: list[int] = []
        self._timed_out = False

    def spawn(self, executable: str, command: list[str], target: str, timeout_s: float) -> None:
        """Runs `command… --pid-file P [--console-socket S] target`.

        Raises: StartError if it cannot even be executed.
        """
        argv = [*command, "--pid-file", f"{self._directory.path}/{self._pid_file}"]
        if self._tty:
            self._console = self._directory.listen(self._socket_name, socket.SOCK_STREAM)
            self._loop.watch(self._console.fileno(), READ, lambda _: self._accept())
            argv += ["--console-socket", self._directory.socket_path(self._socket_name)]
        self._directory.remove(self._pid_file)
        child_fds = self._open_stdio()
        try:
            self.runtime_pid = os.posix_spawnp(
                executable,
                [*argv, target],
                _ENVIRONMENT,
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, at) for at, fd in enumerate(child_fds)],
                setpgroup=0,
                setsigmask=[],
                setsigdef=_DEFAULT_SIGNALS,
            )
        except OSError as error:
            self._clean_up(keep_stdio=False)
            raise StartError("start", f"{argv[0]}: {error.strerror}") from error
        finally:
            for fd in set(child_fds):
                os.close(fd)
        self._timer = self._loop.later(timeout_s, lambda: self._give_up(timeout_s))

    def ended(self, status: int) -> None:
        """The runtime has ended with this wait status."""
        self._timer.cancel()
        code = os.waitstatus_to_exitcode(status)
        try:
            self.pid = self._read_pid()
            if self._timed_out:
                raise StartError("timeout", self._words() or "the runtime did not answer in time")
            if code:
                raise StartError("start", self._words() or f"exit status {code}", code)
            self._take_process()
        except StartError as error:
            self._clean_up(keep_stdio=False)
            self._on_done(error)
        else:
            self._clean_up(keep_stdio=True)
            self._on_done(None)

    def _open_stdio(self) -> list[int]:
        """The child's stdin, stdout and stderr; the other ends go to `stdio`."""
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        self._pipes = [out_read]
        if self._tty:
            return [null, out_write, out_write]
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        self._pipes = [err_read, out_read]
        stdin_write = None
        if self._open_stdin:
            os.close(null)
            null, stdin_write = os.pipe2(os.O_CLOEXEC)
        self.stdio = Stdio(stdin_write, out_read, err_read)
        return [null, out_write, err_write]

    def _take_process(self) -> None:
        if not self.pid:
            raise StartError("start", "the runtime left no usable pid file")
        if not self._tty:
            return
        if self._master is None and self._console:
            self._accept()
        if self._master is None:
            raise StartError("start", "the runtime did not hand over the terminal")
        stdin = os.dup(self._master) if self._open_stdin else None
        self.stdio = Stdio(stdin, self._master, None, tty=True)

    def _read_pid(self) -> int:
        try:
            return int(self._directory.read(self._pid_file))
        except (OSError, ValueError):
            return 0

    def _accept(self) -> None:
        assert self._console is not None
        try:
            connection, _ = self._console.accept()
        except BlockingIOError:
            return
        with connection:
            connection.settimeout(1.0)  # the runtime sends right after it has connected
            try:
                _, ancillary, _, _ = connection.recvmsg(4096, 64, socket.MSG_CMSG_CLOEXEC)
            except OSError:
                return
        for fd in _rights(ancillary):
            if self._master is None and os.isatty(fd):
                self._master = fd
                if self._size:
                    set_window_size(fd, *self._size)
            else:
                os.close(fd)

    def _give_up(self, timeout_s: float) -> None:
        self._timed_out = True
        os.killpg(self.runtime_pid, signal.SIGKILL)  # not reaped yet: the number is still ours

    def _words(self) -> str:
        """What the runtime printed, stderr first."""
        words = b""
        for fd in self._pipes:
            os.set_blocking(fd, False)
            with contextlib.suppress(BlockingIOError):
                words += os.read(fd, _WORDS_BYTES)
        return words.decode(errors="replace").strip()

    def _clean_up(self, keep_stdio: bool) -> None:
        if self._console:
            self._loop.forget(self._console.fileno())
            self._console.close()
        self._directory.remove(self._pid_file, self._socket_name)
        if not keep_stdio and self._master is not None:
            os.close(self._master)
        if not keep_stdio and self.stdio.stdin is not None:
            os.close(self.stdio.stdin)
        if self._tty or not keep_stdio:
            for fd in self._pipes:
                os.close(fd)


def _rights(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return fds.tolist()


def process_start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat, also of a zombie; 0 if there is no such process."""
    try:
        return int(read_file(f"/proc/{pid}/stat").rsplit(b")", 1)[1].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def exit_code(status: int) -> tuple[int, Any]:
    """(code as Docker reports it: 128 + n after signal n, the signal or None)."""
    code = os.waitstatus_to_exitcode(status)
    return (code, None) if code >= 0 else (128 - code, -code)
