"""Which files a COPY takes: patterns, excludes and ignore rules against a tree, and their digest.

The tree is hostile and may change while it is read (a stage's file system, a client's context):
every name is opened relative to a descriptor, symlinks resolve inside the tree's root. The digest
covers names, kinds, modes, link targets and contents, never times: an unchanged file keeps the
cache whenever it was checked out.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from teu.dockerignore import BadPattern, IgnoreList, segment_expression
from teu.errors import InvalidParameter, SystemFailure
from teu.sys.beneath import open_beneath

_READ_BYTES = 1 << 20
_WILD = re.compile(r"[*?\[\\]")
_MAX_LEVELS = 255
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
Digests = Callable[[str, os.stat_result], str | None]


class SourceMissing(InvalidParameter):
    """Docker's text for a path that is not in the context."""

    def __init__(self, keyword: str, path: str) -> None:
        shown = path.lstrip("/")
        super().__init__(
            f"{keyword} failed: file not found in build context or excluded by .dockerignore: "
            f"stat {shown}: file does not exist"
        )


class Found(Struct):
    """One entry below a source. `path` is relative to the tree, `name` to the source ("" for the
    source itself). `fd` is of its directory, `leaf` its name there; valid until the next one."""

    path: str
    name: str
    status: os.stat_result
    fd: int
    leaf: bytes

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


class Tree:
    """A directory that files are taken from. Close it after use.

    `normal`: owners count as root and are not part of the digest (a client's context).
    `digests` knows contents already; `remember` is told new ones.
    """

    def __init__(
        self,
        root: Path,
        *,
        ignore: IgnoreList | None = None,
        normal: bool = False,
        known: Digests | None = None,
        remember: Callable[[str, os.stat_result, str], object] | None = None,
    ) -> None:
        try:
            self.fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SystemFailure(f"cannot read {root}: {error.strerror}") from error
        self.normal = normal
        self._ignore = ignore
        self._known = known
        self._remember = remember

    def close(self) -> None:
        os.close(self.fd)

    # --- finding --------------------------------------------------------------------------

    def match(self, pattern: str) -> list[str]:
        """Paths that a source pattern means, sorted; a path without wildcards as it is, if there.

        Raises: InvalidParameter for a bad pattern.
        """
        parts = [part for part in _clean(pattern).split("/") if part]
        if not any(_WILD.search(part) for part in parts):
            path = "/".join(parts)
            return [path] if self._is_there(path) else []
        found = [""]
        for part in parts:
            found = [path for base in found for path in self._step(base, part)]
        return sorted(path for path in found if not self._ignored(path))

    def _step(self, base: str, part: str) -> Iterator[str]:
        prefix = f"{base}/" if base else ""
        if not _WILD.search(part):
            if self._exists(prefix + part):
                yield prefix + part
            return
        try:
            expression = re.compile(segment_expression(part), re.DOTALL)
        except BadPattern as error:
            raise InvalidParameter(str(error)) from None
        for name in self._names(base):
            if expression.fullmatch(name):
                yield prefix + name

    def _names(self, path: str) -> list[str]:
        try:
            fd = open_beneath(self.fd, os.fsencode(path), os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return []
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def _exists(self, path: str) -> bool:
        try:
            os.close(open_beneath(self.fd, os.fsencode(path), os.O_PATH | os.O_NOFOLLOW))
        except OSError:
            return False
        return True

    def _is_there(self, path: str) -> bool:
        if not self._ignored(path):
            return self._exists(path)
        # An ignored directory is still there when something in it was taken back in.
        return self._ignore is not None and self._ignore.has_exceptions and self._has_kept(path)

    def _has_kept(self, path: str) -> bool:
        try:
            return any(found.name for found in self.walk(path))
        except OSError:
            return False

    def _ignored(self, path: str) -> bool:
        return bool(path) and self._ignore is not None and self._ignore.ignores(path)

    # --- walking --------------------------------------------------------------------------

    def walk(self, path: str, excludes: IgnoreList | None = None) -> Iterator[Found]:
        """The source and everything below it that is not left out, a directory before what is in
        it. The source itself is followed when it is a symlink. Raises: OSError."""
        top_fd = open_beneath(self.fd, os.fsencode(path), os.O_PATH)
        try:
            status = os.fstat(top_fd)
            if not stat.S_ISDIR(status.st_mode):
                yield from self._single(path, top_fd, status)
                return
            real_fd = os.open(b"/proc/self/fd/%d" % top_fd, os.O_RDONLY | os.O_DIRECTORY)
        finally:
            os.close(top_fd)
        try:
            yield Found(path, "", status, real_fd, b".")
            yield from self._below(real_fd, path, "", excludes, 0)
        finally:
            os.close(real_fd)

    def _single(self, path: str, top_fd: int, status: os.stat_result) -> Iterator[Found]:
        directory, _, leaf = self.real(top_fd).rpartition("/")
        fd = open_beneath(self.fd, os.fsencode(directory), os.O_PATH | os.O_DIRECTORY)
        try:
            yield Found(path, "", status, fd, os.fsencode(leaf))
        finally:
            os.close(fd)

    def real(self, fd: int) -> str:
        """Where a descriptor of this tree is, without symlinks. Raises: OSError."""
        root = os.readlink(f"/proc/self/fd/{self.fd}").rstrip("/")
        path = os.readlink(f"/proc/self/fd/{fd}")
        if not path.startswith(root + "/"):
            raise OSError(errno.ESTALE, "the file was moved away while it was read")
        return path[len(root) + 1 :]

    def _below(
        self, fd: int, path: str, name: str, excludes: IgnoreList | None, level: int
    ) -> Iterator[Found]:
        if level > _MAX_LEVELS:
            raise OSError(errno.ELOOP, "directories are nested too deep", path)
        for leaf in sorted(os.listdir(fd)):
            inner = f"{path}/{leaf}" if path else leaf
            shown = f"{name}/{leaf}" if name else leaf
            left_out = self._ignored(inner) or (excludes is not None and excludes.ignores(shown))
            try:
                status = os.stat(leaf, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(status.st_mode):
                if not left_out and not stat.S_ISSOCK(status.st_mode):
                    yield Found(inner, shown, status, fd, os.fsencode(leaf))
                continue
            if left_out and not self._may_hold_kept(inner, shown, excludes):
                continue
            yield from self._directory(fd, leaf, Found(inner, shown, status, fd, os.fsencode(leaf)),
                                       left_out, excludes, level)  # fmt: skip

    def _directory(
        self, fd: int, leaf: str, found: Found, left_out: bool, excludes: IgnoreList | None,
        level: int,
    ) -> Iterator[Found]:  # fmt: skip
        try:
            inner_fd = os.open(leaf, _DIRECTORY_FLAGS, dir_fd=fd)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            pending = left_out  # a left out directory appears only for what is kept in it
            if not pending:
                yield found
            for below in self._below(inner_fd, found.path, found.name, excludes, level + 1):
                if pending:
                    pending = False
                    yield found
                yield below
        finally:
            os.close(inner_fd)

    def _may_hold_kept(self, path: str, name: str, excludes: IgnoreList | None) -> bool:
        ignored = self._ignored(path)
        if ignored and self._ignore is not None and not self._ignore.has_exceptions:
            return False
        excluded = excludes is not None and excludes.ignores(name)
        return not excluded or (excludes is not None and excludes.has_exceptions)

    # --- digests --------------------------------------------------------------------------

    def digest(
        self, path: str, *, excludes: IgnoreList | None = None, with_modes: bool = True
    ) -> dict[str, str]:
        """A digest for each entry below a source, by its name below it. Raises: OSError."""
        return {
            found.name: self._entry_digest(found, with_modes) for found in self.walk(path, excludes)
        }

    def _entry_digest(self, found: Found, with_modes: bool) -> str:
        status = found.status
        kind = stat.S_IFMT(status.st_mode)
        parts = [f"{kind:o}"]
        if with_modes and kind != stat.S_IFLNK:
            parts.append(f"{stat.S_IMODE(status.st_mode):o}")
        if not self.normal:
            parts.append(f"{status.st_uid}:{status.st_gid}")
        if kind == stat.S_IFREG:
            parts.append(self._content_digest(found))
        elif kind == stat.S_IFLNK:
            parts.append(os.readlink(found.leaf, dir_fd=found.fd).hex())
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            parts.append(str(status.st_rdev))
        return " ".join(parts)

    def _content_digest(self, found: Found) -> str:
        if self._known is not None and (known := self._known(found.path, found.status)):
            return known
        fd = os.open(found.leaf, _READ_FLAGS, dir_fd=found.fd)
        try:
            digest = hashlib.sha256()
            while data := os.read(fd, _READ_BYTES):
                digest.update(data)
        finally:
            os.close(fd)
        text = digest.hexdigest()
        if self._remember is not None:
            self._remember(found.path, found.status, text)
        return text


def _clean(pattern: str) -> str:
    """Without `.` and `..`: a path cannot leave its tree."""
    parts: list[str] = []
    for part in pattern.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
