"""Taking images in: staged layers and metadata become a stored image, all or nothing.

    settle layers (their parents are known now) -> config and manifest blobs -> one sync of the
    file system -> rows, in one transaction on the loop's thread

A crash before the rows leaves files nobody speaks of; `clean` removes them at the next start.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from teu.clock import now_ns
from teu.content.blobs import BlobStore, digest_of
from teu.errors import DataLoss
from teu.image.catalog import Catalog
from teu.image.layers import LayerFiles, StagedLayer
from teu.model.image import Image, ImageConfig, ImageRecord, chain_ids
from teu.model.reference import Reference
from teu.store.images import LayerRow
from teu.tx import Transaction

T = TypeVar("T")
_THREADS = 8


class Stock:
    """The parts that every way of taking an image in shares."""

    def __init__(self, catalog: Catalog, blobs: BlobStore, layers: LayerFiles) -> None:
        self.catalog = catalog
        self.blobs = blobs
        self.layers = layers
        self._leases: Counter[str] = Counter()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="image")

    async def in_thread(self, work: Callable[..., T], *args: Any) -> T:
        """Runs file work. Cancel: the thread finishes alone; its effect may appear later."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    async def in_thread_to_the_end(self, work: Callable[..., T], *args: Any) -> T:
        """Runs file work and waits for its end even when cancelled, so that nothing appears
        after the caller cleaned up."""
        future = asyncio.ensure_future(self.in_thread(work, *args))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                try:
                    await asyncio.wait({future})
                except asyncio.CancelledError:
                    continue
            raise

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

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

    def leased(self) -> set[str]:
        return set(self._leases)

    # --- taking in ----------------------------------------------------------------------

    async def store(
        self,
        config: ImageConfig,
        config_data: bytes,
        staged: dict[str, StagedLayer],
        names: Iterable[Reference],
        *,
        manifest_data: bytes = b"",
        parent_id: str = "",
    ) -> Image:
        """Stores an image. `staged` holds new layers by chain id and is emptied of what was used;
        a layer that is neither there nor staged is cloned from an equal one elsewhere.

        The caller holds `keeping(chain)`. Raises: DataLoss, SystemFailure; then nothing is left.
        """
        chain = chain_ids(config.rootfs.diff_ids)
        async with Transaction("store image") as tx:
            rows: list[LayerRow] = []
            for index, chain_id in enumerate(chain):
                if self.catalog.layer(chain_id) is None:
                    layer = staged.pop(chain_id, None)
                    if layer is None:
                        layer = await self._clone(config.rootfs.diff_ids[index])
                    tx.on_rollback("layer", lambda layer=layer: self._discard(layer))  # type: ignore[misc]
                    rows.append(await self._settle(layer, chain[: index + 1], rows))
            image_id = await self.in_thread_to_the_end(
                self._store_blobs, config_data, manifest_data, bool(rows)
            )
            record = ImageRecord(
                id=image_id,
                chain_ids=chain,
                size_bytes=self._size(chain, rows),
                parent_id=parent_id,
                stored_ns=now_ns(),
                tagged_ns=now_ns(),
            )
            image, lost = self._commit(record, config, rows, names, manifest_data)
            tx.commit()
        for row in lost:
            await self.in_thread(self.layers.remove, row.directory)
        return image

    def _commit(
        self,
        record: ImageRecord,
        config: ImageConfig,
        rows: list[LayerRow],
        names: Iterable[Reference],
        manifest_data: bytes,
    ) -> tuple[Image, list[LayerRow]]:
        """Also the layers that somebody else stored meanwhile, so that ours are not needed."""
        blobs = [record.id]
        if manifest_data:
            record.manifest_digest = digest_of(manifest_data)
            blobs.append(record.manifest_digest)
        fresh = [row for row in rows if self.catalog.layer(row.chain_id) is None]
        image = self.catalog.add(record, config, layers=fresh, names=names, blobs=blobs)
        return image, [row for row in rows if row not in fresh]

    async def _clone(self, diff_id: str) -> StagedLayer:
        row = self.catalog.layer_with(diff_id)
        if row is None:
            raise DataLoss(f"layer {diff_id} is missing from the store")
        with self.keeping([row.chain_id]):
            return await self.in_thread_to_the_end(self.layers.clone, row)

    async def _settle(self, layer: StagedLayer, chain: list[str], new: list[LayerRow]) -> LayerRow:
        fresh = {row.chain_id: row for row in new}
        below = [fresh.get(c) or self.catalog.layer(c) for c in reversed(chain[:-1])]
        parents = [row.directory for row in below if row is not None]
        directory = await self.in_thread_to_the_end(self.layers.settle, layer, parents)
        parent = chain[-2] if len(chain) > 1 else ""
        return LayerRow(chain[-1], parent, layer.diff_id, directory, layer.size_bytes)

    async def _discard(self, layer: StagedLayer) -> None:
        await self.in_thread(self.layers.discard, layer)

    def _store_blobs(self, config_data: bytes, manifest_data: bytes, new_layers: bool) -> str:
        image_id = self.blobs.put(config_data)
        if manifest_data:
            self.blobs.put(manifest_data)
        if new_layers:
            self.layers.sync()
        return image_id

    def _size(self, chain: list[str], new: list[LayerRow]) -> int:
        fresh = {row.chain_id: row for row in new}
        rows = [fresh.get(chain_id) or self.catalog.layer(chain_id) for chain_id in chain]
        return sum(row.size_bytes for row in rows if row is not None)
