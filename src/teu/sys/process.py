"""THE place that starts processes.

`run` is for tools that end by themselves (a runtime, nft, apparmor_parser): arguments in, output
and exit status back, with a deadline. `spawn_daemon_child` is for helpers that live as long as
they like (the zygote).

Both start children by vfork + exec (`subprocess.Popen` without a preexec hook): 0.1 ms of the
loop's time at any size of the daemon, where `os.fork` costs 15 ms from a big one. Children get
only the descriptors that are named, a minimal environment, default signal handling, and a session
of their own, so that a ^C at the daemon's terminal is not theirs. The end of a child is seen
through its pidfd, so no SIGCHLD handler and no child watcher is needed: it works alike on asyncio
and uvloop.
"""

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec import Struct

from teu.errors import DeadlineExceeded, SystemFailure

TERM_LIMIT_S = 2.0
OUTPUT_LIMIT_BYTES = 64 << 20
MINIMAL_ENV: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}
_CHUNK_BYTES = 1 << 16
_SHOWN_BYTES = 2000
_SHOWN_ARGUMENT = 200


class CommandNotStarted(SystemFailure):
    """The program could not be executed; `errno` says why (ENOENT: it is not installed)."""

    def __init__(self, argv: Sequence[str], error: OSError) -> None:
        self.argv = list(argv)
        self.errno = error.errno
        super().__init__(f"cannot run {argv[0]}: {error.strerror} (command: {shown(argv)})")


class CommandFailed(SystemFailure):
    """The program ended with a status other than zero; its words are in `stderr`."""

    def __init__(self, argv: Sequence[str], completed: "Completed") -> None:
        self.argv = list(argv)
        self.completed = completed
        words = _tail(completed.stderr) or _tail(completed.stdout) or "it printed nothing"
        super().__init__(f"{shown(argv)} {_ending(completed.returncode)}: {words}")


class CommandTimedOut(DeadlineExceeded):
    """The program did not end in time and was killed."""

    def __init__(self, argv: Sequence[str], timeout_s: float) -> None:
        self.argv = list(argv)
        super().__init__(f"{shown(argv)} did not end within {timeout_s:g} s; it was killed")


class Completed(Struct, frozen=True):
    """What a program left behind. `returncode` is `-N` after death by signal N."""

    returncode: int
    stdout: bytes
    stderr: bytes


def shown(argv: Sequence[str]) -> str:
    """The command as a line that can be pasted into a shell; very long arguments are cut."""
    return shlex.join(
        word if len(word) <= _SHOWN_ARGUMENT else word[:_SHOWN_ARGUMENT] + "…" for word in argv
    )


async def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    stdin: bytes = b"",
    env: Mapping[str, str] = MINIMAL_ENV,
    check: bool = True,
    pass_fds: Collection[int] = (),
    cwd: str | None = None,
    on_output: Callable[[bytes], object] | None = None,
) -> Completed:
    """Runs a program to its end and returns what it printed.

    The end is the program's own: a descendant that keeps the output pipes open (a runtime that
    leaves a daemon behind) is not waited for.
    Args:   argv: program (searched in the PATH of `env` unless it has a slash) and arguments.
            timeout_s: seconds for the whole run.  stdin: all of its input; then end of file.
            pass_fds: descriptors that it inherits under the same numbers; still the caller's.
            check: raise CommandFailed unless it exits with 0.
            on_output: hears what it prints on stdout, as it comes.
    Raises: CommandNotStarted, CommandFailed, CommandTimedOut; SystemFailure after more than
            OUTPUT_LIMIT_BYTES of output.
    Cancel: the program's process group gets TERM, after TERM_LIMIT_S KILL, is waited for; then
            CancelledError goes on. Crash: the program runs on to its own end.
    """
    child = _start(
        argv,
        env=env,
        pass_fds=pass_fds,
        cwd=cwd,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        output=subprocess.PIPE,
    )
    with _Conversation(child, stdin, on_output) as talk:
        try:
            async with asyncio.timeout(timeout_s):
                await child.wait()
        except TimeoutError:
            await child.stop()
            raise CommandTimedOut(argv, timeout_s) from None
        except BaseException:
            await child.stop()
            raise
        completed = talk.finish(argv)
    if check and completed.returncode != 0:
        raise CommandFailed(argv, completed)
    return completed


def spawn_daemon_child(
    argv: Sequence[str],
    *,
    pass_fds: Collection[int] = (),
    env: Mapping[str, str] = MINIMAL_ENV,
    stderr_fd: int | None = None,
) -> "Process":
    """Starts a long-lived helper in a session of its own, with stdin and stdout on /dev/null.

    Args:   pass_fds: inherited under the same numbers; the caller closes its own copies.
            stderr_fd: where its complaints go; None: to the daemon's stderr.
    Raises: CommandNotStarted.
    Crash:  it lives on; a helper that must not do so watches one of its descriptors.
    """
    return _start(
        argv,
        env=env,
        pass_fds=pass_fds,
        cwd="/",
        stdin=subprocess.DEVNULL,
        output=subprocess.DEVNULL,
        stderr=stderr_fd,
    )


class Process:
    """A child that is running or has ended. Any number of tasks may wait for it."""

    def __init__(self, popen: "subprocess.Popen[bytes]") -> None:
        self.pid = popen.pid
        self.popen = popen
        self._pidfd: int | None = os.pidfd_open(popen.pid)
        self._ended: asyncio.Future[int] | None = None

    @property
    def returncode(self) -> int | None:
        """None while it runs; `-N` after death by signal N."""
        return self.popen.returncode

    async def wait(self) -> int:
        """Its return code, as soon as it ended. Cancel: safe; the child runs on."""
        if self._pidfd is None:
            assert self.popen.returncode is not None
            return self.popen.returncode
        if self._ended is None:
            loop = asyncio.get_running_loop()
            self._ended = loop.create_future()
            loop.add_reader(self._pidfd, self._reap, loop)
        return await asyncio.shield(self._ended)

    def signal_group(self, number: signal.Signals) -> None:
        """Signals it and its children; does nothing after it was reaped."""
        # Until the reap its pid, which is also its group's id, cannot belong to anybody else.
        if self.popen.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def stop(self) -> int:
        """TERM, after TERM_LIMIT_S KILL; returns when it is gone, even while being cancelled."""
        stopping = asyncio.create_task(self._stop(), name=f"stop process {self.pid}")
        cancelled: asyncio.CancelledError | None = None
        while not stopping.done():
            try:
                await asyncio.shield(stopping)
            except asyncio.CancelledError as cancel:
                cancelled = cancel
        if cancelled:
            raise cancelled
        return stopping.result()

    async def _stop(self) -> int:
        self.signal_group(signal.SIGTERM)
        try:
            async with asyncio.timeout(TERM_LIMIT_S):
                return await self.wait()
        except TimeoutError:
            self.signal_group(signal.SIGKILL)
            return await self.wait()

    def leave(self) -> None:
        """Lets it live on without us: it is init's child when this process ends."""
        if self._pidfd is not None:
            if self._ended is not None:
                asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
            self.popen.returncode = 0  # or Popen complains about a child nobody waited for

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._pidfd is None or self._ended is None:
            return
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = None
        returncode = self.popen.wait()
        if not self._ended.done():
            self._ended.set_result(returncode)


def _start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    pass_fds: Collection[int],
    cwd: str | None,
    stdin: int,
    output: int,
    stderr: int | None = subprocess.PIPE,
) -> Process:
    try:
        popen = subprocess.Popen(
            argv,
            bufsize=0,
            stdin=stdin,
            stdout=output,
            stderr=stderr,
            env=dict(env),
            pass_fds=list(pass_fds),
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise CommandNotStarted(argv, error) from error
    try:
        return Process(popen)
    except OSError as error:  # no descriptor left for the pidfd
        with popen:
            popen.kill()
        raise CommandNotStarted(argv, error) from error


class _Conversation:
    """Feeds and drains a child's pipes while it runs, so that it never blocks on us."""

    def __init__(
        self, child: Process, stdin: bytes, on_output: Callable[[bytes], object] | None
    ) -> None:
        self._child = child
        self._loop = asyncio.get_running_loop()
        self._input = memoryview(stdin)
        self._output: dict[int, bytearray] = {}
        self._room = OUTPUT_LIMIT_BYTES
        self._watched: dict[int, Callable[[int], object]] = {}
        popen = child.popen
        assert popen.stdout is not None
        assert popen.stderr is not None
        self._heard = {popen.stdout.fileno(): on_output} if on_output else {}
        for stream in (popen.stdout, popen.stderr):
            self._output[stream.fileno()] = bytearray()
            self._watch(
                stream.fileno(), self._loop.add_reader, self._loop.remove_reader, self._read
            )
        if popen.stdin is not None:
            fd = popen.stdin.fileno()
            self._watch(fd, self._loop.add_writer, self._loop.remove_writer, self._write)

    def __enter__(self) -> "_Conversation":
        return self

    def __exit__(self, *_: object) -> None:
        for fd in list(self._watched):
            self._unwatch(fd)
        for stream in (self._child.popen.stdin, self._child.popen.stdout, self._child.popen.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def finish(self, argv: Sequence[str]) -> Completed:
        """After the child's end: takes what is still in the pipes, without waiting."""
        for fd in list(self._output):
            while fd in self._watched and self._read(fd):
                pass
        if self._room < 0:
            limit = OUTPUT_LIMIT_BYTES >> 20
            raise SystemFailure(f"{shown(argv)} printed more than {limit} MiB; it was killed")
        out, err = self._output.values()
        returncode = self._child.popen.returncode
        return Completed(returncode, bytes(out), bytes(err))

    def _watch(
        self,
        fd: int,
        add: Callable[..., object],
        remove: Callable[[int], object],
        act: Callable[[int], object],
    ) -> None:
        os.set_blocking(fd, False)
        self._watched[fd] = remove
        add(fd, act, fd)

    def _unwatch(self, fd: int) -> None:
        remove = self._watched.pop(fd, None)
        if remove is not None:
            remove(fd)

    def _read(self, fd: int) -> bool:
        """One chunk; False when there is nothing to read now (or ever)."""
        try:
            chunk = os.read(fd, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self._unwatch(fd)
            return False
        self._room -= len(chunk)
        if self._room < 0:
            self._unwatch(fd)
            self._child.signal_group(signal.SIGKILL)
            return False
        self._output[fd] += chunk
        if fd in self._heard:
            self._heard[fd](chunk)
        return True

    def _write(self, fd: int) -> None:
        try:
            self._input = self._input[os.write(fd, self._input) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._input = self._input[:0]
        if not self._input:
            self._unwatch(fd)
            assert self._child.popen.stdin is not None
            self._child.popen.stdin.close()


def _tail(output: bytes) -> str:
    text = output.decode(errors="replace").strip()
    return text if len(text) <= _SHOWN_BYTES else "…" + text[-_SHOWN_BYTES:]


def _ending(returncode: int) -> str:
    if returncode >= 0:
        return f"failed with exit status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"was killed by {name}"
