"""Rows of images, their names, their layers, and who keeps which blob.

Synchronous, on the loop's thread. An image and its names are written in one transaction, after
everything they speak of is durable.
"""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from teu.model.image import ImageRecord
from teu.store.db import Database


class LayerRow(Struct, frozen=True):
    """One unpacked layer: `directory` is its name below `layers/`."""

    chain_id: str
    parent: str
    diff_id: str
    directory: str
    size_bytes: int


class ImageStore:
    """See the module's text."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._decoder = msgspec.json.Decoder(ImageRecord)

    def images(self) -> list[ImageRecord]:
        """All that can be read; see `broken` for the others."""
        found = []
        for _, record in self._db.rows("SELECT id, record FROM image"):
            try:
                found.append(self._decoder.decode(record))
            except msgspec.DecodeError:
                continue
        return found

    def broken(self) -> list[str]:
        """Ids of rows that cannot be read (kept, reported, never used)."""
        good = {record.id for record in self.images()}
        return [row[0] for row in self._db.rows("SELECT id FROM image") if row[0] not in good]

    def references(self) -> dict[str, str]:
        """Full name (`docker.io/library/busybox:latest`, `…@sha256:…`) to image id."""
        return dict(self._db.rows("SELECT name, image_id FROM reference"))

    def layers(self) -> list[LayerRow]:
        rows = self._db.rows("SELECT chain_id, parent, diff_id, directory, size_bytes FROM layer")
        return [LayerRow(*row) for row in rows]

    def used_blobs(self) -> set[str]:
        return {row[0] for row in self._db.rows("SELECT DISTINCT digest FROM blob_use")}

    def add_layer(self, layer: LayerRow) -> None:
        """Replaces a row of the same chain id."""
        self._db.write(
            "INSERT OR REPLACE INTO layer (chain_id, parent, diff_id, directory, size_bytes)"
            " VALUES (?, ?, ?, ?, ?)",
            (layer.chain_id, layer.parent, layer.diff_id, layer.directory, layer.size_bytes),
        )

    def add(self, record: ImageRecord, *, names: Iterable[str], blobs: Iterable[str]) -> None:
        """An image, the names that now mean it, and the blobs it keeps."""
        with self._db.transaction():
            self._put(record)
            for digest in blobs:
                self._db.write(
                    "INSERT OR IGNORE INTO blob_use (digest, owner) VALUES (?, ?)",
                    (digest, record.id),
                )
            for name in names:
                self._name(name, record.id)

    def _put(self, record: ImageRecord) -> None:
        self._db.write(
            "INSERT OR REPLACE INTO image (id, record) VALUES (?, ?)",
            (record.id, msgspec.json.encode(record)),
        )

    def name(self, record: ImageRecord, name: str) -> None:
        """`name` now means this image, whatever it meant before."""
        with self._db.transaction():
            self._name(name, record.id)
            self._put(record)

    def _name(self, name: str, image_id: str) -> None:
        self._db.write(
            "INSERT OR REPLACE INTO reference (name, image_id) VALUES (?, ?)", (name, image_id)
        )

    def unname(self, names: Iterable[str]) -> None:
        with self._db.transaction():
            for name in names:
                self._db.write("DELETE FROM reference WHERE name = ?", (name,))

    def remove(self, image_id: str) -> None:
        """The image and its names; layers and blobs go when nobody else needs them."""
        with self._db.transaction():
            self._db.write("DELETE FROM reference WHERE image_id = ?", (image_id,))
            self._db.write("DELETE FROM blob_use WHERE owner = ?", (image_id,))
            self._db.write("DELETE FROM image WHERE id = ?", (image_id,))

    def remove_layers(self, chain_ids: Iterable[str]) -> None:
        with self._db.transaction():
            for chain_id in chain_ids:
                self._db.write("DELETE FROM layer WHERE chain_id = ?", (chain_id,))
