"""The files of one log: oldest first, from a line counted from the end, and as they grow.

PATH is the newest; PATH.1, PATH.2 … or PATH.1.gz … are older. A compressed file keeps its
original's modification time, so a reader that holds the original open still finds its successors.
"""

import ctypes
import os
import re
import select
import socket
from collections.abc import Iterator
from typing import IO

BLOCK = 1 << 18
_TAIL_BLOCK = 1 << 16
_MTIME_SLACK_NS = 1_000_000_000
_IN_MODIFY, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE_SELF = 0x2, 0x80, 0x100, 0x400
_POLL_S = 0.2


class LogPart:
    """One file, open. `skip` lines, or bytes, at its start are not asked for."""

    def __init__(self, path: str, compressed: bool) -> None:
        self._raw = open(path, "rb", buffering=0)  # noqa: SIM115
        self.fd = self._raw.fileno()
        self.compressed = compressed
        self.status = os.fstat(self.fd)
        self._unzipped: IO[bytes] | None = None
        self._rest = b""
        self._skip_lines = 0

    def is_same(self, other: "LogPart") -> bool:
        """Whether `other` is this file, or its compressed form."""
        mine = os.fstat(self.fd)
        if not other.compressed:
            return mine.st_ino == other.status.st_ino
        last = os.pread(other.fd, 4, max(0, other.status.st_size - 4))  # gzip: size modulo 2^32
        size = int.from_bytes(last, "little")
        return mine.st_mtime_ns == other.status.st_mtime_ns and mine.st_size & 0xFFFFFFFF == size

    def keep_last(self, count: int) -> int:
        """Leaves only the last `count` lines to read; returns how many there are, at most that."""
        return self._keep_compressed(count) if self.compressed else self._keep_plain(count)

    def blocks(self) -> Iterator[bytes]:
        """Whole lines up to what is now the end; an unfinished last line waits for the rest."""
        while chunk := self._read(BLOCK):
            end = chunk.rfind(b"\n") + 1
            if not end:
                self._rest += chunk
                continue
            block, self._rest = self._rest + chunk[:end], chunk[end:]
            if self._skip_lines:
                block = self._skip(block)
            if block:
                yield block

    def rewind_if_truncated(self) -> None:
        """A log of one file is emptied in place when it is full."""
        if not self.compressed and os.fstat(self.fd).st_size < os.lseek(self.fd, 0, os.SEEK_CUR):
            os.lseek(self.fd, 0, os.SEEK_SET)
            self._rest = b""

    def close(self) -> None:
        self._raw.close()

    def _read(self, count: int) -> bytes:
        if not self.compressed:
            return os.read(self.fd, count)
        if self._unzipped is None:
            self._unzipped = self._open_gzip()
        return self._unzipped.read(count)

    def _skip(self, block: bytes) -> bytes:
        position = 0
        while self._skip_lines and position < len(block):
            position = block.index(b"\n", position) + 1
            self._skip_lines -= 1
        return block[position:]

    def _open_gzip(self) -> IO[bytes]:
        import gzip

        return gzip.open(self._raw, "rb")  # type: ignore[return-value]

    def _keep_plain(self, count: int) -> int:
        end = self.status.st_size
        found = 0
        position = end
        while position > 0:
            start = max(0, position - _TAIL_BLOCK)
            block = os.pread(self.fd, position - start, start)
            if position == end:
                block = block.removesuffix(b"\n")  # ends the last line, starts none
            lines = block.count(b"\n")
            if found + lines >= count:
                for _ in range(count - found):
                    block = block[: block.rindex(b"\n")]
                os.lseek(self.fd, start + len(block) + 1, os.SEEK_SET)
                return count
            found += lines
            position = start
        return found + 1 if end else 0

    def _keep_compressed(self, count: int) -> int:
        lines = 0
        with self._open_gzip() as file:
            while block := file.read(BLOCK):
                lines += block.count(b"\n")
        os.lseek(self.fd, 0, os.SEEK_SET)
        self._skip_lines = max(0, lines - count)
        return min(lines, count)


class LogFiles:
    """All files of the log at `path`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._directory, self._name = os.path.split(path)

    def open_all(self) -> list[LogPart]:
        """Oldest first. Looks again if a rotation, or the end of a compression, came between."""
        while True:
            newest = self._newest()
            parts, is_complete = self._open_listed()
            if is_complete and newest == self._newest():
                return parts
            for part in parts:
                part.close()

    def open_after(self, current: LogPart) -> list[LogPart]:
        """The files that came after `current`, oldest first; nothing if it is the newest."""
        if self._newest() in (None, current.status.st_ino):
            return []
        parts = self.open_all()
        known = [at for at, part in enumerate(parts) if current.is_same(part)]
        successors = parts[known[-1] + 1 :] if known else parts
        for part in parts[: len(parts) - len(successors)]:
            part.close()
        return successors

    def _newest(self) -> int | None:
        try:
            return os.stat(self._path).st_ino
        except FileNotFoundError:
            return None

    def _open_listed(self) -> tuple[list[LogPart], bool]:
        """What is there, and whether nothing of it went away between listing and opening: a file
        that was compressed meanwhile is there under another name."""
        pattern = re.compile(re.escape(self._name) + r"(?:\.(\d+)(\.gz)?)?")
        found: dict[int, tuple[str, bool]] = {}
        for name in sorted(os.listdir(self._directory), reverse=True):
            if match := pattern.fullmatch(name):  # PATH.1 comes after PATH.1.gz: the plain one wins
                found[int(match[1] or 0)] = name, bool(match[2])
        parts: list[LogPart] = []
        for _, (name, compressed) in sorted(found.items(), reverse=True):
            try:
                parts.append(LogPart(os.path.join(self._directory, name), compressed))
            except FileNotFoundError:
                return parts, False
        return parts, True


def keep_tail(parts: list[LogPart], count: int) -> list[LogPart]:
    """The parts that hold the last `count` lines, set to their beginning."""
    kept: list[LogPart] = []
    for part in reversed(parts):
        if count <= 0:
            if not kept:
                os.lseek(part.fd, 0, os.SEEK_END)
                kept.insert(0, part)
            break
        count -= part.keep_last(count)
        kept.insert(0, part)
    return kept


def written_since(part: LogPart, since_ns: int) -> bool:
    return part.status.st_mtime_ns + _MTIME_SLACK_NS >= since_ns


class Watcher:
    """Wakes when the log or the exit directory changes, or the client goes."""

    def __init__(self, directories: list[str], client: socket.socket) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        mask = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE_SELF
        watches = [
            libc.inotify_add_watch(self._inotify, os.fsencode(directory), mask)
            for directory in directories
        ]
        # The kernel limits inotify instances per user; beyond that, look now and then.
        self._blind = self._inotify < 0 or min(watches) < 0
        self._client_fd = client.fileno()
        self._poll = select.poll()
        # A unix socket says HUP when its peer is gone; TCP only ever says that no more will come.
        gone = 0 if client.family == socket.AF_UNIX else select.POLLRDHUP
        self._poll.register(client, gone)
        if self._inotify >= 0:
            self._poll.register(self._inotify, select.POLLIN)

    def wait(self, limit_s: float | None) -> bool:
        """False when the client has gone."""
        if self._blind:
            limit_s = _POLL_S if limit_s is None else min(limit_s, _POLL_S)
        ready = dict(self._poll.poll(None if limit_s is None else limit_s * 1000))
        if self._inotify in ready:
            os.read(self._inotify, 1 << 16)
        return self._client_fd not in ready

    def close(self) -> None:
        if self._inotify >= 0:
            os.close(self._inotify)
