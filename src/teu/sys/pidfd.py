"""Processes by pid without the danger of a reused one.

A pid is trusted only together with the process's start time (field 22 of /proc/PID/stat, clock
ticks since boot). Source: pidfd_open(2), pidfd_send_signal(2), proc_pid_stat(5).
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterable

_KILL_ROUNDS = 20


def start_time(pid: int) -> int:
    """Ticks since boot; 0 when there is no such process (a zombie still has one)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def is_alive(pid: int, started: int) -> bool:
    """The process that was started then still exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(fields[19]) == started and fields[0] not in (b"Z", b"X")


def send_signal(pid: int, started: int, number: int) -> bool:
    """Signals that very process; False when it is gone (or its pid was reused)."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if start_time(pid) != started:
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, number)
            return True
        return False
    finally:
        os.close(fd)


def kill_session(pid: int, list_pids: Callable[[], Iterable[int]]) -> None:
    """Kills all processes in the session of `pid` that are listed, which is done again until none
    is found: one may fork while another is being killed. Nothing if there is no such process."""
    try:
        session = os.getsid(pid)
    except ProcessLookupError:
        return
    for _ in range(_KILL_ROUNDS):
        if not any([_kill_member(pid, session) for pid in list_pids()]):
            return


def _kill_member(pid: int, session: int) -> bool:
    """Whether it was one of them, alive until now."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, _, _, its_session, *_ = file.read().rpartition(b")")[2].split()
        if int(its_session) != session or state in (b"Z", b"X"):
            return False
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return False
    finally:
        os.close(fd)
    return True
