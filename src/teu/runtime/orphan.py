"""How a container ended whose shim cannot say it any more."""

import asyncio
import os
import signal
from pathlib import Path

import msgspec
from msgspec import Struct

from teu.clock import now_ns

KILL_LIMIT_S = 10.0
LOST = 255
LOST_TEXT = (
    "the container's shim was killed; its output, input and log were lost with it, so the "
    "container was stopped"
)


class ExitStatus(Struct):
    """`exit_code` as Docker reports it (128 + n after signal n). `error` is set for a lost shim."""

    exit_code: int
    finished_ns: int
    oom_killed: bool
    error: str = ""


class _State(Struct):
    pid: int = 0
    pid_started: int = 0


def read_exit(directory: Path) -> ExitStatus | None:
    """exit.json; None if there is none."""
    try:
        return msgspec.json.decode((directory / "exit.json").read_bytes(), type=ExitStatus)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except msgspec.DecodeError as error:
        return ExitStatus(LOST, now_ns(), False, f"exit.json cannot be read: {error}")


async def end_orphan(directory: Path, pid: int = 0, pid_started: int = 0) -> ExitStatus | None:
    """Kills a container that has lost its shim and writes its exit.json.

    Without `pid`, state.json tells it. None if no container was ever running there.
    """
    if not pid:
        try:
            raw = (directory / "state.json").read_bytes()
            state = msgspec.json.decode(raw, type=_State)
        except (OSError, msgspec.DecodeError):
            return None
        pid, pid_started = state.pid, state.pid_started
    if not pid:
        return None
    await _kill(pid, pid_started)
    status = ExitStatus(LOST, now_ns(), False, LOST_TEXT)
    temporary = directory / ".exit.json.tmp"
    try:
        temporary.write_bytes(msgspec.json.encode(status))
        temporary.rename(directory / "exit.json")
    except FileNotFoundError:
        pass  # the directory is gone: the container was removed meanwhile
    return status


async def _kill(pid: int, pid_started: int) -> None:
    """Kills the process unless its number belongs to another one by now; waits for its end."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if process_start_time(pid) != pid_started:
            return
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await _ended(pidfd)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


async def _ended(pidfd: int) -> None:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, _settle, ended)
    try:
        async with asyncio.timeout(KILL_LIMIT_S):
            await ended
    except TimeoutError:
        pass  # it sleeps in the kernel and dies when it wakes
    finally:
        loop.remove_reader(pidfd)


def _settle(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def process_start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat, in clock ticks since boot; 0 if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text.rsplit(")", 1)[1].split()[19])
