"""A cache of another registry: what is not here is fetched from there, once, and kept.

A tag is looked up again when it was not checked for FRESH_S; while the other registry cannot be
reached, what is here is served. Blobs and manifests by digest never change and are not asked for
again. Retention and collection treat what was fetched like what was pushed.
"""

import asyncio
import time

from teu.distribution import manifest
from teu.distribution.errors import Refusal
from teu.distribution.registry import Registry
from teu.errors import EngineError, NotFound, Unavailable
from teu.model.image import Descriptor
from teu.model.reference import Reference
from teu.registry.client import RegistryClient

FRESH_S = 60.0
_BATCH_BYTES = 1 << 18


class PullThrough:
    """`domain`: the other registry's host[:port]. One fetch at a time for each piece of content."""

    def __init__(self, registry: Registry, client: RegistryClient, domain: str) -> None:
        self._registry = registry
        self._client = client
        self._domain = domain
        self._checked: dict[tuple[str, str], float] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    async def provide(self, repository: str, reference: str, kind: str) -> None:
        """Makes sure that what is asked for is here, if it exists anywhere.

        Raises: Refusal UNAVAILABLE: it is not here, and the other registry cannot be asked.
        """
        lock = self._locks.setdefault((repository, reference), asyncio.Lock())
        async with lock:
            try:
                if kind == "blobs":
                    await self._provide_blob(repository, reference)
                else:
                    await self._provide_manifest(repository, reference)
            except NotFound:
                pass  # the answer then says so
            except EngineError as error:
                if not self._is_here(repository, reference, kind):
                    text = f"cannot fetch it from {self._domain}: {error.message}"
                    raise Refusal("UNAVAILABLE", text) from error
        if not lock.locked():
            self._locks.pop((repository, reference), None)

    def _is_here(self, repository: str, reference: str, kind: str) -> bool:
        try:
            if kind == "blobs":
                self._registry.blob_size(repository, reference)
            else:
                self._registry.find(repository, reference)
        except Refusal:
            return False
        return True

    async def _provide_manifest(self, repository: str, reference: str) -> None:
        key = (repository, reference)
        by_digest = ":" in reference
        fresh = time.monotonic() - self._checked.get(key, -FRESH_S) < FRESH_S
        if self._is_here(repository, reference, "manifests") and (by_digest or fresh):
            return
        name = self._name(repository, reference)
        fetched = await self._client.manifest(name)
        parsed, _ = manifest.parse(fetched.data, fetched.media_type)
        for digest, kind in parsed.needs():
            if kind == manifest.MANIFEST:
                await self._provide_manifest(repository, digest)
        sizes = {part.digest: part.size for part in _parts(parsed)}
        await asyncio.gather(
            *(
                self._provide_blob(repository, digest, sizes[digest])
                for digest, kind in parsed.needs()
                if kind == manifest.BLOB
            )
        )
        await self._registry.put_manifest(repository, reference, fetched.data, fetched.media_type)
        self._checked[key] = time.monotonic()

    async def _provide_blob(self, repository: str, digest: str, size: int = -1) -> None:
        """A size is known only from a manifest: a blob is asked for after its manifest was."""
        if size < 0 or self._is_here(repository, digest, "blobs"):
            return
        for holder in self._registry.store.holders(digest):
            if self._registry.mount(repository, digest, holder):
                return
        upload = self._registry.uploads.begin(repository)
        try:
            with self._registry.uploads.use(repository, upload.name):
                blob = self._client.blob(
                    self._name(repository, digest), Descriptor("", digest, size)
                )
                gathered = bytearray()
                async for chunk in blob:
                    gathered += chunk
                    if len(gathered) >= _BATCH_BYTES:
                        await asyncio.to_thread(upload.write, bytes(gathered))
                        gathered.clear()
                await asyncio.to_thread(upload.write, bytes(gathered))
                await self._registry.finish(repository, upload, digest)
        except Refusal as refusal:
            raise Unavailable(f"{self._domain} sent something else: {refusal}") from refusal
        finally:
            self._registry.uploads.drop(upload.name)

    def _name(self, repository: str, reference: str) -> Reference:
        if ":" in reference:
            return Reference(self._domain, repository, digest=reference)
        return Reference(self._domain, repository, tag=reference)


def _parts(parsed: manifest.Manifest) -> list[manifest.Descriptor]:
    own = [*(parsed.layers or ()), *(parsed.blobs or ())]
    return [*own, parsed.config] if parsed.config else own
