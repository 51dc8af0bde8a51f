"""`load`: an archive from a byte stream becomes images in the store."""

import asyncio
import os
import time
from collections.abc import AsyncIterator

from teu.content.blobs import WrongDigest, digest_of
from teu.errors import EngineError, Unavailable
from teu.image.archived import ArchivedImage, archived_images
from teu.image.layers import Pieces
from teu.image.load import ArchiveContents, read_archive
from teu.image.platform import parse_platform
from teu.image.progress import Progress, step, stream_line
from teu.image.stock import Stock
from teu.model.image import Image, chain_ids
from teu.model.reference import Reference
from teu.sys.atomicfile import write_fully
from teu.sys.bytepipe import PipeClosed, ToThread
from teu.sys.codec import Hashed
from teu.tx import Transaction

_PROGRESS_INTERVAL_S = 0.1
_ID_LENGTH = 12


class Loader:
    """Use once per archive. Without a platform all that the archive has are loaded."""

    def __init__(self, stock: Stock, progress: Progress, platform: str) -> None:
        self._stock = stock
        self._progress = progress
        self._platform = parse_platform(platform) if platform else None
        self._loop = asyncio.get_running_loop()
        self._progress_due = 0.0
        self._contents = ArchiveContents()
        self._told: set[Reference] = set()

    async def run(self, stream: AsyncIterator[bytes]) -> list[Image]:
        """Raises: InvalidArchive, InvalidImage, WrongDigest, …; then nothing is left, except
        images of the same archive that were complete before."""
        async with Transaction("load") as tx:
            tx.on_rollback("what was read", self._discard_rest)
            await self._read(stream)
            found = archived_images(self._contents, self._platform)
            # Artifacts first: they read what an image takes away.
            done = {id(a): await self._store_artifact(a) for a in found if a.artifact_type}
            done |= {id(a): await self._store(a) for a in found if not a.artifact_type}
            await self._discard_rest()
            tx.commit()
        self._tell(found)
        return list({image.id: image for image in (done[id(a)] for a in found)}.values())

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
            stock = self._stock
            self._contents = read_archive(pipe, stock.layers, stock.blobs, self._seen)
        finally:
            pipe.abandon()

    def _seen(self, name: str, done_bytes: int, total_bytes: int) -> None:
        now = time.monotonic()
        if now < self._progress_due and done_bytes < total_bytes:
            return
        self._progress_due = now + _PROGRESS_INTERVAL_S
        is_blob = name.startswith("blobs/")
        short = (name.rpartition("/")[2] if is_blob else name.partition("/")[0])[:_ID_LENGTH]
        message = step("Loading layer", short, done_bytes, total_bytes)
        self._loop.call_soon_threadsafe(self._progress, message)

    async def _store(self, archived: ArchivedImage) -> Image:
        diff_ids = archived.config.rootfs.diff_ids
        chain = chain_ids(diff_ids)
        with self._stock.keeping(chain):
            for count, (diff_id, key) in enumerate(zip(diff_ids, archived.layers, strict=True), 1):
                if self._stock.catalog.layer(chain[count - 1]) is None:
                    layer = self._contents.layers.pop(key, None) or await self._stock.clone(diff_id)
                    await self._stock.register(chain[:count], layer)
            self._tell_renames(archived)
            manifests = [archived.index_data, archived.manifest_data]
            return await self._stock.store(
                archived.config,
                archived.data,
                archived.names,
                manifests=[data for data in manifests if data],
                index_digest=digest_of(archived.index_data) if archived.index_data else "",
            )

    async def _store_artifact(self, archived: ArchivedImage) -> Image:
        with self._stock.blobs.lease([archived.id, *archived.blobs]):
            await self._stock.in_thread_to_the_end(self._keep_blobs, archived)
            self._tell_renames(archived)
            return await self._stock.store_artifact(
                archived.data, archived.artifact_type, archived.names, archived.blobs
            )

    def _keep_blobs(self, archived: ArchivedImage) -> None:
        """Where an artifact's contents are now: in memory, spooled, or unpacked as a layer."""
        blobs = self._stock.blobs
        for digest, name in archived.blobs.items():
            if blobs.has(digest):
                continue
            if (data := self._contents.metadata.get(name)) is not None:
                blobs.put(data, digest)
            elif (path := self._contents.spooled.pop(name, None)) is not None:
                blobs.adopt(path, digest)
            else:
                self._packed_again(name, digest)

    def _packed_again(self, name: str, digest: str) -> None:
        fd, path = self._stock.blobs.spool()
        try:
            pieces = self._stock.layers.staged_archive(self._contents.layers[name])
            packed = Hashed(Pieces(pieces), digest.partition(":")[0])
            while piece := packed.read():
                write_fully(fd, piece)
            if packed.digest != digest:
                raise WrongDigest(digest, packed.digest, f"blob {name} of the archive")
            self._stock.blobs.adopt(path, digest)
        finally:
            os.close(fd)
            path.unlink(missing_ok=True)

    def _tell_renames(self, archived: ArchivedImage) -> None:
        for name in archived.names:
            before = self._stock.catalog.named(name)
            if before and before != archived.id and name not in self._told:
                self._progress(
                    stream_line(
                        f"The image {name.familiar} already exists, renaming the old one with ID "
                        f"{before} to empty string"
                    )
                )
            self._told.add(name)

    def _tell(self, found: list[ArchivedImage]) -> None:
        """Each name once, however many platforms it has."""
        lines: dict[str, None] = {}
        for archived in found:
            if not archived.names:
                lines[f"Loaded image ID: {archived.id}"] = None
            for name in archived.names:
                lines[f"Loaded image: {name.familiar}"] = None
        for line in lines:
            self._progress(stream_line(line))

    async def _discard_rest(self) -> None:
        await self._stock.in_thread(self._contents.discard, self._stock.layers)


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
