"""A client's context that stays between builds: only what changed is sent again.

    CONTEXTS/KEY/tree     the files
    CONTEXTS/KEY/index    what they are, as the client listed them; absent while the tree changes

The client lists its files (path, mode, size, times, link target); the answer says whose content is
needed: those that are new or whose listing differs. A change that leaves size, modification time
and change time as they were is not seen, as in rsync and BuildKit.
A tree without an index is void: it goes at the next start, or is filled from nothing.
"""

import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from teu.errors import InvalidParameter
from teu.sys.atomicfile import write_fully
from teu.sys.beneath import open_beneath, remove_tree

Listed = tuple[str, int, int, int, int, str]  # path, mode, size, mtime, ctime (ns), link target
_KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)


class _Index(Struct):
    files: list[Listed]
    digests: dict[str, str] = {}


class KeptContext:
    """One context; for one build at a time. File work: use from threads."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.tree = home / "tree"
        self._index_path = home / "index"
        self._files: dict[str, Listed] = {}
        self._wanted: dict[str, Listed] = {}
        self._digests: dict[str, str] = {}
        self._is_whole = False
        self._learned = False
        self.identity = ""  # of all listed files, once `list_files` has run

    def open(self) -> None:
        """Raises: OSError."""
        self.tree.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            index = msgspec.json.decode(self._index_path.read_bytes(), type=_Index)
        except (OSError, msgspec.DecodeError):
            self._clear()
            return
        self._files = {entry[0]: entry for entry in index.files}
        self._digests = index.digests

    def _clear(self) -> None:
        root_fd = self._root()
        try:
            for name in os.listdir(root_fd):
                remove_tree(root_fd, os.fsencode(name))
        finally:
            os.close(root_fd)

    def list_files(self, data: bytes) -> list[str]:
        """Takes the client's list (a JSON array of `Listed`); the paths whose content is needed.

        Raises: InvalidParameter for a list that contradicts itself; OSError.
        """
        try:
            listed = msgspec.json.decode(data, type=list[Listed])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise InvalidParameter(f"invalid list of files: {error}") from None
        self.identity = hashlib.sha256(data).hexdigest()
        self._wanted = _checked(listed)
        changed = [p for p, entry in self._wanted.items() if self._files.get(p) != entry]
        gone = [path for path in self._files if path not in self._wanted]
        if not changed and not gone:
            self._is_whole = True
            return []
        self._index_path.unlink(missing_ok=True)
        root_fd = self._root()
        try:
            for path in gone:
                self._remove(root_fd, path)
            return [path for path in changed if self._make(root_fd, path)]
        finally:
            os.close(root_fd)

    def finish(self) -> None:
        """All content is there; checks it and writes the index.

        Raises: InvalidParameter when something the client announced did not come; OSError.
        """
        if not self._is_whole:
            root_fd = self._root()
            try:
                self._complete(root_fd)
            finally:
                os.close(root_fd)
            self._files = self._wanted
            self._save()

    def _complete(self, root_fd: int) -> None:
        for path, entry in self._wanted.items():
            if stat.S_ISREG(entry[1]) and self._files.get(path) != entry:
                self._check(root_fd, path, entry)
        for path, entry in self._wanted.items():  # what was written below changed its time
            if stat.S_ISDIR(entry[1]):
                os.utime(os.fsencode(path), ns=(entry[3], entry[3]), dir_fd=root_fd)

    def digest_of(self, path: str) -> str | None:
        """The remembered digest of a file's content."""
        return self._digests.get(path)

    def remember(self, path: str, digest: str) -> None:
        self._digests[path] = digest
        self._learned = True

    def save_if_whole(self) -> None:
        """Writes what was learned since `finish`. Raises: OSError."""
        if self._is_whole and self._learned:
            self._save()

    def _save(self) -> None:
        known = {path: digest for path, digest in self._digests.items() if path in self._files}
        data = msgspec.json.encode(_Index(list(self._files.values()), known))
        partial = self._home / "index.partial"
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_fully(fd, data)
        finally:
            os.close(fd)
        os.rename(partial, self._index_path)
        self._is_whole, self._learned = True, False

    # --- the tree -------------------------------------------------------------------------

    def _root(self) -> int:
        return os.open(self.tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _parent(self, root_fd: int, path: str) -> tuple[int, bytes]:
        directory, _, leaf = path.rpartition("/")
        flags = os.O_RDONLY | os.O_DIRECTORY
        return open_beneath(root_fd, os.fsencode(directory), flags), os.fsencode(leaf)

    def _remove(self, root_fd: int, path: str) -> None:
        self._digests.pop(path, None)
        with suppress(FileNotFoundError, NotADirectoryError):
            parent_fd, leaf = self._parent(root_fd, path)
            try:
                remove_tree(parent_fd, leaf)
            finally:
                os.close(parent_fd)

    def _make(self, root_fd: int, path: str) -> bool:
        """Makes what needs no content; True when the content is needed."""
        _, mode, _, mtime_ns, _, link = self._wanted[path]
        before = self._files.get(path)
        was_directory = before is not None and stat.S_ISDIR(before[1])
        if not (was_directory and stat.S_ISDIR(mode)):
            self._remove(root_fd, path)
        parent_fd, leaf = self._parent(root_fd, path)
        try:
            if stat.S_ISDIR(mode):
                with suppress(FileExistsError):
                    os.mkdir(leaf, dir_fd=parent_fd)
                os.chmod(leaf, stat.S_IMODE(mode), dir_fd=parent_fd)
                return False
            if stat.S_ISLNK(mode):
                os.symlink(link, leaf, dir_fd=parent_fd)
                os.utime(leaf, ns=(mtime_ns,) * 2, dir_fd=parent_fd, follow_symlinks=False)
                return False
        finally:
            os.close(parent_fd)
        return True

    def _check(self, root_fd: int, path: str, entry: Listed) -> None:
        try:
            fd = open_beneath(root_fd, os.fsencode(path), os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            fd = -1
        try:
            if fd < 0 or not stat.S_ISREG(os.fstat(fd).st_mode):
                raise InvalidParameter(
                    f"{path} was listed but did not come: it was changed or removed while the "
                    "context was sent; try again"
                )
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(entry[1]))
            os.utime(f"/proc/self/fd/{fd}", ns=(entry[3], entry[3]))
        finally:
            if fd >= 0:
                os.close(fd)


def _checked(listed: list[Listed]) -> dict[str, Listed]:
    """By path. Every entry's directory comes before it, and is one."""
    found: dict[str, Listed] = {}
    for entry in listed:
        path, mode = entry[0], entry[1]
        directory, _, leaf = path.rpartition("/")
        parent = found.get(directory)
        is_below = not directory or (parent is not None and stat.S_ISDIR(parent[1]))
        if leaf in ("", ".", "..") or "\0" in path or path.startswith("/") or not is_below:
            raise InvalidParameter(f"invalid list of files: {path!r} has no place")
        if stat.S_IFMT(mode) not in _KINDS or path in found:
            raise InvalidParameter(f"invalid list of files: {path!r}")
        found[path] = entry
    return found
