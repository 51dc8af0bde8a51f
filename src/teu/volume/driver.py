"""What every volume driver does; the service decides when, one call at a time for a volume."""

from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from teu.model.volume import VolumeRecord


class Shown(Struct, frozen=True):
    """What a driver says of a volume for `inspect`."""

    mountpoint: str
    status: dict[str, Any] | None = None


class VolumeDriver(Protocol):
    """Every method may be repeated after a crash, and raises EngineError kinds only."""

    scope: str  # "local" or "global"

    async def create(self, record: VolumeRecord) -> None:
        """Makes the volume; one that exists already is taken as it is."""

    async def remove(self, record: VolumeRecord) -> None:
        """Takes volume and data away; one that does not exist is fine."""

    async def mount(self, record: VolumeRecord, user: str) -> Path:
        """Makes the data visible for `user` (once for each); the directory."""

    async def unmount(self, record: VolumeRecord, user: str, *, last: bool) -> None:
        """Undoes `mount` for `user`; `last`: nobody else uses it."""

    async def show(self, record: VolumeRecord) -> Shown:
        """For `inspect`; answers also when the driver is out of reach."""
