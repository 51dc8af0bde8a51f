"""One daemon per data root, exec root and pid file.

    DATA_ROOT/teud.lock    flock, held for life; its text is the holder's pid
    EXEC_ROOT/teud.lock    the same
    PIDFILE                for people and scripts; removed at exit if it is still ours

The kernel drops the locks when the process dies, however it dies. Descriptors are close-on-exec,
so no child (the zygote, a shim) keeps a lock alive.
"""

import errno
import fcntl
import os
import time
from pathlib import Path

from teu.daemon.config import DaemonConfig
from teu.errors import Conflict, SystemFailure

LOCK_NAME = "teud.lock"
DATA_MODE = 0o710
EXEC_MODE = 0o711
_CLOCK_SLACK_S = 2.0


class AlreadyRunning(Conflict):
    """Another daemon holds what this one needs; the message names its pid."""


class Claim:
    """The right to be the daemon of a configuration's directories, until `release` or death."""

    def __init__(self, config: DaemonConfig) -> None:
        """Makes the directories, locks them and writes the pid file.

        Raises: AlreadyRunning; SystemFailure when a directory cannot be made or used; Conflict
        when the data root is a Docker daemon's.
        """
        self._pidfile = config.pidfile
        self._lock_fds: list[int] = []
        try:
            _make(config.data_root, DATA_MODE, "data-root")
            _refuse_dockers(config.data_root)
            self._lock_fds.append(_lock(config.data_root, "data-root"))
            _make(config.exec_root, EXEC_MODE, "exec-root")
            self._lock_fds.append(_lock(config.exec_root, "exec-root"))
            _write_pidfile(config.pidfile)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Removes the pid file if it is ours, and drops the locks. May be called twice."""
        if _read_pid(self._pidfile) == os.getpid():
            self._pidfile.unlink(missing_ok=True)
        while self._lock_fds:
            os.close(self._lock_fds.pop())


def _make(directory: Path, mode: int, option: str) -> None:
    try:
        directory.mkdir(mode=mode, parents=True, exist_ok=True)
        directory.chmod(mode)
    except OSError as error:
        raise SystemFailure(
            f"cannot use {directory} as {option}: {error.strerror}. Make the directory writable "
            f"for root, or choose another with --{option}"
        ) from error


def _refuse_dockers(root: Path) -> None:
    """Docker's directory has other contents under the same names; neither would survive it."""
    if (root / "engine-id").exists() and (root / "image").is_dir():
        raise Conflict(
            f"{root} is the data root of a Docker daemon. Choose another directory with "
            "--data-root; images move by `docker save` and `teu load`"
        )


def _lock(directory: Path, option: str) -> int:
    path = directory / LOCK_NAME
    try:
        lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SystemFailure(f"cannot open {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        holder = os.pread(lock_fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock_fd)
        if error.errno != errno.EWOULDBLOCK:
            raise SystemFailure(f"cannot lock {path}: {error.strerror}") from error
        raise AlreadyRunning(
            f"{directory} is in use by another daemon (pid {holder}). Stop that one, or choose "
            f"another directory with --{option}"
        ) from error
    return lock_fd


def _write_pidfile(path: Path) -> None:
    pid = _read_pid(path)
    if pid and pid != os.getpid() and _is_writer(pid, path):
        raise AlreadyRunning(
            f"ensure teud is not running or delete {path}: process with PID {pid} is still running"
        )
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(f"{os.getpid()}\n")
        temporary.chmod(0o644)
        temporary.rename(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SystemFailure(f"cannot write the pid file {path}: {error.strerror}") from error


def _read_pid(path: Path) -> int:
    """0 for a file that is missing or holds no pid."""
    try:
        text = path.read_text(errors="replace").strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() and len(text) < 10 else 0


def _is_writer(pid: int, path: Path) -> bool:
    """Whether the process that wrote the file still lives: a later one only reuses its number."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot_to_now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        written_s = path.stat().st_mtime
    except OSError:
        return False
    if fields[0] in "ZX":
        return False
    age_s = boot_to_now_s - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - age_s <= written_s + _CLOCK_SLACK_S
