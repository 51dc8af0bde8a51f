"""What teu does with volumes beyond Docker: rename, clone, snapshot, export, import, copy files.

A volume that containers are writing to is copied while they are paused (unless told otherwise), so
a copy is what a power failure would have left: databases recover from that.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from teu import clock
from teu.container.archive import get_from, given, put_into, stat_in
from teu.container.commit import packed_tree
from teu.container.container import Container
from teu.container.lifecycle import Lifecycle
from teu.container.services import Services
from teu.container.view import View, view_of
from teu.errors import Conflict, Forbidden, InvalidParameter
from teu.model.container import Status
from teu.model.volume import VolumeRecord
from teu.volume.service import SNAPSHOT_LABEL


class VolumeWork:
    """See the module's text."""

    def __init__(self, services: Services, lifecycle: Lifecycle) -> None:
        self._services = services
        self._volumes = services.volumes
        self._lifecycle = lifecycle

    # --- copies --------------------------------------------------------------------------

    async def clone(
        self, name: str, target: str, *, labels: dict[str, str], pause: bool, snapshot: bool
    ) -> VolumeRecord:
        """A new local volume with the same content; a snapshot is only ever mounted read-only.

        Raises: NoSuchVolume, VolumeNameTaken, SystemFailure. Failure, crash: nothing is left, and
        paused containers go on.
        """
        source = self._volumes.get(name)
        if snapshot:
            labels = {**labels, SNAPSHOT_LABEL: name}
            target = target or f"{name}-{clock.format_ns(clock.now_ns())[:19].replace(':', '')}"
        elif not target:
            raise InvalidParameter("clone: the new volume needs a name")
        async with self._writers_paused(source, pause):
            return await self._volumes.copied(name, target, labels=labels, read_only=snapshot)

    @asynccontextmanager
    async def _writers_paused(self, volume: VolumeRecord, pause: bool) -> AsyncIterator[None]:
        paused: list[Container] = []
        try:
            for container in self._writers(volume) if pause else ():
                with contextlib.suppress(Conflict):  # it has ended, or is paused, meanwhile
                    await self._lifecycle.pause_for_now(container)
                    paused.append(container)
            yield
        finally:
            for container in paused:
                with contextlib.suppress(Conflict):  # it was let go on, or killed
                    await self._lifecycle.end_pause_for_now(container)

    def _writers(self, volume: VolumeRecord) -> list[Container]:
        return [
            c for c in self._services.containers.in_status(Status.RUNNING)
            if any(m.name == volume.name and m.rw for m in c.record.mounts)
        ]  # fmt: skip

    # --- archives ------------------------------------------------------------------------

    async def export(self, name: str, *, pause: bool) -> AsyncGenerator[bytes, None]:
        """The whole content as a tar stream. Raises: NoSuchVolume before the first piece."""
        volume = self._volumes.get(name)
        async with (
            self._writers_paused(volume, pause),
            self._volumes.in_use(volume) as directory,
            contextlib.aclosing(packed_tree(directory)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    async def import_(self, name: str, stream: AsyncIterator[bytes]) -> VolumeRecord:
        """Unpacks a tar (plain or compressed): into a new volume, which appears when it is whole,
        or over the content of one that exists.

        Raises: InvalidArchive, Forbidden (a snapshot), SystemFailure.
        """
        volume = self._volumes.find(name)
        if volume is None:
            return await self._volumes.imported(name, lambda data: _unpack(data, name, stream))
        _check_writable(volume)
        async with self._volumes.in_use(volume) as directory:
            await _unpack(directory, name, stream)
        return volume

    # --- files ---------------------------------------------------------------------------

    async def stat(self, name: str, path: str) -> dict[str, Any]:
        """As `Archives.stat`. Raises: NoSuchVolume, NoSuchPath, InvalidParameter."""
        async with self._view(self._volumes.get(name), path) as view:
            return await stat_in(view, f"volume {name}", path)

    async def get(self, name: str, path: str) -> AsyncGenerator[bytes, None]:
        """The tar of a file or directory. Raises: NoSuchVolume, NoSuchPath."""
        async with (
            self._view(self._volumes.get(name), path) as view,
            contextlib.aclosing(get_from(view, f"volume {name}", path)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    async def put(
        self, name: str, path: str, stream: AsyncIterator[bytes], *, keep_kinds: bool
    ) -> None:
        """Unpacks a tar below an existing directory.

        Raises: NoSuchVolume, NoSuchPath, Forbidden (a snapshot), InvalidArchive.
        """
        volume = self._volumes.get(name)
        _check_writable(volume)
        async with self._view(volume, path) as view:
            await put_into(view, f"volume {name}", path, stream, keep_kinds=keep_kinds)

    @asynccontextmanager
    async def _view(self, volume: VolumeRecord, path: str) -> AsyncIterator[View]:
        async with (
            self._volumes.in_use(volume) as directory,
            view_of(directory, given(path)) as view,
        ):
            yield view

    # --- names and sizes -----------------------------------------------------------------

    def rename(self, name: str, new_name: str) -> VolumeRecord:
        """Gives a volume another name, in every container that mentions it, in one transaction.

        Running containers keep what they have mounted. Raises: NoSuchVolume, VolumeNameTaken,
        BadVolumeName, Conflict.
        """
        containers = self._services.containers
        using = [c for ref in self._volumes.users(name) if (c := containers.find(ref))]
        if len(using) < len(self._volumes.users(name)):
            raise Conflict(f"rename {name}: a container whose record cannot be read mentions it")
        record = self._volumes.get(name)
        before = record.directory, record.anonymous, dict(record.labels)
        try:
            with containers.together():
                self._volumes.rename(name, new_name)
                for container in using:
                    _rename_in(container, name, new_name)
                    containers.save(container)
        except BaseException:
            if record.name != name:
                record.name = name
                record.directory, record.anonymous, record.labels = before
                for container in using:
                    _rename_in(container, new_name, name)
            raise
        self._volumes.renamed(name, record)
        for container in using:
            for point in container.record.mounts:
                if point.name == new_name:
                    point.source = self._volumes.mountpoint(record)
            containers.save(container)
        return record

    async def usage(self) -> list[dict[str, Any]]:
        """Size and users of each volume."""
        return [
            {
                "Name": record.name,
                "Driver": record.driver,
                "Size": await self._volumes.size(record),
                "Users": [
                    c.name if (c := self._services.containers.find(ref)) else ref
                    for ref in self._volumes.users(record.name)
                ],
            }
            for record in self._volumes.all()
        ]


def _check_writable(volume: VolumeRecord) -> None:
    if volume.read_only:
        raise Forbidden(f"volume {volume.name} is a snapshot: clone it to get one to write to")


async def _unpack(root: Path, name: str, stream: AsyncIterator[bytes]) -> None:
    async with view_of(root, "/") as view:
        await put_into(view, f"volume {name}", "/", stream, keep_kinds=False)


def _rename_in(container: Container, name: str, new_name: str) -> None:
    record = container.record
    for point in record.mounts:
        if point.type == "volume" and point.name == name:
            point.name, point.anonymous = new_name, False
    for mount in record.host.mounts or ():
        if mount.type == "volume" and mount.source == name:
            mount.source = new_name
    record.host.binds = list(_renamed_binds(record.host.binds or [], name, new_name)) or None


def _renamed_binds(binds: list[str], name: str, new_name: str) -> Iterator[str]:
    for text in binds:
        source, colon, rest = text.partition(":")
        yield f"{new_name}{colon}{rest}" if source == name else text
