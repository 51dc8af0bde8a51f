"""What `system df` shows: totals for each kind of object, or (-v) every object.

Source: docker/cli `formatter/disk_usage.go`; compared with Docker 28.2.
"""

from __future__ import annotations

from teu.cli import human
from teu.cli.commands.images import IMAGES, NONE, ImageRow, is_dangling
from teu.cli.commands.ps import CONTAINERS, ContainerRow
from teu.cli.commands.volume import VOLUMES, VolumeRow
from teu.cli.familiar import parts as familiar_parts
from teu.cli.session import Failure
from teu.cli.tables import Listing, clean_format, parse_format, render
from teu.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from teu.cli.session import Session

_TABLE = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"
_RAW = (
    "type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\n"
    "reclaimable: {{.Reclaimable}}\n"
)
_IMAGE_TABLE = (
    "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t"
    "{{.UniqueSize}}\t{{.Containers}}"
)
_CONTAINER_TABLE = (
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t"
    "{{.Status}}\t{{.Names}}"
)
_VOLUME_TABLE = "table {{.Name}}\t{{.Links}}\t{{.Size}}"
_CACHE_TABLE = (
    "table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t"
    "{{.UsageCount}}\t{{.Shared}}"
)
_ACTIVE_STATES = ("running", "paused", "restarting")


class _Total:
    """One kind of object. whole_bytes: what percentages refer to."""

    __slots__ = ("active", "count", "kind", "reclaimable_bytes", "size_bytes", "with_percentage")

    def __init__(
        self, kind: str, count: int, active: int, size_bytes: int, reclaimable_bytes: int,
        with_percentage: bool = True,
    ) -> None:  # fmt: skip
        self.kind = kind
        self.count = count
        self.active = active
        self.size_bytes = size_bytes
        self.reclaimable_bytes = reclaimable_bytes
        self.with_percentage = with_percentage


def _reclaimable(total: _Total) -> str:
    text = human_size(total.reclaimable_bytes, 4)
    if not total.with_percentage or total.size_bytes <= 0:
        return text
    # Go's division rounds towards zero.
    return f"{text} ({int(total.reclaimable_bytes * 100 / total.size_bytes)}%)"


_TOTALS = Listing(
    "*formatter.diskUsageImagesContext",
    {
        "Type": "TYPE",
        "TotalCount": "TOTAL",
        "Active": "ACTIVE",
        "Size": "SIZE",
        "Reclaimable": "RECLAIMABLE",
    },
    {
        "Type": lambda total: total.kind,
        "TotalCount": lambda total: str(total.count),
        "Active": lambda total: str(total.active),
        "Size": lambda total: human_size(total.size_bytes, 4),
        "Reclaimable": _reclaimable,
    },
)


class _CacheRow:
    __slots__ = ("data", "full")

    def __init__(self, data: dict[str, Any], full: bool) -> None:
        self.data = data
        self.full = full


def _cache_id(row: _CacheRow) -> str:
    identifier: str = row.data.get("ID", "")
    text = identifier if row.full else human.short_id(identifier)
    return text + "*" if row.data.get("InUse") else text


def _cache_parent(row: _CacheRow) -> str:
    parent = ", ".join(row.data.get("Parents") or ()) or row.data.get("Parent", "")
    return parent if row.full else human.short_id(parent)


def _since(row: _CacheRow, name: str) -> str:
    from teu.clock import parse_rfc3339

    text = row.data.get(name)
    return human.ago(parse_rfc3339(text) / 1e9) if text else ""


def _at(row: _CacheRow, name: str) -> str:
    from teu.template.values import Time

    text = row.data.get(name)
    return str(Time(text)) if text else ""


_CACHE = Listing(
    "*formatter.buildCacheContext",
    {
        "ID": "CACHE ID",
        "Parent": "PARENT",
        "CacheType": "CACHE TYPE",
        "Size": "SIZE",
        "CreatedSince": "CREATED",
        "LastUsedSince": "LAST USED",
        "UsageCount": "USAGE",
        "InUse": "IN USE",
        "Shared": "SHARED",
        "Description": "DESCRIPTION",
    },
    {
        "ID": _cache_id,
        "Parent": _cache_parent,
        "CacheType": lambda row: row.data.get("Type", ""),
        "Description": lambda row: row.data.get("Description", ""),
        "Size": lambda row: human_size(row.data.get("Size", 0)),
        "CreatedAt": lambda row: _at(row, "CreatedAt"),
        "CreatedSince": lambda row: _since(row, "CreatedAt"),
        "LastUsedAt": lambda row: _at(row, "LastUsedAt"),
        "LastUsedSince": lambda row: _since(row, "LastUsedAt"),
        "UsageCount": lambda row: str(row.data.get("UsageCount", 0)),
        "InUse": lambda row: human.yes_no(row.data.get("InUse")),
        "Shared": lambda row: human.yes_no(row.data.get("Shared")),
    },
)


def show_usage(session: Session, form: str, verbose: bool) -> int:
    """Prints the daemon's `/system/df`. Raises: Failure."""
    usage = session.client.get("/system/df")
    if verbose:
        session.out(_verbose(usage, form))
        return 0
    forms = {"table": _TABLE, "raw": _RAW}
    session.out(render(_TOTALS, _totals(usage), forms.get(form, form)))
    return 0


def _totals(usage: dict[str, Any]) -> list[_Total]:
    return [
        _image_total(usage.get("Images") or [], usage.get("LayersSize") or 0),
        _container_total(usage.get("Containers") or []),
        _volume_total(usage.get("Volumes") or []),
        _cache_total(usage.get("BuildCache") or []),
    ]


def _image_total(images: list[dict[str, Any]], layers_bytes: int) -> _Total:
    active = sum((image.get("Containers") or 0) > 0 for image in images)
    used = sum(
        image.get("Size", 0) - image.get("SharedSize", 0)
        for image in images
        if image.get("Containers") and -1 not in (image.get("Size"), image.get("SharedSize"))
    )
    return _Total("Images", len(images), active, layers_bytes, layers_bytes - used)


def _container_total(containers: list[dict[str, Any]]) -> _Total:
    active = [c for c in containers if c.get("State") in _ACTIVE_STATES]
    size = sum(c.get("SizeRw") or 0 for c in containers)
    used = sum(c.get("SizeRw") or 0 for c in active)
    return _Total("Containers", len(containers), len(active), size, size - used)


def _volume_total(volumes: list[dict[str, Any]]) -> _Total:
    usages = [volume.get("UsageData") or {} for volume in volumes]
    known = [usage for usage in usages if usage.get("Size", 0) != -1]
    size = sum(usage.get("Size", 0) for usage in known)
    free = sum(usage.get("Size", 0) for usage in known if not usage.get("RefCount"))
    active = sum(usage.get("RefCount", 0) > 0 for usage in usages)
    return _Total("Local Volumes", len(volumes), active, size, free)


def _cache_total(records: list[dict[str, Any]]) -> _Total:
    own = [record for record in records if not record.get("Shared")]
    size = sum(record.get("Size", 0) for record in own)
    used = sum(record.get("Size", 0) for record in own if record.get("InUse"))
    active = sum(bool(record.get("InUse")) for record in records)
    return _Total("Build Cache", len(records), active, size, size - used, False)


def _verbose(usage: dict[str, Any], form: str) -> str:
    is_table, body = clean_format(form)
    images = list(_image_rows(usage.get("Images") or [], not is_table))
    containers = [
        ContainerRow(data | {"SizeRootFs": 0}, not is_table)
        for data in usage.get("Containers") or ()
    ]
    volumes = [VolumeRow(data) for data in usage.get("Volumes") or ()]
    records = sorted(
        usage.get("BuildCache") or (), key=lambda r: (r.get("LastUsedAt") or "", r.get("ID", ""))
    )
    caches = [_CacheRow(record, not is_table) for record in records]
    if form == "table":
        size = human_size(_cache_total(records).size_bytes, 4)
        return (
            f"Images space usage:\n\n{render(IMAGES, images, _IMAGE_TABLE)}"
            f"\nContainers space usage:\n\n{render(CONTAINERS, containers, _CONTAINER_TABLE)}"
            f"\nLocal Volumes space usage:\n\n{render(VOLUMES, volumes, _VOLUME_TABLE)}"
            f"\nBuild cache usage: {size}\n\n{render(_CACHE, caches, _CACHE_TABLE)}"
        )
    return _through_template(
        body,
        {
            "Images": (IMAGES, images),
            "Containers": (CONTAINERS, containers),
            "Volumes": (VOLUMES, volumes),
            "BuildCache": (_CACHE, caches),
        },
    )


def _image_rows(images: list[dict[str, Any]], full: bool) -> Iterable[ImageRow]:
    """One row for each image, under its first name."""
    for image in images:
        name, tag = NONE, NONE
        tags = image.get("RepoTags") or []
        if tags and not is_dangling(image):
            found = familiar_parts(tags[0])
            if found is None:
                continue
            name, tag = found[0], found[1] or NONE
        yield ImageRow(image, name, tag, "", full)


def _through_template(body: str, rows: dict[str, tuple[Listing, list[Any]]]) -> str:
    from teu.template import TemplateError
    from teu.template.values import Record

    data = {
        name: [Record(listing.type, listing.methods, row) for row in found]
        for name, (listing, found) in rows.items()
    }
    methods = {name: _getter(name) for name in data}
    try:
        return parse_format(body).execute(Record("*formatter.diskUsageContext", methods, data))
    except TemplateError as error:
        raise Failure(str(error)) from None


def _getter(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda row: row[name]
