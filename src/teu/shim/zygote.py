"""Forks shims and log readers: `python -I -S zygote.py FD`, FD a SOCK_SEQPACKET to the daemon.

Everything that they need is imported here, once, and the heap is frozen, so a fork takes a few
hundred microseconds and its pages stay shared. Ends when the daemon closes FD; its children live
on: sessions of their own, default signals, no descriptor but those of their request.
"""

import ctypes
import gc
import os
import signal
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from teu.shim.program import Programs
from teu.shim.reader import LogReader
from teu.shim.shim import Shim
from teu.shim.wire import BadMessage, Message, close_all, receive, send

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    os.chdir("/")
    os.umask(0o022)
    _prctl(_PR_SET_NAME, b"teu-zygote", 0, 0, 0)
    _warm_up()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps them
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing here makes reference cycles at a rate that matters
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
        if os.fork() == 0:
            _become(control, message, fds)
        close_all(fds)


def _warm_up() -> None:
    """Runs what every shim runs first, so that its caches are filled before the fork: -0.3 MiB."""
    for _ in range(10):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        shim = Shim(theirs, "")
        send(ours, {"op": "state", "id": 1, "clients": [], "log": {"path": "", "max_size": 0}})
        shim.warm_up()
        receive(ours)
        ours.close()


def _become(control: socket.socket, message: Message, fds: list[int]) -> None:
    """The child's whole life."""
    status = 1
    try:
        os.setsid()
        control.close()
        _silence()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if message.get("role") == "logs":
            _prctl(_PR_SET_NAME, b"teu-logs", 0, 0, 0)
            LogReader(message, fds).run()
        else:
            _prctl(_PR_SET_NAME, b"teu-shim", 0, 0, 0)
            _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            Shim(socket.socket(fileno=fds[0]), message["executable"]).run()
        status = 0
    finally:
        os._exit(status)


def _silence() -> None:
    """Lets go of the daemon's terminal or journal."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


if __name__ == "__main__":
    main()
