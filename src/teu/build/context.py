"""A client's context: a tar archive, compressed or not, becomes a directory."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from teu.build.trees import in_thread_to_the_end
from teu.errors import Unavailable
from teu.image.loading import feed
from teu.sys.bytepipe import ToThread
from teu.sys.codec import Source, decoded
from teu.sys.tarstream import TarStream
from teu.sys.unpack import Unpacker


async def unpack_context(stream: AsyncIterator[bytes], directory: Path) -> None:
    """Raises: InvalidArchive, DamagedStream, SystemFailure. Cancel: stops; the caller removes the
    directory."""
    pipe = ToThread()
    feeding = asyncio.create_task(feed(stream, pipe), name="feed context")

    def work() -> None:
        try:
            unpack_archive(pipe, directory)
        finally:
            pipe.abandon()

    try:
        await in_thread_to_the_end(work)
    except asyncio.CancelledError:
        pipe.fail(Unavailable("the build was cancelled"))
        raise
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


def unpack_file(path: Path, directory: Path) -> None:
    """An archive on the disk; for a thread. Raises: InvalidArchive, DamagedStream."""
    with path.open("rb", buffering=0) as file:
        unpack_archive(file, directory)


def unpack_archive(source: Source, directory: Path) -> None:
    unpacker = Unpacker(directory)
    try:
        unpacker.run(TarStream(decoded(source)[0]))
    finally:
        unpacker.close()
