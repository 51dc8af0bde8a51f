"""`/v2/NAME/manifests/…`, `/v2/NAME/referrers/…`.

Source: OCI distribution-spec 1.1, "Pulling manifests", "Pushing manifests", "Listing referrers".
"""

from aiohttp import web

from teu.distribution import errors, grammar, manifest
from teu.distribution.exchange import Exchange
from teu.distribution.registry import Registry


class ManifestEndpoints:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def get(self, exchange: Exchange) -> web.StreamResponse:
        row = self._registry.find(exchange.repository, grammar.check_reference(exchange.reference))
        headers = {
            "Content-Type": row.media_type,
            "Docker-Content-Digest": row.digest,
            "Etag": f'"{row.digest}"',
        }
        if row.digest in exchange.header("If-None-Match"):
            return exchange.answer(errors.NOT_MODIFIED, headers)
        if exchange.request.method == "HEAD":
            return exchange.answer(errors.OK, {**headers, "Content-Length": str(row.size)})
        data = self._registry.blobs.read(row.digest)
        exchange.sent_bytes += len(data)
        return exchange.answer(errors.OK, headers, data)

    async def put(self, exchange: Exchange) -> web.StreamResponse:
        reference = grammar.check_reference(exchange.reference)
        data = await exchange.body(manifest.LIMIT_BYTES)
        content_type = exchange.header("Content-Type")
        row = await self._registry.put_manifest(exchange.repository, reference, data, content_type)
        location = f"{exchange.origin}/v2/{exchange.repository}/manifests/{row.digest}"
        headers = {"Location": location, "Docker-Content-Digest": row.digest}
        if row.subject:
            headers["OCI-Subject"] = row.subject
        return exchange.answer(errors.CREATED, headers)

    async def delete(self, exchange: Exchange) -> web.StreamResponse:
        self._registry.delete(exchange.repository, grammar.check_reference(exchange.reference))
        return exchange.answer(errors.ACCEPTED)

    async def referrers(self, exchange: Exchange) -> web.StreamResponse:
        """Always an index, empty where nothing refers to the digest."""
        subject = grammar.check_digest(exchange.reference)
        wanted = exchange.query("artifactType")
        found = [
            {
                "mediaType": row.media_type,
                "digest": row.digest,
                "size": row.size,
                **({"artifactType": row.artifact_type} if row.artifact_type else {}),
                **({"annotations": row.annotations} if row.annotations else {}),
            }
            for row in self._registry.store.referrers(exchange.repository, subject)
            if wanted in ("", row.artifact_type)
        ]
        headers = {"Content-Type": manifest.INDEX_TYPE}
        if wanted:
            headers["OCI-Filters-Applied"] = "artifactType"
        index = {"schemaVersion": 2, "mediaType": manifest.INDEX_TYPE, "manifests": found}
        return exchange.json(index, headers)
