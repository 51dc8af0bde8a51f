"""How volumes are answered: `Volume` of API 1.51."""

from typing import Any

from teu import clock
from teu.model.volume import VolumeRecord
from teu.volume.service import VolumeService


def shown(
    volume: VolumeRecord, volumes: VolumeService, size_bytes: int | None = None
) -> dict[str, Any]:
    """`size_bytes` is given in `system df` only."""
    result: dict[str, Any] = {
        "CreatedAt": clock.format_ns(volume.created_ns)[:19] + "Z" if volume.created_ns else "",
        "Driver": volume.driver,
        "Labels": volume.labels or None,
        "Mountpoint": volumes.mountpoint(volume),
        "Name": volume.name,
        "Options": volume.options or None,
        "Scope": volumes.scope(volume),
    }
    if not result["CreatedAt"]:  # a plugin's, never made here
        del result["CreatedAt"]
    if size_bytes is not None:
        result["UsageData"] = {"RefCount": len(volumes.users(volume.name)), "Size": size_bytes}
    return result
