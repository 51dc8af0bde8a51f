"""Volumes: which there are, who uses them, and the order in which their drivers are called.

    ROOT/NAME/_data                    what containers see (local driver)
    ROOT/NAME/.teu-copyup[.partial]    image content on its way in, see `content.py`

A volume's row is written, as `creating`, before its driver makes anything, and deleted after the
driver has taken everything away (`removing` is the intent), so a crash at any point leaves either
a usable volume, nothing, or a removal that the next start finishes. A volume that a container
mentions, or that somebody works on, is never removed.
"""

import asyncio
import logging
import re
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from teu import clock, ids
from teu.errors import Conflict, EngineError
from teu.model.volume import LOCAL, VolumeRecord
from teu.store.volumes import VolumeStore
from teu.tx import Transaction
from teu.volume import content
from teu.volume.drivers import Drivers
from teu.volume.errors import (
    BadVolumeName,
    NoSuchVolume,
    VolumeBeingRemoved,
    VolumeInUse,
    VolumeNameTaken,
)  # fmt: skip
from teu.volume.plugins import Plugins
from teu.volume.uses import Uses

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
SNAPSHOT_LABEL = "teu.volume.snapshot-of"
UNMOUNT_LIMIT_S = 15.0
_NAME = re.compile(f"{ids.NAME_PATTERN}+")
Users = Callable[[str], list[str]]
log = logging.getLogger(__name__)


class Teller(Protocol):
    def __call__(self, action: str, volume: str, attributes: dict[str, str]) -> None: ...


class VolumeService:
    """`users(name)` answers the ids of the containers that mention a volume; `tell` gets events."""

    def __init__(
        self, store: VolumeStore, root: Path, users: Users, plugins: Plugins, tell: Teller
    ) -> None:
        self._store = store
        self.root = root
        self._users = users
        self.tell = tell
        self._drivers = Drivers(root, plugins)
        self._local = self._drivers.local
        self._volumes: dict[str, VolumeRecord] = {}
        self._uses = Uses()
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def start(self) -> None:
        """Loads all rows and finishes what a crash cut short. Plugins are not asked."""
        self.root.mkdir(mode=0o701, parents=True, exist_ok=True)
        for record in self._store.load():
            self._volumes[record.name] = record
        for record in list(self._volumes.values()):
            try:
                await self._recover(record)
            except EngineError as error:
                log.error("volume %s: %s", record.name, error.message)

    async def _recover(self, record: VolumeRecord) -> None:
        if record.creating:  # nobody was told that it exists
            log.info("volume %s: undoing its interrupted creation", record.name)
            if record.driver == LOCAL:
                await self._local.remove(record)
            self._forget(record)
        elif record.removing and record.driver != LOCAL:
            record.removing = False  # its plugin may not run yet: whoever wanted it can ask again
            self._store.save(record)
        elif record.removing:
            log.info("volume %s: finishing its interrupted removal", record.name)
            await self._local.remove(record)
            self._forget(record)
        elif record.driver == LOCAL:
            data = self._local.data(record)
            if record.directory:
                self._settle_name(record)
            elif self.is_plain(record):
                content.resume(data, data.parent)

    async def close(self) -> None:
        await self._drivers.close()

    # --- queries -------------------------------------------------------------------------

    def get(self, name: str) -> VolumeRecord:
        """Raises: NoSuchVolume."""
        record = self.find(name)
        if record is None:
            raise NoSuchVolume(name)
        return record

    def find(self, name: str) -> VolumeRecord | None:
        record = self._volumes.get(name)
        return None if record is None or record.removing or record.creating else record

    async def look_up(self, name: str) -> VolumeRecord:
        """`get`, also of a volume that only a plugin knows. Raises: NoSuchVolume."""
        record = self.find(name)
        if record is not None:
            return record
        if (outside := await self._drivers.find_outside(name)) is not None:
            return outside
        raise NoSuchVolume(name)

    def all(self) -> list[VolumeRecord]:
        """Those on record, by name."""
        return sorted(filter(lambda v: self.find(v.name), self._volumes.values()), key=_name)

    async def listed(self) -> tuple[list[VolumeRecord], list[str]]:
        """All volumes, those that only plugins know of included; and what went wrong asking."""
        found = {record.name: record for record in self.all()}
        outside, warnings = await self._drivers.list_outside()
        for record in outside:
            found.setdefault(record.name, record)
        return sorted(found.values(), key=_name), warnings

    def mountpoint(self, record: VolumeRecord) -> str:
        """Where its data is, or was last, on this host."""
        return str(self._local.data(record)) if record.driver == LOCAL else record.mountpoint

    def scope(self, record: VolumeRecord) -> str:
        return self._drivers.scope(record.driver)

    async def status(self, record: VolumeRecord) -> dict[str, Any] | None:
        """What its driver has to say of it, if it is a plugin."""
        if record.driver == LOCAL:
            return None
        try:
            shown = await (await self._drivers.get(record.driver)).show(record)
        except EngineError as error:
            return {"Error": error.message}
        record.mountpoint = shown.mountpoint or record.mountpoint
        return shown.status

    def driver_names(self) -> list[str]:
        return self._drivers.names()

    def users(self, name: str) -> list[str]:
        """Ids of the containers that mention it, whatever they do."""
        return self._users(name)

    async def size(self, record: VolumeRecord) -> int:
        """Bytes on disk; -1 for what lies elsewhere (a plugin's, or mounted from somewhere)."""
        if record.driver != LOCAL or "type" in record.options:
            return -1
        return await asyncio.to_thread(content.size, self._local.data(record))

    # --- creating ------------------------------------------------------------------------

    async def ensure(
        self,
        name: str = "",
        *,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> tuple[VolumeRecord, bool]:
        """A new volume (True), or the one that has this name already; without a name, an
        anonymous one.

        Raises: InvalidParameter, VolumeNameTaken (same name, other driver), NoSuchDriver, and what
        the driver raises. Failure: nothing is left.
        """
        async with self._lock(name or ids.new_id()):
            if (existing := self._existing(name, driver)) is not None:
                return existing, False
            record = self._new(name, driver or LOCAL, options, labels)
            async with self._making(record):
                await (await self._drivers.get(record.driver, f"create {record.name}")).create(
                    record
                )
            return record, True

    def _existing(self, name: str, driver: str) -> VolumeRecord | None:
        existing = self._volumes.get(name)
        if existing is None:
            return None
        if existing.removing:
            raise VolumeBeingRemoved("create", name)
        if driver and driver != existing.driver:
            raise VolumeNameTaken("create", name)
        return existing

    def _new(
        self,
        name: str,
        driver: str,
        options: Mapping[str, str] | None,
        labels: Mapping[str, str] | None,
    ) -> VolumeRecord:
        if name and not _NAME.fullmatch(name) and driver == LOCAL:
            raise BadVolumeName(name)
        record = VolumeRecord(
            name=name or ids.new_id(),
            driver=driver,
            created_ns=clock.now_ns(),
            labels=dict(labels or {}),
            options=dict(options or {}),
            anonymous=not name,
            creating=True,
        )
        if record.anonymous:
            record.labels[ANONYMOUS_LABEL] = ""
        if driver == LOCAL:
            record.directory = self._free_directory(record.name)
        return record

    def _free_directory(self, name: str) -> str:
        """ "" where the name's own place is free; a renamed volume may still be there."""
        taken = {record.directory for record in self._volumes.values()}
        return f"{name}~{ids.new_id()[:8]}" if name in taken else ""

    @asynccontextmanager
    async def _making(self, record: VolumeRecord) -> AsyncIterator[None]:
        """The body makes the volume: all of it, or nothing stays."""
        async with Transaction("create volume", record.name) as tx:
            tx.on_rollback("volume", lambda: self._undo_creation(record))
            self._volumes[record.name] = record
            self._store.save(record)
            yield
            record.creating = False
            self._store.save(record)
            tx.commit()
        self.tell("create", record.name, {"driver": record.driver})

    async def _undo_creation(self, record: VolumeRecord) -> None:
        """If the files cannot be removed the row stays, and the next start tries again."""
        if record.driver == LOCAL:
            await self._local.remove(record)
        self._forget(record)

    async def copied(
        self, name: str, target: str, *, labels: Mapping[str, str], read_only: bool
    ) -> VolumeRecord:
        """A new local volume with the content of `name`. Whoever writes meanwhile is mixed in.

        Raises: NoSuchVolume, VolumeNameTaken, SystemFailure. Failure, crash: nothing is left.
        """
        source = self.get(name)
        async with self._lock(target):
            if target in self._volumes:
                raise VolumeNameTaken("create", target, f": there is a volume {target} already")
            labels = {**source.labels, **labels}
            labels.pop(ANONYMOUS_LABEL, None)
            options = {k: v for k, v in source.options.items() if k == "size"}
            record = self._new(target, LOCAL, options, labels)
            record.read_only = read_only
            async with self._making(record), self.in_use(source) as directory:
                await self._local.create(record)
                await content.copy(directory, self._local.data(record))
            return record

    async def imported(self, name: str, fill: Callable[[Path], Awaitable[None]]) -> VolumeRecord:
        """A new local volume that `fill` puts the content in. As `copied`."""
        async with self._lock(name):
            if name in self._volumes:
                raise VolumeNameTaken("create", name)
            record = self._new(name, LOCAL, None, None)
            async with self._making(record):
                await self._local.create(record)
                await fill(self._local.data(record))
            return record

    # --- removing ------------------------------------------------------------------------

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Removes the volume and its data.

        Raises: NoSuchVolume (not with `force`), VolumeInUse (also with `force`), and what the
        driver raises; `force` forgets a volume whose plugin is not there any more.
        """
        if self.find(name) is None:
            if force:
                return
            record = await self.look_up(name)  # only a plugin has it
            await (await self._drivers.get(record.driver)).remove(record)
            self.tell("destroy", name, {"driver": record.driver})
            return
        self.begin_removal(name)
        await self._until_unmounted(name)
        await self.finish_removal(name, force=force)

    async def _until_unmounted(self, name: str) -> None:
        """A container that was removed a moment ago may still be giving the volume up."""
        try:
            await self._uses.until_idle(name, UNMOUNT_LIMIT_S)
        except TimeoutError:
            record = self._volumes[name]
            record.removing = False
            self._store.save(record)
            raise VolumeInUse(name, self._uses.of(name)) from None

    def begin_removal(self, name: str) -> None:
        """The intent: from here on nobody finds the volume.

        Raises: NoSuchVolume, VolumeInUse.
        """
        record = self.get(name)
        if users := self._users(name):
            raise VolumeInUse(name, users)
        if self._uses.is_held(name):
            raise VolumeInUse(name, ["somebody copies it, or makes a container with it"])
        record.removing = True
        self._store.save(record)

    async def finish_removal(self, name: str, *, force: bool = False) -> None:
        """Removes data, then row, and tells so (idempotent). Raises: what the driver raises."""
        async with self._lock(name):
            record = self._volumes.get(name)
            if record is None or not record.removing:
                return
            try:
                await (await self._drivers.get(record.driver)).remove(record)
            except EngineError as error:
                if not force or isinstance(error, Conflict) or record.driver == LOCAL:
                    self._keep(record, error)
                    raise
                log.warning("volume %s: forgotten by force: %s", name, error.message)
            self._forget(record)
        self.tell("destroy", name, {"driver": record.driver})

    def _keep(self, record: VolumeRecord, error: EngineError) -> None:
        """What cannot be removed is shown again; a local removal cut short goes on later."""
        if record.driver != LOCAL or isinstance(error, Conflict):
            record.removing = False
            self._store.save(record)

    async def prune(
        self, *, include_named: bool, wanted: Callable[[VolumeRecord], bool]
    ) -> tuple[list[str], int]:
        """Removes local volumes that no container mentions; (names, bytes reclaimed).

        One that cannot be removed is left and logged.
        """
        removed: list[str] = []
        reclaimed = 0
        for record in self.all():
            if record.driver != LOCAL or record.options:  # as Docker: only plain ones
                continue
            if not (record.anonymous or include_named) or not wanted(record):
                continue
            if self._users(record.name) or self._uses.is_held(record.name):
                continue
            size_bytes = max(0, await self.size(record))
            try:
                await self.remove(record.name)
            except EngineError as error:  # used, or removed, by somebody else meanwhile
                log.info("prune: volume %s stays: %s", record.name, error.message)
                continue
            removed.append(record.name)
            reclaimed += size_bytes
        return removed, reclaimed

    # --- renaming ------------------------------------------------------------------------

    def rename(self, name: str, new_name: str) -> VolumeRecord:
        """The row gets the new name; `settle_name` moves the directory after that.

        Belongs into the transaction that renames it in the containers' records.
        Raises: NoSuchVolume, VolumeNameTaken, BadVolumeName, Conflict (it is a plugin's).
        """
        record = self.get(name)
        if record.driver != LOCAL:
            raise Conflict(f"rename {name}: driver {record.driver} cannot rename volumes")
        if not _NAME.fullmatch(new_name):
            raise BadVolumeName(new_name)
        if new_name in self._volumes:
            raise VolumeNameTaken("rename", new_name)
        if self._lock(name).locked() or self._lock(new_name).locked():
            raise Conflict(f"rename {name}: the volume is being worked on; try again shortly")
        record.directory = record.directory or name
        record.name, record.anonymous = new_name, False
        record.labels.pop(ANONYMOUS_LABEL, None)
        self._store.rename(name, record)
        return record

    def renamed(self, old_name: str, record: VolumeRecord) -> None:
        """After the commit: who looks for the volume finds it under the new name."""
        self._volumes[record.name] = self._volumes.pop(old_name)
        self._uses.rename(old_name, record.name)
        self._settle_name(record)
        self.tell("rename", record.name, {"driver": record.driver, "oldName": old_name})

    def _settle_name(self, record: VolumeRecord) -> None:
        try:
            if self._local.rename(record):
                record.directory = ""
                self._store.save(record)
        except OSError as error:  # it stays where it is, which is only a matter of looks
            log.warning("volume %s stays in %s: %s", record.name, record.directory, error)

    # --- using ---------------------------------------------------------------------------

    def holding(self) -> AbstractContextManager[Callable[[str], None]]:
        """What is called with a name keeps that volume from being removed until the end."""
        return self._uses.holding()

    async def mount(self, name: str, user: str) -> Path:
        """Makes the data visible for one user (a container's id); may be repeated for the same.

        Raises: NoSuchVolume, and what the driver raises.
        """
        async with self._lock(name):
            record = self.get(name)
            path = await (await self._drivers.get(record.driver)).mount(record, user)
            self._uses.add(name, user)
            return path

    async def unmount(self, name: str, user: str) -> None:
        """Undoes `mount`; a user that did not mount is fine. Raises: what the driver raises."""
        async with self._lock(name):
            record = self._volumes.get(name)
            if record is None or not self._uses.discard(name, user):
                return
            last = not self._uses.of(name)
            try:
                await (await self._drivers.get(record.driver)).unmount(record, user, last=last)
            finally:
                if last:
                    self._uses.tell_idle(name)

    def adopt(self, name: str, user: str) -> None:
        """After a restart of the daemon: this user has the volume mounted."""
        if name in self._volumes:
            self._uses.add(name, user)

    async def unmount_unused(self) -> None:
        """After a restart of the daemon, and after all `adopt`s: what nobody uses is unmounted."""
        for record in self._volumes.values():
            if (
                record.driver == LOCAL
                and "type" in record.options
                and not self._uses.of(record.name)
            ):
                await self._local.unmount(record, "", last=True)

    @asynccontextmanager
    async def in_use(self, record: VolumeRecord) -> AsyncIterator[Path]:
        """The directory of a volume, for a look inside by the engine itself."""
        user = f"engine-{ids.new_id()[:12]}"
        with self.holding() as hold:
            hold(record.name)
            path = await self.mount(record.name, user)
            try:
                yield path
            finally:
                await self.unmount(record.name, user)

    async def copy_up(self, name: str, directory: Path, source_fd: int) -> None:
        """Fills a mounted volume with the content of the directory behind `source_fd`, if it is
        empty. See `content.copy_up`."""
        async with self._lock(name):
            foreign = not self.is_plain(self.get(name))
            staging = directory if foreign else directory.parent
            await content.copy_up(source_fd, directory, staging, may_block=foreign)

    def is_plain(self, record: VolumeRecord) -> bool:
        """A directory of this host: looking at it never blocks for long."""
        return record.driver == LOCAL and not record.options

    # --- parts ---------------------------------------------------------------------------

    def _lock(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    def _forget(self, record: VolumeRecord) -> None:
        self._store.delete(record.name)
        self._volumes.pop(record.name, None)


def _name(record: VolumeRecord) -> str:
    return record.name
