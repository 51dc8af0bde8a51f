"""One request and its answer: what the endpoints need of HTTP."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from aiohttp import http_exceptions, web

from teu.distribution import errors, grammar
from teu.distribution.errors import Refusal

STALL_LIMIT_S = 60.0  # a client that sends nothing for so long is cut off
CLIENT_GONE = (ConnectionError, web.RequestPayloadError, http_exceptions.PayloadEncodingError)
JSON_TYPE = "application/json; charset=utf-8"
_VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}


class Exchange:
    """`repository`: checked; `reference`: what the path names in it, unchecked.

    `user`: who asks, once access was checked. `body_bytes`, `sent_bytes`: for the counters.
    """

    def __init__(self, request: web.BaseRequest, repository: str, reference: str) -> None:
        self.request = request
        self.repository = repository
        self.reference = reference
        self.user = ""
        self.received_bytes = 0
        self.sent_bytes = 0

    @property
    def origin(self) -> str:
        """`scheme://host` as the client sees this server."""
        headers = self.request.headers
        scheme = headers.get("X-Forwarded-Proto", self.request.scheme)
        return f"{scheme}://{headers.get('X-Forwarded-Host', self.request.host)}"

    def query(self, name: str) -> str:
        return self.request.query.get(name, "")

    def header(self, name: str) -> str:
        return self.request.headers.get(name, "")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises: Refusal for a client that stalls; ConnectionError."""
        content = self.request.content
        while True:
            try:
                async with asyncio.timeout(STALL_LIMIT_S):
                    chunk = await content.readany()
            except TimeoutError:
                raise Refusal("BLOB_UPLOAD_INVALID", "the client has stopped sending") from None
            if not chunk:
                return
            self.received_bytes += len(chunk)
            yield chunk

    async def body(self, limit_bytes: int) -> bytes:
        """All of it. Raises: Refusal MANIFEST_INVALID when it is larger."""
        found = bytearray()
        async for chunk in self.chunks():
            found += chunk
            if len(found) > limit_bytes:
                text = f"manifest invalid: larger than {limit_bytes} bytes"
                raise Refusal("MANIFEST_INVALID", text, status=413)
        return bytes(found)

    def answer(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> web.Response:
        return web.Response(status=status, headers={**_VERSION, **(headers or {})}, body=body)

    def json(
        self, content: Any, headers: Mapping[str, str] | None = None, status: int = errors.OK
    ) -> web.Response:
        known = {"Content-Type": JSON_TYPE}
        body = json.dumps(content, separators=(",", ":")).encode() + b"\n"
        return self.answer(status, {**known, **(headers or {})}, body)

    def refuse(self, refusal: Refusal) -> web.Response:
        return self.json({"errors": refusal.errors}, refusal.headers, refusal.status)

    async def send_file(
        self, path: Path, headers: Mapping[str, str], etag: str
    ) -> web.StreamResponse:
        """A file, or what `Range` asks of it; the kernel copies it to the socket.

        Raises: Refusal RANGE_INVALID; OSError.
        """
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if etag in self.header("If-None-Match"):
                return self.answer(errors.NOT_MODIFIED, {"Etag": f'"{etag}"'})
            asked = grammar.byte_range(self.header("Range"), size)
            first, last = asked or (0, size - 1)
            shown = {**_VERSION, **headers, "Etag": f'"{etag}"', "Accept-Ranges": "bytes"}
            shown["Content-Length"] = str(last - first + 1)
            if asked:
                shown["Content-Range"] = f"bytes {first}-{last}/{size}"
            status = errors.PARTIAL_CONTENT if asked else errors.OK
            response = web.StreamResponse(status=status, headers=shown)
            await response.prepare(self.request)
            if self.request.method != "HEAD" and last >= first:
                await self._copy(response, file, first, last - first + 1)
            await response.write_eof()
            return response

    async def _copy(self, response: web.StreamResponse, file: Any, offset: int, count: int) -> None:
        transport = self.request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        loop = asyncio.get_running_loop()
        await loop.sendfile(transport, file, offset, count)
        self.sent_bytes += count
