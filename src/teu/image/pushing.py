"""`push`: images go to a registry: their layers, configs and manifests, and the index above them.

A layer that the registry has already, under the digest it was pulled or pushed with before, is not
sent; one that another repository of the same registry has is mounted from there. Anything else is
made again from the store and compressed on its way. When all layers kept the digests of the
manifest that the image was pulled with, that very manifest is pushed; and when that holds for all
platforms of an index, that very index.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from teu.content.blobs import digest_of
from teu.errors import EngineError, NotFound
from teu.image.catalog import Catalog
from teu.image.download import Registry
from teu.image.inflight import together
from teu.image.platform import parse_platform
from teu.image.progress import Progress, idle, status
from teu.image.slots import Slots
from teu.image.stock import Stock
from teu.image.uploads import BlobUpload, LayerUpload, SmallUpload
from teu.image.variants import variant_of
from teu.model.image import (
    DOCKER_CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    Image,
    Index,
    Manifest,
    parse_manifest,
)
from teu.model.reference import Reference
from teu.model.registry import Target
from teu.store.images import LayerRow

_ID = slice(7, 19)
_OCI = "application/vnd.oci."


class NotHere(NotFound):
    """Docker's text for a push of what is not in the store."""

    def __init__(self, name: Reference) -> None:
        text = (
            f"tag does not exist: {name.familiar}"
            if name.tag
            else f"An image does not exist locally with the tag: {name.familiar_name}"
        )
        super().__init__(text)


class _Pushed(Struct):
    """A manifest whose content the registry has."""

    image: Image
    data: bytes
    media_type: str

    @property
    def descriptor(self) -> Descriptor:
        platform = None if self.image.record.artifact_type else self.image.config.platform
        return Descriptor(self.media_type, digest_of(self.data), len(self.data), platform=platform)


class Pusher:
    """All pushes of the daemon: they share one limit. Loop's thread."""

    def __init__(self, stock: Stock, registry: Registry) -> None:
        self._stock = stock
        self._registry = registry
        self._slots = Slots(lambda: registry.max_concurrent_uploads)

    async def push(
        self,
        name: Reference,
        auth: Mapping[str, Any] | None,
        progress: Progress,
        platform: str = "",
    ) -> None:
        """A reference with a tag; without one, all tags of the repository. Of an image in several
        platforms all that are here, or the one asked for.

        Raises: NotHere, NoSuchVariant, Unauthorized, Forbidden, RegistryUnreachable, DataLoss, ….
        """
        catalog = self._stock.catalog
        if name.tag:
            if catalog.named(name) is None:
                raise NotHere(name)
            tags = [name]
        else:
            tags = [tag for _, tag in catalog.tags() if tag.name == name.name]
            if not tags:
                raise NotHere(name)
        wanted = [(_variants(catalog, tag, platform), tag) for tag in tags]
        progress(status(f"The push refers to repository [{name.name}]"))
        target = await self._registry.target(name, auth)
        for images, tag in wanted:
            chain = [chain_id for image in images for chain_id in image.chain_ids]
            blobs = [digest for image in images for digest in catalog.blobs_of(image.id)]
            with self._stock.keeping(chain), self._stock.blobs.lease(blobs):
                await _Push(self._stock, target, self._slots, images, tag, progress).run()


def _variants(catalog: Catalog, tag: Reference, platform: str) -> list[Image]:
    variants = catalog.variants(str(tag))
    if not platform:
        return variants
    return [variant_of(variants, parse_platform(platform), tag.familiar)]


class _Push:
    def __init__(
        self,
        stock: Stock,
        target: Target,
        slots: Slots,
        images: list[Image],
        name: Reference,
        progress: Progress,
    ) -> None:
        self._stock = stock
        self._target = target
        self._slots = slots
        self._images = images
        self._name = name
        self._progress = progress

    async def run(self) -> None:
        for image in self._images:
            for diff_id in reversed(image.config.rootfs.diff_ids):
                self._progress(idle("Preparing", diff_id[_ID]))
        pushed = [await self._content(image) for image in self._images]
        if len(pushed) == 1:
            data, media_type = pushed[0].data, pushed[0].media_type
        else:
            for one in pushed:
                await self._target.manifest(one.data, one.media_type, digest_of(one.data))
            data, media_type = self._index(pushed)
        await self._target.manifest(data, media_type, self._name.tag)
        digest = digest_of(data)
        for one in pushed:
            await self._remember(one, data, digest)
        self._progress(status(f"{self._name.tag}: digest: {digest} size: {len(data)}"))
        aux = {"Tag": self._name.tag, "Digest": digest, "Size": len(data)}
        self._progress({"progressDetail": {}, "aux": aux})

    async def _content(self, image: Image) -> _Pushed:
        """The image's manifest, once the registry has all that it names."""
        if image.record.artifact_type:
            return await self._artifact(image)
        layers = await self._layers(image)
        config = await self._config(image)
        return _Pushed(image, *self._manifest(image, config, layers))

    async def _artifact(self, image: Image) -> _Pushed:
        data = self._stock.blobs.read(image.id)
        manifest = parse_manifest(data)
        assert isinstance(manifest, Manifest)
        digests = dict.fromkeys(part.digest for part in [manifest.config, *manifest.layers])
        await together(self._blob(digest) for digest in digests)
        return _Pushed(image, data, manifest.media_type or OCI_MANIFEST)

    async def _blob(self, digest: str) -> None:
        async with self._slots:
            if await self._target.has_blob(digest):
                self._progress(idle("Layer already exists", digest[_ID]))
                return
            await self._target.blob(BlobUpload(self._stock, digest, self._progress))
        self._progress(idle("Pushed", digest[_ID]))

    async def _layers(self, image: Image) -> list[Descriptor]:
        """The layers' descriptors, base first; a layer that comes twice is sent once."""
        rows = self._rows(image)
        unique = {row.diff_id: row for row in rows}
        found = await together(self._layer(row) for row in unique.values())
        by_diff_id = dict(zip(unique, found, strict=True))
        return [by_diff_id[row.diff_id] for row in rows]

    def _rows(self, image: Image) -> list[LayerRow]:
        directories = self._stock.catalog.directories(image.chain_ids)
        assert len(directories) == len(image.chain_ids)  # raises when one is missing
        layers = self._stock.catalog.layers()
        return [layers[chain_id] for chain_id in image.chain_ids]

    async def _layer(self, row: LayerRow) -> Descriptor:
        layer_id = row.diff_id[_ID]
        if self._slots.locked():
            self._progress(idle("Waiting", layer_id))
        async with self._slots:
            for known, repository in known_layers(self._stock, row.diff_id, self._name.domain):
                if await self._target.has_blob(known.digest):
                    self._progress(idle("Layer already exists", layer_id))
                    return known
                elsewhere = repository and repository != self._name.path
                if elsewhere and await self._target.mount(known.digest, repository):
                    self._progress(idle(f"Mounted from {repository}", layer_id))
                    return known
            upload = LayerUpload(self._stock, row, self._progress)
            await self._target.blob(upload)
        self._progress(idle("Pushed", layer_id))
        return Descriptor(DOCKER_LAYER_GZIP, upload.digest, upload.sent_bytes)

    async def _config(self, image: Image) -> Descriptor:
        data = self._stock.blobs.read(image.id)
        if not await self._target.has_blob(image.id):
            await self._target.blob(SmallUpload(data))
        return Descriptor(DOCKER_CONFIG, image.id, len(data))

    def _manifest(
        self, image: Image, config: Descriptor, layers: list[Descriptor]
    ) -> tuple[bytes, str]:
        digests = [layer.digest for layer in layers]
        annotations = image.record.annotations
        for data, manifest in manifests_of(self._stock, image):
            same = [layer.digest for layer in manifest.layers] == digests
            same = same and (manifest.annotations or {}) == (
                annotations or manifest.annotations or {}
            )
            if same and manifest.config.digest == config.digest:
                return data, manifest.media_type or DOCKER_MANIFEST
        made = _new_manifest(config, layers, annotations)
        return msgspec.json.encode(made), made.media_type

    def _index(self, pushed: list[_Pushed]) -> tuple[bytes, str]:
        """The index that the images came with, if it names nothing else; else a new one."""
        descriptors = [one.descriptor for one in pushed]
        origin = self._stock.catalog.index_of(str(self._name))
        data = self._stock.blobs.read(origin) if origin else b""
        index = parse_manifest(data) if data else None
        if isinstance(index, Index):
            named = {entry.digest for entry in index.manifests}
            if named == {descriptor.digest for descriptor in descriptors}:
                return data, index.media_type or OCI_INDEX
        is_oci = any(one.media_type == OCI_MANIFEST for one in pushed)
        media_type = OCI_INDEX if is_oci else DOCKER_LIST
        return msgspec.json.encode(Index(2, descriptors, media_type)), media_type

    async def _remember(self, pushed: _Pushed, top: bytes, digest: str) -> None:
        """Its digest is a name of the image from now on."""
        names = [self._name.with_digest(digest)]
        image = pushed.image
        if image.record.artifact_type:
            blobs = self._stock.catalog.blobs_of(image.id)
            await self._stock.store_artifact(
                pushed.data, image.record.artifact_type, names, set(blobs) - {image.id}
            )
            return
        alone = top == pushed.data
        await self._stock.store(
            image.config,
            self._stock.blobs.read(image.id),
            names,
            manifests=[pushed.data] if alone else [top, pushed.data],
            index_digest="" if alone else digest,
            parent_id=image.record.parent_id,
        )


def _new_manifest(
    config: Descriptor, layers: list[Descriptor], annotations: dict[str, str]
) -> Manifest:
    """Docker's, unless there is something that only OCI's may hold."""
    is_oci = bool(annotations) or any(layer.media_type.startswith(_OCI) for layer in layers)
    kinds = {DOCKER_LAYER_GZIP: OCI_LAYER_GZIP} if is_oci else {}
    plain = [
        Descriptor(
            kinds.get(layer.media_type, layer.media_type), layer.digest, layer.size, layer.urls
        )
        for layer in layers
    ]
    if is_oci:
        config = Descriptor(OCI_CONFIG, config.digest, config.size)
    media_type = OCI_MANIFEST if is_oci else DOCKER_MANIFEST
    return Manifest(2, config, plain, media_type, annotations or None)


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
