"""Images in the API's shapes: list, inspect, history.

Source: API 1.51 ImageSummary, ImageInspect, HistoryResponseItem.
"""

from typing import Any

import msgspec

from teu.clock import ZERO, format_ns, parse_rfc3339
from teu.image.catalog import Catalog
from teu.image.layers import LayerFiles
from teu.model.config import ContainerConfig
from teu.model.image import HistoryEntry, Image

_SECOND_NS = 1_000_000_000
_OMITTED_WHEN_EMPTY = (
    "ArgsEscaped",
    "ExposedPorts",
    "Healthcheck",
    "MacAddress",
    "NetworkDisabled",
    "Shell",
    "StopSignal",
    "StopTimeout",
)


def summary(image: Image, *, shared_bytes: int = -1, containers: int = -1) -> dict[str, Any]:
    """One row of the list. Tags and digests may be empty: older versions of the API show
    `<none>:<none>` then."""
    return {
        "Containers": containers,
        "Created": image.created_ns // _SECOND_NS,
        "Id": image.id,
        "Labels": image.config.config.labels,
        "ParentId": image.record.parent_id,
        "RepoDigests": image.repo_digests,
        "RepoTags": image.repo_tags,
        "SharedSize": shared_bytes,
        "Size": image.size_bytes,
    }


def inspect(image: Image, catalog: Catalog, layers: LayerFiles) -> dict[str, Any]:
    config = image.config
    shown: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": image.record.parent_id,
        "Comment": _comment(image),
        "Created": config.created or ZERO,
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Config": config_shape(config.config),
        "Architecture": config.architecture,
        "Os": config.os or "linux",
        "Size": image.size_bytes,
        "GraphDriver": {"Name": "overlay2", "Data": _graph_data(image, catalog, layers)},
        "RootFS": {"Type": "layers", "Layers": config.rootfs.diff_ids},
        "Metadata": {"LastTagTime": format_ns(image.record.tagged_ns)},
    }
    for name, value in (("Variant", config.variant), ("OsVersion", config.os_version)):
        if value:
            shown[name] = value
    if config.container:
        shown["Container"] = config.container
    if not config.rootfs.diff_ids:
        del shown["RootFS"]["Layers"]
    return shown


def config_shape(config: ContainerConfig) -> dict[str, Any]:
    """A config as Docker writes it: some fields only when they say something."""
    shape: dict[str, Any] = msgspec.to_builtins(config)
    for name in _OMITTED_WHEN_EMPTY:
        if not shape.get(name):
            shape.pop(name, None)
    return shape


def _comment(image: Image) -> str:
    history = image.config.history
    return image.config.comment or (history[-1].comment if history else "")


def _graph_data(image: Image, catalog: Catalog, layers: LayerFiles) -> dict[str, str]:
    rows = [catalog.layer(chain_id) for chain_id in reversed(image.chain_ids)]
    paths = [str(layers.path(row.directory)) for row in rows if row is not None]
    if not paths:
        return {}
    data = {"UpperDir": paths[0]}
    if len(paths) > 1:
        data["LowerDir"] = ":".join(paths[1:])
    return data


def history(image: Image, catalog: Catalog) -> list[dict[str, Any]]:
    """Newest first; a step that changed only the config has size 0."""
    steps = image.config.history or [
        HistoryEntry(created=image.config.created) for _ in image.chain_ids
    ]
    rows = []
    remaining = iter(image.chain_ids)
    for entry in steps:
        layer = None if entry.empty_layer else catalog.layer(next(remaining, ""))
        rows.append(
            {
                "Id": "<missing>",
                "Created": _seconds(entry.created),
                "CreatedBy": entry.created_by,
                "Tags": None,
                "Size": layer.size_bytes if layer else 0,
                "Comment": entry.comment,
            }
        )
    rows.reverse()
    if rows:
        rows[0]["Id"] = image.id
        rows[0]["Tags"] = image.repo_tags or None
    return rows


def _seconds(created: str | None) -> int:
    try:
        return parse_rfc3339(created or "") // _SECOND_NS
    except ValueError:
        return 0
