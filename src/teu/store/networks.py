"""Rows of `network` and `endpoint`. Used on the loop's thread only, like the database itself."""

import logging
import sqlite3
from collections.abc import Callable
from typing import TypeVar

import msgspec

from teu.errors import Conflict
from teu.model.network import EndpointRecord, NetworkRecord
from teu.store.db import Database

T = TypeVar("T")
log = logging.getLogger(__name__)


class NetworkNameTaken(Conflict):
    code = "network-name-taken"

    def __init__(self, name: str) -> None:
        super().__init__(f"network with name {name} already exists")


class NetworkRepository:
    """Networks and their endpoints."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._encode = msgspec.json.Encoder().encode
        self._network = msgspec.json.Decoder(NetworkRecord).decode
        self._endpoint = msgspec.json.Decoder(EndpointRecord).decode

    def networks(self) -> list[NetworkRecord]:
        """Broken rows are left where they are, told in the log and not returned."""
        return self._readable("SELECT record, id FROM network", self._network)

    def endpoints(self) -> list[EndpointRecord]:
        """As `networks`."""
        return self._readable("SELECT record, container_id FROM endpoint", self._endpoint)

    def _readable(self, query: str, decode: Callable[[bytes], T]) -> list[T]:
        found = []
        for record, ident in self._db.rows(query):
            try:
                found.append(decode(record))
            except msgspec.MsgspecError as error:
                log.error("row %s of the network tables cannot be read: %s", ident, error)
        return found

    def save_network(self, record: NetworkRecord) -> None:
        """Inserts or replaces by id. Raises: NetworkNameTaken."""
        try:
            self._db.write(
                "INSERT INTO network VALUES (?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET name = excluded.name, record = excluded.record",
                (record.id, record.name, self._encode(record)),
            )
        except sqlite3.IntegrityError as error:
            raise NetworkNameTaken(record.name) from error

    def remove_network(self, network_id: str) -> None:
        """Accepts "already gone"."""
        self._db.write("DELETE FROM network WHERE id = ?", (network_id,))

    def save_endpoint(self, record: EndpointRecord) -> None:
        """Inserts or replaces the container's endpoint on that network."""
        self._db.write(
            "INSERT OR REPLACE INTO endpoint VALUES (?, ?, ?)",
            (record.network_id, record.container_id, self._encode(record)),
        )

    def remove_endpoint(self, network_id: str, container_id: str) -> None:
        """Accepts "already gone"."""
        self._db.write(
            "DELETE FROM endpoint WHERE network_id = ? AND container_id = ?",
            (network_id, container_id),
        )
