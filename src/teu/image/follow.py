"""A file that is read while it is still being written."""

import os
import threading

_CHUNK_BYTES = 1 << 20


class FollowedFile:
    """Writer: `available`, then `finish` or `fail`. Reader (one thread): a source of bytes."""

    def __init__(self, fd: int) -> None:
        self._fd = os.dup(fd)
        self._changed = threading.Condition()
        self._size_bytes = 0
        self._position = 0
        self._ended = False
        self._error: BaseException | None = None

    @property
    def position(self) -> int:
        """How far it was read."""
        return self._position

    def available(self, size_bytes: int) -> None:
        """The file's first `size_bytes` can be read now."""
        with self._changed:
            self._size_bytes = size_bytes
            self._changed.notify()

    def finish(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()

    def fail(self, error: BaseException) -> None:
        """The reader gets `error` at once."""
        with self._changed:
            self._error = error
            self._changed.notify()

    def read(self, size: int = -1) -> bytes:
        with self._changed:
            while self._position >= self._size_bytes and not self._ended and not self._error:
                self._changed.wait()
            if self._error is not None:
                raise self._error
            want = min(_CHUNK_BYTES, self._size_bytes - self._position)
        data = os.pread(self._fd, want, self._position)
        self._position += len(data)
        return data

    def close(self) -> None:
        os.close(self._fd)
