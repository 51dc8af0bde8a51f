"""Bytes between the event loop and a worker thread, with a limit on what is under way.

`ToThread`: the loop sends, a thread reads (upload of an archive). `FromThread`: a thread writes,
the loop iterates (download of an archive). Whoever goes away first unblocks the other side.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Self

LIMIT_BYTES = 4 << 20


class PipeClosed(Exception):
    """The other side went away before the end of the data."""


class ToThread:
    """Loop side: `send`, then `finish` or `fail`. Thread side: `read`, then `abandon`."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit_bytes = limit_bytes
        self._changed = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._size_bytes = 0
        self._ended = False
        self._error: BaseException | None = None
        self._abandoned = False
        self._room: asyncio.Future[None] | None = None

    async def send(self, chunk: bytes) -> None:
        """Waits while the reader is behind. Raises: PipeClosed when the reader has gone."""
        with self._changed:
            if self._abandoned:
                raise PipeClosed
            self._chunks.append(chunk)
            self._size_bytes += len(chunk)
            self._changed.notify()
            if self._size_bytes < self._limit_bytes:
                return
            self._room = self._loop.create_future()
        await self._room

    def finish(self) -> None:
        self._end(None)

    def fail(self, error: BaseException) -> None:
        """The reader gets `error` once it has read what was sent before."""
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._changed.notify()

    def read(self, size: int = -1) -> bytes:
        """The next chunk, of any length (`size` is a hint that is not needed); b"" at the end."""
        with self._changed:
            while not self._chunks and not self._ended:
                self._changed.wait()
            if not self._chunks:
                if self._error is not None:
                    raise self._error
                return b""
            chunk = self._chunks.popleft()
            self._size_bytes -= len(chunk)
            if self._room is not None and self._size_bytes <= self._limit_bytes // 2:
                self._release()
            return chunk or self._next_nonempty()

    def _next_nonempty(self) -> bytes:
        return self.read()

    def abandon(self) -> None:
        """The reader takes no more; a waiting sender gets PipeClosed."""
        with self._changed:
            self._abandoned = True
            self._chunks.clear()
            self._size_bytes = 0
            if self._room is not None:
                self._release()

    def _release(self) -> None:
        room, self._room = self._room, None
        error = PipeClosed() if self._abandoned else None
        self._loop.call_soon_threadsafe(_settle, room, error)


class FromThread:
    """Thread side: `drain_from`. Loop side: iterate; `close` to stop early."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit_bytes = limit_bytes
        self._changed = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._size_bytes = 0
        self._ended = False
        self._error: BaseException | None = None
        self._closed = False
        self._arrival: asyncio.Future[None] | None = None

    def write(self, chunk: bytes) -> None:
        """Blocks while the loop is behind. Raises: PipeClosed when nobody reads any more."""
        with self._changed:
            while self._size_bytes >= self._limit_bytes and not self._closed:
                self._changed.wait()
            if self._closed:
                raise PipeClosed
            self._chunks.append(chunk)
            self._size_bytes += len(chunk)
            self._announce()

    def drain_from(self, pieces: Callable[[], Iterable[bytes]]) -> None:
        """Writes everything an iterable gives; its error, if any, is the reader's."""
        error: BaseException | None = None
        try:
            for piece in pieces():
                self.write(piece)
        except PipeClosed:
            return
        except BaseException as failure:
            error = failure
        self.finish(error)

    def finish(self, error: BaseException | None = None) -> None:
        """No more comes (idempotent); the reader gets `error`, if any, at the end."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._announce()

    def _announce(self) -> None:
        if self._arrival is not None:
            arrival, self._arrival = self._arrival, None
            self._loop.call_soon_threadsafe(_settle, arrival, None)

    def close(self) -> None:
        """Stops the writer (idempotent)."""
        with self._changed:
            self._closed = True
            self._chunks.clear()
            self._changed.notify()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while True:
            with self._changed:
                if self._chunks:
                    chunk = self._chunks.popleft()
                    self._size_bytes -= len(chunk)
                    self._changed.notify()
                    return chunk
                if self._ended:
                    if self._error is not None:
                        raise self._error
                    raise StopAsyncIteration
                self._arrival = self._loop.create_future()
                arrival = self._arrival
            await arrival

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _settle(future: "asyncio.Future[None] | None", error: BaseException | None) -> None:
    if future is None or future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(None)
