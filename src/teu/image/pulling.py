"""`pull`: a reference becomes an image in the store."""

from collections.abc import Mapping
from typing import Any

from teu.errors import DataLoss, EngineError, NotFound, Unavailable
from teu.image.download import Downloader, fetch_small
from teu.image.inflight import InFlight, Listeners, together
from teu.image.layers import StagedLayer
from teu.image.platform import NoMatchingPlatform, best, choose, matches, parse_platform
from teu.image.progress import Progress, idle, status
from teu.image.stock import Stock
from teu.model.image import (
    Descriptor,
    Image,
    ImageConfig,
    InvalidImage,
    Manifest,
    Platform,
    artifact_type,
    chain_ids,
    parse_config,
    parse_manifest,
)
from teu.model.reference import Reference
from teu.model.registry import FetchedManifest
from teu.store.images import LayerRow

ALL_PLATFORMS = "all"
CONFIG_LIMIT_BYTES = 8 << 20
_ID = slice(7, 19)
_MAX_INDEX_DEPTH = 4
_UNKNOWN = "unknown"  # the platform of attestations
_ENCRYPTED = "+encrypted"


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
        """The image (of `ALL_PLATFORMS` the one for this machine), or the artifact.

        Raises: ManifestUnknown, PullDenied, RegistryUnreachable, InvalidImage, WrongDigest, ….
        Cancel: layers that no other pull wants stop; what was downloaded can be resumed.
        """
        pull = _Pull(self._stock, self._downloader, self._layers, name, auth, progress)
        return await pull.run(platform)

    async def pull_tags(
        self,
        repository: Reference,
        *,
        platform: str,
        auth: Mapping[str, Any] | None,
        progress: Progress,
    ) -> Image:
        """All tags of a repository; the last one's image. Tags that hold nothing for the platform,
        or nothing that can be stored, are told and passed over.

        Raises: what `pull` raises; InvalidImage when nothing is left.
        """
        image: Image | None = None
        for tag in await self._downloader.registry.tags(repository, auth):
            name = repository.with_tag(tag)
            try:
                image = await self.pull(name, platform=platform, auth=auth, progress=progress)
            except (InvalidImage, NoMatchingPlatform) as error:
                progress(status(f"Skipped: {error}", tag))
        if image is None:
            raise InvalidImage(f"repository {repository.familiar_name} has no tag to pull")
        return image


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

    async def run(self, platform: str) -> Image:
        name = self._name
        top = await self._downloader.registry.manifest(name, self._auth)
        self._progress(status(f"Pulling from {name.path}", name.digest or name.tag))
        before = self._stock.catalog.named(name)
        wanted = None if platform == ALL_PLATFORMS else parse_platform(platform)
        must_be = wanted if platform else None
        ways = await self._manifests(top, wanted)
        images = [await self._one(way, must_be) for way in ways]
        image = images[best([i.config.platform for i in images], parse_platform("")) or 0]
        self._progress(status(f"Digest: {top.digest}"))
        outcome = "Image is up to date" if before == image.id else "Downloaded newer image"
        self._progress(status(f"Status: {outcome} for {name.familiar}"))
        return image

    async def _manifests(
        self, top: FetchedManifest, platform: Platform | None
    ) -> list[list[FetchedManifest]]:
        """The ways from the top to each wanted manifest."""
        parsed = parse_manifest(top.data, top.media_type)
        if isinstance(parsed, Manifest):
            return [[top]]
        if platform is not None:
            chosen = [choose(parsed.manifests, platform, self._name.familiar)]
        else:
            chosen = [entry for entry in parsed.manifests if not _is_attestation(entry)]
        return [await self._way(top, entry, platform) for entry in chosen]

    async def _way(
        self, top: FetchedManifest, entry: Descriptor, platform: Platform | None
    ) -> list[FetchedManifest]:
        """Down to the manifest of an entry, which may be an index itself."""
        way = [top]
        while len(way) <= _MAX_INDEX_DEPTH:
            fetched = await self._downloader.registry.manifest(
                self._name.with_digest(entry.digest), self._auth
            )
            way.append(fetched)
            parsed = parse_manifest(fetched.data, fetched.media_type or entry.media_type)
            if isinstance(parsed, Manifest):
                return way
            entry = choose(parsed.manifests, platform or parse_platform(""), self._name.familiar)
        raise InvalidImage(
            f"{self._name.familiar}: indexes are nested deeper than {_MAX_INDEX_DEPTH}"
        )

    async def _one(self, way: list[FetchedManifest], must_be: Platform | None) -> Image:
        """One image or artifact, stored."""
        manifest = parse_manifest(way[-1].data, way[-1].media_type)
        assert isinstance(manifest, Manifest)
        if kind := artifact_type(manifest):
            return await self._artifact(manifest, way, kind)
        _check_readable(manifest, self._name)
        known = self._stock.catalog.find(manifest.config.digest)
        config, data = await self._config(manifest, known)
        if must_be is not None:
            self._check_platform(config.platform, must_be)
        chain = chain_ids(config.rootfs.diff_ids)
        with self._stock.keeping(chain):
            await self._fetch_layers(manifest, config.rootfs.diff_ids)
            return await self._stock.store(
                config,
                data,
                self._names(way[0].digest),
                manifests=[fetched.data for fetched in way],
                index_digest=way[0].digest if len(way) > 1 else "",
            )

    async def _artifact(self, manifest: Manifest, way: list[FetchedManifest], kind: str) -> Image:
        """Its blobs are kept as they come."""
        parts = {part.digest: part for part in [manifest.config, *manifest.layers]}
        self._progress(status(f"Pulling an artifact ({kind})", way[0].digest[_ID]))
        with self._stock.blobs.lease(list(parts)):
            await together(self._part(part) for part in parts.values())
            return await self._stock.store_artifact(
                way[-1].data, kind, self._names(way[0].digest), parts
            )

    async def _part(self, part: Descriptor) -> None:
        part_id = part.digest[_ID]
        if self._stock.blobs.has(part.digest):
            self._progress(idle("Already exists", part_id))
            return
        await self._downloader.blob(self._name, part, self._auth, self._progress, part_id)
        self._progress(idle("Pull complete", part_id))

    async def _config(self, manifest: Manifest, known: Image | None) -> tuple[ImageConfig, bytes]:
        descriptor = manifest.config
        try:
            data = self._stock.blobs.read(descriptor.digest) if known else b""
        except DataLoss:
            data = b""
        if not data:
            data = await fetch_small(
                self._downloader.registry, self._name, descriptor, self._auth, CONFIG_LIMIT_BYTES
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


def check_platform(platform: str) -> None:
    """Raises: InvalidParameter for what is no platform to pull."""
    if platform != ALL_PLATFORMS:
        parse_platform(platform)


def _is_attestation(entry: Descriptor) -> bool:
    return entry.platform is not None and entry.platform.os == _UNKNOWN


def _check_readable(manifest: Manifest, name: Reference) -> None:
    """Raises: InvalidImage."""
    for layer in manifest.layers:
        if layer.media_type.endswith(_ENCRYPTED):
            raise InvalidImage(
                f"{name.familiar}: layer {layer.digest} is encrypted ({layer.media_type}): decrypt "
                "the image where its key is, with skopeo, and push it to where it is needed"
            )
