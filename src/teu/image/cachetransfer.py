"""A builder's cached results in registries and directories.

One manifest: its config is a JSON document that only the builder reads (which key gives which
stack of layers), its layers are those of all stacks, each with its diff id as an annotation. A
common image can carry the same document in its own config (`INLINE_KEY`): then its layers are the
image's.

    registry   NAME, a repository of its own
    directory  an OCI layout; its layers are not compressed
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from teu.content.blobs import digest_of
from teu.errors import DataLoss, EngineError, InvalidParameter
from teu.image.download import Downloader, fetch_small
from teu.image.layers import StagedLayer
from teu.image.platform import choose, host_platform
from teu.image.progress import Progress
from teu.image.pushing import known_layers
from teu.image.stock import Stock
from teu.image.uploads import LayerUpload, SmallUpload
from teu.model.image import (
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    chain_ids,
    parse_config,
    parse_manifest,
)
from teu.model.reference import Reference
from teu.sys.beneath import open_in_root
from teu.sys.pack import END
from teu.sys.tarheader import DIRECTORY, Entry, build, padded

CACHE_CONFIG = "application/vnd.teu.cache.v1+json"
INLINE_KEY = "teu.cache"
_DIFF_ID = "teu.diff-id"
_LIMIT_BYTES = 64 << 20
_BLOBS = "blobs/sha256/"


class RemoteCache(Struct, kw_only=True):
    """A document and where its layers are. One of `name` and `directory` is set."""

    document: bytes
    layers: dict[str, Descriptor] = field(default_factory=dict)  # by diff id
    name: Reference | None = None
    auth: Mapping[str, Any] | None = None
    directory: Path | None = None


class CacheTransfer:
    """Loop's thread; file work happens in the store's threads."""

    def __init__(self, stock: Stock, downloader: Downloader) -> None:
        self._stock = stock
        self._downloader = downloader

    # --- out ------------------------------------------------------------------------------

    async def push(
        self,
        name: Reference,
        auth: Mapping[str, Any] | None,
        document: bytes,
        stacks: Iterable[Sequence[str]],
        progress: Progress,
    ) -> None:
        """Raises: Unauthorized, Forbidden, RegistryUnreachable, DataLoss, …."""
        target = await self._downloader.registry.target(name, auth)
        layers = []
        for diff_id, chain_id in _layers_of(stacks).items():
            row = self._stock.row(chain_id)
            descriptor = None
            for known, _ in known_layers(self._stock, diff_id, name.domain):
                if await target.has_blob(known.digest):
                    descriptor = known
            if descriptor is None:
                upload = LayerUpload(self._stock, row, progress)
                await target.blob(upload)
                descriptor = Descriptor(OCI_LAYER_GZIP, upload.digest, upload.sent_bytes)
            layers.append(msgspec.structs.replace(descriptor, annotations={_DIFF_ID: diff_id}))
        await target.blob(SmallUpload(document))
        data = _manifest(document, layers)
        await target.manifest(data, OCI_MANIFEST, name.tag or digest_of(data))

    def archive(self, document: bytes, stacks: list[list[str]]) -> AsyncIterator[bytes]:
        """An OCI layout as a tar. Raises: DataLoss."""
        return self._stock.from_thread(lambda: self._layout(document, stacks))

    def _layout(self, document: bytes, stacks: list[list[str]]) -> Iterator[bytes]:
        yield build(_directory("blobs/")) + build(_directory(_BLOBS))
        layers = []
        for diff_id, chain_id in _layers_of(stacks).items():
            row = self._stock.row(chain_id)
            size = self._stock.layers.archive_bytes(row)
            layers.append(Descriptor(OCI_LAYER, diff_id, size, annotations={_DIFF_ID: diff_id}))
            yield build(_file(_blob(diff_id), size))
            yield from self._stock.layers.archive(row)
            yield bytes(-size % 512)
        manifest = _manifest(document, layers)
        described = Descriptor(OCI_MANIFEST, digest_of(manifest), len(manifest))
        files = {
            _blob(digest_of(document)): document,
            _blob(described.digest): manifest,
            "index.json": msgspec.json.encode(Index(2, [described], OCI_INDEX)),
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        }
        for name, data in files.items():
            yield build(_file(name, len(data))) + padded(data)
        yield END

    # --- in -------------------------------------------------------------------------------

    async def from_registry(
        self, name: Reference, auth: Mapping[str, Any] | None
    ) -> RemoteCache | None:
        """None for an image that carries no document. Raises: what a pull raises."""
        registry = self._downloader.registry
        fetched = await registry.manifest(name, auth)
        manifest = parse_manifest(fetched.data, fetched.media_type)
        if isinstance(manifest, Index):
            chosen = choose(manifest.manifests, host_platform(), name.familiar)
            fetched = await registry.manifest(name.with_digest(chosen.digest), auth)
            manifest = parse_manifest(fetched.data, chosen.media_type)
        if not isinstance(manifest, Manifest):
            return None
        data = await fetch_small(registry, name, manifest.config, auth, _LIMIT_BYTES)
        found = _read(manifest, data)
        if found is not None:
            found.name, found.auth = name, auth
        return found

    async def from_directory(self, root: Path) -> RemoteCache | None:
        """An OCI layout that a client sent. Raises: InvalidParameter."""

        def read() -> RemoteCache | None:
            index = msgspec.json.decode(_content(root, "index.json"), type=Index)
            manifest = parse_manifest(_content(root, _blob(index.manifests[0].digest)))
            if not isinstance(manifest, Manifest):
                return None
            return _read(manifest, _content(root, _blob(manifest.config.digest)))

        try:
            found = await self._stock.in_thread(read)
        except (OSError, msgspec.DecodeError, IndexError, EngineError) as error:
            raise InvalidParameter(f"the cache directory cannot be read: {error}") from error
        if found is not None:
            found.directory = root
        return found

    async def obtain(self, remote: RemoteCache, diff_ids: list[str], progress: Progress) -> None:
        """Makes a stack of layers be there; the caller keeps its chain.

        Raises: what downloading raises; DataLoss for a layer that the cache does not have.
        """
        chain = chain_ids(diff_ids)
        for index, diff_id in enumerate(diff_ids):
            if self._stock.catalog.layer(chain[index]) is not None:
                continue
            layer = await self._staged(remote, diff_id, progress)
            if layer.diff_id != diff_id:
                await self._stock.discard(layer)
                raise DataLoss(f"layer {diff_id} of the imported cache holds something else")
            await self._stock.register(chain[: index + 1], layer)

    async def _staged(self, remote: RemoteCache, diff_id: str, progress: Progress) -> StagedLayer:
        if self._stock.catalog.layer_with(diff_id) is not None:
            return await self._stock.clone(diff_id)
        descriptor = remote.layers.get(diff_id)
        if descriptor is None:
            raise DataLoss(f"layer {diff_id} is not in the imported cache")
        if remote.name is not None:
            return await self._downloader.layer(
                remote.name, descriptor, remote.auth, progress, descriptor.digest[7:19]
            )
        root = remote.directory
        assert root is not None

        def stage() -> StagedLayer:
            fd = open_in_root(root, _blob(descriptor.digest), 0)
            with open(fd, "rb", buffering=0) as file:
                return self._stock.layers.stage(file)

        return await self._stock.in_thread_to_the_end(stage)


def _layers_of(stacks: Iterable[Sequence[str]]) -> dict[str, str]:
    """A chain id for each diff id."""
    found: dict[str, str] = {}
    for stack in stacks:
        for diff_id, chain_id in zip(stack, chain_ids(list(stack)), strict=True):
            found.setdefault(diff_id, chain_id)
    return found


def _manifest(document: bytes, layers: list[Descriptor]) -> bytes:
    config = Descriptor(CACHE_CONFIG, digest_of(document), len(document))
    return msgspec.json.encode(Manifest(2, config, layers, OCI_MANIFEST))


def _read(manifest: Manifest, data: bytes) -> RemoteCache | None:
    if manifest.config.media_type == CACHE_CONFIG:
        layers = {(layer.annotations or {}).get(_DIFF_ID, ""): layer for layer in manifest.layers}
        return RemoteCache(document=data, layers=layers)
    document = msgspec.json.decode(data).get(INLINE_KEY)
    if document is None:
        return None
    diff_ids = parse_config(data).rootfs.diff_ids
    layers = dict(zip(diff_ids, manifest.layers, strict=False))
    return RemoteCache(document=msgspec.json.encode(document), layers=layers)


def _content(root: Path, path: str) -> bytes:
    fd = open_in_root(root, path, 0)
    with open(fd, "rb") as file:
        return file.read(_LIMIT_BYTES)


def _blob(digest: str) -> str:
    return _BLOBS + digest.removeprefix("sha256:")


def _directory(name: str) -> Entry:
    entry = Entry(name.encode(), DIRECTORY)
    entry.mode = 0o755
    return entry


def _file(name: str, size_bytes: int) -> Entry:
    entry = Entry(name.encode())
    entry.mode, entry.size_bytes = 0o644, size_bytes
    return entry
