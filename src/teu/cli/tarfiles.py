"""Tar archives for `cp`: packed from this machine, and unpacked without trusting them.

The container that an archive comes from may be hostile. Nothing is written through a symbolic
link, above the target directory, or over a directory: every step is taken from the descriptor of
the directory before it, with O_NOFOLLOW.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile

from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def pack(source: str, new_name: str) -> Iterator[bytes]:
    """A tar archive of a file or directory, whose root entry is called `new_name`.

    "" stands for the content of a directory: its root entry is `.`. Raises: Failure.
    """
    root = os.path.abspath(source)
    links: dict[tuple[int, int], str] = {}
    yield from pack_entry(root, new_name or ".", links)
    if os.path.isdir(root) and not os.path.islink(root):
        for folder, names, files in os.walk(root):
            names.sort()
            relative = os.path.relpath(folder, root)
            for name in sorted(names + files):
                inner = os.path.normpath(os.path.join(new_name or ".", relative, name))
                yield from pack_entry(os.path.join(folder, name), inner, links)
    yield bytes(2 * tarfile.BLOCKSIZE)


def pack_entry(path: str, name: str, links: dict[tuple[int, int], str]) -> Iterator[bytes]:
    """One entry of an archive; `links` remembers files with several names. Raises: Failure."""
    try:
        status = os.lstat(path)
        if stat.S_ISSOCK(status.st_mode):
            return  # has no place in an archive
        entry = _entry(path, name, status, links)
        if not entry.isreg():
            yield entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
            return
        with open(path, "rb", buffering=0) as file:
            yield entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
            yield from _content(file, entry.size)
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}") from error


def _entry(
    path: str, name: str, status: os.stat_result, links: dict[tuple[int, int], str]
) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    mode = status.st_mode
    entry.mode = stat.S_IMODE(mode)
    entry.uid, entry.gid, entry.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
    identity = (status.st_dev, status.st_ino)
    if stat.S_ISDIR(mode):
        entry.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif stat.S_ISFIFO(mode):
        entry.type = tarfile.FIFOTYPE
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        entry.type = tarfile.CHRTYPE if stat.S_ISCHR(mode) else tarfile.BLKTYPE
        entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    elif identity in links:
        entry.type, entry.linkname = tarfile.LNKTYPE, links[identity]
    else:
        entry.size = status.st_size
        if status.st_nlink > 1:
            links[identity] = name
    return entry


def _content(file: io.RawIOBase, size: int) -> Iterator[bytes]:
    """Exactly `size` bytes and the padding, also when the file changes meanwhile."""
    left = size
    while left:
        piece = file.read(min(left, _PIECE)) or b""
        if not piece:
            yield bytes(left)
            break
        left -= len(piece)
        yield piece
    yield bytes(-size % tarfile.BLOCKSIZE)


class _Reader(io.RawIOBase):
    """The pieces of a response as the file that tarfile reads; counts them."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._rest:
            self._rest = next(self._pieces, b"")
            self.size += len(self._rest)
        part = self._rest[: len(buffer)]
        buffer[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)


class Unpacker:
    """Unpacks one archive below `folder`; its root entry becomes `name` ("" keeps the content)."""

    def __init__(self, folder: str, name: str, *, keep_owner: bool) -> None:
        self._folder = folder
        self._name = name
        self._keep_owner = keep_owner and os.geteuid() == 0
        self._times: list[tuple[list[str], float]] = []
        self.size = 0

    def unpack(self, pieces: Iterator[bytes]) -> None:
        """Raises: Failure for a damaged or hostile archive, or when this machine refuses."""
        reader = _Reader(pieces)
        try:
            root = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                buffered = io.BufferedReader(reader, _PIECE)
                with tarfile.open(fileobj=buffered, mode="r|") as archive:
                    for entry in archive:
                        self._unpack_one(root, archive, entry)
                self._set_times(root)
            finally:
                os.close(root)
        except tarfile.TarError as error:
            raise Failure(f"the archive from the daemon is damaged: {error}") from error
        except OSError as error:
            raise Failure(f"cannot write in {self._folder}: {error.strerror}") from error
        self.size = reader.size

    def _parts(self, path: str) -> list[str]:
        """The entry's path below `folder`, with the root entry renamed."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise Failure(f"the archive from the daemon names a path outside: {path}")
        if not self._name:
            return parts
        # The archive of `DIR/.` has the root entry `.`, others the name of what was copied.
        below = parts if path.startswith("./") or path == "." else parts[1:]
        return [self._name, *below]

    def _unpack_one(self, root: int, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        parts = self._parts(entry.name)
        if not parts:
            return
        folder = self._open_folder(root, parts[:-1])
        try:
            self._create(root, folder, parts[-1], archive, entry)
            if entry.isdir():
                self._times.append((parts, entry.mtime))
            elif not entry.islnk():
                self._set_attributes(folder, parts[-1], entry)
        finally:
            os.close(folder)

    def _open_folder(self, root: int, parts: list[str]) -> int:
        current = os.dup(root)
        for part in parts:
            try:
                try:
                    following = os.open(part, _FOLDER, dir_fd=current)
                except FileNotFoundError:
                    os.mkdir(part, 0o755, dir_fd=current)
                    following = os.open(part, _FOLDER, dir_fd=current)
            finally:
                os.close(current)
            current = following
        return current

    def _create(
        self, root: int, folder: int, name: str, archive: tarfile.TarFile, entry: tarfile.TarInfo
    ) -> None:
        if entry.isdir():
            self._create_folder(folder, name, entry)
            return
        _unlink_file(folder, name)
        if entry.isreg():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, 0o600, dir_fd=folder)
            source = archive.extractfile(entry)
            with open(descriptor, "wb") as file:
                while source and (piece := source.read(_PIECE)):
                    file.write(piece)
        elif entry.issym():
            os.symlink(entry.linkname, name, dir_fd=folder)
        elif entry.islnk():
            self._create_link(root, folder, name, entry)
        elif entry.isfifo():
            os.mkfifo(name, dir_fd=folder)
        elif entry.ischr() or entry.isblk():
            kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
            device = os.makedev(entry.devmajor, entry.devminor)
            os.mknod(name, kind | 0o600, device, dir_fd=folder)

    def _create_folder(self, folder: int, name: str, entry: tarfile.TarInfo) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise Failure(
                    f'cannot overwrite non-directory "{name}" with a directory of that name'
                ) from None
        self._set_attributes(folder, name, entry)

    def _create_link(self, root: int, folder: int, name: str, entry: tarfile.TarInfo) -> None:
        parts = self._parts(entry.linkname)
        source = self._open_folder(root, parts[:-1])
        try:
            os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(source)

    def _set_attributes(self, folder: int, name: str, entry: tarfile.TarInfo) -> None:
        if self._keep_owner:
            os.chown(name, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
        if not entry.issym():
            # Just created by us under this name, so following is the same file.
            os.chmod(name, stat.S_IMODE(entry.mode), dir_fd=folder)
        os.utime(name, (entry.mtime, entry.mtime), dir_fd=folder, follow_symlinks=False)

    def _set_times(self, root: int) -> None:
        """Directories last: unpacking into them has changed their times."""
        for parts, mtime in reversed(self._times):
            folder = self._open_folder(root, parts[:-1])
            try:
                os.utime(parts[-1], (mtime, mtime), dir_fd=folder, follow_symlinks=False)
            finally:
                os.close(folder)


def _unlink_file(folder: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError) as error:
        raise Failure(f'cannot overwrite directory "{name}" with a file of that name') from error
