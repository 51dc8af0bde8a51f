"""A fake registry that takes pushes, in as many ways as a test wants it to."""

from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from harness.fakeregistry import FakeRegistry, error
from harness.imagelab import digest


class PushRegistry(FakeRegistry):
    """Remembers who sent what and how. `refuse_streams`: the status for bodies without a length;
    `limit_bytes`: 413 for longer ones; `minimum_bytes`: its OCI-Chunk-Min-Length; `location`: what
    stands before the path in Location headers."""

    def __init__(self) -> None:
        super().__init__()
        self.refuse_streams = 0
        self.limit_bytes = 0
        self.minimum_bytes = 0
        self.location = ""
        self.mounts = True
        self.sent: list[tuple[str, int | None]] = []  # method and Content-Length of blob data
        self.authorizations: list[str] = []
        self._uploads: dict[str, bytearray] = {}

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.authorizations.append(request.headers.get("Authorization", ""))
        if "/uploads/" in request.path or request.method in ("PUT", "HEAD"):
            if (refusal := self._refusal(request)) is not None:
                return refusal
            for part, answer in self._answers:
                if part in request.path and (response := await answer(request)) is not None:
                    return response
            return await self._write(request)
        return await super().serve(request)

    async def _write(self, request: web.Request) -> web.StreamResponse:
        kind, _, last = request.path.rpartition("/")
        match request.method:
            case "HEAD":
                return web.Response(status=200 if last in {**self.blobs, **self.manifests} else 404)
            case "POST":
                return self._begin(request)
            case "PATCH" | "PUT" if "/uploads/" in request.path:
                return await self._data(request, last)
            case "PUT":
                return await self._put_manifest(request, kind, last)
        return web.Response(status=204)

    def _begin(self, request: web.Request) -> web.Response:
        mounted = request.query.get("mount", "")
        if self.mounts and mounted in self.blobs:
            return web.Response(status=201)
        key = str(len(self._uploads))
        self._uploads[key] = bytearray()
        return self._accepted(request, f"{request.path}{key}")

    async def _data(self, request: web.Request, key: str) -> web.Response:
        known = request.content_length
        body = await request.read()
        if body:
            self.sent.append((request.method, known))
        if body and known is None and self.refuse_streams:
            return web.Response(status=self.refuse_streams)
        if self.limit_bytes and len(body) > self.limit_bytes:
            return web.Response(status=413)
        upload = self._uploads[key]
        if (wanted := request.headers.get("Content-Range")) and (
            wanted != f"{len(upload)}-{len(upload) + len(body) - 1}"
        ):
            return web.Response(status=416)
        upload += body
        if request.method == "PATCH":
            return self._accepted(request, request.path)
        data = bytes(upload)
        if digest(data) != request.query["digest"]:
            return error(400, "DIGEST_INVALID")
        self.blobs[digest(data)] = data
        return web.Response(status=201)

    async def _put_manifest(self, request: web.Request, kind: str, last: str) -> web.Response:
        body = await request.read()
        repository = kind.removeprefix("/v2/").removesuffix("/manifests")
        found = (request.content_type, body)
        self.manifests[f"{repository}:{last}"] = self.manifests[digest(body)] = found
        return web.Response(status=201, headers={"Docker-Content-Digest": digest(body)})

    def _accepted(self, request: web.Request, path: str) -> web.Response:
        query = urlencode({"state": "a+b/c="})
        headers: dict[str, Any] = {"Location": f"{self.location}{path}?{query}"}
        if self.minimum_bytes:
            headers["OCI-Chunk-Min-Length"] = str(self.minimum_bytes)
        return web.Response(status=202, headers=headers)
