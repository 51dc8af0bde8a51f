"""A registry inside the test's own event loop, whose every answer a test can change."""

import base64
import gzip
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from harness.imagelab import Archived, digest

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
Compression = Callable[[bytes], bytes]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class FakeRegistry:
    """Holds manifests and blobs of any repository. `on(path_part, answer)` takes over requests
    whose path contains the text; an answer of None means: go on as usual."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.requests: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.user: tuple[str, str] | None = None
        self.tokens = False
        self.address = ""
        self._answers: list[tuple[str, Answer]] = []

    def put(
        self, image: Archived, *names: str, how: Callable[[bytes], bytes] = gzip.compress
    ) -> str:
        """Stores an image under `name:tag`s; its manifest's digest."""
        config = image.config_data
        layers = [how(layer) for layer in image.layers]
        for blob in (config, *layers):
            self.blobs[digest(blob)] = blob
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _descriptor(CONFIG, config),
            "layers": [_descriptor(LAYER, layer) for layer in layers],
        }
        return self.put_manifest(manifest, MANIFEST, *names)

    def put_manifest(self, document: dict[str, Any], media_type: str, *names: str) -> str:
        data = json.dumps(document).encode()
        for name in (*names, digest(data)):
            self.manifests[name.rpartition(":")[2] if "@" in name else name] = (media_type, data)
        self.manifests[digest(data)] = (media_type, data)
        return digest(data)

    def on(self, part: str, answer: Answer) -> None:
        self._answers.append((part, answer))

    # --- serving ------------------------------------------------------------------------

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.requests[request.path] += 1
        if (refusal := self._refusal(request)) is not None:
            return refusal
        for part, answer in self._answers:
            if part in request.path and (response := await answer(request)) is not None:
                return response
        if request.path == "/token":
            return web.json_response({"token": "good", "expires_in": 300})
        if request.path == "/v2/":
            return web.json_response({})
        kind, _, reference = request.path.rpartition("/")
        if kind.endswith("/manifests"):
            return self._manifest(kind.removeprefix("/v2/").removesuffix("/manifests"), reference)
        if kind.endswith("/blobs") and reference in self.blobs:
            return self._blob(request, self.blobs[reference])
        return error(404, "BLOB_UNKNOWN" if kind.endswith("/blobs") else "NAME_UNKNOWN")

    def _manifest(self, repository: str, reference: str) -> web.Response:
        found = self.manifests.get(f"{repository}:{reference}") or self.manifests.get(reference)
        if found is None:
            return error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        return web.Response(body=found[1], headers={"Content-Type": found[0]})

    def _blob(self, request: web.Request, data: bytes) -> web.Response:
        wanted = request.headers.get("Range", "")
        if wanted:
            self.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            return web.Response(status=206, body=data[start:])
        return web.Response(body=data)

    def _refusal(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "")
        basic = base64.b64encode(":".join(self.user or ()).encode()).decode()
        if self.tokens and request.path != "/token" and given != "Bearer good":
            realm = f"http://{self.address}/token"
            challenge = f'Bearer realm="{realm}",service="fake",scope="repository:x:pull"'
            return error(401, "UNAUTHORIZED", "authentication required", challenge)
        asks = request.path == "/token" if self.tokens else True
        if self.user and asks and given != f"Basic {basic}":
            return error(401, "UNAUTHORIZED", "authentication required", 'Basic realm="fake"')
        return None


@asynccontextmanager
async def serving(registry: FakeRegistry, port: int = 0) -> AsyncIterator[str]:
    """Serves on a free loopback port, or this one; gives `127.0.0.1:PORT`."""
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", registry.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    assert runner.addresses
    registry.address = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield registry.address
    finally:
        await runner.cleanup()


def error(status: int, code: str, message: str = "", challenge: str = "") -> web.Response:
    body = {"errors": [{"code": code, "message": message}]}
    headers = {"WWW-Authenticate": challenge} if challenge else {}
    return web.json_response(body, status=status, headers=headers)


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "size": len(data), "digest": digest(data)}
