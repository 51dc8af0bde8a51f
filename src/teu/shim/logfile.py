"""The log file: drivers `json-file` and `local`, and the copy that `logs` reads of the others.

Rotated files are PATH.1 (newest) … PATH.(max_file - 1), with `.gz` if compressed; `max_file` 1
truncates PATH. A failing disk never disturbs the container: output is dropped, which is reported
once.
"""

import contextlib
import os
from collections.abc import Callable
from typing import Any

from teu.shim.encode import LineEncoder

COPY_BYTES = 1 << 18


class LogFile:
    """Appends to `path`. `max_size` in bytes, 0 for no limit. Raises: OSError if it cannot open."""

    blocked = False  # never holds output back
    finished = True  # once closed

    def __init__(self, options: dict[str, Any], on_error: Callable[[str], None]) -> None:
        self._path: str = options["path"]
        self._max_size = int(options.get("max_size") or 0)
        self._max_file = max(1, int(options.get("max_file") or 1))
        self._compress = bool(options.get("compress"))
        self._on_error = on_error
        self._failed = False
        self._compressor = 0
        attrs = options.get("attrs") or {}
        self._encoders = {kind: LineEncoder(kind, attrs) for kind in (1, 2)}
        self._fd = -1
        self._open()

    def write(self, kind: int, chunk: bytes) -> None:
        for entries in self._encoders[kind].encode(chunk):
            self._append(entries)

    def close(self) -> None:
        """Writes unfinished lines. Harmless when repeated."""
        for encoder in self._encoders.values():
            self._append(encoder.finish())
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o640)
        self._size = os.fstat(self._fd).st_size

    def _append(self, entries: bytes) -> None:
        rest = memoryview(entries)
        try:
            while rest:
                if self._fd < 0:
                    self._open()
                if self._max_size and self._size >= self._max_size:
                    self._rotate()
                count = self._fitting(entries, len(entries) - len(rest))
                self._write_whole(rest[:count])
                rest = rest[count:]
        except OSError as error:
            if not self._failed:
                self._failed = True
                self._on_error(f"writing the log {self._path} failed, output is lost: {error}")

    def _fitting(self, entries: bytes, start: int) -> int:
        """How many bytes of whole entries go to the present file: until it is over the limit."""
        if not self._max_size:
            return len(entries) - start
        end = entries.find(b"\n", start + self._max_size - self._size - 1)
        return (end + 1 if end >= 0 else len(entries)) - start

    def _write_whole(self, entries: memoryview) -> None:
        """All of it, or nothing: no broken line stays when the disk is full."""
        written = 0
        try:
            while written < len(entries):
                written += os.write(self._fd, entries[written:])
        except OSError:
            if written:
                os.ftruncate(self._fd, self._size)
            raise
        self._size += written

    def _rotate(self) -> None:
        self._wait_for_compressor()
        if self._max_file == 1:
            os.ftruncate(self._fd, 0)
            self._size = 0
            return
        suffix = ".gz" if self._compress else ""
        for number in range(self._max_file - 1, 1, -1):
            _rename(f"{self._path}.{number - 1}{suffix}", f"{self._path}.{number}{suffix}")
        os.close(self._fd)
        self._fd = -1
        _rename(self._path, f"{self._path}.1")
        self._open()
        if self._compress:
            self._compressor = _spawn_compressor(f"{self._path}.1")

    def _wait_for_compressor(self) -> None:
        if self._compressor:
            with contextlib.suppress(ChildProcessError):  # reaped by the shim's own loop
                os.waitpid(self._compressor, 0)
            self._compressor = 0


def _rename(old: str, new: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.rename(old, new)


def _spawn_compressor(path: str) -> int:
    """Compresses in a child, which holds nothing else of the shim; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        compress(path)
        status = 0
    finally:
        os._exit(status)


def compress(path: str) -> None:
    """PATH to PATH.gz; either exists as a whole at any time."""
    import gzip

    temporary = f"{path}.gz.tmp"
    with open(path, "rb") as source, gzip.open(temporary, "wb", compresslevel=6) as target:
        while block := source.read(COPY_BYTES):
            target.write(block)
    status = os.stat(path)
    os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))  # readers know it by that
    os.rename(temporary, f"{path}.gz")
    os.unlink(path)
