"""How the daemon talks to the zygote and to shims.

Unix sockets of type SOCK_SEQPACKET: one packet is one JSON object, with descriptors as SCM_RIGHTS
beside it, so there is never half a message. All text is UTF-8, instants are epoch nanoseconds.

Daemon to zygote (a socketpair, inherited; no answers):
    {"role": "shim", "runtime": PROGRAM} + [connection]
                                              fork a shim that is served by this connection
    {"role": "logs", …reader.Request} + [client, …]   fork a log reader

Daemon to shim (that connection, or any number of later ones to DIRECTORY/shim.sock):
    {"op": "launch", "id": N, "container": ID, "directory", "bundle", "runtime": […],
     "tty", "open_stdin", "stdin_once": bool, "size": [H, W] | null,
     "log": LOG, "timeout_s",
     "clients": [CLIENT…]} + [one fd per client]
    {"op": "exec", "id": N, "exec": EXEC, "process": PATH, "tty", "stdin", "size": [H, W] | null,
     "timeout_s", "clients": [CLIENT…]} + [fds]
    {"op": "attach", "id": N, "exec": EXEC | "", "clients": [CLIENT]} + [fd]
    {"op": "resize", "id": N, "exec": EXEC | "", "height", "width"}
    {"op": "state", "id": N}                  answered once the container runs, or failed to start
    {"op": "ack", "seq": N}                   an event was recorded; no answer
    LOG = {"path" ("": no file), "max_size", "max_file", "compress", "attrs": {},
           "remote": null | REMOTE, "buffer_bytes" (0: a slow log server holds output back)}
    REMOTE = {"driver", "settings": {}, "extra": {}} (formats.py),
             "target": {} (link.py), "tls": null | {} (tls.py)}
    CLIENT = {"stdin", "stdout", "stderr", "multiplexed": bool, "detach_keys": [byte…]}

Shim to daemon:
    {"id": N, "ok": {…}}  or  {"id": N, "error": {"kind", "message", "exit_code"}}
        launch, state -> {"pid", "pid_started", "started_ns", "execs": [EXECUTED…]}
            EXECUTED = {"exec", "pid", "exit_code": int | null}
        exec -> {"pid"};  attach, resize -> {}
        kind: "start" (the runtime refused; `message` is what it printed, `exit_code` its own),
        "log" (the log cannot be opened), "timeout", "gone" (no such process, or it has ended),
        "invalid"
    {"event": "hello", "shim_pid"}            first packet on the launch connection
    {"event": "exit", "seq", "exit_code", "finished_ns", "oom_killed"}
    {"event": "exec-exit", "seq", "exec", "exit_code", "finished_ns"}
        clients' sockets stay open until the ack (at most ACK_LIMIT_S)
    {"event": "detached", "exec"}             a client typed its detach keys
    {"event": "log-error", "message"}         output is being dropped, or a server was lost

Files in the container's DIRECTORY, each written to a temporary name and renamed:
    shim.sock    listening while the container runs
    state.json   {"id", "shim_pid", "pid", "pid_started", "started_ns", "log_error"}: since it runs
    exit.json    {"exit_code", "signal" | null, "finished_ns", "oom_killed"}: before anybody is told
    fault.json   {"at_ns", "fault"}: the last thing that went wrong in the shim itself
"""

import array
import json
import os
import socket
from typing import Any

PACKET_LIMIT = 1 << 18
FD_LIMIT = 250
ACK_LIMIT_S = 2.0

Message = dict[str, Any]


class BadMessage(Exception):
    """A packet that is not one JSON object."""


def send(sock: socket.socket, message: Message, fds: list[int] | None = None) -> None:
    """One packet. Raises: OSError (BlockingIOError: the peer does not read)."""
    payload = json.dumps(message, separators=(",", ":")).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([payload], rights, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """One packet and its descriptors (now the caller's); None at the end.

    Raises: BadMessage; OSError (BlockingIOError: nothing there yet).
    """
    size = array.array("i").itemsize
    payload, ancillary, _, _ = sock.recvmsg(
        PACKET_LIMIT, socket.CMSG_LEN(FD_LIMIT * size), socket.MSG_CMSG_CLOEXEC
    )
    received = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received.frombytes(data[: len(data) - len(data) % size])
    fds = received.tolist()
    if not payload:
        close_all(fds)
        return None
    try:
        message = json.loads(payload)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        close_all(fds)
        raise BadMessage("a packet must be one JSON object")
    return message, fds


def close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
