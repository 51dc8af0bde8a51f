"""Cached results from elsewhere, and to elsewhere: `--cache-from` and `--cache-to`.

The document in a cache (image/cachetransfer.py) is a list of records: key, kind, name, the stack of
layers, and when it was made. Keys are digests of contents, so they mean the same on every machine.
Layers are fetched when a step needs them, not before.
"""

import logging
from collections.abc import Iterable
from contextlib import ExitStack

import msgspec
from msgspec import Struct

from teu.build.cache import BuildCache
from teu.build.request import BuildRequest, Inputs
from teu.build.sources import auth_for
from teu.clock import now_ns
from teu.errors import EngineError, InvalidParameter
from teu.image.cachetransfer import RemoteCache
from teu.image.progress import Progress
from teu.image.service import ImageService
from teu.model.build import CacheRecord
from teu.model.image import chain_ids
from teu.model.reference import Reference

LOCAL_CONTEXT = "cache-from-"  # named contexts of a session that are directories of caches
log = logging.getLogger(__name__)


class _Row(Struct):
    key: str
    kind: str
    name: str
    diff_ids: list[str]
    value: str
    created_ns: int


class CacheSpec(Struct, frozen=True):
    """One `--cache-from` or `--cache-to`. `place`: a reference, or a directory's name."""

    type: str
    place: str = ""


def cache_spec(text: str) -> CacheSpec:
    """`NAME`, or `type=registry,ref=NAME`, `type=local,src=DIR`, `type=local,dest=DIR`,
    `type=inline`. Raises: InvalidParameter."""
    if "=" not in text:
        return CacheSpec("registry", text)
    words = dict(word.partition("=")[::2] for word in text.split(","))
    kind = words.get("type", "")
    place = words.get("ref") or words.get("src") or words.get("dest") or ""
    if kind not in ("registry", "local", "inline"):
        raise InvalidParameter(f"unknown cache type {kind!r}: registry, local or inline")
    if kind != "inline" and not place:
        raise InvalidParameter(f"cache type {kind} needs {'ref' if kind == 'registry' else 'src'}")
    return CacheSpec(kind, place)


def document_of(records: Iterable[CacheRecord]) -> bytes:
    """What a cache says of these records."""
    rows = [
        _Row(r.key, r.kind, r.name, r.diff_ids, r.value, r.created_ns)
        for r in sorted(records, key=lambda record: record.key)
        if r.kind != "mount"
    ]
    return msgspec.json.encode(rows)


class RemoteCaches:
    """What one build imports. A cache that cannot be read is told and left out."""

    def __init__(self, images: ImageService, cache: BuildCache, progress: Progress) -> None:
        self._images = images
        self._cache = cache
        self._progress = progress
        self._found: dict[str, tuple[_Row, RemoteCache]] = {}

    async def open(self, request: BuildRequest, inputs: Inputs) -> None:
        """Raises: InvalidParameter for a specification that makes no sense."""
        specs = [cache_spec(text) for text in request.cache_from]
        for number, spec in enumerate(specs):
            try:
                remote = await self._open(spec, number, request, inputs)
                rows = msgspec.json.decode(remote.document, type=list[_Row]) if remote else []
            except (EngineError, msgspec.DecodeError) as error:
                self._progress({"status": f"importing cache {spec.place} failed: {error}"})
                continue
            for row in rows:
                if remote is not None:
                    self._found.setdefault(row.key, (row, remote))

    async def _open(
        self, spec: CacheSpec, number: int, request: BuildRequest, inputs: Inputs
    ) -> RemoteCache | None:
        transfer = self._images.caches
        if spec.type == "local":
            root = inputs.named.get(f"{LOCAL_CONTEXT}{number}")
            return await transfer.from_directory(root) if root is not None else None
        name = Reference.parse(spec.place).with_default_tag()
        return await transfer.from_registry(name, auth_for(request.auths, name))

    async def find(self, key: str, kept: ExitStack) -> CacheRecord | None:
        """The record of a key, its layers fetched; it is in the cache then. A cache that does not
        keep its promise is told and left out."""
        found = self._found.pop(key, None)
        if found is None:
            return None
        row, remote = found
        kept.enter_context(self._images.keeping(chain_ids(row.diff_ids)))
        try:
            await self._images.caches.obtain(remote, row.diff_ids, self._progress)
        except EngineError as error:
            self._progress({"status": f"a cached layer cannot be fetched: {error.message}"})
            return None
        record = CacheRecord(
            key=key, kind=row.kind, name=row.name, diff_ids=row.diff_ids, value=row.value,
            created_ns=row.created_ns, used_ns=now_ns(),
            size_bytes=self._images.workshop.size_bytes(row.diff_ids),
        )  # fmt: skip
        self._cache.add(record)
        return record
