"""The state database: SQLite in WAL mode, one writer, used from the event loop's thread only.

A commit writes the WAL without an fsync (`synchronous=NORMAL`): about 50 us, so it may run on the
loop, and a state change is one uninterrupted piece of code. It survives `kill -9` of the daemon at
any instruction. Against power loss a checkpoint (a second connection, in a thread) moves the WAL
to the disk with fsync within `CHECKPOINT_DELAY_S` of a commit; the reader of a commit never waits
for it. See docs/adr/0003.

    meta(key, value)                        schema version, engine id
    container(id, name, record)             name unique; NULL once removal began: the name is free
    image(id, record)                       id = config digest (an artifact's: manifest digest)
    reference(name, image_id, index_digest) `docker.io/library/busybox:latest` or `…@sha256:…`;
                                            a row for each platform of the index that is here
    layer(chain_id, parent, diff_id, directory, size_bytes)
    blob_use(digest, owner)                 who keeps a blob: image id, layer chain id
    network(id, name, record)
    endpoint(network_id, container_id, record)
    volume(name, record)
    event(seq, at_ns, record)               bounded history for `events --since`
    exec(id, container_id, record)
    build_cache(key, record)                results of build steps

Records are JSON of the structs in `model/`. Each object has one repository class beside this file;
nothing else writes SQL.
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from teu.errors import SystemFailure
from teu.store.migrations import MIGRATIONS, migrate

CHECKPOINT_DELAY_S = 0.25
log = logging.getLogger(__name__)


class Database:
    """Opens (and migrates) the database. Raises: SystemFailure if it is newer than this program.

    `synchronous`: each commit is on the disk when it returns (a few milliseconds).
    """

    def __init__(
        self, path: Path, steps: Sequence[str] = MIGRATIONS, *, synchronous: bool = False
    ) -> None:
        self._path = path
        self._connection = _connect(path)
        if synchronous:
            self._connection.execute("PRAGMA synchronous=FULL")
        os.chmod(path, 0o600)
        self._connection.execute("PRAGMA wal_autocheckpoint=0")
        migrate(self._connection, steps)
        self._depth = 0
        self._checkpoint: asyncio.TimerHandle | None = None
        self._running: asyncio.Future[None] | None = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements inside commit together, or not at all. Nests into the outermost one.

        The body must not await: the connection belongs to the loop's thread.
        """
        if self._depth == 0:
            self._connection.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            if self._depth == 0:
                self._connection.execute("ROLLBACK")
            raise
        self._depth -= 1
        if self._depth == 0:
            self._connection.execute("COMMIT")
            self._schedule_checkpoint()

    def write(self, sql: str, values: Sequence[Any] = ()) -> int:
        """One statement in a transaction of its own (or the open one); the number of rows hit.

        Raises: sqlite3.IntegrityError (the repository translates it).
        """
        with self.transaction():
            return self._connection.execute(sql, values).rowcount

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        found = self._connection.execute(sql, values).fetchone()
        return tuple(found) if found is not None else None

    def meta(self, key: str, default: str) -> str:
        """A fact of this database; stored with its default when it is asked for first."""
        found = self.row("SELECT value FROM meta WHERE key = ?", (key,))
        if found is not None:
            return str(found[0])
        self.write("INSERT INTO meta VALUES (?, ?)", (key, default))
        return default

    def check(self) -> list[str]:
        """What SQLite finds wrong with the file. Reads all of it on a connection of its own: for
        a thread."""
        try:
            connection = sqlite3.connect(self._path, isolation_level=None, timeout=5.0)
            try:
                found = connection.execute("PRAGMA integrity_check").fetchall()
            finally:
                connection.close()
        except sqlite3.Error as error:
            return [str(error)]
        return [str(row[0]) for row in found if row[0] != "ok"]

    def close(self) -> None:
        """Moves everything to the main file and closes."""
        if self._checkpoint:
            self._checkpoint.cancel()
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    def _schedule_checkpoint(self) -> None:
        if self._checkpoint is not None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._checkpoint = loop.call_later(CHECKPOINT_DELAY_S, self._start_checkpoint, loop)

    def _start_checkpoint(self, loop: asyncio.AbstractEventLoop) -> None:
        self._checkpoint = None
        if self._running is not None and not self._running.done():
            self._schedule_checkpoint()
            return
        self._running = loop.run_in_executor(None, _checkpoint, self._path)


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
    except sqlite3.Error as error:
        raise SystemFailure(f"cannot open the state database {path}: {error}") from error
    return connection


def _checkpoint(path: Path) -> None:
    try:
        connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        try:
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            connection.close()
    except sqlite3.Error as error:
        log.warning("checkpoint of %s failed (it will be tried again): %s", path, error)
