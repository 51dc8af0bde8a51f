"""Tar archives between a thread that works on files and the loop that has the client's stream."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from teu.errors import SystemFailure
from teu.sys.bytepipe import FromThread, PipeClosed, ToThread
from teu.sys.codec import decoded
from teu.sys.tarstream import TarStream
from teu.sys.unpack import Unpacker


async def packed(pieces: Callable[[], Iterable[bytes]]) -> AsyncIterator[bytes]:
    """What `pieces()` gives, made in a thread, as fast as it is taken.

    A reader that stops early ends the thread's work, too.
    """
    with FromThread() as pipe:
        work = asyncio.ensure_future(asyncio.to_thread(pipe.drain_from, pieces))
        try:
            async for piece in pipe:
                yield piece
        finally:
            pipe.close()
            await asyncio.wait({work})


async def unpack_into(
    directory_fd: int, stream: AsyncIterator[bytes], *, keep_kinds: bool = False
) -> None:
    """Unpacks a tar (plain or compressed) below a directory, which it cannot leave.

    `keep_kinds`: a file never replaces a directory, nor the other way round.
    Raises: InvalidArchive and others of the unpacker; SystemFailure for a stream cut short.
    Failure, cancel: what was unpacked before stays.
    """
    pipe = ToThread()

    def work() -> None:
        try:
            unpacker = Unpacker(
                Path(f"/proc/{os.getpid()}/fd/{directory_fd}"), keep_kinds=keep_kinds
            )
            try:
                unpacker.run(TarStream(decoded(pipe)[0]))
            finally:
                unpacker.close()
        finally:
            pipe.abandon()

    reading = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        async for chunk in stream:
            await pipe.send(chunk)
        pipe.finish()
    except PipeClosed:
        pass  # the reader has failed and says why
    except BaseException as error:
        pipe.fail(SystemFailure(f"the archive was cut short: {error}"))
        await asyncio.wait({reading})
        raise
    await asyncio.shield(reading)
