"""Copying into and out of containers: `docker cp`.

What is seen, and that nothing leads out of it, is `view.py`'s part.
Source: API 1.51 ContainerArchive, ContainerArchiveInfo, PutContainerArchive.
"""

import asyncio
import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from teu import clock
from teu.container.container import Container
from teu.container.services import Services
from teu.container.view import Place, View, Views, is_below
from teu.errors import Forbidden, InvalidParameter, NotFound, SystemFailure
from teu.sys.bytepipe import FromThread, PipeClosed, ToThread
from teu.sys.codec import decoded
from teu.sys.pack import pack_entry
from teu.sys.tarstream import TarStream
from teu.sys.unpack import Unpacker

_GO_MODES = (
    (stat.S_ISDIR, 1 << 31), (stat.S_ISLNK, 1 << 27), (stat.S_ISFIFO, 1 << 25),
    (stat.S_ISSOCK, 1 << 24), (stat.S_ISBLK, 1 << 26), (stat.S_ISCHR, 1 << 26 | 1 << 21),
)  # fmt: skip
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


class NoSuchPath(NotFound):
    """`owner`: `container NAME`, as the client named it, or `volume NAME`."""

    def __init__(self, owner: str, path: str) -> None:
        super().__init__(f"Could not find the file {path} in {owner}")


class Archives:
    """`ref` is how the client named the container; messages repeat it, as Docker's do."""

    def __init__(self, services: Services, views: Views) -> None:
        self._services = services
        self._views = views

    async def stat(self, container: Container, ref: str, path: str) -> dict[str, Any]:
        """What `X-Docker-Container-Path-Stat` carries. Raises: NoSuchPath, InvalidParameter."""
        async with self._views.of(container, given(path)) as view:
            return await stat_in(view, f"container {ref}", path)

    async def get(self, container: Container, ref: str, path: str) -> AsyncGenerator[bytes, None]:
        """The tar of a file or a directory, named by its last component.

        Raises: NoSuchPath before the first piece.
        """
        async with (
            self._views.of(container, given(path)) as view,
            contextlib.aclosing(get_from(view, f"container {ref}", path)) as pieces,
        ):
            told = False
            async for piece in pieces:
                if not told:  # not at the end: a client may leave once it has what it wants
                    told = True
                    self._services.containers.tell(container, "archive-path")
                yield piece

    async def put(
        self,
        container: Container,
        ref: str,
        path: str,
        stream: AsyncIterator[bytes],
        *,
        keep_kinds: bool,
    ) -> None:
        """Unpacks a tar (plain or compressed) below an existing directory.

        `keep_kinds`: a file never replaces a directory, nor the other way round.
        Raises: NoSuchPath, InvalidParameter (no directory), Forbidden (read-only), InvalidArchive.
        Failure: what was unpacked before it stays, as Docker leaves it.
        """
        async with self._views.of(container, given(path)) as view:
            _check_writable(container, path)
            await put_into(view, f"container {ref}", path, stream, keep_kinds=keep_kinds)
        self._services.containers.tell(container, "extract-to-dir")


# --- in any view -----------------------------------------------------------------------------


async def stat_in(view: View, owner: str, path: str) -> dict[str, Any]:
    """See `Archives.stat`; `owner` is the thing in messages: `container NAME`."""
    return await view.run(lambda place: _described(owner, path, place), "stat")


async def get_from(view: View, owner: str, path: str) -> AsyncGenerator[bytes, None]:
    """See `Archives.get`."""
    with FromThread() as pipe:
        work = view.run(lambda place: pipe.drain_from(lambda: _packed(owner, path, place)), "copy")
        work.add_done_callback(lambda done: pipe.finish(done.exception()))
        async for piece in pipe:
            yield piece


async def put_into(
    view: View, owner: str, path: str, stream: AsyncIterator[bytes], *, keep_kinds: bool
) -> None:
    """See `Archives.put`."""
    pipe = ToThread()

    def work(place: Place) -> None:
        try:
            target_fd = _open_target(owner, path, place)
            try:
                _unpack_into(target_fd, pipe, keep_kinds)
            finally:
                os.close(target_fd)
        finally:
            pipe.abandon()

    reading = view.run(work, "copy")
    try:
        async for chunk in stream:
            await pipe.send(chunk)
        pipe.finish()
    except PipeClosed:
        pass  # the reader has failed and says why
    except BaseException as error:
        pipe.fail(SystemFailure(f"the archive was cut short: {error}"))
        await asyncio.wait({reading})
        raise
    await asyncio.shield(reading)


def given(path: str) -> str:
    """Raises: InvalidParameter for what is no path."""
    if not path:
        raise InvalidParameter("bad parameter: path cannot be empty")
    if "\0" in path:
        raise InvalidParameter("bad parameter: a path cannot contain a zero byte")
    return path


def _check_writable(container: Container, path: str) -> None:
    points = [point for point in container.record.mounts if is_below(path, point)]
    if points:
        point = max(points, key=lambda p: len(p.destination))
        if not point.rw:
            raise Forbidden(f"mounted volume is marked read-only: {point.destination}")
    elif container.record.host.readonly_rootfs:
        raise Forbidden("container rootfs is marked read-only")


# --- in the thread ---------------------------------------------------------------------------


def _open_target(owner: str, path: str, place: Place) -> int:
    try:
        return place.open(place.path, os.O_PATH | os.O_DIRECTORY)
    except NotADirectoryError:
        raise InvalidParameter("extraction point is not a directory") from None
    except OSError as error:
        raise _path_error(owner, path, error) from error


def _unpack_into(target_fd: int, pipe: ToThread, keep_kinds: bool) -> None:
    unpacker = Unpacker(Path(f"/proc/self/fd/{target_fd}"), keep_kinds=keep_kinds)
    try:
        unpacker.run(TarStream(decoded(pipe)[0]))
    finally:
        unpacker.close()


def _packed(owner: str, path: str, place: Place) -> Iterator[bytes]:
    with _opened_parent(owner, path, place) as (parent_fd, name):
        shown = os.fsencode(posixpath.basename(place.path.rstrip("/"))) or b"."
        shown = shown if shown not in (b".", b"..") else name
        yield from pack_entry(parent_fd, name, shown)


def _described(owner: str, path: str, place: Place) -> dict[str, Any]:
    with _opened_parent(owner, path, place) as (parent_fd, name):
        found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        target = ""
        absolute = "/" + path.lstrip("/")
        if stat.S_ISLNK(found.st_mode):
            link = os.readlink(name, dir_fd=parent_fd)
            base = posixpath.dirname(absolute)
            target = posixpath.normpath(posixpath.join(base, os.fsdecode(link)))
        return {
            "name": posixpath.basename(posixpath.normpath(absolute)) or "/",
            "size": found.st_size,
            "mode": go_mode(found.st_mode),
            "mtime": clock.format_ns(found.st_mtime_ns),
            "linkTarget": target,
        }


@contextlib.contextmanager
def _opened_parent(owner: str, path: str, place: Place) -> Iterator[tuple[int, bytes]]:
    """The directory that holds the last component, and its name there (`.` for a root).

    A trailing slash or `/.` follows a last symlink, as in a shell.
    """
    follows = place.path.endswith(("/", "/.")) or posixpath.normpath(place.path) == "/"
    head, tail = posixpath.split(place.path.rstrip("/"))
    if follows or tail in ("..", ""):
        head, tail = place.path, "."
    try:
        parent_fd = place.open(head or "/", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _path_error(owner, path, error) from error
    try:
        os.stat(tail, dir_fd=parent_fd, follow_symlinks=False)
        yield parent_fd, os.fsencode(tail)
    except FileNotFoundError as error:
        raise NoSuchPath(owner, path) from error
    except OSError as error:
        raise _path_error(owner, path, error) from error
    finally:
        os.close(parent_fd)


def _path_error(owner: str, path: str, error: OSError) -> Exception:
    if error.errno == errno.ENOTDIR:
        return InvalidParameter(f"not a directory: {path}")
    if error.errno in (errno.ENOENT, errno.ELOOP):
        return NoSuchPath(owner, path)
    if error.errno == errno.ENAMETOOLONG:
        return InvalidParameter(f"the path is too long: {path[:64]}…")
    return SystemFailure(f"cannot open {path}: {error.strerror}")


def go_mode(mode: int) -> int:
    """Unix mode bits as Go's `os.FileMode`, which the API uses."""
    result = stat.S_IMODE(mode) & 0o777
    for test, bit in _GO_MODES:
        if test(mode):
            result |= bit
    for unix_bit, bit in _GO_BITS:
        if mode & unix_bit:
            result |= bit
    return result
