"""Taking images in: staged layers and metadata become a stored image, all or nothing.

    register each layer, base first (a row that nobody uses yet, held by a lease)
    -> config and manifest blobs -> one sync of the file system -> the image's row and names

So layers are shared by images that come in at the same time. A crash before the image's row
leaves layers that no image uses; `collect` removes them, as it does after a failure.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from teu.clock import now_ns
from teu.content.blobs import BlobStore, digest_of
from teu.errors import Conflict, DataLoss
from teu.image.catalog import Catalog
from teu.image.inflight import finished
from teu.image.layers import LayerFiles, StagedLayer
from teu.model.image import Image, ImageConfig, ImageRecord, artifact_config, chain_ids
from teu.model.reference import Reference
from teu.store.images import LayerRow
from teu.sys.bytepipe import FromThread
from teu.tasks import TaskOwner
from teu.tx import Transaction

T = TypeVar("T")
_THREADS = 8
_REMOVAL_DELAY_S = 1.0
_CLOSE_LIMIT_S = 30.0


class Stock:
    """The parts that every way of taking an image in shares."""

    def __init__(self, catalog: Catalog, blobs: BlobStore, layers: LayerFiles) -> None:
        self.catalog = catalog
        self.blobs = blobs
        self.layers = layers
        self._leases: Counter[str] = Counter()
        self._unsynced: set[str] = set()
        self._tasks = TaskOwner()
        self._closing = asyncio.Event()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="image")

    def start(self, work: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        """Starts file work in one of the threads."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    async def in_thread(self, work: Callable[..., T], *args: Any) -> T:
        """Runs file work. Cancel: the thread finishes alone; its effect may appear later."""
        return await self.start(work, *args)

    async def in_thread_to_the_end(self, work: Callable[..., T], *args: Any) -> T:
        """Runs file work and waits for its end even when cancelled, so that nothing appears
        after the caller cleaned up."""
        future = asyncio.ensure_future(self.in_thread(work, *args))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await finished(future)
            raise

    async def from_thread(self, pieces: Callable[[], Iterable[bytes]]) -> AsyncIterator[bytes]:
        """What an iterable gives, made in a thread. Raises: what it raises."""
        with FromThread() as pipe:
            working = self.start(pipe.drain_from, pieces)
            try:
                async for piece in pipe:
                    yield piece
            finally:
                pipe.close()
                await working

    async def close(self) -> None:
        """Finishes removals and waits for the threads."""
        self._closing.set()
        await self._tasks.drain(_CLOSE_LIMIT_S)
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    # --- leases -------------------------------------------------------------------------

    @contextmanager
    def keeping(self, chain: Iterable[str]) -> Iterator[None]:
        """Layers (there or to come) that `collect` must not take meanwhile."""
        held = Counter(chain)
        self._leases += held
        try:
            yield
        finally:
            self._leases -= held

    # --- taking in ----------------------------------------------------------------------

    async def register(self, chain: list[str], layer: StagedLayer) -> LayerRow:
        """Gives a staged layer its place on top of `chain[:-1]`, which is there, and its row.

        It is `collect`'s unless the caller is `keeping` it. Not durable before `store`. When this
        fails the staged layer is gone.
        """
        async with Transaction("register layer") as tx:
            tx.on_rollback("layer", lambda: self.discard(layer))
            below = [self.catalog.layer(chain_id) for chain_id in reversed(chain[:-1])]
            parents = [row.directory for row in below if row is not None]
            directory = await self.in_thread_to_the_end(self.layers.settle, layer, parents)
            tx.commit()
        known = self.catalog.layer(chain[-1])
        if known is not None:  # somebody else was faster
            await self.discard(layer)
            return known
        parent = chain[-2] if len(chain) > 1 else ""
        row = LayerRow(chain[-1], parent, layer.diff_id, directory, layer.size_bytes)
        self._unsynced.add(row.chain_id)
        self.catalog.add_layer(row)
        return row

    async def replace(
        self,
        chain: Sequence[str],
        chain_id: str,
        layer: StagedLayer,
        check: Callable[[], None],
    ) -> None:
        """A staged layer takes the place of a lost or damaged one of the stack `chain`, which the
        caller is keeping. Durable on return; the old directory goes afterwards. `check` may refuse
        at the last moment: nothing may be mounted on the old directory then.

        Raises: SystemFailure, Conflict when somebody else keeps the layer, too; what `check`
        raises. Then the staged layer is gone and the old one as it was.
        """
        below = list(chain[: chain.index(chain_id)])
        async with Transaction("replace layer") as tx:
            tx.on_rollback("layer", lambda: self.discard(layer))
            rows = [self.catalog.layer(other) for other in reversed(below)]
            parents = [row.directory for row in rows if row is not None]
            directory = await self.in_thread_to_the_end(self.layers.settle, layer, parents)
            await self.in_thread_to_the_end(self.layers.sync)
            check()
            if self._leases[chain_id] > 1:
                raise Conflict("something that is under way uses it: check again later")
            tx.commit()
        old = self.catalog.layers().get(chain_id)
        parent = below[-1] if below else ""
        self.catalog.add_layer(
            LayerRow(chain_id, parent, layer.diff_id, directory, layer.size_bytes)
        )
        if old is not None:
            _ = self._tasks.spawn(self._remove_files([old], []), "remove a damaged layer")

    async def clone(self, diff_id: str) -> StagedLayer:
        """A staged copy of an equal layer elsewhere. Raises: DataLoss when there is none."""
        row = self.catalog.layer_with(diff_id)
        if row is None:
            raise DataLoss(f"layer {diff_id} is missing from the store")
        return await self.copy(row)

    async def copy(self, row: LayerRow) -> StagedLayer:
        """A staged copy of a layer. Raises: DataLoss when it is damaged."""
        with self.keeping([row.chain_id]):
            return await self.in_thread_to_the_end(self.layers.clone, row)

    async def discard(self, layer: StagedLayer) -> None:
        await self.in_thread(self.layers.discard, layer)

    async def store(
        self,
        config: ImageConfig,
        config_data: bytes,
        names: Iterable[Reference],
        *,
        manifests: Sequence[bytes] = (),
        index_digest: str = "",
        parent_id: str = "",
        annotations: Mapping[str, str] | None = None,
    ) -> Image:
        """Stores an image whose layers are all registered; `manifests` are kept with it, the
        last one is the image's own. With the digest of the index it comes from, it joins the
        other platforms of that index under the same names.

        The caller holds `keeping(chain)`. Raises: DataLoss, SystemFailure.
        """
        chain = chain_ids(config.rootfs.diff_ids)
        rows = [self.row(chain_id) for chain_id in chain]
        blobs = [digest_of(config_data), *(digest_of(data) for data in manifests)]
        with self.blobs.lease(blobs):
            await self.in_thread_to_the_end(self._store_blobs, [config_data, *manifests])
            await self.sync(chain)
            record = ImageRecord(
                id=blobs[0],
                chain_ids=chain,
                size_bytes=sum(row.size_bytes for row in rows),
                manifest_digest=blobs[-1] if manifests else "",
                parent_id=parent_id,
                stored_ns=now_ns(),
                tagged_ns=now_ns(),
                annotations=dict(annotations or {}),
            )
            return self.catalog.add(
                record, config, names=names, blobs=blobs, index_digest=index_digest
            )

    async def store_artifact(
        self, manifest_data: bytes, kind: str, names: Iterable[Reference], contents: Iterable[str]
    ) -> Image:
        """Stores something that is no image: its `contents` are blobs already, on which the
        caller holds a lease. Raises: InvalidImage, DataLoss, SystemFailure."""
        config = artifact_config(manifest_data)
        artifact_id = digest_of(manifest_data)
        blobs = [artifact_id, *contents]
        with self.blobs.lease([artifact_id]):
            await self.in_thread_to_the_end(self._store_blobs, [manifest_data])
            record = ImageRecord(
                id=artifact_id,
                chain_ids=[],
                size_bytes=sum(map(self.blobs.size_bytes, blobs)),
                manifest_digest=artifact_id,
                stored_ns=now_ns(),
                tagged_ns=now_ns(),
                artifact_type=kind,
            )
            return self.catalog.add(record, config, names=names, blobs=blobs)

    def row(self, chain_id: str) -> LayerRow:
        """Raises: DataLoss for a layer that is not there."""
        row = self.catalog.layer(chain_id)
        if row is None:
            raise DataLoss(f"layer {chain_id} is missing from the store")
        return row

    def _store_blobs(self, blobs: list[bytes]) -> None:
        for data in blobs:
            self.blobs.put(data)

    async def sync(self, chain: list[str]) -> None:
        """Makes the layers durable that no earlier call did."""
        pending = self._unsynced.intersection(chain)
        if pending:
            await self.in_thread_to_the_end(self.layers.sync)
            self._unsynced -= pending

    # --- collecting ---------------------------------------------------------------------

    def collect(self, used_layers: Iterable[str]) -> int:
        """Removes layers and blobs that no image, no lease and none of `used_layers` keeps; the
        bytes that frees. The rows go at once, the files a little later: only when the rows' going
        is durable, so that a power failure cannot bring back an image without its layers.

        Nothing goes while a damaged record may still need it.
        """
        if self.catalog.is_incomplete:
            return 0
        used = self.catalog.used_layers() | set(self._leases) | set(used_layers)
        gone = [row for chain_id, row in self.catalog.layers().items() if chain_id not in used]
        blobs = self.blobs.unused(self.catalog.used_blobs())
        if not gone and not blobs:
            return 0
        self.catalog.remove_layers([row.chain_id for row in gone])
        self._unsynced -= {row.chain_id for row in gone}
        freed = sum(row.size_bytes for row in gone) + sum(map(self.blobs.size_bytes, blobs))
        _ = self._tasks.spawn(self._remove_files(gone, blobs), "remove layers and blobs")
        return freed

    async def _remove_files(self, layers: list[LayerRow], blobs: list[str]) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), _REMOVAL_DELAY_S)
        for row in layers:
            await self.in_thread(self.layers.remove, row.directory)
        # One of them may have been stored again meanwhile.
        unwanted = set(self.blobs.unused(self.catalog.used_blobs())).intersection(blobs)
        self.blobs.remove(unwanted)
