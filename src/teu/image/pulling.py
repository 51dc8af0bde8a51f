"""`pull`: a reference becomes an image in the store."""

from collections.abc import Mapping
from typing import Any

from teu.errors import DataLoss, EngineError, NotFound, Unavailable
from teu.image.download import Downloader
from teu.image.inflight import InFlight, Listeners, together
from teu.image.layers import StagedLayer
from teu.image.platform import choose, matches, parse_platform
from teu.image.progress import Progress, idle, status
from teu.image.stock import Stock
from teu.model.image import (
    CONFIG_TYPES,
    UNTYPED_CONFIGS,
    Descriptor,
    Image,
    ImageConfig,
    Index,
    InvalidImage,
    Manifest,
    Platform,
    chain_ids,
    parse_config,
    parse_manifest,
)
from teu.model.reference import Reference
from teu.model.registry import FetchedManifest
from teu.store.images import LayerRow

_CONFIG_LIMIT_BYTES = 8 << 20
_ID = slice(7, 19)


class Puller:
    """All pulls of the daemon; those that want the same layer at the same time share it."""

    def __init__(self, stock: Stock, downloader: Downloader) -> None:
        self._stock = stock
        self._downloader = downloader
        self._layers: InFlight[LayerRow] = InFlight()

    async def pull(
        self,
        name: Reference,
        *,
        platform: str,
        auth: Mapping[str, Any] | None,
        progress: Progress,
    ) -> Image:
        """Raises: ManifestUnknown, PullDenied, RegistryUnreachable, InvalidImage, WrongDigest, ….

        Cancel: layers that no other pull wants stop; what was downloaded can be resumed.
        """
        pull = _Pull(self._stock, self._downloader, self._layers, name, auth, progress)
        return await pull.run(platform)


class _Pull:
    def __init__(
        self,
        stock: Stock,
        downloader: Downloader,
        layers: InFlight[LayerRow],
        name: Reference,
        auth: Mapping[str, Any] | None,
        progress: Progress,
    ) -> None:
        self._stock = stock
        self._downloader = downloader
        self._layers = layers
        self._name = name
        self._auth = auth
        self._progress = progress
        self._manifests: list[bytes] = []

    async def run(self, platform: str) -> Image:
        name = self._name
        top = await self._downloader.registry.manifest(name, self._auth)
        self._progress(status(f"Pulling from {name.path}", name.digest or name.tag))
        manifest = await self._manifest_for(top, parse_platform(platform))
        known = self._stock.catalog.find(manifest.config.digest)
        before = self._stock.catalog.named(name)
        config, data = await self._config(manifest, known)
        if platform:
            self._check_platform(config.platform, parse_platform(platform))
        chain = chain_ids(config.rootfs.diff_ids)
        with self._stock.keeping(chain):
            await self._fetch_layers(manifest, config.rootfs.diff_ids)
            image = await self._stock.store(
                config,
                data,
                self._names(top.digest),
                manifests=self._manifests,
                index_digest=top.digest if len(self._manifests) > 1 else "",
            )
        self._progress(status(f"Digest: {top.digest}"))
        outcome = "Image is up to date" if before == image.id else "Downloaded newer image"
        self._progress(status(f"Status: {outcome} for {name.familiar}"))
        return image

    async def _manifest_for(self, top: FetchedManifest, platform: Platform) -> Manifest:
        self._manifests = [top.data]
        manifest = parse_manifest(top.data, top.media_type)
        if isinstance(manifest, Index):
            chosen = choose(manifest.manifests, platform, self._name.familiar)
            fetched = await self._downloader.registry.manifest(
                self._name.with_digest(chosen.digest), self._auth
            )
            self._manifests.append(fetched.data)
            manifest = parse_manifest(fetched.data, chosen.media_type)
        if not isinstance(manifest, Manifest):
            raise InvalidImage(f"{self._name.familiar}: an index in an index is not supported")
        return manifest

    async def _config(self, manifest: Manifest, known: Image | None) -> tuple[ImageConfig, bytes]:
        descriptor = manifest.config
        if descriptor.media_type not in CONFIG_TYPES + UNTYPED_CONFIGS:
            raise InvalidImage(
                f"{self._name.familiar} is not a container image: its manifest holds "
                f'"{descriptor.media_type}", which cannot be run'
            )
        try:
            data = self._stock.blobs.read(descriptor.digest) if known else b""
        except DataLoss:
            data = b""
        if not data:
            data = await self._downloader.small_blob(
                self._name, descriptor, self._auth, _CONFIG_LIMIT_BYTES
            )
        config = parse_config(data)
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise InvalidImage(
                f"{self._name.familiar}: the manifest has {len(manifest.layers)} layers, the "
                f"image's config {len(config.rootfs.diff_ids)}"
            )
        if config.os not in ("", "linux"):
            raise InvalidImage(
                f'image operating system "{config.os}" cannot be used on this platform'
            )
        return config, data

    def _check_platform(self, have: Platform, want: Platform) -> None:
        if not matches(want, have):
            raise NotFound(
                f"image with reference {self._name.familiar} was found but its platform ({have}) "
                f"does not match the specified platform ({want})"
            )

    def _names(self, digest: str) -> list[Reference]:
        names = [self._name.with_digest(digest)]
        if not self._name.digest:
            names.append(self._name)
        return names

    # --- one layer ----------------------------------------------------------------------

    async def _fetch_layers(self, manifest: Manifest, diff_ids: list[str]) -> None:
        try:
            await together(self._layer(manifest, diff_ids, i) for i in range(len(diff_ids)))
        except Unavailable:
            raise  # the parts can be resumed
        except EngineError:
            for layer in manifest.layers:
                self._stock.blobs.part(layer.digest).unlink(missing_ok=True)
            raise

    async def _layer(self, manifest: Manifest, diff_ids: list[str], index: int) -> LayerRow:
        """The layer's row, once it and all below it are registered."""
        layer_id = manifest.layers[index].digest[_ID]
        row = self._stock.catalog.layer(chain_ids(diff_ids[: index + 1])[-1])
        if row is not None:
            self._progress(idle("Already exists", layer_id))
            return row
        self._progress(idle("Pulling fs layer", layer_id))
        row = await self._shared(manifest, diff_ids, index, self._progress)
        self._progress(idle("Pull complete", layer_id))
        return row

    async def _shared(
        self, manifest: Manifest, diff_ids: list[str], index: int, listener: Progress
    ) -> LayerRow:
        return await self._layers.join(
            chain_ids(diff_ids[: index + 1])[-1],
            lambda told: self._obtain(manifest, diff_ids, index, told),
            listener,
        )

    async def _obtain(
        self, manifest: Manifest, diff_ids: list[str], index: int, told: Listeners
    ) -> LayerRow:
        """Stands alone: another pull may go on waiting for it when this one is cancelled."""
        chain = chain_ids(diff_ids[: index + 1])
        layer = await self._staged(manifest.layers[index], diff_ids[index], told)
        try:
            if index and self._stock.catalog.layer(chain[-2]) is None:
                await self._shared(manifest, diff_ids, index - 1, _unheard)
        except BaseException:
            await self._stock.discard(layer)
            raise
        return await self._stock.register(chain, layer)

    async def _staged(self, descriptor: Descriptor, diff_id: str, told: Listeners) -> StagedLayer:
        if self._stock.catalog.layer_with(diff_id) is not None:
            return await self._stock.clone(diff_id)
        layer = await self._downloader.layer(
            self._name, descriptor, self._auth, told, descriptor.digest[_ID]
        )
        if layer.diff_id != diff_id:
            await self._stock.discard(layer)
            raise InvalidImage(
                f"layer {descriptor.digest} unpacks to {layer.diff_id}, but the image's config "
                f"says {diff_id}: the image is damaged at its source"
            )
        return layer


def _unheard(message: dict[str, Any]) -> None:
    """Progress that somebody else already shows."""
