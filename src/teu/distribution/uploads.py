"""Blobs on their way in: one file each below `uploads/`, resumable, also after a restart."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from teu import clock
from teu.distribution.errors import Refusal
from teu.store.distribution import DistributionStore
from teu.sys.atomicfile import write_fully

LIFETIME_S = 24 * 3600


class Upload:
    """`offset`: the bytes that are in the file. `write`, `digest` may run in any thread, one at a
    time (see Uploads.use)."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.offset = os.fstat(self._fd).st_size
        # Whoever has hashed every byte need not read them again.
        self._hash = hashlib.sha256() if self.offset == 0 else None

    def write(self, chunk: bytes) -> None:
        """Raises: OSError."""
        write_fully(self._fd, chunk)
        self.offset += len(chunk)
        if self._hash:
            self._hash.update(chunk)

    def cut(self, offset: int) -> None:
        """Takes back what came after `offset`. Raises: OSError."""
        if self.offset != offset:
            os.ftruncate(self._fd, offset)
            self.offset, self._hash = offset, None

    def digest(self, algorithm: str) -> str:
        """Of all bytes. Raises: OSError."""
        if self._hash and self._hash.name == algorithm:
            return f"{algorithm}:{self._hash.hexdigest()}"
        with self.path.open("rb") as file:
            return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"

    def close(self) -> None:
        os.close(self._fd)


class Uploads:
    """Loop's thread. The rows say which repository an upload belongs to; the files hold it."""

    def __init__(self, directory: Path, store: DistributionStore) -> None:
        self._directory = directory
        self._store = store
        self._open: dict[str, Upload] = {}
        self._busy: set[str] = set()
        directory.mkdir(mode=0o700, exist_ok=True)
        known = {name for name, _ in store.uploads()}
        for path in directory.iterdir():
            if path.name not in known:
                path.unlink()  # finished or given up when the process ended

    def begin(self, repository: str) -> Upload:
        name = secrets.token_hex(16)
        self._store.begin_upload(name, repository, clock.now_ns())
        return self._opened(name)

    @contextmanager
    def use(self, repository: str, name: str) -> Iterator[Upload]:
        """For one request at a time. Raises: Refusal BLOB_UPLOAD_UNKNOWN, BLOB_UPLOAD_INVALID."""
        if self._store.upload_repository(name) != repository:
            raise Refusal("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        if name in self._busy:
            raise Refusal("BLOB_UPLOAD_INVALID", "another request is writing to this upload")
        self._busy.add(name)
        try:
            yield self._open.get(name) or self._opened(name)
        finally:
            self._busy.discard(name)

    def offset(self, repository: str, name: str) -> int:
        """Raises: Refusal."""
        if self._store.upload_repository(name) != repository:
            raise Refusal("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        return (self._open.get(name) or self._opened(name)).offset

    def drop(self, name: str) -> None:
        """Forgets an upload: given up, or its file has become a blob."""
        if upload := self._open.pop(name, None):
            upload.close()
        self._store.end_upload(name)
        with contextlib.suppress(FileNotFoundError):
            (self._directory / name).unlink()

    def expire(self, lifetime_s: float = LIFETIME_S) -> int:
        """Drops those that nobody has written to for so long; how many."""
        oldest_ns = clock.now_ns() - int(lifetime_s * 1e9)
        stale = [
            name for name, began in self._store.uploads() if self._last(name, began) < oldest_ns
        ]
        for name in stale:
            if name not in self._busy:
                self.drop(name)
        return len(stale)

    def close(self) -> None:
        for upload in self._open.values():
            upload.close()
        self._open.clear()

    def _opened(self, name: str) -> Upload:
        self._open[name] = Upload(name, self._directory / name)
        return self._open[name]

    def _last(self, name: str, began_ns: int) -> int:
        try:
            return max(began_ns, (self._directory / name).stat().st_mtime_ns)
        except FileNotFoundError:
            return began_ns
