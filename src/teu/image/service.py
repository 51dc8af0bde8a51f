"""Images, as the rest of the engine sees them.

`resolve` and `layer_directories` never wait: they answer from memory. Everything that changes the
store is all or nothing; see `stock.py` for the order of steps.
"""

import logging
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Protocol

from teu.content.blobs import BlobStore
from teu.errors import EngineError
from teu.image.catalog import Catalog, NoSuchImage
from teu.image.layers import LayerFiles
from teu.image.loading import Loader
from teu.image.progress import Progress
from teu.image.stock import Stock
from teu.model.image import Image
from teu.store.db import Database
from teu.store.images import ImageStore
from teu.tasks import TaskOwner

log = logging.getLogger(__name__)


class ImageUsers(Protocol):
    """What containers need of images; `container/` implements it."""

    def containers_using(self, image_id: str) -> list[tuple[str, bool]]:
        """(container id, running) of the containers made from an image."""
        ...

    def layers_in_use(self) -> Iterable[str]:
        """Chain ids of the layers below all containers, whatever became of their images."""
        ...


class ImageService:
    """One per data root. Loop's thread; `start` first, `close` last."""

    def __init__(self, db: Database, data_root: Path, users: ImageUsers) -> None:
        self._users = users
        self._store = ImageStore(db)
        self._blobs = BlobStore(data_root / "content")
        self._layers = LayerFiles(data_root / "layers")
        self._catalog = Catalog(self._store, self._blobs, self._layers)
        self._stock = Stock(self._catalog, self._blobs, self._layers)
        self._tasks = TaskOwner()

    async def start(self) -> None:
        """Reads all records and removes what a crash left half done."""
        self._catalog.load()
        known = {row.directory for row in self._catalog.layers().values()}
        await self._stock.in_thread(self._layers.clean, known)
        await self._stock.in_thread(self._blobs.clean)

    async def close(self) -> None:
        await self._tasks.drain(10.0)
        self._stock.close()

    # --- reading ------------------------------------------------------------------------

    def resolve(self, ref: str) -> Image:
        """By name, name@digest, id or unambiguous id prefix. Raises: NoSuchImage."""
        return self._catalog.resolve(ref)

    def get(self, image_id: str) -> Image:
        """By full id. Raises: NoSuchImage."""
        return self._catalog.get(image_id)

    def find(self, image_id: str) -> Image | None:
        """By full id; None when there is none."""
        try:
            return self._catalog.get(image_id)
        except NoSuchImage:
            return None

    def is_name_of(self, ref: str, image_id: str) -> bool:
        """Whether what a user typed still means that image."""
        try:
            return self._catalog.resolve(ref).id == image_id
        except EngineError:
            return False

    def descends(self, image_id: str, ancestor: str) -> bool:
        """Whether an image is `ancestor` (as a user names it) or was made on top of it."""
        image, base = self.find(image_id), self._catalog.resolve(ancestor)
        layers = base.chain_ids
        return image is not None and (
            image.id == base.id or bool(layers) and image.chain_ids[: len(layers)] == layers
        )

    def layer_directories(self, chain_ids: list[str]) -> list[Path]:
        """For an overlay's `lowerdir`: top first. Raises: DataLoss when one is missing."""
        return self._catalog.directories(chain_ids)

    # --- taking in ----------------------------------------------------------------------

    async def load(
        self, stream: AsyncIterator[bytes], progress: Progress, platform: str = ""
    ) -> list[Image]:
        """Reads a docker-archive or an OCI layout, compressed or not.

        Raises: InvalidArchive, InvalidImage, WrongDigest, SystemFailure; nothing is left then.
        Crash: nothing of an unfinished image is seen at the next start.
        """
        return await Loader(self._stock, progress, platform).run(stream)
