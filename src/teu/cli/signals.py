"""Signals: handing them on to a container, following the window's size, ending cleanly.

Handlers run in the main thread, between the blocking reads of the output side. `_signal` is used
because `signal` wraps every number in an enum, which costs 4 ms at start.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Not ours to hand on: what the kernel or the terminal tells this process itself, and what
# cannot be caught.
_OWN = frozenset(
    "SIGCHLD SIGCLD SIGPIPE SIGURG SIGWINCH SIGKILL SIGSTOP SIGSEGV SIGBUS SIGFPE SIGILL SIGABRT "
    "SIGIOT SIGTRAP SIGPROF SIGVTALRM SIGSYS".split()
)
_FATAL = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM")
_PATIENCE = 3


def _numbers() -> dict[int, str]:
    table: dict[int, str] = {}
    for name, number in vars(_signal).items():
        if name.startswith("SIG") and name[3] != "_" and isinstance(number, int):
            table.setdefault(number, name)
    return table


class Wakeup:
    """Blocks for data without sleeping through a signal.

    Python runs handlers between bytecodes of the main thread. A signal that comes after the last
    look and before the system call blocks (or that another thread takes) would wait for the next
    byte of output. The C handler writes to a pipe, and this class polls both.
    """

    def __init__(self) -> None:
        self._pipe, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)

    def wait_readable(self, descriptor: int, limit_s: float | None = None) -> None:
        """Returns when `descriptor` has data or its end; handlers have run meanwhile.

        limit_s: return after this time in any case (signals start it anew).
        """
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(self._pipe, select.POLLIN)
        while True:
            ready = [number for number, _ in poll.poll(None if limit_s is None else limit_s * 1000)]
            if descriptor in ready or not ready:
                return
            os.read(self._pipe, 4096)


class SignalProxy:
    """Hands signals on through `send(name)`, which must not raise.

    Until `open` is called they are kept: the container is not there yet. The third INT or TERM
    ends this program instead: the container (or the daemon) does not listen.
    """

    def __init__(self, send: Callable[[str], None], give_up: Callable[[], None]) -> None:
        self._send = send
        self._give_up = give_up
        self._names: dict[int, str] = {}
        self._kept: list[str] | None = []
        self._pleas = 0

    def install(self) -> None:
        for number, name in _numbers().items():
            if name in _OWN:
                continue
            try:
                _signal.signal(number, self._catch)
            except (OSError, ValueError):
                continue  # a number that libc keeps for itself
            self._names[number] = name

    def open(self) -> None:
        """The container runs: send what was kept, and from now on at once."""
        kept, self._kept = self._kept or [], None
        for name in kept:
            self._send(name)

    def _catch(self, number: int, _frame: object) -> None:
        name = self._names[number]
        if name in ("SIGINT", "SIGTERM"):
            self._pleas += 1
            if self._pleas == _PATIENCE:
                self._give_up()
        if self._kept is None:
            self._send(name.removeprefix("SIG"))
        else:
            self._kept.append(name.removeprefix("SIG"))


def on_window_change(action: Callable[[], None]) -> None:
    """Calls `action` whenever the terminal's size changes."""
    _signal.signal(_signal.SIGWINCH, lambda _number, _frame: action())


def undo_before_death(undo: Callable[[], None]) -> None:
    """Runs `undo` before a signal ends this program; the program still dies by that signal."""
    numbers = {name: number for number, name in _numbers().items()}

    def die(number: int, _frame: object) -> None:
        undo()
        die_by(number)

    for name in _FATAL:
        _signal.signal(numbers[name], die)


def die_by(number: int) -> None:
    """Ends this process by the signal, so that a shell sees 128+n and make stops."""
    sys.stdout.flush()
    _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)


def die_of_broken_pipe() -> None:
    """What happens to every other program whose reader went away."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    die_by(_signal.SIGPIPE)
