"""Who a container's process runs as: `--user` and `--group-add` looked up inside its rootfs.

The files belong to the image and are hostile: they are opened with openat2(RESOLVE_IN_ROOT), must
be regular, and are read up to a limit. As in Docker, a numeric name is always an id, the first
matching line wins, lines that make no sense are skipped, and a missing file has no entries.
Source: passwd(5), group(5).
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from teu.errors import InvalidParameter, SystemFailure
from teu.sys import syscalls

FILE_LIMIT_BYTES: Final = 4 << 20
MAX_ID: Final = 2**31 - 1
_RETRIES: Final = 20


class User(Struct, frozen=True):
    """`groups` are the supplementary ones, the primary first, as Docker lists them."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


class _Passwd(Struct, frozen=True):
    name: str
    uid: int
    gid: int
    home: str


class _Group(Struct, frozen=True):
    name: str
    gid: int
    members: tuple[str, ...]


def resolve(rootfs: Path, user: str, group_add: Sequence[str] = ()) -> User:
    """Looks up `""`, `name`, `uid`, each with an optional `:group` or `:gid`.

    Raises: InvalidParameter with Docker's text for a name that is not there or an id out of
    range; SystemFailure when a file is not a plain file of at most FILE_LIMIT_BYTES.
    """
    name, _, group = user.partition(":")
    uid, gid = _number(name), _number(group)
    root_fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        entry = _find_user(root_fd, name, uid)
        groups = list(_groups(root_fd)) if group or group_add or entry else []
    finally:
        os.close(root_fd)
    primary = entry.gid if entry else 0
    supplementary: list[int] = []
    if group:
        primary = _group_id(group, gid, groups)
    elif entry:
        supplementary = [line.gid for line in groups if entry.name in line.members]
    supplementary += [_group_id(wanted, _number(wanted), groups) for wanted in group_add]
    return User(
        uid=entry.uid if entry else uid or 0,
        gid=primary,
        groups=tuple(dict.fromkeys([primary, *supplementary])),
        home=(entry.home if entry else "") or "/",
    )


def _find_user(root_fd: int, name: str, uid: int | None) -> _Passwd | None:
    wanted: Callable[[_Passwd], bool]
    if not name:
        wanted = lambda entry: entry.uid == 0  # noqa: E731
    elif uid is not None:
        wanted = lambda entry: entry.uid == uid  # noqa: E731
    else:
        wanted = lambda entry: entry.name == name  # noqa: E731
    found = next(filter(wanted, _passwd(root_fd)), None)
    if found is None and name and uid is None:
        raise InvalidParameter(f"unable to find user {name}: no matching entries in passwd file")
    return found


def _group_id(wanted: str, gid: int | None, groups: Sequence[_Group]) -> int:
    for line in groups:
        if line.gid == gid if gid is not None else line.name == wanted:
            return line.gid
    if gid is None:
        raise InvalidParameter(f"unable to find group {wanted}: no matching entries in group file")
    return gid


def _number(text: str) -> int | None:
    """An id, or None for a name. Raises: InvalidParameter when out of range."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()):
        return None
    # No int() of a long text: the limit on digits is Python's and raises ValueError.
    value = int(text) if len(digits) <= 20 else MAX_ID + 1
    if not 0 <= value <= MAX_ID:
        raise InvalidParameter(f"uids and gids must be in range 0-{MAX_ID}")
    return value


def _passwd(root_fd: int) -> Iterator[_Passwd]:
    for fields in _lines(root_fd, "etc/passwd", 6):
        uid, gid = _file_number(fields[2]), _file_number(fields[3])
        if uid is not None and gid is not None:
            yield _Passwd(fields[0], uid, gid, _clean(fields[5]))


def _groups(root_fd: int) -> Iterator[_Group]:
    for fields in _lines(root_fd, "etc/group", 3):
        gid = _file_number(fields[2])
        if gid is not None:
            members = fields[3].split(",") if len(fields) > 3 else []
            yield _Group(fields[0], gid, tuple(members))


def _file_number(text: str) -> int | None:
    try:
        return _number(text)
    except InvalidParameter:
        return None


def _clean(home: str) -> str:
    """A home that can be put into the environment."""
    return home if home.startswith("/") and "\0" not in home else ""


def _lines(root_fd: int, path: str, least: int) -> Iterator[list[str]]:
    for raw in _read(root_fd, path).split(b"\n"):
        line = raw.strip()
        if not line or line.startswith(b"#"):
            continue
        fields = line.decode(errors="surrogateescape").split(":")
        if len(fields) >= least and fields[0]:
            yield fields


def _read(root_fd: int, path: str) -> bytes:
    """The file's content, empty when it does not exist.

    Looked at before it is opened: opening a FIFO waits, and opening a device may do things.
    """
    try:
        path_fd = open_in_root(root_fd, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise SystemFailure(f"cannot read /{path} of the container: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(path_fd).st_mode):
            raise SystemFailure(f"/{path} of the container is not a regular file")
        with open(f"/proc/self/fd/{path_fd}", "rb") as file:
            content = file.read(FILE_LIMIT_BYTES + 1)
    finally:
        os.close(path_fd)
    if len(content) > FILE_LIMIT_BYTES:
        raise SystemFailure(
            f"/{path} of the container is larger than {FILE_LIMIT_BYTES >> 20} MiB; make it smaller"
        )
    return content


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """openat2(RESOLVE_IN_ROOT), again when a concurrent rename made the kernel give up."""
    for _ in range(_RETRIES):
        try:
            return syscalls.openat2(
                root_fd,
                path,
                flags,
                mode=mode,
                resolve=syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS,
            )
        except BlockingIOError:
            continue
    raise BlockingIOError(11, "the directory keeps changing", path)
