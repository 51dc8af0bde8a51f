"""What a registry server holds: repositories, their blobs, manifests and tags.

    repository(name)
    link(repository, digest, size, at_ns)        the repository may serve this blob
    manifest(repository, digest, media_type, size, subject, artifact_type, annotations, at_ns)
    need(repository, manifest, digest, kind)     `blob` or `manifest` that a manifest refers to
    tag(repository, name, digest, at_ns)
    upload(id, repository, at_ns)                not finished yet

A database of its own, in the registry's root. Commits are on the disk when they return: what a
client was told is pushed survives a power failure.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from teu.store.db import Database

STEPS = (
    """
    CREATE TABLE repository (name TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE link (repository TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
                       at_ns INTEGER NOT NULL, PRIMARY KEY (repository, digest)) WITHOUT ROWID;
    CREATE INDEX link_digest ON link (digest);
    CREATE TABLE manifest (repository TEXT NOT NULL, digest TEXT NOT NULL,
                           media_type TEXT NOT NULL, size INTEGER NOT NULL, subject TEXT NOT NULL,
                           artifact_type TEXT NOT NULL, annotations TEXT NOT NULL,
                           at_ns INTEGER NOT NULL, PRIMARY KEY (repository, digest));
    CREATE INDEX manifest_subject ON manifest (repository, subject);
    CREATE INDEX manifest_digest ON manifest (digest);
    CREATE TABLE need (repository TEXT NOT NULL, manifest TEXT NOT NULL, digest TEXT NOT NULL,
                       kind TEXT NOT NULL, PRIMARY KEY (repository, manifest, digest))
                 WITHOUT ROWID;
    CREATE INDEX need_digest ON need (repository, digest);
    CREATE TABLE tag (repository TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL,
                      at_ns INTEGER NOT NULL, PRIMARY KEY (repository, name)) WITHOUT ROWID;
    CREATE INDEX tag_digest ON tag (repository, digest);
    CREATE TABLE upload (id TEXT PRIMARY KEY, repository TEXT NOT NULL, at_ns INTEGER NOT NULL)
                 WITHOUT ROWID;
    """,
)
_MANIFEST = "digest, media_type, size, subject, artifact_type, annotations, at_ns"


class ManifestRow(Struct, frozen=True):
    """A manifest of one repository. `subject`, `artifact_type`: empty when it has none."""

    digest: str
    media_type: str
    size: int
    subject: str
    artifact_type: str
    annotations: Mapping[str, str]
    at_ns: int


class DistributionStore:
    """All of the SQL. Loop's thread only."""

    def __init__(self, path: Path) -> None:
        self._db = Database(path, STEPS, synchronous=True)

    def close(self) -> None:
        self._db.close()

    # Repositories and tags.

    def repositories(self, after: str = "", limit: int = -1) -> list[str]:
        sql = "SELECT name FROM repository WHERE name > ? ORDER BY name LIMIT ?"
        return [name for (name,) in self._db.rows(sql, (after, limit))]

    def has_repository(self, name: str) -> bool:
        return self._db.row("SELECT 1 FROM repository WHERE name = ?", (name,)) is not None

    def tags(self, repository: str, after: str = "", limit: int = -1) -> list[str]:
        sql = "SELECT name FROM tag WHERE repository = ? AND name > ? ORDER BY name LIMIT ?"
        return [name for (name,) in self._db.rows(sql, (repository, after, limit))]

    def tag_rows(self, repository: str) -> list[tuple[str, str, int]]:
        """(name, digest, when) of all tags."""
        sql = "SELECT name, digest, at_ns FROM tag WHERE repository = ? ORDER BY name"
        return [(name, digest, at) for name, digest, at in self._db.rows(sql, (repository,))]

    def resolve(self, repository: str, tag: str) -> str | None:
        """The digest that a tag names."""
        sql = "SELECT digest FROM tag WHERE repository = ? AND name = ?"
        found = self._db.row(sql, (repository, tag))
        return str(found[0]) if found else None

    def delete_tag(self, repository: str, tag: str) -> bool:
        sql = "DELETE FROM tag WHERE repository = ? AND name = ?"
        return self._db.write(sql, (repository, tag)) > 0

    # Blobs.

    def blob_size(self, repository: str, digest: str) -> int | None:
        """None when the repository does not have it."""
        sql = "SELECT size FROM link WHERE repository = ? AND digest = ?"
        found = self._db.row(sql, (repository, digest))
        return int(found[0]) if found else None

    def holders(self, digest: str) -> list[str]:
        """Repositories that have a blob."""
        sql = "SELECT repository FROM link WHERE digest = ?"
        return [name for (name,) in self._db.rows(sql, (digest,))]

    def link(self, repository: str, digest: str, size: int, at_ns: int, upload: str = "") -> None:
        """The repository has the blob from now on; an upload that brought it is over."""
        with self._db.transaction():
            self._db.write("INSERT OR IGNORE INTO repository VALUES (?)", (repository,))
            self._db.write(
                "INSERT INTO link VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET at_ns = excluded.at_ns",
                (repository, digest, size, at_ns),
            )
            self.end_upload(upload)

    def unlink(self, repository: str, digest: str) -> bool:
        sql = "DELETE FROM link WHERE repository = ? AND digest = ?"
        return self._db.write(sql, (repository, digest)) > 0

    def size_bytes(self, repository: str) -> int:
        """What a repository's blobs take, manifests included."""
        found = self._db.row(
            "SELECT (SELECT coalesce(sum(size), 0) FROM link WHERE repository = ?1)"
            " + (SELECT coalesce(sum(size), 0) FROM manifest WHERE repository = ?1)",
            (repository,),
        )
        return int(found[0]) if found else 0

    # Manifests.

    def manifest(self, repository: str, digest: str) -> ManifestRow | None:
        sql = f"SELECT {_MANIFEST} FROM manifest WHERE repository = ? AND digest = ?"
        found = self._db.row(sql, (repository, digest))
        return _manifest(found) if found else None

    def manifests(self, repository: str) -> list[ManifestRow]:
        sql = f"SELECT {_MANIFEST} FROM manifest WHERE repository = ? ORDER BY at_ns"
        return [_manifest(row) for row in self._db.rows(sql, (repository,))]

    def referrers(self, repository: str, subject: str) -> list[ManifestRow]:
        """Manifests whose subject this is, oldest first."""
        sql = (
            f"SELECT {_MANIFEST} FROM manifest WHERE repository = ? AND subject = ?"
            " ORDER BY at_ns, digest"
        )
        return [_manifest(row) for row in self._db.rows(sql, (repository, subject))]

    def put_manifest(
        self, repository: str, row: ManifestRow, needs: Iterable[tuple[str, str]], tag: str
    ) -> None:
        """Stores a manifest with what it refers to, (digest, kind), and names it if there is a
        tag."""
        with self._db.transaction():
            self._db.write("INSERT OR IGNORE INTO repository VALUES (?)", (repository,))
            self._db.write(
                "INSERT OR REPLACE INTO manifest VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(repository, row.digest, row.media_type, row.size, row.subject),
                    *(row.artifact_type, json.dumps(dict(row.annotations)), row.at_ns),
                ),
            )
            for digest, kind in needs:
                self._db.write(
                    "INSERT OR IGNORE INTO need VALUES (?, ?, ?, ?)",
                    (repository, row.digest, digest, kind),
                )
            if tag:
                self._db.write(
                    "INSERT OR REPLACE INTO tag VALUES (?, ?, ?, ?)",
                    (repository, tag, row.digest, row.at_ns),
                )

    def delete_manifest(self, repository: str, digest: str) -> bool:
        """Also its tags."""
        key = (repository, digest)
        with self._db.transaction():
            self._db.write("DELETE FROM tag WHERE repository = ? AND digest = ?", key)
            self._db.write("DELETE FROM need WHERE repository = ? AND manifest = ?", key)
            sql = "DELETE FROM manifest WHERE repository = ? AND digest = ?"
            return self._db.write(sql, key) > 0

    # Uploads.

    def begin_upload(self, upload: str, repository: str, at_ns: int) -> None:
        self._db.write("INSERT INTO upload VALUES (?, ?, ?)", (upload, repository, at_ns))

    def upload_repository(self, upload: str) -> str | None:
        found = self._db.row("SELECT repository FROM upload WHERE id = ?", (upload,))
        return str(found[0]) if found else None

    def uploads(self) -> list[tuple[str, int]]:
        """(id, when it began) of all."""
        return [(name, at) for name, at in self._db.rows("SELECT id, at_ns FROM upload")]

    def end_upload(self, upload: str) -> None:
        self._db.write("DELETE FROM upload WHERE id = ?", (upload,))

    # Garbage.

    def stray_manifests(self, repository: str, before_ns: int) -> list[str]:
        """Manifests without a tag, that no other manifest lists, and that do not tell about one
        that is there."""
        sql = """
            SELECT digest FROM manifest AS m WHERE repository = ?1 AND at_ns < ?2
            AND NOT EXISTS (SELECT 1 FROM tag WHERE repository = ?1 AND digest = m.digest)
            AND NOT EXISTS (SELECT 1 FROM need WHERE repository = ?1 AND digest = m.digest)
            AND NOT EXISTS (SELECT 1 FROM manifest AS s WHERE s.repository = ?1
                            AND s.digest = m.subject)
        """
        return [digest for (digest,) in self._db.rows(sql, (repository, before_ns))]

    def unlink_unneeded(self, before_ns: int) -> int:
        """Takes blobs from repositories where no manifest refers to them; how many."""
        return self._db.write(
            "DELETE FROM link WHERE at_ns < ? AND NOT EXISTS (SELECT 1 FROM need WHERE"
            " need.repository = link.repository AND need.digest = link.digest)",
            (before_ns,),
        )

    def forget_empty(self, before_ns: int) -> None:
        """Drops repositories that hold nothing."""
        self._db.write(
            "DELETE FROM repository WHERE NOT EXISTS"
            " (SELECT 1 FROM link WHERE repository = repository.name)"
            " AND NOT EXISTS (SELECT 1 FROM manifest WHERE repository = repository.name)"
            " AND NOT EXISTS (SELECT 1 FROM upload WHERE repository = repository.name"
            " AND at_ns >= ?)",
            (before_ns,),
        )

    def used(self) -> set[str]:
        """Digests of all blobs and manifests that some repository has."""
        sql = "SELECT digest FROM link UNION SELECT digest FROM manifest"
        return {digest for (digest,) in self._db.rows(sql)}


def _manifest(row: tuple[Any, ...]) -> ManifestRow:
    digest, media_type, size, subject, artifact_type, annotations, at_ns = row
    return ManifestRow(
        digest, media_type, size, subject, artifact_type, json.loads(annotations), at_ns
    )
