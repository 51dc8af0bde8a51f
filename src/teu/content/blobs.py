"""Content by digest: configs, manifests, and whatever else is kept as it came.

    content/blobs/ALGORITHM/HEX    whole, checked, durable, read-only
    content/ingest/NAME         being written; void when no daemon runs, except resumable `.part`s

A blob appears by rename after its bytes were checked and synced, so its name is a promise. Who
keeps it is in table `blob_use`; a lease keeps it while nobody does yet.
"""

import hashlib
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from teu.errors import DataLoss, InvalidParameter, SystemFailure
from teu.sys.atomicfile import fsync_directory, write_whole

PART_SUFFIX = ".part"
PART_LIFETIME_S = 7 * 86400
ALGORITHMS = ("sha256", "sha512")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_READ_BYTES = 1 << 20


class WrongDigest(InvalidParameter):
    """Bytes that are not what their digest or size says."""

    def __init__(self, expected: str, actual: str, what: str = "the content") -> None:
        super().__init__(
            f"{what} does not match its digest: expected {expected}, got {actual}; it was damaged "
            "or changed on the way, nothing of it was kept"
        )


def is_digest(text: str) -> bool:
    """Whether it is a digest that can be checked here."""
    return _DIGEST.fullmatch(text) is not None


def check_digest(digest: str) -> str:
    """Raises: InvalidParameter for anything but an algorithm of ALGORITHMS and its hex digits."""
    if not is_digest(digest):
        raise InvalidParameter(f"unsupported digest {digest!r}: not sha256 or sha512 in hex")
    return digest


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


class BlobStore:
    """Files only: no database, any thread. Leases belong to the loop's thread."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self.ingest = root / "ingest"
        self._leases: Counter[str] = Counter()
        for directory in (*self._directories(), self.ingest):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _directories(self) -> list[Path]:
        return [self._blobs / algorithm for algorithm in ALGORITHMS]

    def path(self, digest: str) -> Path:
        algorithm, _, name = check_digest(digest).partition(":")
        return self._blobs / algorithm / name

    def has(self, digest: str) -> bool:
        return self.path(digest).exists()

    def put(self, data: bytes, expected: str = "", *, again: bool = False) -> str:
        """Stores a small blob durably; its digest. `again`: even if there is one, for it is
        damaged. Raises: WrongDigest, SystemFailure."""
        algorithm = check_digest(expected).partition(":")[0] if expected else "sha256"
        digest = digest_of(data, algorithm)
        if expected and digest != expected:
            raise WrongDigest(expected, digest)
        if again or not self.has(digest):
            try:
                write_whole(self.path(digest), data, 0o400)
            except OSError as error:
                raise SystemFailure(f"cannot store blob {digest}: {error}") from error
        return digest

    def spool(self) -> tuple[int, Path]:
        """A new file for bytes whose digest is not known yet: `adopt` or unlink it. The caller
        closes the descriptor. Void at the next start. Raises: SystemFailure."""
        path = self.ingest / f"{secrets.token_hex(8)}.spool"
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), path
        except OSError as error:
            raise SystemFailure(f"cannot store a blob: {error}") from error

    def adopt(self, path: Path, digest: str) -> None:
        """Makes a spooled file, whose digest was checked, the blob. Durable on return.

        Raises: SystemFailure.
        """
        try:
            with path.open("rb") as file:
                os.fchmod(file.fileno(), 0o400)
                os.fsync(file.fileno())
            path.rename(self.path(digest))
            fsync_directory(self.path(digest).parent)
        except OSError as error:
            raise SystemFailure(f"cannot store blob {digest}: {error}") from error

    def read(self, digest: str) -> bytes:
        """A whole (small) blob, checked. Raises: DataLoss when missing or damaged."""
        try:
            data = self.path(digest).read_bytes()
        except OSError as error:
            raise DataLoss(
                f"blob {digest} is missing from the store ({error.strerror}): pull or load its "
                "image again"
            ) from error
        if digest_of(data) != digest:
            raise DataLoss(f"blob {digest} is damaged: pull or load its image again")
        return data

    def chunks(self, digest: str) -> Iterator[bytes]:
        """A blob of any size, unchecked (the receiver checks). Raises: DataLoss when missing."""
        try:
            with open(self.path(digest), "rb") as file:
                while data := file.read(_READ_BYTES):
                    yield data
        except OSError as error:
            raise DataLoss(f"blob {digest} cannot be read: {error}") from error

    def check(self, digest: str) -> str:
        """What is wrong with a blob of any size; "" for nothing."""
        algorithm = check_digest(digest).partition(":")[0]
        actual = hashlib.new(algorithm)
        try:
            for piece in self.chunks(digest):
                actual.update(piece)
        except DataLoss as error:
            return "is damaged: " + str(error) if self.has(digest) else "is missing"
        return "" if f"{algorithm}:{actual.hexdigest()}" == digest else "is damaged"

    def size_bytes(self, digest: str) -> int:
        """Raises: DataLoss when missing."""
        try:
            return self.path(digest).stat().st_size
        except OSError as error:
            raise DataLoss(f"blob {digest} is missing from the store") from error

    def part(self, digest: str) -> Path:
        """Where a resumable download of this blob is kept."""
        return self.ingest / (self.path(digest).name + PART_SUFFIX)

    def clean(self) -> None:
        """At start: drops what a crash left, and resumable parts nobody came back for."""
        oldest = time.time() - PART_LIFETIME_S
        for directory in (self.ingest, *self._directories()):
            for path in directory.iterdir():
                is_part = path.name.endswith(PART_SUFFIX) and path.stat().st_mtime > oldest
                if (directory == self.ingest and not is_part) or path.name.startswith("."):
                    path.unlink(missing_ok=True)

    # --- keeping ------------------------------------------------------------------------

    @contextmanager
    def lease(self, digests: Iterable[str]) -> Iterator[Callable[[str], None]]:
        """Keeps blobs (there or to come) from `collect` while the body runs; call what it gives
        to add more. Void after a crash, as is whatever it protected."""
        held = Counter(digests)
        self._leases += held

        def add(digest: str) -> None:
            held[digest] += 1
            self._leases[digest] += 1

        try:
            yield add
        finally:
            self._leases -= held

    def unused(self, used: set[str]) -> list[str]:
        """Blobs that nobody uses and no lease keeps. Loop's thread: decide and act together."""
        return [
            digest
            for directory in self._directories()
            for name in os.listdir(directory)
            if not name.startswith(".")
            and (digest := f"{directory.name}:{name}") not in used
            and not self._leases[digest]
        ]

    def remove(self, digests: Iterable[str]) -> int:
        """Removes blobs; the bytes freed."""
        freed = 0
        for digest in digests:
            path = self.path(digest)
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                continue
            freed += size
        if freed:
            for directory in self._directories():
                fsync_directory(directory)
        return freed
