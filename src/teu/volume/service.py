"""Named and anonymous volumes of the `local` driver.

    ROOT/NAME/_data          what containers see
    ROOT/NAME/_copyup        image content on its way in; renamed over an empty _data when whole

A volume's row is written before its directory is made and deleted after its directory is gone
(`removing` is the intent), so a crash at any point leaves either a usable volume or a removal
that the next start finishes. A volume that any container mentions is never removed.
"""

import asyncio
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from teu import clock, ids
from teu.errors import Conflict, InvalidParameter, NotFound, NotImplementedYet, SystemFailure
from teu.model.volume import VolumeRecord
from teu.store.volumes import VolumeStore
from teu.sys import process

COPY_LIMIT_S = 3600.0
_NAME = re.compile(f"{ids.NAME_PATTERN}+")
Users = Callable[[str], list[str]]


class NoSuchVolume(NotFound):
    def __init__(self, name: str) -> None:
        super().__init__(f"get {name}: no such volume")
        self.name = name


class VolumeInUse(Conflict):
    def __init__(self, name: str, users: list[str]) -> None:
        super().__init__(f"remove {name}: volume is in use - [{', '.join(users)}]")
        self.users = users


class VolumeService:
    """`users(name)` answers the ids of the containers that mention a volume."""

    def __init__(self, store: VolumeStore, root: Path, users: Users) -> None:
        self._store = store
        self._root = root
        self._users = users
        self._volumes: dict[str, VolumeRecord] = {}

    async def start(self) -> None:
        """Loads all rows and finishes removals that a crash cut short."""
        self._root.mkdir(mode=0o701, parents=True, exist_ok=True)
        for record in self._store.load():
            self._volumes[record.name] = record
        for record in [v for v in self._volumes.values() if v.removing]:
            await self._remove_directory(record)

    # --- queries -------------------------------------------------------------------------

    def get(self, name: str) -> VolumeRecord:
        """Raises: NoSuchVolume."""
        record = self._volumes.get(name)
        if record is None or record.removing:
            raise NoSuchVolume(name)
        return record

    def find(self, name: str) -> VolumeRecord | None:
        record = self._volumes.get(name)
        return None if record is None or record.removing else record

    def all(self) -> list[VolumeRecord]:
        return sorted((v for v in self._volumes.values() if not v.removing), key=lambda v: v.name)

    def data_directory(self, name: str) -> Path:
        return self._root / name / "_data"

    def users(self, name: str) -> list[str]:
        return self._users(name)

    # --- changes -------------------------------------------------------------------------

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        options: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
    ) -> VolumeRecord:
        """A new volume, or the one that has this name already; without a name, an anonymous one.

        Raises: InvalidParameter, Conflict (same name, other driver), NotImplementedYet.
        """
        if driver not in ("", "local"):
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        if options:
            raise NotImplementedYet(
                "create volume: driver options "
                f"({', '.join(sorted(options))}) are not supported yet; create the volume without "
                "them, or bind-mount a directory that you mounted yourself"
            )
        if name and not _NAME.fullmatch(name):
            raise InvalidParameter(
                f'create {name}: "{name}" includes invalid characters for a local volume name, '
                f'only "{ids.NAME_PATTERN}" are allowed. If you intended to pass a host '
                "directory, use absolute path"
            )
        if (existing := self._volumes.get(name)) is not None:
            if existing.removing:
                raise Conflict(f"create {name}: the volume is being removed; try again shortly")
            return existing
        record = VolumeRecord(
            name=name or ids.new_id(),
            created_ns=clock.now_ns(),
            labels=dict(labels or {}),
            anonymous=not name,
        )
        if record.anonymous:
            record.labels["com.docker.volume.anonymous"] = ""
        self._store.save(record)
        self._volumes[record.name] = record
        self._make_directory(record)
        return record

    def _make_directory(self, record: VolumeRecord) -> None:
        try:
            data = self.data_directory(record.name)
            data.parent.mkdir(mode=0o701, exist_ok=True)
            data.mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            self._forget(record)
            raise SystemFailure(f"create {record.name}: {error}") from error

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Removes the volume and its data.

        Raises: NoSuchVolume (not with `force`), VolumeInUse (also with `force`).
        """
        if self.find(name) is None and force:
            return
        self.begin_removal(name)
        await self.finish_removal(name)

    def begin_removal(self, name: str) -> None:
        """The intent: from here on nobody finds the volume. Raises: NoSuchVolume, VolumeInUse."""
        record = self.get(name)
        if users := self._users(name):
            raise VolumeInUse(name, users)
        record.removing = True
        self._store.save(record)

    async def finish_removal(self, name: str) -> None:
        """Removes the data, then the row (idempotent). Raises: SystemFailure."""
        record = self._volumes.get(name)
        if record is not None and record.removing:
            await self._remove_directory(record)

    async def prune(
        self, *, include_named: bool, wanted: Callable[[VolumeRecord], bool]
    ) -> tuple[list[str], int]:
        """Removes volumes that no container mentions; (names, bytes reclaimed)."""
        removed: list[str] = []
        reclaimed = 0
        for record in self.all():
            if self._users(record.name) or not (record.anonymous or include_named):
                continue
            if wanted(record):
                reclaimed += await self.size(record.name)
                await self.remove(record.name)
                removed.append(record.name)
        return removed, reclaimed

    async def size(self, name: str) -> int:
        """Bytes on disk."""
        return await asyncio.to_thread(_tree_size, self.data_directory(name))

    async def copy_up(self, name: str, source_fd: int) -> None:
        """Fills an empty volume with the content of the directory behind `source_fd`.

        Owner, mode, times, xattrs and hard links are kept, also the directory's own. Crash: the
        content appears whole or not at all.
        """
        data = self.data_directory(name)
        if any(os.scandir(data)):
            return
        staging = data.with_name("_copyup")
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
        staging.mkdir()
        source = f"/proc/{os.getpid()}/fd/{source_fd}/."
        await process.run(
            ["cp", "-a", "--reflink=auto", "--", source, str(staging)], timeout_s=COPY_LIMIT_S
        )
        os.rename(staging, data)

    async def _remove_directory(self, record: VolumeRecord) -> None:
        directory = self._root / record.name
        try:
            await asyncio.to_thread(_remove_tree, directory)
        except OSError as error:
            raise SystemFailure(
                f"remove {record.name}: {error}; the removal is tried again at the next start"
            ) from error
        self._forget(record)

    def _forget(self, record: VolumeRecord) -> None:
        self._store.delete(record.name)
        self._volumes.pop(record.name, None)


def _remove_tree(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)


def _tree_size(directory: Path) -> int:
    total = 0
    for root, _, files in os.walk(directory):
        for entry in files:
            try:
                total += os.lstat(os.path.join(root, entry)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
