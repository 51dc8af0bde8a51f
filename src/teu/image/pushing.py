"""`push`: an image's layers, config and manifest go to a registry.

A layer that the registry has already, under the digest it was pulled or pushed with before, is not
sent; one that another repository of the same registry has is mounted from there. Anything else is
made again from the store and compressed on its way. When all layers kept the digests of the
manifest that the image was pulled with, that very manifest is pushed.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any

import msgspec
from isal import isal_zlib

from teu.content.blobs import digest_of
from teu.errors import EngineError, NotFound
from teu.image.catalog import Catalog
from teu.image.download import Registry
from teu.image.inflight import together
from teu.image.progress import Progress, Throttled, idle, status
from teu.image.stock import Stock
from teu.model.image import (
    DOCKER_CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    Image,
    Manifest,
    parse_manifest,
)
from teu.model.reference import Reference
from teu.model.registry import Target
from teu.store.images import LayerRow
from teu.sys.bytepipe import FromThread

_GZIP_LEVEL = 1
_GZIP_WINDOW = 31
_BATCH_BYTES = 1 << 20
_ID = slice(7, 19)


class NotHere(NotFound):
    """Docker's text for a push of what is not in the store."""

    def __init__(self, name: Reference) -> None:
        text = (
            f"tag does not exist: {name.familiar}"
            if name.tag
            else f"An image does not exist locally with the tag: {name.familiar_name}"
        )
        super().__init__(text)


class Pusher:
    """All pushes of the daemon: they share one limit. Loop's thread."""

    def __init__(self, stock: Stock, registry: Registry) -> None:
        self._stock = stock
        self._registry = registry
        self._slots = asyncio.Semaphore(registry.max_concurrent_uploads)

    async def push(
        self, name: Reference, auth: Mapping[str, Any] | None, progress: Progress
    ) -> None:
        """A reference with a tag; without one, all tags of the repository.

        Raises: NotHere, Unauthorized, Forbidden, RegistryUnreachable, DataLoss, ….
        """
        catalog = self._stock.catalog
        if name.tag:
            image_id = catalog.named(name)
            if image_id is None:
                raise NotHere(name)
            wanted = [(catalog.get(image_id), name)]
        else:
            wanted = [(image, tag) for image, tag in catalog.tags() if tag.name == name.name]
            if not wanted:
                raise NotHere(name)
        progress(status(f"The push refers to repository [{name.name}]"))
        target = await self._registry.target(name, auth)
        for image, tag in wanted:
            with self._stock.keeping(image.chain_ids), self._stock.blobs.lease([image.id]):
                await _Push(self._stock, target, self._slots, image, tag, progress).run()


class _Push:
    def __init__(
        self,
        stock: Stock,
        target: Target,
        slots: asyncio.Semaphore,
        image: Image,
        name: Reference,
        progress: Progress,
    ) -> None:
        self._stock = stock
        self._target = target
        self._slots = slots
        self._image = image
        self._name = name
        self._progress = progress

    async def run(self) -> None:
        for diff_id in reversed(self._image.config.rootfs.diff_ids):
            self._progress(idle("Preparing", diff_id[_ID]))
        layers = await self._layers()
        config = await self._config()
        data, media_type = self._manifest(config, layers)
        await self._target.manifest(data, media_type, self._name.tag)
        digest = digest_of(data)
        await self._remember(data, digest)
        self._progress(status(f"{self._name.tag}: digest: {digest} size: {len(data)}"))
        aux = {"Tag": self._name.tag, "Digest": digest, "Size": len(data)}
        self._progress({"progressDetail": {}, "aux": aux})

    async def _layers(self) -> list[Descriptor]:
        """The layers' descriptors, base first; a layer that comes twice is sent once."""
        rows = self._rows()
        unique = {row.diff_id: row for row in rows}
        found = await together(self._layer(row) for row in unique.values())
        by_diff_id = dict(zip(unique, found, strict=True))
        return [by_diff_id[row.diff_id] for row in rows]

    def _rows(self) -> list[LayerRow]:
        directories = self._stock.catalog.directories(self._image.chain_ids)
        assert len(directories) == len(self._image.chain_ids)  # raises when one is missing
        layers = self._stock.catalog.layers()
        return [layers[chain_id] for chain_id in self._image.chain_ids]

    async def _layer(self, row: LayerRow) -> Descriptor:
        layer_id = row.diff_id[_ID]
        if self._slots.locked():
            self._progress(idle("Waiting", layer_id))
        async with self._slots:
            for known, repository in known_layers(self._stock, row.diff_id, self._name.domain):
                if await self._target.has_blob(known.digest):
                    self._progress(idle("Layer already exists", layer_id))
                    return known
                if repository and await self._target.mount(known.digest, repository):
                    self._progress(idle(f"Mounted from {repository}", layer_id))
                    return known
            upload = LayerUpload(self._stock, row, self._progress)
            await self._target.blob(upload)
        self._progress(idle("Pushed", layer_id))
        return Descriptor(DOCKER_LAYER_GZIP, upload.digest, upload.size_bytes)

    async def _config(self) -> Descriptor:
        data = self._stock.blobs.read(self._image.id)
        if not await self._target.has_blob(self._image.id):
            await self._target.blob(SmallUpload(data))
        return Descriptor(DOCKER_CONFIG, self._image.id, len(data))

    def _manifest(self, config: Descriptor, layers: list[Descriptor]) -> tuple[bytes, str]:
        digests = [layer.digest for layer in layers]
        annotations = self._image.record.annotations
        for data, manifest in manifests_of(self._stock, self._image):
            same = [layer.digest for layer in manifest.layers] == digests
            same = same and (manifest.annotations or {}) == (
                annotations or manifest.annotations or {}
            )
            if same and manifest.config.digest == config.digest:
                return data, manifest.media_type or DOCKER_MANIFEST
        plain = [Descriptor(layer.media_type, layer.digest, layer.size) for layer in layers]
        if annotations:  # only OCI's manifest has them
            config = Descriptor(OCI_CONFIG, config.digest, config.size)
            plain = [Descriptor(OCI_LAYER_GZIP, layer.digest, layer.size) for layer in plain]
            annotated = Manifest(2, config, plain, OCI_MANIFEST, annotations)
            return msgspec.json.encode(annotated), OCI_MANIFEST
        made = Manifest(2, config, plain, DOCKER_MANIFEST)
        return msgspec.json.encode(made), DOCKER_MANIFEST

    async def _remember(self, data: bytes, digest: str) -> None:
        await self._stock.store(
            self._image.config,
            self._stock.blobs.read(self._image.id),
            [self._name.with_digest(digest)],
            manifests=[data],
            parent_id=self._image.record.parent_id,
        )


class SmallUpload:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.digest = digest_of(data)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        yield self._data


class LayerUpload:
    """A layer, made again from its tree and compressed; its digest is known at the end."""

    def __init__(self, stock: Stock, row: LayerRow, progress: Progress) -> None:
        self._stock = stock
        self._row = row
        self._progress = progress
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        self._hash, self.size_bytes = hashlib.sha256(), 0
        told = Throttled(self._progress, "Pushing", self._row.diff_id[_ID], self._row.size_bytes)
        with FromThread() as pipe:
            working = self._stock.start(pipe.drain_from, self._compressed)
            try:
                async for piece in pipe:
                    self.size_bytes += len(piece)
                    told(self.size_bytes)
                    yield piece
            finally:
                pipe.close()
                await working

    def _compressed(self) -> Iterator[bytes]:
        compressor = isal_zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_WINDOW)
        batch = b""
        for piece in self._stock.layers.archive(self._row):
            batch += compressor.compress(piece)
            if len(batch) >= _BATCH_BYTES:
                self._hash.update(batch)
                yield batch
                batch = b""
        batch += compressor.flush()
        self._hash.update(batch)
        yield batch


def manifests_of(stock: Stock, image: Image) -> list[tuple[bytes, Manifest]]:
    """The manifests that are kept with an image (not its indexes)."""
    found = []
    for digest in stock.catalog.blobs_of(image.id):
        if digest == image.id:
            continue
        try:
            data = stock.blobs.read(digest)
            manifest = parse_manifest(data)
        except EngineError:
            continue  # damaged: it only saves work
        if isinstance(manifest, Manifest):
            found.append((data, manifest))
    return found


def known_layers(stock: Stock, diff_id: str, domain: str) -> list[tuple[Descriptor, str]]:
    """Under which digests a layer is known, and a repository of this registry that had it (or an
    empty string)."""
    found: dict[str, tuple[Descriptor, str]] = {}
    for image in stock.catalog.all():
        diff_ids = image.config.rootfs.diff_ids
        if diff_id not in diff_ids:
            continue
        repository = _repository(stock.catalog, image, domain)
        for _, manifest in manifests_of(stock, image):
            if len(manifest.layers) == len(diff_ids):
                layer = manifest.layers[diff_ids.index(diff_id)]
                if repository or layer.digest not in found:
                    found[layer.digest] = layer, repository
    return list(found.values())


def _repository(catalog: Catalog, image: Image, domain: str) -> str:
    for name in map(Reference.parse, catalog.names_of(image.id)):
        if name.digest and name.domain == domain:
            return name.path
    return ""
