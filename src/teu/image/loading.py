"""`load`: an archive from a byte stream becomes images in the store."""

import asyncio
import time
from collections.abc import AsyncIterator

from teu.content.blobs import digest_of
from teu.errors import EngineError, Unavailable
from teu.image.load import ArchivedImage, ImageArchive, read_archive
from teu.image.platform import parse_platform
from teu.image.progress import Progress, step, stream_line
from teu.image.stock import Stock
from teu.model.image import Image, chain_ids
from teu.sys.bytepipe import PipeClosed, ToThread
from teu.tx import Transaction

_PROGRESS_INTERVAL_S = 0.1
_ID_LENGTH = 12


class Loader:
    """Use once per archive."""

    def __init__(self, stock: Stock, progress: Progress, platform: str) -> None:
        self._stock = stock
        self._progress = progress
        self._platform = parse_platform(platform)
        self._loop = asyncio.get_running_loop()
        self._progress_due = 0.0
        self._archive = ImageArchive()

    async def run(self, stream: AsyncIterator[bytes]) -> list[Image]:
        """Raises: InvalidArchive, InvalidImage, WrongDigest, …; then nothing is left, except
        images of the same archive that were complete before."""
        async with Transaction("load") as tx:
            tx.on_rollback("staged layers", self._discard_rest)
            await self._read(stream)
            images = [await self._store(archived) for archived in self._archive.images]
            await self._discard_rest()
            tx.commit()
        return images

    async def _read(self, stream: AsyncIterator[bytes]) -> None:
        pipe = ToThread()
        feeding = asyncio.create_task(feed(stream, pipe), name="feed load")
        reading = asyncio.ensure_future(self._stock.in_thread(self._read_in_thread, pipe))
        try:
            await asyncio.shield(reading)
        except asyncio.CancelledError:
            pipe.fail(Unavailable("the load was cancelled"))
            await asyncio.wait({reading})
            raise
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    def _read_in_thread(self, pipe: ToThread) -> None:
        try:
            self._archive = read_archive(pipe, self._stock.layers, self._seen, self._platform)
        finally:
            pipe.abandon()

    def _seen(self, name: str, done_bytes: int, total_bytes: int) -> None:
        now = time.monotonic()
        if now < self._progress_due and done_bytes < total_bytes:
            return
        self._progress_due = now + _PROGRESS_INTERVAL_S
        short = name.removeprefix("blobs/sha256/").partition("/")[0][:_ID_LENGTH]
        message = step("Loading layer", short, done_bytes, total_bytes)
        self._loop.call_soon_threadsafe(self._progress, message)

    async def _store(self, archived: ArchivedImage) -> Image:
        diff_ids = archived.config.rootfs.diff_ids
        chain = chain_ids(diff_ids)
        with self._stock.keeping(chain):
            for count, (diff_id, key) in enumerate(zip(diff_ids, archived.layers, strict=True), 1):
                if self._stock.catalog.layer(chain[count - 1]) is None:
                    layer = self._archive.layers.pop(key, None) or await self._stock.clone(diff_id)
                    await self._stock.register(chain[:count], layer)
            self._tell_renames(archived)
            manifests = [archived.manifest_data] if archived.manifest_data else []
            image = await self._stock.store(
                archived.config, archived.config_data, archived.names, manifests=manifests
            )
        if not archived.names:
            self._progress(stream_line(f"Loaded image ID: {image.id}"))
        for name in archived.names:
            self._progress(stream_line(f"Loaded image: {name.familiar}"))
        return image

    def _tell_renames(self, archived: ArchivedImage) -> None:
        for name in archived.names:
            before = self._stock.catalog.named(name)
            if before and before != digest_of(archived.config_data):
                self._progress(
                    stream_line(
                        f"The image {name.familiar} already exists, renaming the old one with ID "
                        f"{before} to empty string"
                    )
                )

    async def _discard_rest(self) -> None:
        while self._archive.layers:
            _, layer = self._archive.layers.popitem()
            await self._stock.in_thread(self._stock.layers.discard, layer)


async def feed(stream: AsyncIterator[bytes], pipe: ToThread) -> None:
    """Sends a stream to its end; whatever breaks it is the reader's error."""
    try:
        async for chunk in stream:
            await pipe.send(chunk)
    except PipeClosed:
        return
    except EngineError as error:
        pipe.fail(error)
    except Exception as error:
        pipe.fail(Unavailable(f"the upload broke off: {error}"))
    except BaseException:
        pipe.fail(Unavailable("the upload was cancelled"))
        raise
    else:
        pipe.finish()
