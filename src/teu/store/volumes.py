"""Volumes in the database."""

import msgspec

from teu.model.volume import VolumeRecord
from teu.store.db import Database

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(VolumeRecord).decode


class VolumeStore:
    """Rows of `volume`, by name."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def load(self) -> list[VolumeRecord]:
        return [_decode(raw) for (raw,) in self._db.rows("SELECT record FROM volume")]

    def save(self, record: VolumeRecord) -> None:
        self._db.write(
            "INSERT OR REPLACE INTO volume VALUES (?, ?)", (record.name, _encode(record))
        )

    def rename(self, old_name: str, record: VolumeRecord) -> None:
        """Stores the record under its new name, which nobody has."""
        self._db.write(
            "UPDATE volume SET name = ?, record = ? WHERE name = ?",
            (record.name, _encode(record), old_name),
        )

    def delete(self, name: str) -> None:
        self._db.write("DELETE FROM volume WHERE name = ?", (name,))
