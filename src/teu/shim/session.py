"""The stdio of one process: between its pipes or terminal, its log and the attached clients.

A client that does not read stops the process's output once the pipe is full, as with Docker; what
is held for it in memory is one chunk. When the process has ended, the rest of its output (at most
a pipe's capacity) is taken at once, so that its end is recorded without waiting for anybody.
"""

import contextlib
import errno
import fcntl
import functools
import os
import struct
import termios
import time
from collections.abc import Callable
from typing import Any, Protocol

from teu.shim.client import CHUNK, Client
from teu.shim.loop import READ, WRITE, Loop, Timer

STDOUT, STDERR = 1, 2
PIPE_BYTES = 1 << 19
BUSY_READS, BUSY_GAP_S, GATHER_S = 8, 0.002, 0.001
DRAIN_LIMIT_S = 1.0
DRAIN_LIMIT_BYTES = 1 << 20  # the largest pipe that the kernel allows by default
_BURST = 16


class Log(Protocol):
    @property
    def blocked(self) -> bool:
        """Whether output is held back; `Session.unblocked` is called when that is over."""

    def write(self, kind: int, chunk: bytes) -> None: ...
    def close(self) -> None: ...


class Stdio:
    """The shim's ends of a process's stdio. For a terminal `stdout` is its master side."""

    def __init__(self, stdin: int | None, stdout: int | None, stderr: int | None) -> None:
        self.stdin = stdin
        outputs = ((STDOUT, stdout), (STDERR, stderr))
        self.outputs = {kind: fd for kind, fd in outputs if fd is not None}


class Session:
    """Clients may attach before the process exists (`connect`) and any time after.

    `close_stdin`: the first input client's end of file closes the process's stdin (StdinOnce).
    """

    def __init__(
        self,
        loop: Loop,
        *,
        log: Log | None,
        tty: bool,
        open_stdin: bool,
        close_stdin: bool,
        on_detached: Callable[[], None],
        on_closed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._log = log
        self._open_stdin = open_stdin
        self._close_stdin = close_stdin
        self._on_detached = on_detached
        self._on_closed = on_closed
        self._clients: list[Client] = []
        self._outputs: dict[int, int] = {}
        self._paused = False
        self._grown = False
        self._busy = 0
        self._last_copy = 0.0
        self._tty = tty
        self._stdin: int | None = None
        self._stdin_pending = b""
        self._stdin_ended = False
        self._on_drained: Callable[[], None] | None = None
        self._drain_timer: Timer | None = None
        self._finished = False
        self._closed = False

    def attach(self, fd: int, options: dict[str, Any]) -> None:
        """Adds a client; it gets the output from now on."""
        stdin = bool(options.get("stdin")) and self._open_stdin
        keys = options.get("detach_keys") if self._tty else None  # Docker: only at a terminal
        options = {**options, "stdin": stdin, "detach_keys": keys}
        client = Client(self._loop, self, fd, options)
        self._clients.append(client)
        if self._finished:
            client.finish()

    def connect(self, stdio: Stdio) -> None:
        """The process runs: starts copying. The descriptors are the session's from here on."""
        self._stdin = stdio.stdin
        self._outputs = dict(stdio.outputs)
        for fd in (*self._outputs.values(), *([] if self._stdin is None else [self._stdin])):
            os.set_blocking(fd, False)
        self._watch_outputs()
        self._watch_clients()

    def resize(self, height: int, width: int) -> None:
        """Raises: OSError (ENOTTY: no terminal, EIO: it has ended)."""
        fd = self._outputs.get(STDOUT)
        if not self._tty or fd is None:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        set_window_size(fd, height, width)

    def drain(self, on_drained: Callable[[], None]) -> None:
        """The process has ended: takes the rest of its output, then closes its stdio and log.

        `on_drained` is called when that is done; at most DRAIN_LIMIT_S later if a grandchild
        still holds the pipes.
        """
        self._on_drained = on_drained
        for client in self._clients:
            client.take_owed()
        for kind in list(self._outputs):
            self._take_rest(kind)
        if not self._outputs:
            self._drained()
            return
        self._paused = False
        self._watch_outputs()
        self._drain_timer = self._loop.later(DRAIN_LIMIT_S, self._drained)

    def finish(self) -> None:
        """Ends all clients, each after its last output; `on_closed` is called after the last."""
        self._finished = True
        for client in list(self._clients):
            client.finish()
        self._close_if_empty()

    def abandon(self) -> None:
        """The process did not start: lets go of the clients without ending their connections."""
        for client in list(self._clients):
            client.drop()
        if self._log:
            self._log.close()

    # What clients call.

    @property
    def takes_input(self) -> bool:
        return self._stdin_ended or (self._stdin is not None and not self._stdin_pending)

    def feed(self, data: bytes) -> None:
        """Input of a client; after the process closed its stdin it is discarded."""
        if self._stdin is None or self._stdin_ended:
            return
        self._stdin_pending += data
        self._write_stdin()

    def input_ended(self, client: Client) -> None:
        """End of a client's input. Docker's rule: it ends the process's stdin, or the client."""
        if self._close_stdin and not self._tty:
            self._stdin_ended = True
            if not self._stdin_pending:
                self._drop_stdin()
        else:
            client.finish()

    def detached(self, client: Client) -> None:
        client.finish()
        self._on_detached()

    def unblocked(self) -> None:
        if self._paused and not self._blocked():
            self._paused = False
            self._watch_outputs()

    def left(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
        self.unblocked()
        if self._finished:
            self._close_if_empty()

    # Output.

    def _watch_outputs(self) -> None:
        for kind, fd in self._outputs.items():
            self._loop.watch(fd, READ, functools.partial(self._copy, kind))

    def _blocked(self) -> bool:
        """Whether somebody has not taken yet what was read."""
        slow_log = self._log is not None and self._log.blocked
        return slow_log or any(client.blocked for client in self._clients)

    def _pause(self) -> None:
        self._paused = True
        for fd in self._outputs.values():
            self._loop.forget(fd)

    def _copy(self, kind: int, _events: int) -> None:
        self._gather(kind)
        for _ in range(_BURST):
            more = self._copy_once(kind)
            if self._blocked():
                self._pause()
                return
            if not more:
                return

    def _gather(self, kind: int) -> None:
        """Lets a busy process fill its pipe a little before it is read.

        Most programs write 4 KiB at a time. A reader that is woken for each write costs the
        processor more than the writer does; both get faster when it comes late on purpose.
        """
        now = time.monotonic()
        self._busy = self._busy + 1 if now - self._last_copy < BUSY_GAP_S else 0
        if self._busy >= BUSY_READS and _readable_bytes(self._outputs[kind]) < CHUNK:
            time.sleep(GATHER_S)
            now += GATHER_S
        self._last_copy = now

    def _copy_once(self, kind: int) -> bool:
        """Moves one chunk; False when there is nothing more for now."""
        client = self._splice_client(kind)
        if client is not None:
            waiting = _readable_bytes(self._outputs[kind])
            if waiting:
                client.splice(kind, self._outputs[kind], waiting)
                self._grow_pipe(kind, waiting)
                return waiting >= CHUNK
        chunk = self._read(kind)
        if chunk:
            self._deliver(kind, chunk)
            self._grow_pipe(kind, len(chunk))
        return chunk is not None and len(chunk) == CHUNK

    def _splice_client(self, kind: int) -> Client | None:
        if self._log or self._tty or self._on_drained:
            return None
        wanting = [client for client in self._clients if client.wants(kind)]
        return wanting[0] if len(wanting) == 1 else None

    def _read(self, kind: int) -> bytes | None:
        """A chunk; None when there is none now, or ever (then the output is closed)."""
        try:
            chunk = os.read(self._outputs[kind], CHUNK)
        except BlockingIOError:
            return None
        except OSError:  # EIO: the terminal has hung up
            chunk = b""
        if not chunk:
            self._end_output(kind)
            return None
        return chunk

    def _deliver(self, kind: int, chunk: bytes) -> None:
        if self._log:
            self._log.write(kind, chunk)
        for client in list(self._clients):
            if client.wants(kind):
                client.send(kind, chunk)

    def _grow_pipe(self, kind: int, count: int) -> None:
        if self._grown or self._tty or (count < CHUNK and self._busy < BUSY_READS):
            return
        self._grown = True  # only busy containers need it, and the kernel's budget is per user
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._outputs[kind], fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def _take_rest(self, kind: int) -> None:
        taken = 0
        while kind in self._outputs and taken < DRAIN_LIMIT_BYTES:
            chunk = self._read(kind)
            if chunk is None:
                return
            self._deliver(kind, chunk)
            taken += len(chunk)

    def _end_output(self, kind: int) -> None:
        fd = self._outputs.pop(kind)
        self._loop.forget(fd)
        os.close(fd)
        if not self._outputs and self._on_drained:
            self._drained()

    def _drained(self) -> None:
        on_drained, self._on_drained = self._on_drained, None
        if on_drained is None:
            return
        if self._drain_timer:
            self._drain_timer.cancel()
        for kind in list(self._outputs):
            self._end_output(kind)
        self._stdin_ended = True
        self._drop_stdin()
        if self._log:
            self._log.close()
            self._log = None
        on_drained()

    def _close_if_empty(self) -> None:
        if not self._clients and not self._closed:
            self._closed = True
            self._on_closed()

    # Input.

    def _write_stdin(self) -> None:
        assert self._stdin is not None
        try:
            written = os.write(self._stdin, self._stdin_pending)
        except BlockingIOError:
            written = 0
        except OSError:  # the process closed it: discard from now on
            self._stdin_ended = True
            written = len(self._stdin_pending)
        self._stdin_pending = self._stdin_pending[written:]
        if self._stdin_pending:
            self._loop.watch(self._stdin, WRITE, lambda _: self._write_stdin())
            return
        self._loop.forget(self._stdin)
        if self._stdin_ended:
            self._drop_stdin()
        self._watch_clients()

    def _drop_stdin(self) -> None:
        self._stdin_pending = b""
        if self._stdin is not None:
            self._loop.forget(self._stdin)
            os.close(self._stdin)
            self._stdin = None
        self._watch_clients()

    def _watch_clients(self) -> None:
        for client in list(self._clients):
            client.watch()


def set_window_size(fd: int, height: int, width: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def _readable_bytes(fd: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))[0])
