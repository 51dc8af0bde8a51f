"""Containers and execs in the database."""

import sqlite3
from contextlib import AbstractContextManager

import msgspec

from teu.errors import Conflict
from teu.model.container import ContainerRecord
from teu.store.db import Database

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ContainerRecord).decode


class NameTaken(Conflict):
    """Raised by `insert` and `rename`; the caller knows who holds the name."""


class BrokenRecord(msgspec.Struct):
    """A row that this program cannot read. It is reported and kept, never deleted."""

    id: str
    reason: str
    raw: bytes = b""


class ContainerStore:
    """Rows of `container`. A row without a name is being removed."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def together(self) -> AbstractContextManager[None]:
        """Everything that is stored inside, by whomever, is stored as one. No await inside."""
        return self._db.transaction()

    def load(self) -> tuple[list[ContainerRecord], list[BrokenRecord]]:
        records: list[ContainerRecord] = []
        broken: list[BrokenRecord] = []
        for container_id, raw in self._db.rows("SELECT id, record FROM container"):
            try:
                records.append(_decode(raw))
            except msgspec.MsgspecError as error:
                broken.append(BrokenRecord(container_id, str(error), raw))
        return records, broken

    def insert(self, record: ContainerRecord) -> None:
        """Raises: NameTaken."""
        self._guarded(
            "INSERT INTO container VALUES (?, ?, ?)", (record.id, record.name, _encode(record))
        )

    def save(self, record: ContainerRecord) -> None:
        self._db.write("UPDATE container SET record = ? WHERE id = ?", (_encode(record), record.id))

    def rename(self, record: ContainerRecord) -> None:
        """Stores the record under its (new) name. Raises: NameTaken."""
        self._guarded(
            "UPDATE container SET name = ?, record = ? WHERE id = ?",
            (record.name, _encode(record), record.id),
        )

    def free_name(self, record: ContainerRecord) -> None:
        """The intent to remove: the name is free from here on, the row stays until `delete`."""
        self._db.write(
            "UPDATE container SET name = NULL, record = ? WHERE id = ?",
            (_encode(record), record.id),
        )

    def delete(self, container_id: str) -> None:
        self._db.write("DELETE FROM container WHERE id = ?", (container_id,))

    def _guarded(self, sql: str, values: tuple[object, ...]) -> None:
        try:
            self._db.write(sql, values)
        except sqlite3.IntegrityError as error:
            raise NameTaken(str(error)) from error
