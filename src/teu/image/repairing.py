"""`system check --repair`: what is missing or damaged is fetched again, piece by piece, from the
registry that its image came from; or copied from an equal layer.

Each repair is whole or did not happen: a blob is replaced by rename, a layer by a new directory
whose row takes the old one's place. The old directory goes afterwards, so a layer that a running
container is mounted on is left alone until the container stops.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from teu.content.blobs import WrongDigest, check_digest
from teu.errors import Conflict, DataLoss, EngineError, NotFound
from teu.ids import short
from teu.image.checking import BLOB, LAYER, NAME, Problem
from teu.image.download import Downloader, fetch_small
from teu.image.layers import StagedLayer
from teu.image.progress import Progress
from teu.image.stock import Stock
from teu.model.image import Descriptor, ImageRecord, Manifest, parse_manifest
from teu.model.reference import DEFAULT_DOMAIN, Reference
from teu.sys.atomicfile import write_fully

_CONFIG_LIMIT_BYTES = 8 << 20
_ID = slice(7, 19)
_HUB = "https://index.docker.io/v1/"  # how clients call Docker Hub in their logins
Mounted = Callable[[], Mapping[str, str]]
Logins = Mapping[str, Mapping[str, Any]]


class NoSource(NotFound):
    """Nothing to repair from."""

    def __init__(self, why: str) -> None:
        super().__init__(f"cannot be fetched again: {why}; load or build it again, or remove it")


class Repairer:
    """Use once per check. `mounted` tells chain ids below running containers, and one's id each.
    `logins`: by registry, in the API's shape."""

    def __init__(
        self, stock: Stock, downloader: Downloader, mounted: Mounted, logins: Logins
    ) -> None:
        self._stock = stock
        self._catalog = stock.catalog
        self._downloader = downloader
        self._mounted = mounted
        self._logins = logins

    def _login(self, name: Reference) -> Mapping[str, Any] | None:
        key = _HUB if name.domain == DEFAULT_DOMAIN else name.domain
        return self._logins.get(key) or self._logins.get(name.domain)

    async def repair(self, problem: Problem, progress: Progress) -> None:
        """Sets the problem's outcome."""
        try:
            if problem.kind == NAME:
                self._catalog.untag([problem.id])
                problem.outcome = "the name was removed"
            elif problem.kind == BLOB:
                problem.outcome = await self._blob(problem.id)
            elif problem.kind == LAYER:
                problem.outcome = await self._layer(problem.id, progress)
            else:
                problem.outcome = "cannot be repaired: remove the image, pull or load it again"
                return
        except EngineError as error:
            problem.outcome = error.message
            return
        problem.is_repaired = True

    # --- blobs --------------------------------------------------------------------------

    async def _blob(self, digest: str) -> str:
        for record in self._catalog.records():
            if digest in self._catalog.blobs_of(record.id):
                return await self._blob_of(record, digest)
        raise NoSource("nothing uses it any more")

    async def _blob_of(self, record: ImageRecord, digest: str) -> str:
        """From one of the repositories that the image has a name in."""
        problems: list[EngineError] = []
        for name in self._repositories(record):
            try:
                await self._fetch_blob(record, name, digest)
            except EngineError as error:
                problems.append(error)
                continue
            self._catalog.reload()
            return f"fetched from {name.familiar_name}"
        raise problems[0] if problems else NoSource("its image has no name in a registry")

    async def _fetch_blob(self, record: ImageRecord, name: Reference, digest: str) -> None:
        auth = self._login(name)
        descriptor = await self._described(record, name, digest)
        if descriptor is None:  # a manifest or an index
            fetched = await self._downloader.registry.manifest(name.with_digest(digest), auth)
            await self._put(fetched.data, digest)
        elif descriptor.size <= _CONFIG_LIMIT_BYTES:
            data = await fetch_small(
                self._downloader.registry, name, descriptor, auth, _CONFIG_LIMIT_BYTES
            )
            await self._put(data, digest)
        else:
            await self._large_blob(name, descriptor)

    async def _described(
        self, record: ImageRecord, name: Reference, digest: str
    ) -> Descriptor | None:
        """How the image's manifest describes a blob; None when it is not in there."""
        if digest == record.manifest_digest or not record.manifest_digest:
            return None
        manifest = await self._manifest(record, name)
        parts = [manifest.config, *manifest.layers]
        return next((part for part in parts if part.digest == digest), None)

    async def _large_blob(self, name: Reference, descriptor: Descriptor) -> None:
        """An artifact's."""
        blobs = self._stock.blobs
        fd, path = blobs.spool()
        algorithm = check_digest(descriptor.digest).partition(":")[0]
        actual = hashlib.new(algorithm)

        def take(data: bytes) -> None:
            write_fully(fd, data)
            actual.update(data)

        try:
            auth = self._login(name)
            async with aclosing(self._downloader.registry.blob(name, descriptor, auth)) as chunks:
                async for chunk in chunks:
                    await self._stock.in_thread_to_the_end(take, chunk)
            digest = f"{algorithm}:{actual.hexdigest()}"
            if digest != descriptor.digest:
                raise WrongDigest(descriptor.digest, digest, f"what {name.domain} sent")
            await self._stock.in_thread_to_the_end(blobs.adopt, path, digest)
        finally:
            os.close(fd)
            path.unlink(missing_ok=True)

    async def _put(self, data: bytes, digest: str) -> None:
        await self._stock.in_thread_to_the_end(
            lambda: self._stock.blobs.put(data, digest, again=True)
        )

    async def _manifest(self, record: ImageRecord, name: Reference) -> Manifest:
        """The image's own; from the registry where it is damaged here."""
        try:
            data = self._stock.blobs.read(record.manifest_digest)
        except DataLoss:
            wanted = name.with_digest(record.manifest_digest)
            auth = self._login(name)
            data = (await self._downloader.registry.manifest(wanted, auth)).data
        manifest = parse_manifest(data)
        if not isinstance(manifest, Manifest):
            raise NoSource(f"{record.manifest_digest} is not the manifest of one image")
        return manifest

    def _repositories(self, record: ImageRecord) -> list[Reference]:
        """Where it was pulled from or pushed to: a name with a digest says so."""
        names = map(Reference.parse, self._catalog.names_of(record.id))
        return list({name.name: name for name in names if name.digest}.values())

    # --- layers -------------------------------------------------------------------------

    async def _layer(self, chain_id: str, progress: Progress) -> str:
        self._check_mounted(chain_id)
        records = [r for r in self._catalog.records() if chain_id in r.chain_ids]
        if not records:
            raise NoSource("no image has it, only containers or the build cache use it")
        with self._stock.keeping(records[0].chain_ids):
            layer, source = await self._obtain(records, chain_id, progress)
            await self._stock.replace(
                records[0].chain_ids, chain_id, layer, lambda: self._check_mounted(chain_id)
            )
        return source

    def _check_mounted(self, chain_id: str) -> None:
        if (container_id := self._mounted().get(chain_id)) is not None:
            raise Conflict(
                f"running container {short(container_id)} uses it: stop the container and check "
                "again"
            )

    async def _obtain(
        self, records: list[ImageRecord], chain_id: str, progress: Progress
    ) -> tuple[StagedLayer, str]:
        diff_id = self._diff_id(records, chain_id)
        for row in list(self._catalog.layers().values()):
            if row.diff_id == diff_id and row.chain_id != chain_id:
                try:
                    return await self._stock.copy(row), "copied from an equal layer"
                except EngineError:
                    continue
        problems: list[EngineError] = []
        for record in records:
            for name in self._repositories(record):
                try:
                    layer = await self._fetch_layer(record, name, chain_id, progress)
                except EngineError as error:
                    problems.append(error)
                    continue
                if layer.diff_id == diff_id:
                    return layer, f"fetched from {name.familiar_name}"
                await self._stock.discard(layer)
                problems.append(WrongDigest(diff_id, layer.diff_id, f"what {name.domain} sent"))
        raise problems[0] if problems else NoSource("its image has no name in a registry")

    def _diff_id(self, records: list[ImageRecord], chain_id: str) -> str:
        for record in records:
            image = self._catalog.find(record.id)
            if image is not None:
                return image.config.rootfs.diff_ids[record.chain_ids.index(chain_id)]
        raise NoSource("the image's config is damaged, too")

    async def _fetch_layer(
        self, record: ImageRecord, name: Reference, chain_id: str, progress: Progress
    ) -> StagedLayer:
        manifest = await self._manifest(record, name)
        descriptor = manifest.layers[record.chain_ids.index(chain_id)]
        return await self._downloader.layer(
            name, descriptor, self._login(name), progress, descriptor.digest[_ID]
        )
