"""Plays containers' lives in the zygote, with a shell in the place of the runtime.

A function's first calls write into it: the interpreter's specialised instructions, caches of
lookups, lazily made objects. Done before the fork, the pages stay shared by all shims (about
0.5 MiB less for each), and the first container is as fast as the next.
"""

import contextlib
import ctypes
import os
import signal
import socket
from typing import Any

from teu.shim.shim import Shim
from teu.shim.wire import Message, receive, send

ROUNDS = 9  # the interpreter specialises a function within eight calls
LIMIT_S = 2.0
# Stands for `RUNTIME run|exec -d --bundle|--process X --pid-file P TARGET`: starts a process that
# echoes its input. The detour keeps the shell from taking its stdin away.
_RUNTIME = ["sh", "-c", '{ cat <&3 3<&- & } 3<&0; echo $! >"$5"']
_PR_SET_CHILD_SUBREAPER = 36
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def rehearse(directory: str) -> None:
    """Leaves the process as it was, and no file in `directory`, which it may have to make.

    Whatever goes wrong costs only the benefit, and LIMIT_S.
    """
    with contextlib.suppress(OSError):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        before = signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            _play(directory)
        finally:
            signal.signal(signal.SIGCHLD, before)
            _prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
            for name in os.listdir(directory):
                os.unlink(f"{directory}/{name}")


def _play(directory: str) -> None:
    stages = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(ROUNDS)]
    if os.fork() == 0:
        try:
            for daemon, shim in stages:
                shim.close()
                daemon.settimeout(LIMIT_S)
                _play_daemon(daemon, directory)
        finally:
            os._exit(0)
    for daemon, _ in stages:
        daemon.close()
    for _, shim in stages:
        Shim(shim, _RUNTIME[0]).run()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, 0):
            pass


def _play_daemon(shim: socket.socket, directory: str) -> None:
    """Starts a container, executes something in it, talks with both, sees both end."""
    log = {"path": f"{directory}/log", "max_size": 1 << 20, "max_file": 1}
    launch = {
        **{"op": "launch", "container": "rehearsal", "directory": directory},
        **{"bundle": directory, "runtime": _RUNTIME, "tty": False, "open_stdin": True},
        **{"stdin_once": True, "size": None, "log": log, "timeout_s": LIMIT_S},
    }
    execute = {
        **{"op": "exec", "exec": "rehearsal", "process": "", "tty": False, "stdin": True},
        **{"size": None, "timeout_s": LIMIT_S},
    }
    _await(shim, "event", "hello")
    first = _ask(shim, launch)
    _ask(shim, {"op": "state"})
    _converse(shim, _ask(shim, execute), "exec-exit")
    _converse(shim, first, "exit")


def _ask(shim: socket.socket, request: Message) -> socket.socket:
    """The client that was attached by the request."""
    ours, theirs = socket.socketpair()
    with theirs:
        attach = request["op"] != "state"
        options = {"stdin": True, "stdout": True, "stderr": True, "multiplexed": True}
        clients = [{**options, "detach_keys": [16, 17]}] if attach else []
        message = {**request, "id": 1, "clients": clients}
        send(shim, message, [theirs.fileno()] if attach else None)
    ours.settimeout(LIMIT_S)
    _await(shim, "id", 1)
    return ours


def _converse(shim: socket.socket, client: socket.socket, end: str) -> None:
    client.sendall(b"line\n")
    client.recv(64)
    client.shutdown(socket.SHUT_WR)
    sequence = _await(shim, "event", end)["seq"]
    send(shim, {"op": "ack", "seq": sequence})
    while client.recv(64):
        pass
    client.close()


def _await(shim: socket.socket, key: str, value: Any) -> Message:
    """The next packet that has this. Raises: OSError."""
    while packet := receive(shim):
        if packet[0].get(key) == value:
            return packet[0]
    raise OSError("the shim has ended")
