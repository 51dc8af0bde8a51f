"""Rows of the build cache. Synchronous, on the loop's thread."""

from collections.abc import Iterable

import msgspec

from teu.model.build import CacheRecord
from teu.store.db import Database


class BuildStore:
    """See `model/build.py`."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._decoder = msgspec.json.Decoder(CacheRecord)

    def load(self) -> list[CacheRecord]:
        """All that can be read. Others are removed: a cache may forget."""
        found, broken = [], []
        for key, record in self._db.rows("SELECT key, record FROM build_cache"):
            try:
                found.append(self._decoder.decode(record))
            except msgspec.DecodeError:
                broken.append(key)
        self.remove(broken)
        return found

    def put(self, records: Iterable[CacheRecord]) -> None:
        """Adds or replaces, all in one transaction."""
        with self._db.transaction():
            for record in records:
                self._db.write(
                    "INSERT OR REPLACE INTO build_cache (key, record) VALUES (?, ?)",
                    (record.key, msgspec.json.encode(record)),
                )

    def remove(self, keys: Iterable[str]) -> None:
        with self._db.transaction():
            for key in keys:
                self._db.write("DELETE FROM build_cache WHERE key = ?", (key,))
