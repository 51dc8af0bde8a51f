"""One blob from a registry; a layer is downloaded, checked and unpacked at the same time.

The compressed bytes go to a resumable part (`content/ingest/HEX.part`); a second thread unpacks
what is there already. Only when size and digest of the whole are right is the unpacked layer
used. The part is removed then; it stays when the connection broke or the pull was cancelled, and
the next attempt goes on from there.
"""

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar

from teu.content.blobs import WrongDigest, digest_of
from teu.errors import EngineError, SystemFailure, Unavailable
from teu.image.follow import FollowedFile
from teu.image.inflight import finished
from teu.image.layers import StagedLayer
from teu.image.progress import Progress, Throttled, idle
from teu.image.slots import Slots
from teu.image.stock import Stock
from teu.model.image import Descriptor
from teu.model.reference import Reference
from teu.model.registry import FetchedManifest, Target
from teu.sys.atomicfile import write_fully
from teu.tx import Transaction

T = TypeVar("T")
_BATCH_BYTES = 1 << 20
_EXTRACT_TELLING_S = 0.1


class Registry(Protocol):
    """What the image side needs of registries; `registry/client.py` is one."""

    @property
    def max_concurrent_downloads(self) -> int: ...

    @property
    def max_concurrent_uploads(self) -> int: ...

    async def close(self) -> None: ...

    async def target(self, name: Reference, auth: Mapping[str, Any] | None = None) -> Target: ...

    async def manifest(
        self, name: Reference, auth: Mapping[str, Any] | None = None
    ) -> FetchedManifest: ...

    async def tags(self, name: Reference, auth: Mapping[str, Any] | None = None) -> list[str]: ...

    def blob(
        self,
        name: Reference,
        descriptor: Descriptor,
        auth: Mapping[str, Any] | None = None,
        offset: int = 0,
    ) -> AsyncGenerator[bytes, None]: ...


async def fetch_small(
    registry: Registry,
    name: Reference,
    descriptor: Descriptor,
    auth: Mapping[str, Any] | None,
    limit_bytes: int,
) -> bytes:
    """An image's config, checked. Raises: WrongDigest, BrokenTransfer, …."""
    if descriptor.size > limit_bytes:
        raise WrongDigest(f"at most {limit_bytes} bytes", str(descriptor.size), "the config")
    data = b""
    async with aclosing(registry.blob(name, descriptor, auth)) as chunks:
        async for chunk in chunks:
            data += chunk
    actual = digest_of(data)
    if actual != descriptor.digest:
        raise WrongDigest(descriptor.digest, actual, "the image's config")
    return data


class Downloader:
    """All downloads of the daemon: they share one limit. Loop's thread."""

    def __init__(self, stock: Stock, registry: Registry) -> None:
        self._stock = stock
        self.registry = registry
        self._slots = Slots(lambda: registry.max_concurrent_downloads)
        self._writers: dict[str, asyncio.Lock] = {}
        self._wanted: Counter[str] = Counter()

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
        async with self._only_writer(descriptor.digest), self._slots:
            one = _LayerDownload(self._stock, self.registry, name, descriptor, auth)
            return await one.run(progress, layer_id)

    async def blob(
        self,
        name: Reference,
        descriptor: Descriptor,
        auth: Mapping[str, Any] | None,
        progress: Progress,
        layer_id: str,
    ) -> None:
        """Into the blob store, unless it is there; the caller holds a lease on it.

        Cancel, and Raises: like `layer`.
        """
        if self._slots.locked():
            progress(idle("Waiting", layer_id))
        async with self._only_writer(descriptor.digest), self._slots:
            if not self._stock.blobs.has(descriptor.digest):
                one = _BlobDownload(self._stock, self.registry, name, descriptor, auth)
                await one.run(progress, layer_id)

    @asynccontextmanager
    async def _only_writer(self, digest: str) -> AsyncIterator[None]:
        """A part has one writer at a time."""
        lock = self._writers.setdefault(digest, asyncio.Lock())
        self._wanted[digest] += 1
        try:
            async with lock:
                yield
        finally:
            self._wanted[digest] -= 1
            if not self._wanted[digest]:
                del self._wanted[digest], self._writers[digest]


class _Download(Generic[T]):
    """One blob on its way through its part; what becomes of it is the subclass's."""

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
        self._resumed = False

    async def run(self, progress: Progress, layer_id: str) -> T:
        try:
            return await self._from_part(progress, layer_id)
        except WrongDigest:
            if not self._resumed:
                raise
        # What an earlier attempt left was bad: once more, from the start.
        self._hash = hashlib.sha256()
        self._size_bytes = 0
        return await self._from_part(progress, layer_id)

    async def _from_part(self, progress: Progress, layer_id: str) -> T:
        try:
            fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SystemFailure(f"cannot write {self._part}: {error}") from error
        try:
            await self._stock.in_thread_to_the_end(self._resume, fd)
            return await self._attempt(fd, progress, layer_id)
        except EngineError as error:
            if not isinstance(error, Unavailable):
                self._part.unlink(missing_ok=True)  # no use in going on from there
            raise
        finally:
            os.close(fd)

    async def _attempt(self, fd: int, progress: Progress, layer_id: str) -> T:
        """Receives the blob and uses it; the part is gone when it was."""
        raise NotImplementedError

    def _arrived(self, size_bytes: int) -> None:
        """That much is in the part now."""

    async def _receive(self, fd: int, progress: Progress, layer_id: str) -> None:
        """Everything up to the checked last byte."""
        told = Throttled(progress, "Downloading", layer_id, self._descriptor.size)
        self._arrived(self._size_bytes)
        batch: list[bytes] = []
        batch_bytes = 0
        blob = self._registry.blob(self._name, self._descriptor, self._auth, self._size_bytes)
        async with aclosing(blob) as chunks:
            async for chunk in chunks:
                batch.append(chunk)
                batch_bytes += len(chunk)
                if batch_bytes >= _BATCH_BYTES:
                    await self._append(fd, b"".join(batch))
                    batch, batch_bytes = [], 0
                    told(self._size_bytes)
        await self._append(fd, b"".join(batch))
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
        progress(idle("Download complete", layer_id))

    async def _append(self, fd: int, data: bytes) -> None:
        # Not in the stock's threads: all of those may be waiting for what is written here.
        await asyncio.to_thread(self._write, fd, data)
        self._arrived(self._size_bytes)

    def _write(self, fd: int, data: bytes) -> None:
        try:
            write_fully(fd, data)
        except OSError as error:
            raise SystemFailure(f"cannot write {self._part}: {error.strerror}") from error
        self._hash.update(data)
        self._size_bytes += len(data)

    def _resume(self, fd: int) -> None:
        """Takes what an earlier attempt left into the hash."""
        if os.fstat(fd).st_size > self._descriptor.size:
            os.ftruncate(fd, 0)
        while data := os.read(fd, _BATCH_BYTES):
            self._hash.update(data)
            self._size_bytes += len(data)
        self._resumed = self._size_bytes > 0


class _BlobDownload(_Download[None]):
    """Kept as it comes."""

    async def _attempt(self, fd: int, progress: Progress, layer_id: str) -> None:
        await self._receive(fd, progress, layer_id)
        await self._stock.in_thread_to_the_end(
            self._stock.blobs.adopt, self._part, self._descriptor.digest
        )


class _LayerDownload(_Download[StagedLayer]):
    """Unpacked while it comes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._staged: list[StagedLayer] = []
        self._followed: FollowedFile | None = None
        self._unpacking: asyncio.Future[None] | None = None

    async def _attempt(self, fd: int, progress: Progress, layer_id: str) -> StagedLayer:
        async with Transaction("download", layer_id) as tx:
            tx.on_rollback("staged layer", self._discard)
            followed = self._followed = FollowedFile(fd)
            unpacking = self._unpacking = asyncio.ensure_future(
                self._stock.in_thread(self._unpack_in_thread, followed)
            )
            try:
                await self._receive(fd, progress, layer_id)
                followed.finish()
                await self._extract(followed, unpacking, progress, layer_id)
            except BaseException:
                followed.fail(Unavailable("the download ended"))
                await finished(unpacking)
                raise
            finally:
                followed.close()
            tx.commit()
        self._part.unlink(missing_ok=True)
        return self._staged.pop()

    async def _extract(
        self,
        followed: FollowedFile,
        unpacking: "asyncio.Future[None]",
        progress: Progress,
        layer_id: str,
    ) -> None:
        """Waits for the rest, which is mostly little: it began with the first byte."""
        told = Throttled(progress, "Extracting", layer_id, self._descriptor.size)
        while not unpacking.done():
            told(followed.position)
            await asyncio.wait({unpacking}, timeout=_EXTRACT_TELLING_S)
        told(self._descriptor.size)
        unpacking.result()

    def _arrived(self, size_bytes: int) -> None:
        assert self._followed is not None
        assert self._unpacking is not None
        self._followed.available(size_bytes)
        _stop_if_disk_failed(self._unpacking)

    def _unpack_in_thread(self, followed: FollowedFile) -> None:
        self._staged.append(self._stock.layers.stage(followed))

    async def _discard(self) -> None:
        while self._staged:
            await self._stock.discard(self._staged.pop())


def _stop_if_disk_failed(unpacking: "asyncio.Future[None]") -> None:
    """What does not unpack is downloaded to its end: its digest tells whose fault it is."""
    if unpacking.done() and isinstance(error := unpacking.exception(), SystemFailure):
        raise error
