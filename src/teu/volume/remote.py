"""A volume driver that is a plugin. Nothing that it says is believed unchecked."""

import asyncio
import os
from pathlib import Path
from typing import Any

from teu.errors import EngineError, SystemFailure
from teu.model.volume import VolumeRecord
from teu.volume.driver import Shown
from teu.volume.plugins import Plugin, PluginFailure


class PluginDriver:
    """Speaks the `VolumeDriver.…` calls."""

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin
        self.scope = "local"

    async def learn(self) -> None:
        """Reads its capabilities; a plugin that does not know the call has none."""
        try:
            answer = await self._ask("Capabilities", {})
        except EngineError:
            return
        capabilities = answer.get("Capabilities")
        scope = capabilities.get("Scope") if isinstance(capabilities, dict) else None
        self.scope = "global" if str(scope).lower() == "global" else "local"

    async def create(self, record: VolumeRecord) -> None:
        if await self.find(record.name) is None:
            await self._work("Create", {"Name": record.name, "Opts": record.options})

    async def remove(self, record: VolumeRecord) -> None:
        try:
            await self._work("Remove", {"Name": record.name})
        except PluginFailure:
            if await self.find(record.name) is not None:
                raise

    async def mount(self, record: VolumeRecord, user: str) -> Path:
        try:
            answer = await self._work("Mount", {"Name": record.name, "ID": user})
            path = await self._directory("Mount", answer)
        except EngineError as error:
            raise type(error)(f"error while mounting volume '': {error.message}") from error
        record.mountpoint = str(path)
        return path

    async def unmount(self, record: VolumeRecord, user: str, *, last: bool) -> None:
        await self._work("Unmount", {"Name": record.name, "ID": user})

    async def show(self, record: VolumeRecord) -> Shown:
        try:
            found = await self.find(record.name)
        except EngineError as error:
            return Shown(record.mountpoint, {"Error": error.message})
        return found or Shown(record.mountpoint, {"Error": "the plugin does not know this volume"})

    async def find(self, name: str) -> Shown | None:
        """None when the plugin has no such volume. Raises: as `Plugin.call`, if it is silent."""
        try:
            answer = await self._ask("Get", {"Name": name})
        except PluginFailure:
            return None
        volume = answer.get("Volume")
        return _shown(volume) if isinstance(volume, dict) else None

    async def list(self) -> list[tuple[str, Shown]]:
        """All volumes of the plugin, whoever made them. Entries that make no sense are left out."""
        answer = await self._ask("List", {})
        volumes = answer.get("Volumes") or []
        if not isinstance(volumes, list):
            return []
        return [
            (name, _shown(volume))
            for volume in volumes
            if isinstance(volume, dict) and isinstance(name := volume.get("Name"), str) and name
        ]

    async def _directory(self, method: str, answer: dict[str, Any]) -> Path:
        told = answer.get("Mountpoint")
        path = Path(told) if isinstance(told, str) and told.startswith("/") else None
        if path is None or not await asyncio.to_thread(os.path.isdir, path):
            raise SystemFailure(
                f'volume plugin "{self.plugin.name}": {method}: its mount point is no directory '
                f"of this host: {told!r}"
            )
        return path

    async def _ask(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        limit_s = self.plugin.limits.ask_s
        return await self.plugin.call(f"VolumeDriver.{method}", body, limit_s=limit_s)

    async def _work(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        limit_s = self.plugin.limits.work_s
        return await self.plugin.call(f"VolumeDriver.{method}", body, limit_s=limit_s, patient=True)


def _shown(volume: dict[str, Any]) -> Shown:
    mountpoint, status = volume.get("Mountpoint"), volume.get("Status")
    return Shown(
        mountpoint if isinstance(mountpoint, str) else "",
        status if isinstance(status, dict) else None,
    )
