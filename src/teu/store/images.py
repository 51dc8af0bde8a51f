"""Rows of images, their names, their layers, and who keeps which blob.

Synchronous, on the loop's thread. An image and its names are written in one transaction, after
everything they speak of is durable.
"""

from collections.abc import Iterable, Mapping

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


class Named(Struct, frozen=True):
    """What a name means: an image, or several of one index, each for another platform."""

    image_ids: tuple[str, ...]
    index_digest: str = ""  # "" for an image that came from no index


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

    def references(self) -> dict[str, Named]:
        """By full name (`docker.io/library/busybox:latest`, `…@sha256:…`)."""
        found: dict[str, Named] = {}
        for name, image_id, index in self._db.rows(
            "SELECT name, image_id, index_digest FROM reference"
        ):
            before = found[name].image_ids if name in found else ()
            found[name] = Named((*before, image_id), index)
        return found

    def layers(self) -> list[LayerRow]:
        rows = self._db.rows("SELECT chain_id, parent, diff_id, directory, size_bytes FROM layer")
        return [LayerRow(*row) for row in rows]

    def blobs_of(self, owner: str) -> list[str]:
        rows = self._db.rows("SELECT digest FROM blob_use WHERE owner = ?", (owner,))
        return [row[0] for row in rows]

    def strays(self) -> list[str]:
        """Names that mean images without a row."""
        rows = self._db.rows(
            "SELECT DISTINCT name FROM reference WHERE image_id NOT IN (SELECT id FROM image)"
        )
        return [row[0] for row in rows]

    def check(self) -> list[str]:
        """What is wrong with the database's file (for a thread)."""
        return self._db.check()

    def blob_owners(self) -> dict[str, list[str]]:
        """Who keeps each blob."""
        found: dict[str, list[str]] = {}
        for digest, owner in self._db.rows("SELECT digest, owner FROM blob_use"):
            found.setdefault(digest, []).append(owner)
        return found

    def used_blobs(self) -> set[str]:
        return {row[0] for row in self._db.rows("SELECT DISTINCT digest FROM blob_use")}

    def add_layer(self, layer: LayerRow) -> None:
        """Replaces a row of the same chain id."""
        self._db.write(
            "INSERT OR REPLACE INTO layer (chain_id, parent, diff_id, directory, size_bytes)"
            " VALUES (?, ?, ?, ?, ?)",
            (layer.chain_id, layer.parent, layer.diff_id, layer.directory, layer.size_bytes),
        )

    def add(self, record: ImageRecord, *, names: Mapping[str, Named], blobs: Iterable[str]) -> None:
        """An image, what names mean now, and the blobs it keeps."""
        with self._db.transaction():
            self._put(record)
            for digest in blobs:
                self._db.write(
                    "INSERT OR IGNORE INTO blob_use (digest, owner) VALUES (?, ?)",
                    (digest, record.id),
                )
            self.name(names)

    def _put(self, record: ImageRecord) -> None:
        self._db.write(
            "INSERT OR REPLACE INTO image (id, record) VALUES (?, ?)",
            (record.id, msgspec.json.encode(record)),
        )

    def name(self, names: Mapping[str, Named], tagged: Iterable[ImageRecord] = ()) -> None:
        """Names mean this from now on, whatever they meant before; `tagged` are stored anew."""
        with self._db.transaction():
            for name, meaning in names.items():
                self._db.write("DELETE FROM reference WHERE name = ?", (name,))
                for image_id in meaning.image_ids:
                    self._db.write(
                        "INSERT INTO reference (name, image_id, index_digest) VALUES (?, ?, ?)",
                        (name, image_id, meaning.index_digest),
                    )
            for record in tagged:
                self._put(record)

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
