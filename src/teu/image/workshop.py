"""What a builder needs of the store: layers from upper directories, images from layers.

Layers are registered as they are made, so that steps which follow find them; they are durable
after `sync`, and kept from `collect` by whoever holds `keeping` or lists them as in use.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from teu.image.making import EMPTY_DIFF_ID
from teu.image.stock import Stock
from teu.model.image import Image, chain_ids, parse_config
from teu.model.reference import Reference


class Workshop:
    """Loop's thread; file work happens in the store's threads."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock

    def has(self, diff_ids: Sequence[str]) -> bool:
        """Whether this very stack of layers is there."""
        return all(self._stock.catalog.layer(one) is not None for one in chain_ids(list(diff_ids)))

    def size_bytes(self, diff_ids: Sequence[str]) -> int:
        """Of the topmost layer; 0 for one that is not there."""
        if not diff_ids:
            return 0
        row = self._stock.catalog.layer(chain_ids(list(diff_ids))[-1])
        return row.size_bytes if row else 0

    async def adopt(self, diff_ids: list[str], upper: Path) -> list[str]:
        """The stack with an overlay's upper directory on top; unchanged when that is empty.

        The directory is consumed. Raises: SystemFailure. Cancel: nothing is left of it.
        """
        layer = await self._stock.in_thread_to_the_end(self._stock.layers.adopt, upper)
        if layer.diff_id == EMPTY_DIFF_ID:
            await self._stock.discard(layer)
            return diff_ids
        stack = [*diff_ids, layer.diff_id]
        chain = chain_ids(stack)
        if self._stock.catalog.layer(chain[-1]) is not None:
            await self._stock.discard(layer)
            return stack
        with self._stock.keeping(chain):
            await self._stock.register(chain, layer)
        return stack

    async def put_on(self, diff_ids: list[str], diff_id: str) -> list[str]:
        """The stack with a layer on top that is known from another stack. Raises: DataLoss."""
        stack = [*diff_ids, diff_id]
        chain = chain_ids(stack)
        if self._stock.catalog.layer(chain[-1]) is None:
            with self._stock.keeping(chain):
                await self._stock.register(chain, await self._stock.clone(diff_id))
        return stack

    async def sync(self, chains: Iterable[str]) -> None:
        """Makes layers durable that are not yet. Raises: SystemFailure."""
        await self._stock.sync(list(chains))

    def archive(self, diff_ids: Sequence[str]) -> Iterator[bytes]:
        """The topmost layer's tar, for a thread. Raises: DataLoss."""
        row = self._stock.row(chain_ids(list(diff_ids))[-1])
        return self._stock.layers.archive(row)

    async def store(
        self,
        config_data: bytes,
        names: Iterable[Reference],
        *,
        index_digest: str = "",
        annotations: Mapping[str, str] | None = None,
    ) -> Image:
        """An image of layers that are there; with `index_digest` its names go on meaning the
        images of other platforms that were stored with the same. Raises: DataLoss, SystemFailure.
        """
        config = parse_config(config_data)
        with self._stock.keeping(chain_ids(config.rootfs.diff_ids)):
            return await self._stock.store(
                config, config_data, names, index_digest=index_digest, annotations=annotations
            )
