"""`/v2/NAME/blobs/…`: blobs and their uploads.

Source: OCI distribution-spec 1.1, "Pulling blobs", "Pushing blobs", "Deleting blobs".
"""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from teu.distribution import errors, grammar
from teu.distribution.errors import Refusal
from teu.distribution.exchange import CLIENT_GONE, Exchange
from teu.distribution.registry import Registry
from teu.distribution.uploads import Upload

_BATCH_BYTES = 1 << 18  # hashed and written by a thread at once


class BlobEndpoints:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def get(self, exchange: Exchange) -> web.StreamResponse:
        digest = grammar.check_digest(exchange.reference)
        size = self._registry.blob_size(exchange.repository, digest)
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "Cache-Control": "max-age=31536000",
        }
        if exchange.request.method == "HEAD":
            more = {"Content-Length": str(size), "Accept-Ranges": "bytes", "Etag": f'"{digest}"'}
            return exchange.answer(errors.OK, {**headers, **more})
        with self._registry.blobs.lease([digest]):
            return await exchange.send_file(self._registry.blobs.path(digest), headers, digest)

    async def delete(self, exchange: Exchange) -> web.StreamResponse:
        digest = grammar.check_digest(exchange.reference)
        if not self._registry.store.unlink(exchange.repository, digest):
            raise Refusal("BLOB_UNKNOWN", "blob unknown to registry", digest)
        return exchange.answer(errors.ACCEPTED)

    # Uploads.

    async def begin(self, exchange: Exchange) -> web.StreamResponse:
        """POST: a mount, a whole blob in one request, or an upload that is continued."""
        if mount := exchange.query("mount"):
            source = grammar.check_name(exchange.query("from") or exchange.repository)
            digest = grammar.check_digest(mount)
            if self._registry.mount(exchange.repository, digest, source):
                return self._created(exchange, digest)
        digest = exchange.query("digest")
        if digest:
            grammar.check_digest(digest)
        self._registry.check_quota(exchange.repository, 1)
        upload = self._registry.uploads.begin(exchange.repository)
        if not digest:
            return self._accepted(exchange, upload.name, 0)
        with self._registry.uploads.use(exchange.repository, upload.name):
            return await self._take_last(exchange, upload, digest)

    async def status(self, exchange: Exchange) -> web.StreamResponse:
        name = exchange.reference
        offset = self._registry.uploads.offset(exchange.repository, name)
        return self._accepted(exchange, name, offset, errors.NO_CONTENT)

    async def append(self, exchange: Exchange) -> web.StreamResponse:
        """PATCH: what was sent before a client went away stays; it asks how much that was."""
        with self._registry.uploads.use(exchange.repository, exchange.reference) as upload:
            await self._take_chunk(exchange, upload)
            return self._accepted(exchange, upload.name, upload.offset)

    async def finish(self, exchange: Exchange) -> web.StreamResponse:
        digest = grammar.check_digest(exchange.query("digest"))
        with self._registry.uploads.use(exchange.repository, exchange.reference) as upload:
            return await self._take_last(exchange, upload, digest)

    async def cancel(self, exchange: Exchange) -> web.StreamResponse:
        with self._registry.uploads.use(exchange.repository, exchange.reference) as upload:
            self._registry.uploads.drop(upload.name)
        return exchange.answer(errors.NO_CONTENT, {"Docker-Upload-UUID": exchange.reference})

    async def _take_last(
        self, exchange: Exchange, upload: Upload, digest: str
    ) -> web.StreamResponse:
        await self._take_chunk(exchange, upload)
        await self._registry.finish(exchange.repository, upload, digest)
        return self._created(exchange, digest)

    async def _take_chunk(self, exchange: Exchange, upload: Upload) -> None:
        """Raises: Refusal RANGE_INVALID (bytes out of order), SIZE_INVALID (too few)."""
        begin, expected = upload.offset, -1
        if content_range := exchange.header("Content-Range"):
            first, last = grammar.chunk_range(content_range)
            if first != begin:
                headers = self._place(exchange, upload.name, begin)
                raise Refusal("RANGE_INVALID", "invalid content range", headers=headers)
            expected = last - first + 1
        self._registry.check_quota(exchange.repository, begin)
        async for batch in _batches(exchange.chunks()):
            await asyncio.to_thread(upload.write, batch)
        if expected not in (-1, upload.offset - begin):
            upload.cut(begin)
            raise Refusal("SIZE_INVALID", "provided length did not match content length")

    def _created(self, exchange: Exchange, digest: str) -> web.StreamResponse:
        location = f"{exchange.origin}/v2/{exchange.repository}/blobs/{digest}"
        headers = {"Location": location, "Docker-Content-Digest": digest}
        return exchange.answer(errors.CREATED, headers)

    def _accepted(
        self, exchange: Exchange, name: str, offset: int, status: int = errors.ACCEPTED
    ) -> web.StreamResponse:
        return exchange.answer(status, self._place(exchange, name, offset))

    def _place(self, exchange: Exchange, name: str, offset: int) -> dict[str, str]:
        return {
            "Location": f"{exchange.origin}/v2/{exchange.repository}/blobs/uploads/{name}",
            "Range": f"0-{max(0, offset - 1)}",
            "Docker-Upload-UUID": name,
        }


async def _batches(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Larger pieces; what came before the client went away is not lost."""
    gathered = bytearray()
    try:
        async for chunk in chunks:
            gathered += chunk
            if len(gathered) >= _BATCH_BYTES:
                yield bytes(gathered)
                gathered.clear()
    except CLIENT_GONE:
        yield bytes(gathered)
        raise
    if gathered:
        yield bytes(gathered)
