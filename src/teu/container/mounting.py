"""What a container's mounts need on the host before its runtime starts, and after it ended.

    EXEC_ROOT/containers/ID/mounts/N    what is mounted for the runtime to take, while it starts

The runtime mounts sources by their paths. Where a path is not to be trusted (a sub-path, or a
bind source in a volume: containers can replace any part of it by a symlink), or shows something
that is no path (an image, other owners), the mount is made here, by descriptor, at a path of the
engine's own, and taken away again when the container has it.
"""

import asyncio
import logging
import os
import stat
from pathlib import Path

from teu.container.mountpoints import AUTO, parse_id_map
from teu.container.services import Services
from teu.errors import EngineError, InvalidParameter, SystemFailure
from teu.model.container import ContainerRecord, MountPoint
from teu.runtime import users
from teu.runtime.mountspec import Prepared
from teu.sys import beneath, mountapi, mounts, syscalls
from teu.sys.userns import IdRange, open_userns
from teu.volume import content

_STATVFS_WORDS = (
    (os.ST_RDONLY, "ro"),
    (os.ST_NOSUID, "nosuid"),
    (os.ST_NODEV, "nodev"),
    (os.ST_NOEXEC, "noexec"),
    (os.ST_NOATIME, "noatime"),
    (os.ST_NODIRATIME, "nodiratime"),
)
log = logging.getLogger(__name__)
# These, and what lies directly in them, belong to the host: to change their owner would break it.
_NEVER_CHOWN_BELOW = ("/", "/usr", "/var")


class Mounter:
    """`prepare` before the start, `detach` when the container runs, `release` when it ended."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._volumes = services.volumes

    async def prepare(self, record: ContainerRecord, rootfs: Path) -> dict[str, Prepared]:
        """Mounts volumes, fills empty ones from the image, and makes what the runtime is to mount,
        by destination.

        Raises: InvalidParameter, SystemFailure and what volume drivers raise; `release` undoes.
        Crash: recovery calls `release` or `detach`.
        """
        prepared: dict[str, Prepared] = {}
        for number, point in enumerate(record.mounts):
            if point.type == "tmpfs":
                continue
            target = self._staging(record.id) / str(number)
            root, subpath = await self._source(record, point, target, rootfs)
            if subpath or point.chown or point.id_map:
                await self._stage(record, point, (root, subpath), target, rootfs)
                root = target
            if point.type == "volume" and not self._volumes.is_plain(self._volumes.get(point.name)):
                words = await asyncio.to_thread(_words_of, root)  # its server may not answer
            else:
                words = _words_of(root)
            prepared[point.destination] = Prepared(str(root), words)
        return prepared

    async def _source(
        self, record: ContainerRecord, point: MountPoint, target: Path, rootfs: Path
    ) -> tuple[Path, str]:
        """What is to be mounted: a directory that is safe to name, and a path that must not leave
        it."""
        match point.type:
            case "volume":
                return await self._volume(record, point, rootfs), point.subpath
            case "image":
                return self._image(point, target), point.subpath
        parts = Path(point.source).parts
        top = self._volumes.root.parts
        if parts[: len(top)] == top and parts[len(top) + 1 : len(top) + 2] == ("_data",):
            return Path(*parts[: len(top) + 2]), "/".join(parts[len(top) + 2 :])
        return Path(point.source), ""

    # --- volumes -------------------------------------------------------------------------

    async def _volume(self, record: ContainerRecord, point: MountPoint, rootfs: Path) -> Path:
        known = self._volumes.get(point.name)
        point.rw = point.rw and not known.read_only
        root = await self._volumes.mount(point.name, record.id)
        point.source = str(root)
        if not point.nocopy and not point.subpath and not known.read_only:
            await self._copy_up(point, root, rootfs)
        return root

    async def _copy_up(self, point: MountPoint, root: Path, rootfs: Path) -> None:
        try:
            source_fd = beneath.open_in_root(rootfs, point.destination, os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return  # the image has nothing there
        try:
            await self._volumes.copy_up(point.name, root, source_fd)
        finally:
            os.close(source_fd)

    # --- images --------------------------------------------------------------------------

    def _image(self, point: MountPoint, target: Path) -> Path:
        merged, empty = target.with_suffix(".image"), target.with_suffix(".empty")
        with syscalls.os_errors(f"cannot mount image {point.source}"):
            for directory in (merged, empty):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not mounts.is_mounted(merged):
            layers = self._services.images.layer_directories(point.layers)
            mounts.mount_layers([*layers, empty], merged)
        return merged

    # --- by descriptor -------------------------------------------------------------------

    async def _stage(
        self,
        record: ContainerRecord,
        point: MountPoint,
        source: tuple[Path, str],
        target: Path,
        rootfs: Path,
    ) -> None:
        user = users.resolve(rootfs, record.config.user)
        source_fd = _opened(point, *source)
        try:
            if point.chown:
                _check_chown(source_fd)
                await asyncio.to_thread(content.change_owner, source_fd, user.uid, user.gid)
            tree_fd = mountapi.clone_tree(source_fd, recursive="bind" not in point.options)
            try:
                await self._map_ids(point, source_fd, tree_fd, user)
                _make_target(source_fd, target)
                mountapi.attach(tree_fd, target)
            finally:
                os.close(tree_fd)
        except OSError as error:
            raise SystemFailure(
                f"cannot mount {'/'.join(map(str, source))} for {point.destination}: "
                f"{error.strerror}"
            ) from error
        finally:
            os.close(source_fd)

    @staticmethod
    async def _map_ids(point: MountPoint, source_fd: int, tree_fd: int, user: users.User) -> None:
        if not point.id_map:
            return
        if point.id_map == AUTO:
            owner = os.stat(source_fd)
            uids = [IdRange(owner.st_uid, user.uid, 1)]
            gids = [IdRange(owner.st_gid, user.gid, 1)]
        else:
            uids, gids = parse_id_map(point.id_map)
        userns_fd = await open_userns(uids, gids)
        try:
            mountapi.map_ids(tree_fd, userns_fd)
        finally:
            os.close(userns_fd)

    # --- after the start, after the end --------------------------------------------------

    def _staging(self, container_id: str) -> Path:
        return self._services.paths.run(container_id) / "mounts"

    def detach(self, record: ContainerRecord) -> None:
        """Takes away what was made for the runtime; idempotent. The container keeps its mounts."""
        staging = self._staging(record.id)
        if record.mounts and staging.exists():
            for failure in mounts.unmount_all_under(staging):
                log.warning("container %s: %s", record.id[:12], failure)

    async def release(self, record: ContainerRecord) -> None:
        """The container does not use its volumes any more; idempotent, goes on after failures."""
        if not record.mounts:
            return
        await asyncio.to_thread(self.detach, record)
        for name in {point.name for point in record.mounts if point.type == "volume"}:
            try:
                await self._volumes.unmount(name, record.id)
            except EngineError as error:
                log.warning("container %s: volume %s: %s", record.id[:12], name, error.message)

    def adopt(self, record: ContainerRecord) -> None:
        """The container runs on after a restart of the daemon."""
        self.detach(record)
        for point in record.mounts:
            if point.type == "volume":
                self._volumes.adopt(point.name, record.id)


def _words_of(source: Path) -> tuple[str, ...]:
    """The words of the mount that a path is on."""
    try:
        flags = os.statvfs(source).f_flag
    except OSError:  # the runtime says what is wrong
        return ()
    return tuple(word for bit, word in _STATVFS_WORDS if flags & bit)


def _opened(point: MountPoint, root: Path, subpath: str) -> int:
    """A path descriptor of what is to be mounted. Raises: InvalidParameter, SystemFailure."""
    try:
        if subpath:
            return beneath.open_in_root(root, subpath, os.O_PATH)
        return os.open(root, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        of = f" of {point.type} {point.name or point.source}" if subpath else ""
        raise InvalidParameter(
            f"cannot access path {subpath or root}{of}: {(error.strerror or '').lower()}"
        ) from error


def _make_target(source_fd: int, target: Path) -> None:
    """A directory or a file, as the source is."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if stat.S_ISDIR(os.stat(source_fd).st_mode):
        target.mkdir(mode=0o700, exist_ok=True)
    else:
        target.touch(mode=0o600)


def _check_chown(source_fd: int) -> None:
    place = os.readlink(f"/proc/self/fd/{source_fd}")
    if place == "/" or os.path.dirname(place) in _NEVER_CHOWN_BELOW:
        raise InvalidParameter(
            f"changing the owner of {place} would break this host; mount a directory below it, or "
            "use idmap, which changes nothing on the disk"
        )
