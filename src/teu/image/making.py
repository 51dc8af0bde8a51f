"""Images made here: `import` of a root file system, `commit` of a container's changes.

The new layer is unpacked from the very archive that names it, so it can be saved and pushed.
"""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from teu.clock import format_ns, now_ns
from teu.content.blobs import digest_of
from teu.errors import Unavailable
from teu.image.changes import apply_changes
from teu.image.inflight import finished
from teu.image.layers import Pieces, StagedLayer
from teu.image.loading import feed
from teu.image.platform import parse_platform
from teu.image.stock import Stock
from teu.model.config import ContainerConfig
from teu.model.image import (
    HistoryEntry,
    Image,
    Platform,
    chain_ids,
    parse_config,
)
from teu.model.reference import Reference
from teu.sys.bytepipe import ToThread
from teu.sys.codec import Source
from teu.sys.pack import END, pack_tree

EMPTY_DIFF_ID = digest_of(END)


# What a runtime makes in the upper directory to mount something there.
_MOUNTED_DIRECTORIES = frozenset((b"dev", b"proc", b"sys"))
_MOUNTED_FILES = frozenset((b"etc/hosts", b"etc/hostname", b"etc/resolv.conf", b".dockerenv"))


class Made(Struct, kw_only=True):
    """What a new image says of itself besides its layers."""

    config: ContainerConfig
    platform: Platform
    author: str = ""
    comment: str = ""
    created_by: str = ""
    container_id: str = ""
    container_config: ContainerConfig | None = None


class Maker:
    """See the module's text."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock

    async def import_image(
        self,
        stream: AsyncIterator[bytes],
        *,
        name: str,
        changes: Iterable[str],
        message: str,
        platform: str,
    ) -> Image:
        """One layer from a root file system's tar, compressed or not.

        Raises: InvalidReference, InvalidParameter (changes), InvalidArchive, SystemFailure.
        """
        names = _names(name)
        made = Made(
            config=apply_changes(ContainerConfig(), changes),
            platform=parse_platform(platform),
            comment=message,
        )
        layer = await self._stage_stream(stream)
        return await self._store(None, layer, made, names)

    async def commit(
        self,
        upper: Path,
        *,
        parent: Image | None,
        made: Made,
        name: str,
        changes: Iterable[str],
    ) -> Image:
        """The parent's layers and, unless nothing changed, one from an overlay's upper directory.

        Raises: InvalidReference, InvalidParameter (changes), SystemFailure.
        """
        names = _names(name)
        made = msgspec.structs.replace(made, config=apply_changes(made.config, changes))
        pieces = pack_tree(upper, whiteouts=True, skip=_is_mount_point)
        layer = await self._stage(Pieces(pieces))
        return await self._store(parent, layer, made, names)

    async def _stage_stream(self, stream: AsyncIterator[bytes]) -> StagedLayer:
        pipe = ToThread()
        feeding = asyncio.create_task(feed(stream, pipe), name="feed import")
        try:
            return await self._stage(pipe, pipe)
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    async def _stage(self, source: Source, pipe: ToThread | None = None) -> StagedLayer:
        def work() -> StagedLayer:
            try:
                return self._stock.layers.stage(source)
            finally:
                if pipe is not None:
                    pipe.abandon()

        staging = asyncio.ensure_future(self._stock.in_thread(work))
        try:
            return await asyncio.shield(staging)
        except asyncio.CancelledError:
            if pipe is not None:
                pipe.fail(Unavailable("the import was cancelled"))
            await finished(staging)
            if not staging.cancelled() and staging.exception() is None:
                await self._stock.discard(staging.result())
            raise

    async def _store(
        self, parent: Image | None, layer: StagedLayer, made: Made, names: list[Reference]
    ) -> Image:
        base = list(parent.config.rootfs.diff_ids) if parent else []
        is_empty = layer.diff_id == EMPTY_DIFF_ID
        diff_ids = base if is_empty else [*base, layer.diff_id]
        data = _config_json(parent, made, diff_ids, is_empty, self._parent_data(parent))
        chain = chain_ids(diff_ids)
        with self._stock.keeping(chain):
            if is_empty or self._stock.catalog.layer(chain[-1]) is not None:
                await self._stock.discard(layer)
            else:
                await self._stock.register(chain, layer)
            return await self._stock.store(
                parse_config(data), data, names, parent_id=parent.id if parent else ""
            )

    def _parent_data(self, parent: Image | None) -> bytes:
        return self._stock.blobs.read(parent.id) if parent else b"{}"


def _config_json(
    parent: Image | None, made: Made, diff_ids: Sequence[str], is_empty: bool, before: bytes
) -> bytes:
    """The config's bytes. History entries of the parent are taken over as they are."""
    created = format_ns(now_ns())
    entry = HistoryEntry(
        created=created,
        author=made.author,
        created_by=made.created_by,
        comment=made.comment,
        empty_layer=is_empty,
    )
    history = list(msgspec.json.decode(before).get("history") or [])
    document = {
        "architecture": made.platform.architecture,
        "config": portable(made.config),
        "created": created,
        "history": [*history, msgspec.to_builtins(entry)],
        "os": made.platform.os,
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }
    optional = {
        "author": made.author,
        "comment": made.comment,
        "container": made.container_id,
        "variant": made.platform.variant,
        "os.version": made.platform.os_version,
    }
    document.update({key: value for key, value in optional.items() if value})
    if made.container_config is not None:
        document["container_config"] = portable(made.container_config)
    return msgspec.json.encode(document)


def _is_mount_point(path: bytes, found: os.stat_result) -> bool:
    if path in _MOUNTED_DIRECTORIES:
        return stat.S_ISDIR(found.st_mode)
    return path in _MOUNTED_FILES and stat.S_ISREG(found.st_mode) and not found.st_size


def portable(config: ContainerConfig) -> dict[str, object]:
    """Without what says nothing."""
    shape = msgspec.to_builtins(config)
    return {key: value for key, value in shape.items() if value not in (None, "", False, [], {})}


def _names(name: str) -> list[Reference]:
    """Raises: InvalidReference."""
    if not name:
        return []
    reference = Reference.parse(name)
    return [reference.with_default_tag()]
