"""One layer from a registry: downloaded, checked and unpacked at the same time.

The compressed bytes go to a resumable part (`content/ingest/HEX.part`); a second thread unpacks
what is there already. Only when size and digest of the whole are right is the unpacked layer
used. The part is removed then; it stays when the connection broke or the pull was cancelled, and
the next attempt goes on from there.
"""

import asyncio
import hashlib
import os
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Protocol

from teu.content.blobs import WrongDigest
from teu.errors import EngineError, SystemFailure, Unavailable
from teu.image.follow import FollowedFile
from teu.image.inflight import finished
from teu.image.layers import StagedLayer
from teu.image.progress import Progress, Throttled, idle
from teu.image.stock import Stock
from teu.model.image import Descriptor
from teu.model.reference import Reference
from teu.model.registry import FetchedManifest
from teu.sys.atomicfile import write_fully
from teu.tx import Transaction

_BATCH_BYTES = 1 << 20


class Registry(Protocol):
    """What the image side needs of registries; `registry/client.py` is one."""

    @property
    def max_concurrent_downloads(self) -> int: ...

    async def close(self) -> None: ...

    async def manifest(
        self, name: Reference, auth: Mapping[str, Any] | None = None
    ) -> FetchedManifest: ...

    def blob(
        self,
        name: Reference,
        descriptor: Descriptor,
        auth: Mapping[str, Any] | None = None,
        offset: int = 0,
    ) -> AsyncGenerator[bytes, None]: ...


class Downloader:
    """All downloads of the daemon: they share one limit. Loop's thread."""

    def __init__(self, stock: Stock, registry: Registry) -> None:
        self._stock = stock
        self.registry = registry
        self._slots = asyncio.Semaphore(registry.max_concurrent_downloads)
        self._by_digest: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def small_blob(
        self,
        name: Reference,
        descriptor: Descriptor,
        auth: Mapping[str, Any] | None,
        limit_bytes: int,
    ) -> bytes:
        """A config, checked. Raises: WrongDigest, BrokenTransfer, …."""
        if descriptor.size > limit_bytes:
            raise WrongDigest(f"at most {limit_bytes} bytes", str(descriptor.size), "the config")
        data = b""
        async with aclosing(self.registry.blob(name, descriptor, auth)) as chunks:
            async for chunk in chunks:
                data += chunk
        actual = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if actual != descriptor.digest:
            raise WrongDigest(descriptor.digest, actual, "the image's config")
        return data

    async def layer(
        self,
        name: Reference,
        descriptor: Descriptor,
        auth: Mapping[str, Any] | None,
        progress: Progress,
        layer_id: str,
    ) -> StagedLayer:
        """Downloads and unpacks; the caller registers or discards what it gets.

        Cancel: both threads have ended when this returns; the part stays.
        Raises: WrongDigest, InvalidArchive, BrokenTransfer, RegistryUnreachable, SystemFailure.
        """
        if self._slots.locked():
            progress(idle("Waiting", layer_id))
        lock = self._by_digest[descriptor.digest]  # one writer for each part
        try:
            async with lock, self._slots:
                one = _Download(self._stock, self.registry, name, descriptor, auth)
                return await one.run(progress, layer_id)
        finally:
            if not lock.locked():
                self._by_digest.pop(descriptor.digest, None)


class _Download:
    def __init__(
        self,
        stock: Stock,
        registry: Registry,
        name: Reference,
        descriptor: Descriptor,
        auth: Mapping[str, Any] | None,
    ) -> None:
        self._stock = stock
        self._registry = registry
        self._name = name
        self._descriptor = descriptor
        self._auth = auth
        self._part = stock.blobs.part(descriptor.digest)
        self._hash = hashlib.sha256()
        self._size_bytes = 0
        self._staged: list[StagedLayer] = []

    async def run(self, progress: Progress, layer_id: str) -> StagedLayer:
        try:
            fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SystemFailure(f"cannot write {self._part}: {error}") from error
        try:
            resumed = await self._stock.in_thread_to_the_end(self._resume, fd)
            try:
                return await self._attempt(fd, progress, layer_id)
            except WrongDigest:
                if not resumed:
                    raise
            # What an earlier attempt left was bad: once more, from the start.
            self._reset(fd)
            return await self._attempt(fd, progress, layer_id)
        finally:
            os.close(fd)

    async def _attempt(self, fd: int, progress: Progress, layer_id: str) -> StagedLayer:
        async with Transaction("download", layer_id) as tx:
            tx.on_rollback("staged layer", self._discard)
            followed = FollowedFile(self._part)
            unpacking = asyncio.ensure_future(
                self._stock.in_thread(self._unpack_in_thread, followed)
            )
            try:
                await self._receive(fd, followed, unpacking, progress, layer_id)
                followed.finish()
                progress(idle("Download complete", layer_id))
                progress(idle("Extracting", layer_id))
                await asyncio.shield(unpacking)
            except BaseException as error:
                followed.fail(Unavailable("the download ended"))
                await finished(unpacking)
                if isinstance(error, EngineError) and not isinstance(error, Unavailable):
                    self._part.unlink(missing_ok=True)  # no use in going on from there
                raise
            finally:
                followed.close()
            tx.commit()
        self._part.unlink(missing_ok=True)
        return self._staged.pop()

    async def _receive(
        self,
        fd: int,
        followed: FollowedFile,
        unpacking: "asyncio.Future[None]",
        progress: Progress,
        layer_id: str,
    ) -> None:
        """Everything up to the checked last byte."""
        told = Throttled(progress, "Downloading", layer_id, self._descriptor.size)
        followed.available(self._size_bytes)
        batch: list[bytes] = []
        batch_bytes = 0
        blob = self._registry.blob(self._name, self._descriptor, self._auth, self._size_bytes)
        async with aclosing(blob) as chunks:
            async for chunk in chunks:
                batch.append(chunk)
                batch_bytes += len(chunk)
                if batch_bytes >= _BATCH_BYTES:
                    await self._append(fd, b"".join(batch), followed)
                    batch, batch_bytes = [], 0
                    told(self._size_bytes)
                    _stop_if_disk_failed(unpacking)
        await self._append(fd, b"".join(batch), followed)
        told(self._size_bytes)
        progress(idle("Verifying Checksum", layer_id))
        actual = f"sha256:{self._hash.hexdigest()}"
        if self._size_bytes != self._descriptor.size or actual != self._descriptor.digest:
            raise WrongDigest(
                self._descriptor.digest,
                actual,
                f"filesystem layer verification failed for digest {self._descriptor.digest}: "
                f"what {self._name.domain} sent",
            )

    async def _append(self, fd: int, data: bytes, followed: FollowedFile) -> None:
        # Not in the stock's threads: all of those may be waiting for what is written here.
        await asyncio.to_thread(self._write, fd, data)
        followed.available(self._size_bytes)

    def _write(self, fd: int, data: bytes) -> None:
        try:
            write_fully(fd, data)
        except OSError as error:
            raise SystemFailure(f"cannot write {self._part}: {error.strerror}") from error
        self._hash.update(data)
        self._size_bytes += len(data)

    def _unpack_in_thread(self, followed: FollowedFile) -> None:
        self._staged.append(self._stock.layers.stage(followed))

    def _resume(self, fd: int) -> bool:
        """Takes what an earlier attempt left into the hash; whether there was any."""
        if os.fstat(fd).st_size > self._descriptor.size:
            os.ftruncate(fd, 0)
        while data := os.read(fd, _BATCH_BYTES):
            self._hash.update(data)
            self._size_bytes += len(data)
        return self._size_bytes > 0

    def _reset(self, fd: int) -> None:
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        self._hash = hashlib.sha256()
        self._size_bytes = 0

    async def _discard(self) -> None:
        while self._staged:
            await self._stock.discard(self._staged.pop())


def _stop_if_disk_failed(unpacking: "asyncio.Future[None]") -> None:
    """What does not unpack is downloaded to its end: its digest tells whose fault it is."""
    if unpacking.done() and isinstance(error := unpacking.exception(), SystemFailure):
        raise error
