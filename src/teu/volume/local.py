"""The `local` driver: a directory, or what `type`, `device` and `o` say, mounted on it while used.

    ROOT/DIR/_data      what containers see

A volume with `type` is mounted when its first container starts and unmounted when the last one
has ended. The mount outlives the daemon, as containers do. Removing such a volume takes away the
mount and the empty directory below it, never a file of what was mounted.
Source: Docker's local driver (`docker volume create`), mount(2).
"""

import asyncio
import ipaddress
import logging
import os
import re
import socket
from pathlib import Path
from typing import Final

from teu import units
from teu.errors import Conflict, DeadlineExceeded, EngineError, InvalidParameter, SystemFailure
from teu.model.volume import VolumeRecord
from teu.sys import beneath, mountoptions, mounts, projectquota
from teu.volume.driver import Shown

MOUNT_LIMIT_S: Final = 60.0
RESOLVE_LIMIT_S: Final = 10.0
_FIRST_PROJECT: Final = 1_000_000
_KNOWN: Final = ("type", "o", "device", "size")
_NEEDS: Final = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
_PASSWORD: Final = re.compile(r"(?<=password=)[^,]*")
_ADDRESS: Final = re.compile(r"(?:^|,)addr=([^,]+)")
log = logging.getLogger(__name__)


class LocalDriver:
    """See the module's text. `root` is where all volumes are."""

    scope = "local"

    def __init__(self, root: Path) -> None:
        self._root = root

    def data(self, record: VolumeRecord) -> Path:
        return self._root / (record.directory or record.name) / "_data"

    async def create(self, record: VolumeRecord) -> None:
        """Raises: InvalidParameter for options that make no sense, SystemFailure."""
        size_bytes = check_options(record)
        data = self.data(record)
        try:
            data.parent.mkdir(mode=0o701, exist_ok=True)
            data.mkdir(mode=0o755, exist_ok=True)
            if size_bytes:
                record.project_id = record.project_id or self._free_project()
                projectquota.limit(data, record.project_id, size_bytes)
        except (OSError, EngineError) as error:
            for directory in (data, data.parent):
                _remove_empty(directory)
            if isinstance(error, EngineError):
                raise
            raise SystemFailure(f"create {record.name}: {error}") from error

    def _free_project(self) -> int:
        """A project that no directory here has, whatever the database forgot."""
        used = (projectquota.project_of(entry / "_data") for entry in self._root.iterdir())
        return max([_FIRST_PROJECT, *used]) + 1

    async def mount(self, record: VolumeRecord, user: str) -> Path:
        """Raises: SystemFailure, DeadlineExceeded, with the kernel's reason."""
        data = self.data(record)
        if "type" in record.options and not os.path.ismount(data):
            await self._mount(record, data)
        elif not data.is_dir():
            raise SystemFailure(
                f"error while mounting volume '{data}': the directory is missing: somebody "
                "removed it behind the engine's back"
            )
        return data

    async def _mount(self, record: VolumeRecord, data: Path) -> None:
        kind = record.options["type"]
        device, words = record.options["device"], record.options.get("o", "")
        if kind in ("nfs", "nfs4", "cifs", "smb3"):
            device, words = await with_addresses(kind, device, words)
        options = mountoptions.parse(words)
        work = asyncio.ensure_future(
            asyncio.to_thread(mountoptions.mount, device, data, kind, options)
        )
        what = f"error while mounting volume '{data}': failed to mount local volume: mount {device}"
        try:
            async with asyncio.timeout(MOUNT_LIMIT_S):
                await asyncio.shield(work)
        except TimeoutError:
            work.add_done_callback(lambda done: _undo_late(done, data))
            raise DeadlineExceeded(
                f"{what}: no answer within {MOUNT_LIMIT_S:.0f} s; is the server up?"
            ) from None
        except asyncio.CancelledError:
            work.add_done_callback(lambda done: _undo_late(done, data))
            raise
        except OSError as error:
            raise SystemFailure(
                f"{what}:{data}, data: {_hidden(options.data)}: "
                f"{(error.strerror or '').lower()}{_hint(kind, error)}"
            ) from error

    async def unmount(self, record: VolumeRecord, user: str, *, last: bool) -> None:
        """Raises: SystemFailure."""
        if last and "type" in record.options:
            await asyncio.to_thread(_unmount, self.data(record))

    async def remove(self, record: VolumeRecord) -> None:
        """Raises: Conflict when something foreign is mounted in it, SystemFailure."""
        directory = self._root / (record.directory or record.name)
        try:
            await asyncio.to_thread(self._remove, record, directory)
        except OSError as error:
            raise SystemFailure(
                f"remove {record.name}: {error}; the removal is tried again at the next start"
            ) from error

    def _remove(self, record: VolumeRecord, directory: Path) -> None:
        data = directory / "_data"
        if "type" in record.options:
            _unmount(data)
        if inside := mounts.mounts_under(directory):
            raise Conflict(
                f"remove {record.name}: {inside[-1].target} is mounted in it; what is there is not "
                "the volume's: unmount it first"
            )
        if "type" in record.options and data.exists():
            _remove_mount_point(record, data)
        root_fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            beneath.remove_tree(root_fd, os.fsencode(directory.name))
        finally:
            os.close(root_fd)

    async def show(self, record: VolumeRecord) -> Shown:
        return Shown(str(self.data(record)))

    def rename(self, record: VolumeRecord) -> bool:
        """Gives the directory the volume's own name; False while that place is taken."""
        source, target = self._root / record.directory, self._root / record.name
        if source.exists():
            if target.exists():
                return False
            os.rename(source, target)  # containers and mounts below keep what they have
        return True


def check_options(record: VolumeRecord) -> int:
    """The size limit in bytes (0: none). Raises: InvalidParameter with Docker's texts."""
    options, name = record.options, record.name
    for option in options:
        if option not in _KNOWN:
            raise InvalidParameter(f'create {name}: invalid option: "{option}"')
    for option, needed in _NEEDS.items():
        for other in needed if option in options else ():
            if not options.get(other):
                raise InvalidParameter(f'create {name}: missing required option: "{other}"')
    if "size" not in options:
        return 0
    try:
        return units.parse_size(options["size"])
    except ValueError as error:
        raise InvalidParameter(f"create {name}: {error}") from None


async def with_addresses(kind: str, device: str, words: str) -> tuple[str, str]:
    """The kernel resolves no names: a server's name in `addr=`, or in a CIFS device, is replaced.

    Raises: SystemFailure when the name has no address.
    """
    if found := _ADDRESS.search(words):
        address = await _address(found[1])
        return device, words[: found.start(1)] + address + words[found.end(1) :]
    if kind in ("cifs", "smb3") and device.startswith("//"):
        host, slash, rest = device[2:].partition("/")
        return f"//{await _address(host)}{slash}{rest}", words
    return device, words


async def _address(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_LIMIT_S):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        raise SystemFailure(
            f"failed to mount local volume: error resolving passed in network volume address: "
            f"lookup {host}: {str(error) or 'no answer'}"
        ) from error
    return str(found[0][4][0])


def _unmount(data: Path) -> None:
    """All that lies on the mount point; busy (a file open on the host) goes lazily."""
    while mounts.is_mounted(data):
        try:
            mounts.unmount(data)
        except OSError:
            mounts.unmount(data, lazy=True)


def _remove_mount_point(record: VolumeRecord, data: Path) -> None:
    """A file below the mount point is nobody's to delete."""
    try:
        data.rmdir()
    except OSError as error:
        raise Conflict(
            f"remove {record.name}: {data} is not empty although nothing is mounted there; look at "
            "what it holds and move it away"
        ) from error


def _undo_late(done: "asyncio.Future[None]", data: Path) -> None:
    """A mount that nobody waited for any more must not stay."""
    if not done.cancelled() and done.exception() is None:
        log.warning("%s was mounted after its deadline; it is unmounted again", data)
        _unmount(data)


def _remove_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        return


def _hidden(data: str) -> str:
    return _PASSWORD.sub("********", data)


def _hint(kind: str, error: OSError) -> str:
    match os.strerror(error.errno or 0):
        case "No such device":
            return f" (this kernel has no file system {kind}: load its module, modprobe {kind})"
        case "Invalid argument" if kind.startswith("nfs"):
            return " (nfs needs o=addr=SERVER)"
    return ""
