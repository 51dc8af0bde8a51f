"""The schema, as ordered steps. A step is never edited once released; add the next one."""

import sqlite3
from collections.abc import Sequence

from teu.errors import SystemFailure

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE container (id TEXT PRIMARY KEY, name TEXT UNIQUE, record BLOB NOT NULL);
    CREATE TABLE exec (id TEXT PRIMARY KEY, container_id TEXT NOT NULL, record BLOB NOT NULL);
    CREATE TABLE image (id TEXT PRIMARY KEY, record BLOB NOT NULL);
    CREATE TABLE reference (name TEXT PRIMARY KEY, image_id TEXT NOT NULL);
    CREATE INDEX reference_image ON reference (image_id);
    CREATE TABLE layer (chain_id TEXT PRIMARY KEY, parent TEXT NOT NULL, diff_id TEXT NOT NULL,
                        directory TEXT NOT NULL UNIQUE, size_bytes INTEGER NOT NULL);
    CREATE TABLE blob_use (digest TEXT NOT NULL, owner TEXT NOT NULL,
                           PRIMARY KEY (digest, owner)) WITHOUT ROWID;
    CREATE INDEX blob_use_owner ON blob_use (owner);
    CREATE TABLE network (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL);
    CREATE TABLE endpoint (network_id TEXT NOT NULL, container_id TEXT NOT NULL,
                           record BLOB NOT NULL, PRIMARY KEY (network_id, container_id));
    CREATE TABLE volume (name TEXT PRIMARY KEY, record BLOB NOT NULL);
    CREATE TABLE event (seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, record BLOB NOT NULL);
    CREATE INDEX event_at ON event (at_ns);
    """,
    """
    CREATE TABLE named (name TEXT NOT NULL, image_id TEXT NOT NULL, index_digest TEXT NOT NULL,
                        PRIMARY KEY (name, image_id)) WITHOUT ROWID;
    INSERT INTO named SELECT name, image_id, '' FROM reference;
    DROP TABLE reference;
    ALTER TABLE named RENAME TO reference;
    CREATE INDEX reference_image ON reference (image_id);
    """,
    """
    CREATE TABLE build_cache (key TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
    """,
)


def migrate(connection: sqlite3.Connection, steps: Sequence[str]) -> None:
    """Brings the schema to this program's version, each step in one transaction.

    Raises: SystemFailure for a database written by a newer program.
    """
    connection.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT)")
    row = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    version = int(row[0]) if row else 0
    if version > len(steps):
        raise SystemFailure(
            f"the state database has schema {version}, this program knows {len(steps)}: it was "
            "written by a newer version; start that one, or use another data root"
        )
    for number, step in enumerate(steps[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        for statement in filter(str.strip, step.split(";")):
            connection.execute(statement)
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (str(number),))
        connection.execute("COMMIT")
