"""Forks shims and log readers: `python -I -S zygote.py FD SCRATCH`.

FD is a SOCK_SEQPACKET to the daemon, SCRATCH a directory for the rehearsal only.

Everything that they need is imported here, once, and the heap is frozen, so a fork takes a few
hundred microseconds and most pages stay shared. Ends when the daemon closes FD; its children live
on: sessions of their own, no descriptor but those of their request. Stdin must be /dev/null.

Signals are set up here for the shims too, because each signal.signal in a shim costs it 100 KiB of
its own: a shim outlives TERM, INT and HUP (a service manager that ends it would end its container),
by handlers, not SIG_IGN, for what is ignored stays so in the container.
"""

import contextlib
import ctypes
import functools
import gc
import os
import signal
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from teu.shim.program import Programs
from teu.shim.reader import LogReader
from teu.shim.rehearsal import rehearse
from teu.shim.shim import Shim
from teu.shim.wire import BadMessage, Message, close_all, receive

_PR_SET_CHILD_SUBREAPER = 36
_OUTLIVED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    os.chdir("/")
    os.umask(0o022)
    _set_name("teu-zygote")
    rehearse(sys.argv[2])
    signal.signal(signal.SIGCHLD, functools.partial(_reap, os.getpid()))
    for number in _OUTLIVED:
        signal.signal(number, _nothing)
    gc.collect()
    gc.freeze()
    gc.disable()
    programs = Programs()
    while True:
        try:
            packet = receive(control)
        except BadMessage:
            continue
        if packet is None:
            return
        message, fds = packet
        if "runtime" in message:
            message["executable"] = programs.executable(message["runtime"])
        try:
            if os.fork() == 0:
                _become(control, message, fds)
        except OSError:
            pass  # no process to be had; the far ends of the descriptors see end of file
        close_all(fds)


def _become(control: socket.socket, message: Message, fds: list[int]) -> None:
    """The child's whole life."""
    status = 1
    try:
        os.setsid()
        control.close()
        gc.enable()  # sees only what is made from here on
        for fd in (1, 2):
            os.dup2(0, fd)  # lets go of the daemon's terminal or journal
        if message.get("role") == "logs":
            _set_name("teu-logs")
            for number in _OUTLIVED:
                signal.signal(number, signal.SIG_DFL)
            LogReader(message, fds).run()
        else:
            _set_name("teu-shim")
            _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            Shim(socket.socket(fileno=fds[0]), message["executable"]).run()
        status = 0
    finally:
        os._exit(status)


def _reap(zygote_pid: int, *_: object) -> None:
    """On SIGCHLD. A shim, which inherits this, reaps in its own way."""
    if os.getpid() != zygote_pid:
        return
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _nothing(*_: object) -> None:
    pass


def _set_name(name: str) -> None:
    """As `ps -o comm` shows it."""
    fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, name.encode())
    os.close(fd)


if __name__ == "__main__":
    main()
