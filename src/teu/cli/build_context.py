"""What a build reads from this machine: the context's files, the Dockerfile, the ignore file."""

from __future__ import annotations

import os
import sys
import tarfile

from teu.cli.archives import read_pieces
from teu.cli.session import Failure
from teu.cli.tarfiles import pack_entry
from teu.dockerignore import BadPattern, IgnoreList, read_patterns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

STDIN = "-"
REMOTE = ("http://", "https://", "git://", "git@", "ssh://", "github.com/")
_ARCHIVE_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_TAR_MAGIC_AT = 257


class LocalContext:
    """A directory, with the name of its Dockerfile inside it, and its text, which may come
    from stdin or from elsewhere."""

    def __init__(self, root: str, dockerfile: str | None) -> None:
        """`dockerfile`: as asked, "" for the usual one, None for a context without one."""
        if not os.path.isdir(root):
            raise Failure(
                f"unable to prepare context: path {root!r} not found"
                if not os.path.exists(root)
                else f"unable to prepare context: {root!r} is not a directory"
            )
        self.root = os.path.realpath(root)
        self.dockerfile = ""
        self.dockerfile_text = b""
        self.is_inside = True  # the Dockerfile is a file of the context
        if dockerfile is not None:
            self._choose_dockerfile(dockerfile)
        self.ignore = self._read_ignore()

    def _choose_dockerfile(self, asked: str) -> None:
        if asked == STDIN:
            self.dockerfile = "Dockerfile"
            self.dockerfile_text = sys.stdin.buffer.read()
            self.is_inside = False
            return
        path = os.path.realpath(asked or os.path.join(self.root, "Dockerfile"))
        if not asked and not os.path.exists(path):
            lower = os.path.join(self.root, "dockerfile")
            path = lower if os.path.exists(lower) else path
        elif asked and not os.path.exists(path):
            inside = os.path.realpath(os.path.join(self.root, asked))
            path = inside if os.path.exists(inside) else path
        try:
            with open(path, "rb") as file:
                self.dockerfile_text = file.read()
        except OSError as error:
            raise Failure(
                f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: "
                f"{path}: {(error.strerror or '').lower()}"
            ) from error
        relative = os.path.relpath(path, self.root)
        self.is_inside = not relative.startswith("..")
        self.dockerfile = relative if self.is_inside else os.path.basename(path)

    @property
    def sent_dockerfile(self) -> str:
        """Its name in the archive: one that no file of the context has."""
        return self.dockerfile if self.is_inside else f".dockerfile.{os.getpid()}"

    def _read_ignore(self) -> IgnoreList:
        """`DOCKERFILE.dockerignore` beside the Dockerfile, else `.dockerignore`."""
        own = [f"{self.dockerfile}.dockerignore"] if self.dockerfile else []
        for name in (*own, ".dockerignore"):
            try:
                with open(
                    os.path.join(self.root, name), encoding="utf-8", errors="replace"
                ) as file:
                    return IgnoreList(read_patterns(file.read()))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise Failure(f"failed to read {name}: {error.strerror}") from error
            except BadPattern as error:
                raise Failure(f"failed to read {name}: {error}") from error
        return IgnoreList([])

    def walk(self, only: list[str] | None = None) -> Iterator[tuple[str, str]]:
        """Path on this machine and name in the context of everything that is not ignored, a
        directory before what is in it. `only`: below these names. Raises: Failure."""
        if only is None:
            yield from self._below("")
            return
        seen: set[str] = set()
        for name in only:
            for found in self._only(name):
                if found[1] not in seen:
                    seen.add(found[1])
                    yield found

    def _only(self, name: str) -> Iterator[tuple[str, str]]:
        """One name with the directories above it. A symlink on the way, or at the end, may lead
        anywhere in the context: then everything is needed."""
        parts = name.split("/")
        prefixes = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        if any(os.path.islink(os.path.join(self.root, prefix)) for prefix in prefixes):
            yield from self._below("")
            return
        path = os.path.join(self.root, name)
        if not os.path.lexists(path) or self.ignore.ignores_all_below(name):
            return
        below = list(self._below(name)) if os.path.isdir(path) else []
        if self.ignore.ignores(name) and not below:
            return
        for prefix in prefixes:
            yield os.path.join(self.root, prefix), prefix
        yield from below

    def _below(self, name: str) -> Iterator[tuple[str, str]]:
        try:
            with os.scandir(os.path.join(self.root, name)) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise Failure(f"cannot read {error.filename}: {error.strerror}") from error
        for entry in found:
            inner = f"{name}/{entry.name}" if name else entry.name
            ignored = self.ignore.ignores(inner)
            if not entry.is_dir(follow_symlinks=False):
                if not ignored:
                    yield entry.path, inner
                continue
            if not ignored:
                yield entry.path, inner
                yield from self._below(inner)
            elif self.ignore.has_exceptions:
                below = list(self._below(inner))
                if below:
                    yield entry.path, inner
                    yield from below

    def archive(self) -> Iterator[bytes]:
        """Everything but the Dockerfile as a tar archive."""
        links: dict[tuple[int, int], str] = {}
        for path, name in self.walk():
            if self.is_inside and name == self.dockerfile:
                continue
            yield from pack_entry(path, name, links)
        yield bytes(2 * tarfile.BLOCKSIZE)


class StdinContext:
    """What `build -` reads: an archive, or a Dockerfile without a context."""

    def __init__(self) -> None:
        if os.isatty(0):
            raise Failure("unable to prepare context: the context is read from stdin: redirect a "
                          "Dockerfile or a tar archive to it")  # fmt: skip
        self._pieces = read_pieces(0)
        self._head = b""
        while len(self._head) < _TAR_MAGIC_AT + 8 and (more := next(self._pieces, b"")):
            self._head += more
        if not self._head:
            raise Failure("unable to prepare context: stdin is empty")

    @property
    def is_archive(self) -> bool:
        return self._head.startswith(_ARCHIVE_MAGIC) or (
            self._head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar"
        )

    def pieces(self) -> Iterator[bytes]:
        yield self._head
        yield from self._pieces

    def text(self) -> bytes:
        return b"".join(self.pieces())


def one_file(name: str, data: bytes) -> Iterator[bytes]:
    """An archive of one file."""
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    yield entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    yield data + bytes(-len(data) % tarfile.BLOCKSIZE)


def with_file(name: str, data: bytes, archive: Iterator[bytes]) -> Iterator[bytes]:
    """The file in front of an archive's entries."""
    yield from one_file(name, data)
    yield from archive
