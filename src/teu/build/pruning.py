"""`builder prune`, the automatic limit, and the cache's rows of `df`.

Source: API 1.51, BuildPrune and BuildCache; a record's type in BuildKit's words.
"""

import asyncio
import shutil
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

from teu.build.cache import LAYER_KINDS, BuildCache
from teu.build.cachemounts import KIND as MOUNT
from teu.build.cachemounts import CacheMounts
from teu.build.workspace import Workspace, remove_directory
from teu.clock import format_ns
from teu.errors import InvalidParameter
from teu.image.filters import instant
from teu.image.service import ImageService
from teu.model.build import CacheRecord
from teu.model.image import chain_ids

_TYPES = {"exec": "regular", "files": "regular", "directory": "regular", MOUNT: "exec.cachemount"}
_FILTERS = frozenset(
    ("until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private")
)
Filters = dict[str, list[str]]


class Space(Struct, kw_only=True):
    """What shall be left. All in bytes, 0 for no wish: keep at least `reserved` of the cache;
    remove only down to `max_used`; remove until `min_free` of the disk is free."""

    reserved: int = 0
    max_used: int = 0
    min_free: int = 0


class Pruner:
    """For the daemon's one cache. Loop's thread."""

    def __init__(
        self,
        cache: BuildCache,
        mounts: CacheMounts,
        workspace: Workspace,
        images: ImageService,
        is_busy: Callable[[str], bool],
    ) -> None:
        self._cache = cache
        self._mounts = mounts
        self._workspace = workspace
        self._images = images
        self._is_busy = is_busy  # whether a build uses a kept context

    def rows(self) -> list[dict[str, Any]]:
        """`BuildCache` of `GET /system/df`, oldest use first."""
        shared = self._shared()
        records = sorted(self._records(), key=lambda record: record.used_ns)
        return [self._row(record, shared) for record in records]

    async def prune(self, filters: Filters, *, all_: bool, space: Space) -> tuple[list[str], int]:
        """Ids of what went, and the bytes that frees. Without `all_`, results that an image has in
        it stay. Raises: InvalidParameter (filters)."""
        check_filters(filters)
        shared = self._shared()
        wanted = [
            record
            for record in sorted(self._records(), key=lambda record: record.used_ns)
            if (all_ or not self._is_shared(record, shared)) and self._passes(record, filters)
        ]
        gone = self._cache.remove(self._within(wanted, space))
        self._forget_digests()
        await self._remove_directories(gone)
        if all_ and not filters:
            await asyncio.to_thread(self._drop_contexts)
        self._images.collect()
        return [record.key for record in gone], sum(record.size_bytes for record in gone)

    async def limit(self, limit_bytes: int) -> None:
        """After a build: the longest unused results go until the cache fits."""
        if limit_bytes and self._used_bytes() > limit_bytes:
            await self.prune({}, all_=True, space=Space(reserved=limit_bytes))

    # --- which ----------------------------------------------------------------------------

    def _records(self) -> Iterable[CacheRecord]:
        return (record for record in self._cache.all() if record.kind in _TYPES)

    def _used_bytes(self) -> int:
        return sum(record.size_bytes for record in self._records())

    def _within(self, wanted: list[CacheRecord], space: Space) -> list[str]:
        """Keys of those to remove, oldest use first, as far as the wishes for space go."""
        used = self._used_bytes()
        free = shutil.disk_usage(self._workspace.root).free
        found: list[str] = []
        for record in wanted:
            if space.reserved and used <= space.reserved:
                break
            if space.max_used or space.min_free:
                fits = not space.max_used or used <= space.max_used
                if fits and (not space.min_free or free >= space.min_free):
                    break
            found.append(record.key)
            used -= record.size_bytes
            free += record.size_bytes
        return found

    def _shared(self) -> set[str]:
        """Chain ids of layers that images have."""
        return self._images.layers_of_images()

    def _is_shared(self, record: CacheRecord, shared: set[str]) -> bool:
        return bool(record.diff_ids) and chain_ids(record.diff_ids)[-1] in shared

    def _passes(self, record: CacheRecord, filters: Filters) -> bool:
        for text in filters.get("until") or filters.get("unused-for") or ():
            if record.used_ns > instant(text):
                return False
        tests = {
            "id": record.key.startswith,
            "parent": record.parent.startswith,
            "type": lambda text: _TYPES[record.kind] == text,
            "description": lambda text: text in record.name,
            "inuse": lambda text: self._cache.is_pinned(record.key) == (text != "false"),
        }
        for name, test in tests.items():
            if (texts := filters.get(name)) and not any(map(test, texts)):
                return False
        is_shared = self._is_shared(record, self._shared())
        if "shared" in filters and not is_shared:
            return False
        return not ("private" in filters and is_shared)

    # --- removing -------------------------------------------------------------------------

    def _forget_digests(self) -> None:
        """Facts about layers that are gone."""
        if not any(record.kind in LAYER_KINDS for record in self._cache.all()):
            self._cache.remove([r.key for r in self._cache.all() if r.kind in ("digest", "image")])

    async def _remove_directories(self, gone: Iterable[CacheRecord]) -> None:
        for record in gone:
            if record.kind == MOUNT:
                await asyncio.to_thread(remove_directory, self._mounts.path(record))

    def _drop_contexts(self) -> None:
        """Contexts that are kept for clients, but for those in use."""
        for path in (self._workspace.root / "contexts").iterdir():
            if path.name.startswith("kept-") and not self._is_busy(path.name):
                remove_directory(path)

    def _row(self, record: CacheRecord, shared: set[str]) -> dict[str, Any]:
        return {
            "ID": record.key[:25],
            "Parents": [record.parent] if record.parent else None,
            "Type": _TYPES[record.kind],
            "Description": record.name,
            "InUse": self._cache.is_pinned(record.key),
            "Shared": self._is_shared(record, shared),
            "Size": record.size_bytes,
            "CreatedAt": format_ns(record.created_ns),
            "LastUsedAt": format_ns(record.used_ns),
            "UsageCount": record.uses,
        }


def check_filters(filters: Filters) -> None:
    """Raises: InvalidParameter with Docker's text."""
    for name in filters:
        if name not in _FILTERS:
            raise InvalidParameter(f"invalid filter '{name}'")
    if len(filters.get("until", [])) > 1:
        raise InvalidParameter("filters expect only one value")
