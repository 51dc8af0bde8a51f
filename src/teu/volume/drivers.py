"""All volume drivers of this host: the local one, and the plugins that are there now."""

import asyncio
import contextlib
from pathlib import Path

from teu.errors import EngineError, NotFound
from teu.model.volume import LOCAL, VolumeRecord
from teu.volume.driver import Shown, VolumeDriver
from teu.volume.errors import NoSuchDriver
from teu.volume.local import LocalDriver
from teu.volume.plugins import Plugins
from teu.volume.remote import PluginDriver


class Drivers:
    """By name. Plugins are met when they are first needed."""

    def __init__(self, root: Path, plugins: Plugins) -> None:
        self.local = LocalDriver(root)
        self._plugins = plugins
        self._met: dict[str, PluginDriver] = {}

    async def get(self, name: str, operation: str = "") -> VolumeDriver:
        """Raises: NoSuchDriver (which names the operation), and what the plugin's start raises."""
        if name == LOCAL:
            return self.local
        try:
            return await self._plugin(name)
        except NoSuchDriver as error:
            raise NoSuchDriver(name, operation=operation) from error

    def names(self) -> list[str]:
        return [LOCAL, *self._plugins.names()]

    def scope(self, name: str) -> str:
        """ "local" as long as a plugin has not said otherwise."""
        return self._met[name].scope if name in self._met else "local"

    async def find_outside(self, volume: str) -> VolumeRecord | None:
        """A volume that only a plugin knows."""
        for driver in self._plugins.names():
            with contextlib.suppress(EngineError):  # a silent plugin hides only what is its own
                if (shown := await (await self._plugin(driver)).find(volume)) is not None:
                    return VolumeRecord(name=volume, driver=driver, mountpoint=shown.mountpoint)
        return None

    async def list_outside(self) -> tuple[list[VolumeRecord], list[str]]:
        """What the plugins list, asked all at once; and what went wrong."""
        names = self._plugins.names()
        answers = await asyncio.gather(*map(self._list, names), return_exceptions=True)
        found, warnings = [], []
        for driver, answer in zip(names, answers, strict=True):
            if isinstance(answer, list):
                found += [
                    VolumeRecord(name=name, driver=driver, mountpoint=shown.mountpoint)
                    for name, shown in answer
                ]
            elif not isinstance(answer, NotFound):  # it is a plugin of another kind
                warnings.append(f"error while listing volumes of {driver}: {answer}")
        return found, warnings

    async def _list(self, driver: str) -> list[tuple[str, Shown]]:
        return await (await self._plugin(driver)).list()

    async def _plugin(self, name: str) -> PluginDriver:
        plugin = await self._plugins.get(name)
        driver = self._met.get(name)
        if driver is None or driver.plugin is not plugin:
            driver = PluginDriver(plugin)
            await driver.learn()
            self._met[name] = driver
        return driver

    async def close(self) -> None:
        await self._plugins.close()
