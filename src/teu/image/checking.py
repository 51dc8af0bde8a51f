"""`system check`: does everything that the store promises lie on the disk, whole?

Reads all of it, so it takes as long as the disk does; nothing is locked meanwhile. What is being
read cannot go away: layers are leased, a blob that was removed is no finding.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from msgspec import Struct, field

from teu.image.progress import Progress
from teu.image.stock import Stock
from teu.model.reference import Reference

_ID = slice(7, 19)
_SHOWN_DIFFERENCES = 3
DATABASE, NAME, IMAGE, BLOB, LAYER = "database", "name", "image", "blob", "layer"


class Problem(Struct, kw_only=True):
    """One finding. `images`: names (or ids) of the images that suffer from it; `outcome`: what
    `--repair` did, or why it could not; `is_repaired`: it is one no longer."""

    kind: str
    id: str
    text: str
    images: list[str] = field(default_factory=list)
    outcome: str = ""
    is_repaired: bool = False

    def shape(self) -> dict[str, Any]:
        return {
            "Kind": self.kind,
            "ID": self.id,
            "Problem": self.text,
            "Images": self.images,
            "Outcome": self.outcome,
            "Repaired": self.is_repaired,
        }


class Checked(Struct):
    """How much was looked at."""

    images: int = 0
    layers: int = 0
    blobs: int = 0
    size_bytes: int = 0

    def shape(self) -> dict[str, int]:
        return {
            "Images": self.images,
            "Layers": self.layers,
            "Blobs": self.blobs,
            "Size": self.size_bytes,
        }


class Checker:
    """Use once. `wanted_layers`: chain ids below containers."""

    def __init__(self, stock: Stock, wanted_layers: set[str], progress: Progress) -> None:
        self._stock = stock
        self._catalog = stock.catalog
        self._wanted = wanted_layers
        self._progress = progress
        self.checked = Checked()

    async def problems(self) -> AsyncIterator[Problem]:
        """What is wrong, in the order in which it can be repaired."""
        for text in await asyncio.to_thread(self._stock.catalog.check_database):
            yield Problem(kind=DATABASE, id="teu.db", text=text)
        for name in self._catalog.strays():
            yield Problem(kind=NAME, id=name, text="means an image that is not there")
        async for problem in self._blobs():
            yield problem
        for problem in self._images():
            yield problem
        async for problem in self._layers():
            yield problem

    def _images(self) -> list[Problem]:
        """Records that cannot be used for another reason than a blob, which was told before."""
        readable = {record.id for record in self._catalog.records()}
        return [
            Problem(kind=IMAGE, id=image_id, text=reason, images=self._named([image_id]))
            for image_id, reason in self._catalog.broken().items()
            if image_id not in readable
        ]

    async def _blobs(self) -> AsyncIterator[Problem]:
        blobs = self._stock.blobs
        owners = self._catalog.blob_owners()
        for count, (digest, image_ids) in enumerate(sorted(owners.items()), 1):
            self._progress(_counted("blobs", count, len(owners)))
            with blobs.lease([digest]):
                wrong = await self._stock.in_thread(blobs.check, digest)
            self.checked.blobs += 1
            if not wrong:
                self.checked.size_bytes += blobs.size_bytes(digest)
            elif any(digest in self._catalog.blobs_of(image_id) for image_id in image_ids):
                yield Problem(kind=BLOB, id=digest, text=wrong, images=self._named(image_ids))

    async def _layers(self) -> AsyncIterator[Problem]:
        records = self._catalog.records()
        self.checked.images = len(records)
        wanted = {chain_id: None for record in records for chain_id in record.chain_ids}
        wanted.update(dict.fromkeys(sorted(self._wanted)))
        for count, chain_id in enumerate(wanted, 1):
            self._progress(_counted("layers", count, len(wanted)))
            text = await self._layer(chain_id)
            self.checked.layers += 1
            if text:
                owners = [record.id for record in records if chain_id in record.chain_ids]
                yield Problem(kind=LAYER, id=chain_id, text=text, images=self._named(owners))

    def _named(self, image_ids: Iterable[str]) -> list[str]:
        """Tags of images, each once; a short id where there is none."""
        found: dict[str, None] = {}
        for image_id in image_ids:
            names = [Reference.parse(name) for name in self._catalog.names_of(image_id)]
            tags = [name.familiar for name in names if not name.digest]
            found.update(dict.fromkeys(tags or [image_id[_ID]]))
        return list(found)

    async def _layer(self, chain_id: str) -> str:
        with self._stock.keeping([chain_id]):
            row = self._catalog.layers().get(chain_id)
            if row is None:
                return "is missing"
            wrong = await self._stock.in_thread(self._stock.layers.check, row)
            self.checked.size_bytes += row.size_bytes
        return "is damaged: " + _some(wrong) if wrong else ""


def _counted(what: str, current: int, total: int) -> dict[str, Any]:
    detail = {"current": current, "total": total, "units": what}
    return {"status": "", "id": f"Checking {what}", "progressDetail": detail}


def _some(lines: list[str]) -> str:
    more = len(lines) - _SHOWN_DIFFERENCES
    shown = "; ".join(lines[:_SHOWN_DIFFERENCES])
    return f"{shown}; and {more} more" if more > 0 else shown
