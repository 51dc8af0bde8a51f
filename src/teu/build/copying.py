"""COPY and ADD: files from trees into a root file system that is mounted for the time of the step.

Names in the destination resolve inside the root, as a container would see them. Runs in a thread.
Source: Dockerfile reference, "COPY" and "ADD"; owners and modes as BuildKit sets them.
"""

import errno
import os
import posixpath
import re
import stat
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, field

from teu.build.selection import Found, SourceMissing, Tree
from teu.build.steps import Copy
from teu.dockerignore import IgnoreList
from teu.errors import InvalidParameter, SystemFailure
from teu.runtime import users
from teu.sys.beneath import make_directories, open_beneath, remove_tree
from teu.sys.codec import DamagedStream, decoded
from teu.sys.tarheader import InvalidArchive
from teu.sys.tarstream import TarStream
from teu.sys.unpack import Unpacker

_COPY_BYTES = 1 << 24
_SYMBOLIC = re.compile(r"([ugoa]*)([-+=])([rwxXst]*)")
_OCTAL = re.compile(r"[0-7]{1,4}")
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007, "a": 0o7777}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}


class Owner(Struct, frozen=True):
    uid: int
    gid: int


class Picked(Struct):
    """One matched source: `path` in its tree. `is_remote`: it was fetched from a URL."""

    tree: Tree
    path: str
    is_remote: bool = False
    name: str = ""  # instead of the path's last part


class Task(Struct, kw_only=True):
    """What a step copies. `sources` are in order."""

    step: Copy
    sources: list[Picked]
    excludes: IgnoreList | None = None
    known_links: dict[tuple[int, int], bytes] = field(default_factory=dict)


def pick(step: Copy, tree: Tree, *, is_remote: bool = False) -> list[Picked]:
    """The sources of a step in a tree. Raises: SourceMissing, InvalidParameter."""
    keyword = "ADD" if step.is_add else "COPY"
    found: list[Picked] = []
    for source in step.sources:
        pattern = source.replace("/./", "/") if step.parents else source
        matches = tree.match(pattern)
        if not matches:
            if not re.search(r"[*?\[]", source):
                raise SourceMissing(keyword, source)
            continue
        found += [
            Picked(tree, path, is_remote, _parent_name(step, source, path)) for path in matches
        ]
    if not found and not step.inline and step.sources:
        raise InvalidParameter(f"{keyword} failed: no source files were specified")
    return found


def _parent_name(step: Copy, source: str, path: str) -> str:
    """Where `--parents` puts a match below the destination: its path, from the pivot `/./` on."""
    if not step.parents:
        return ""
    pivot, found, _ = source.partition("/./")
    skipped = len([part for part in pivot.split("/") if part not in ("", ".")]) if found else 0
    return "/".join(path.split("/")[skipped:])


class Copier:
    """Copies into `root` (a directory). `users_root` is where names of `--chown` are looked up."""

    def __init__(self, root: Path, users_root: Path, task: Task) -> None:
        self._step = task.step
        self._task = task
        self._keyword = "ADD" if task.step.is_add else "COPY"
        self._owner = chown_owner(users_root, task.step.chown)
        self._mode = task.step.chmod
        self._root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._times: list[tuple[bytes, int]] = []

    def run(self) -> None:
        """Raises: InvalidParameter with Docker's text, SystemFailure with the kernel's."""
        try:
            self._run()
        except OSError as error:
            raise SystemFailure(
                f"{self._keyword} failed: {error.filename or self._step.destination}: "
                f"{error.strerror}"
            ) from error
        finally:
            os.close(self._root_fd)

    def _run(self) -> None:
        step = self._step
        count = len(self._task.sources) + len(step.inline)
        into = step.destination.endswith("/") or count > 1 or step.parents
        for inline in step.inline:
            self._inline(inline.name, inline.content.encode(), into)
        for picked in self._task.sources:
            self._source(picked, into)
        for path, mtime_ns in reversed(self._times):
            with suppress(OSError):
                self._set_time(path, mtime_ns)

    # --- where it goes --------------------------------------------------------------------

    def _directory(self, path: bytes) -> int:
        """A descriptor of a directory of the destination; what is missing is made and owned."""
        fd, made = make_directories(self._root_fd, path)
        owner = self._owner or Owner(0, 0)
        for one in made:
            self._own(one, owner)
        return fd

    def _own(self, path: bytes, owner: Owner) -> None:
        fd = open_beneath(self._root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fchown(fd, owner.uid, owner.gid)
        finally:
            os.close(fd)

    def _is_directory(self, path: bytes) -> bool:
        try:
            os.close(open_beneath(self._root_fd, path, os.O_PATH | os.O_DIRECTORY))
        except OSError:
            return False
        return True

    def _target(self, name: str, into: bool) -> tuple[bytes, bytes]:
        """Directory and last name of a file that is copied."""
        destination = os.fsencode(self._step.destination)
        if into or self._is_directory(destination):
            full = destination.rstrip(b"/") + b"/" + os.fsencode(name)
        else:
            full = destination
        directory, _, leaf = full.rpartition(b"/")
        return directory, leaf

    # --- one source -----------------------------------------------------------------------

    def _inline(self, name: str, content: bytes, into: bool) -> None:
        directory, leaf = self._target(name, into)
        parent_fd = self._directory(directory)
        try:
            self._clear(parent_fd, leaf)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(leaf, flags, 0o644, dir_fd=parent_fd)
            try:
                view = memoryview(content)
                while view:
                    view = view[os.write(fd, view) :]
                self._finish(fd, 0o644, Owner(0, 0), is_directory=False)
            finally:
                os.close(fd)
        finally:
            os.close(parent_fd)

    def _source(self, picked: Picked, into: bool) -> None:
        base = b""
        for found in picked.tree.walk(picked.path, self._task.excludes):
            if not found.name:
                if not found.is_directory:
                    self._file_source(picked, found, into)
                    return
                base = self._base(picked)
            self._entry(picked.tree, found, base)

    def _base(self, picked: Picked) -> bytes:
        destination = os.fsencode(self._step.destination).rstrip(b"/")
        if self._step.parents and picked.name:
            return destination + b"/" + os.fsencode(picked.name)
        return destination

    def _file_source(self, picked: Picked, found: Found, into: bool) -> None:
        if self._unpacks(picked) and self._unpack(found):
            return
        name = picked.name or posixpath.basename(picked.path)
        directory, leaf = self._target(name, into)
        parent_fd = self._directory(directory)
        try:
            self._file(picked.tree, found, parent_fd, leaf, directory + b"/" + leaf)
        finally:
            os.close(parent_fd)

    def _entry(self, tree: Tree, found: Found, base: bytes) -> None:
        path = base + b"/" + os.fsencode(found.name) if found.name else base
        if found.is_directory:
            self._make_directory(tree, found, path)
            return
        directory, _, leaf = path.rpartition(b"/")
        parent_fd = self._directory(directory)
        try:
            self._file(tree, found, parent_fd, leaf, path)
        finally:
            os.close(parent_fd)

    def _make_directory(self, tree: Tree, found: Found, path: bytes) -> None:
        existed = self._is_directory(path)
        try:
            fd = self._directory(path)
        except NotADirectoryError:
            raise InvalidParameter(
                f"{self._keyword} failed: cannot replace the file {os.fsdecode(path)} with a "
                "directory"
            ) from None
        try:
            if existed and not found.name:
                return  # the destination itself stays as it is
            mode = stat.S_IMODE(found.status.st_mode)
            self._finish(fd, mode, self._owner_of(tree, found), is_directory=True)
            self._times.append((path, found.status.st_mtime_ns))
        finally:
            os.close(fd)

    def _owner_of(self, tree: Tree, found: Found) -> Owner:
        return Owner(0, 0) if tree.normal else Owner(found.status.st_uid, found.status.st_gid)

    # --- one file -------------------------------------------------------------------------

    def _file(self, tree: Tree, found: Found, parent_fd: int, leaf: bytes, path: bytes) -> None:
        self._clear(parent_fd, leaf)
        if self._hard_link(found, parent_fd, leaf, path):
            return
        kind = stat.S_IFMT(found.status.st_mode)
        owner = self._owner or self._owner_of(tree, found)
        if kind == stat.S_IFREG:
            self._regular(tree, found, parent_fd, leaf)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(found.leaf, dir_fd=found.fd), leaf, dir_fd=parent_fd)
            os.chown(leaf, owner.uid, owner.gid, dir_fd=parent_fd, follow_symlinks=False)
        else:
            os.mknod(leaf, found.status.st_mode, found.status.st_rdev, dir_fd=parent_fd)
            os.chown(leaf, owner.uid, owner.gid, dir_fd=parent_fd, follow_symlinks=False)
        mtime_ns = found.status.st_mtime_ns
        os.utime(leaf, ns=(mtime_ns, mtime_ns), dir_fd=parent_fd, follow_symlinks=False)

    def _hard_link(self, found: Found, parent_fd: int, leaf: bytes, path: bytes) -> bool:
        """Names of one file stay names of one file."""
        status = found.status
        if status.st_nlink < 2 or stat.S_ISDIR(status.st_mode):
            return False
        key = (status.st_dev, status.st_ino)
        first = self._task.known_links.setdefault(key, path)
        if first == path:
            return False
        directory, _, name = first.rpartition(b"/")
        source_fd = open_beneath(self._root_fd, directory, os.O_PATH | os.O_DIRECTORY)
        try:
            os.link(name, leaf, src_dir_fd=source_fd, dst_dir_fd=parent_fd, follow_symlinks=False)
        finally:
            os.close(source_fd)
        return True

    def _regular(self, tree: Tree, found: Found, parent_fd: int, leaf: bytes) -> None:
        source_fd = os.open(
            found.leaf, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            dir_fd=found.fd,
        )  # fmt: skip
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(leaf, flags, 0o600, dir_fd=parent_fd)
            try:
                while os.sendfile(fd, source_fd, None, _COPY_BYTES):
                    continue
                mode = stat.S_IMODE(found.status.st_mode)
                self._finish(fd, mode, self._owner_of(tree, found), is_directory=False)
                if not tree.normal:
                    _copy_xattrs(source_fd, fd)
            finally:
                os.close(fd)
        finally:
            os.close(source_fd)

    def _finish(self, fd: int, mode: int, owner: Owner, *, is_directory: bool) -> None:
        owner = self._owner or owner
        os.fchown(fd, owner.uid, owner.gid)
        os.fchmod(fd, changed_mode(mode, self._mode, is_directory=is_directory))

    def _clear(self, parent_fd: int, leaf: bytes) -> None:
        """Makes way for a file; never for a directory's sake."""
        try:
            found = os.stat(leaf, dir_fd=parent_fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            raise InvalidParameter(
                f"{self._keyword} failed: cannot replace the directory {os.fsdecode(leaf)} with a "
                "file"
            )
        remove_tree(parent_fd, leaf)

    def _set_time(self, path: bytes, mtime_ns: int) -> None:
        fd = open_beneath(self._root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.utime(fd, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(fd)

    # --- archives -------------------------------------------------------------------------

    def _unpacks(self, picked: Picked) -> bool:
        if not self._step.is_add:
            return False
        return not picked.is_remote if self._step.unpack is None else self._step.unpack

    def _unpack(self, found: Found) -> bool:
        """Unpacks an archive into the destination; False when it is none."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(found.leaf, flags, dir_fd=found.fd)
        with open(fd, "rb", buffering=0) as file:
            if not _is_archive(file):
                return False
            file.seek(0)
            target_fd = self._directory(os.fsencode(self._step.destination))
            try:
                unpacker = Unpacker(Path(f"/proc/self/fd/{target_fd}"))
                try:
                    unpacker.run(TarStream(decoded(file)[0]))
                finally:
                    unpacker.close()
            finally:
                os.close(target_fd)
        return True


def _is_archive(file: object) -> bool:
    try:
        return TarStream(decoded(file)[0]).next() is not None  # type: ignore[arg-type]
    except (InvalidArchive, DamagedStream):
        return False


def chown_owner(root: Path, text: str) -> Owner | None:
    """`--chown=USER[:GROUP]`, looked up in the image; a number without a group is both.

    Raises: InvalidParameter with Docker's text.
    """
    if not text:
        return None
    user, colon, group = text.partition(":")
    if not colon and user.isdigit():
        return Owner(int(user), int(user))
    found = users.resolve(root, f"{user}:{group}" if group else user)
    return Owner(found.uid, found.gid)


def check_chmod(text: str) -> None:
    """Raises: InvalidParameter."""
    if text and not _OCTAL.fullmatch(text):
        for clause in text.split(","):
            if not _SYMBOLIC.fullmatch(clause):
                raise InvalidParameter(f"invalid chmod parameter: '{text}'. it should be octal "
                                       "string and between 0 and 07777, or symbolic")  # fmt: skip


def changed_mode(mode: int, change: str, *, is_directory: bool) -> int:
    """`--chmod`: octal, or chmod(1)'s words."""
    if not change:
        return mode
    if _OCTAL.fullmatch(change):
        return int(change, 8)
    for clause in change.split(","):
        match = _SYMBOLIC.fullmatch(clause)
        assert match, "checked before"
        who, operator, letters = match.groups()
        mask = 0
        for letter in who or "a":
            mask |= _WHO[letter]
        bits = 0
        for letter in letters:
            if letter == "X":
                bits |= 0o111 if is_directory or mode & 0o111 else 0
            else:
                bits |= _BITS[letter]
        bits &= mask
        if operator == "+":
            mode |= bits
        elif operator == "-":
            mode &= ~bits
        else:
            mode = (mode & ~mask) | bits
    return mode


def _copy_xattrs(source_fd: int, target_fd: int) -> None:
    """Capabilities and the like; overlayfs's own stay behind."""
    for name in os.listxattr(source_fd):
        if name.startswith(("trusted.overlay.", "user.overlay.")):
            continue
        try:
            os.setxattr(target_fd, name, os.getxattr(source_fd, name))
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise
