"""Pushing: blobs that a registry lacks, then the manifest that names them.

Three ways to send a blob: one whose digest is known beforehand in one request (monolithic); one
whose digest is known only at its end as one stream; and, to a registry that takes no stream or
no request of that length (a proxy in front of it, mostly), piece by piece.

Source: OCI distribution-spec 1.1, "Pushing Content".
"""

import asyncio
import io
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TypeVar
from urllib.parse import urljoin

from yarl import URL

from teu.errors import EngineError
from teu.model.reference import Reference
from teu.model.registry import BrokenTransfer, RegistryUnreachable, Upload
from teu.registry.answers import read_limited, shown
from teu.registry.auth import Credentials
from teu.registry.errors import parse_error, request_error
from teu.registry.session import Busy, Sessions, is_retryable

T = TypeVar("T")
_ERROR_LIMIT_BYTES = 64 << 10
_PIECE_BYTES = 8 << 20
_MAX_PIECE_BYTES = 64 << 20
# Length required, content too large, unsupported framing: Source: RFC 9110, 15.5 and 15.6.
_NO_STREAMS = frozenset((411, 413, 501))
_COMMIT_PATIENCE = 10  # stall time-outs: some registries copy the whole blob before they answer
_BYTES = "application/octet-stream"
log = logging.getLogger(__name__)


class _NoStreams(Exception):
    """The registry takes a blob in pieces only."""


class Uploader:
    """Writes to one repository at one address."""

    def __init__(
        self, sessions: Sessions, base_url: str, name: Reference, who: Credentials
    ) -> None:
        self._sessions = sessions
        self._base = f"{base_url}/v2/{name.path}"
        self._root = base_url
        self._who = who
        self._scope = f"repository:{name.path}:pull,push"
        self._in_pieces = False
        self._piece_bytes = _PIECE_BYTES

    async def has_blob(self, digest: str) -> bool:
        """Whether the repository has it; what the registry does not tell counts as no."""
        return await self._has(f"{self._base}/blobs/{digest}")

    async def has_manifest(self, digest: str) -> bool:
        return await self._has(f"{self._base}/manifests/{digest}")

    async def _has(self, url: str) -> bool:
        async def once() -> bool:
            async with self._sessions.request(
                "HEAD", url, who=self._who, scope=self._scope
            ) as response:
                if is_retryable(response.status):
                    error = request_error(
                        response.status, parse_error(response.status, b""), shown("HEAD", url)
                    )
                    raise Busy(error, response.headers.get("Retry-After", ""))
                return response.status == 200

        return await self._persistently(once)

    async def mount(self, digest: str, repository: str) -> bool:
        """Takes a blob over from another repository of the registry; False when it will not."""
        query = {"mount": digest, "from": repository}
        url = str(URL(f"{self._base}/blobs/uploads/").update_query(query))
        scope = f"{self._scope} repository:{repository}:pull"
        try:
            async with self._sessions.request("POST", url, who=self._who, scope=scope) as response:
                location = response.headers.get("Location", "")
                started = response.status == 202
                mounted = response.status == 201
        except RegistryUnreachable:
            raise
        except EngineError as error:  # we may not read there, and need not
            log.info("%s cannot be mounted from %s: %s", digest, repository, error)
            return False
        if started and location:  # it began an ordinary upload instead
            await self._call("DELETE", self._absolute(location), (202, 204, 404))
        return mounted

    async def blob(self, upload: Upload) -> None:
        """Sends a blob, again from the start when it broke.

        Raises: BrokenTransfer, Unauthorized, Forbidden, SystemFailure, ….
        """
        await self._persistently(lambda: self._blob_once(upload))

    async def _blob_once(self, upload: Upload) -> None:
        location = await self._call("POST", f"{self._base}/blobs/uploads/", (202,))
        if not self._in_pieces:
            try:
                return await self._in_one(upload, location)
            except _NoStreams:
                log.info("%s takes no streams: going on in pieces", self._root)
                self._in_pieces = True
                location = await self._call("POST", f"{self._base}/blobs/uploads/", (202,))
        await self._commit(await self._pieces(upload, location), upload.digest)

    async def _in_one(self, upload: Upload, location: str) -> None:
        stall_s = self._sessions.config.stall_timeout_s
        known_bytes = upload.size_bytes
        method = "PATCH" if known_bytes is None else "PUT"
        headers = {} if known_bytes is None else {"Content-Length": str(known_bytes)}
        if known_bytes is not None:
            location = _with_digest(location, upload.digest)
        try:
            async with asyncio.timeout(stall_s) as limit:
                body = _Feed(upload.chunks(), limit, stall_s, stall_s * _COMMIT_PATIENCE)
                good = (202,) if known_bytes is None else (201, 204)
                try:
                    location = await self._call(method, location, good, body, headers)
                finally:
                    await body.close()
        except TimeoutError as error:
            raise BrokenTransfer(
                f"{shown(method, location)}: the registry takes no more data"
            ) from error
        if known_bytes is None:
            await self._commit(location, upload.digest)

    async def _pieces(self, upload: Upload, location: str) -> str:
        sent = 0
        async with aclosing(upload.chunks()) as chunks:
            async for piece in _of_size(chunks, lambda: self._piece_bytes):
                headers = {
                    "Content-Range": f"{sent}-{sent + len(piece) - 1}",
                    "Content-Length": str(len(piece)),
                }
                location = await self._call("PATCH", location, (202,), io.BytesIO(piece), headers)
                sent += len(piece)
        return location

    async def _commit(self, location: str, digest: str) -> None:
        await self._call("PUT", _with_digest(location, digest), (201, 204))

    async def manifest(self, data: bytes, media_type: str, reference: str) -> None:
        """Raises: SystemFailure, Forbidden, …."""
        url = f"{self._base}/manifests/{reference}"
        await self._persistently(
            lambda: self._call("PUT", url, (201, 202), data, {"Content-Type": media_type})
        )

    async def _persistently(self, work: Callable[[], Awaitable[T]]) -> T:
        return await self._sessions.persistently(self._sessions.config.max_attempts, work)

    async def _call(
        self,
        method: str,
        url: str,
        good: tuple[int, ...],
        data: bytes | io.BytesIO | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """The answer's Location, absolute (empty when it has none).

        Raises: Busy; _NoStreams for a stream that this registry does not take.
        """
        kind = {"Content-Length": "0"} if data is None else {"Content-Type": _BYTES}
        async with self._sessions.request(
            method,
            url,
            who=self._who,
            scope=self._scope,
            headers={**kind, **(headers or {})},
            data=data,
            home=self._root,
            patience_s=_COMMIT_PATIENCE * self._sessions.config.stall_timeout_s,
        ) as response:
            if response.status in good:
                self._note_piece_size(response.headers.get("OCI-Chunk-Min-Length", ""))
                return self._absolute(response.headers.get("Location", ""))
            if response.status in _NO_STREAMS and isinstance(data, AsyncIterator):
                raise _NoStreams
            body = await read_limited(response, _ERROR_LIMIT_BYTES) or b""
            error = request_error(
                response.status, parse_error(response.status, body), shown(method, url)
            )
            if is_retryable(response.status) or response.status == 416:  # it lost the upload
                raise Busy(error, response.headers.get("Retry-After", ""))
            raise error

    def _note_piece_size(self, at_least: str) -> None:
        if at_least.isdigit():
            self._piece_bytes = min(max(self._piece_bytes, int(at_least)), _MAX_PIECE_BYTES)

    def _absolute(self, location: str) -> str:
        """A registry behind a proxy may think that it is reached without TLS: at its own host
        we know better."""
        if not location:
            return ""
        root, found = URL(self._root), URL(urljoin(f"{self._root}/", location), encoded=True)
        if found.host == root.host and (found.scheme, root.scheme) == ("http", "https"):
            found = found.with_scheme("https").with_port(root.explicit_port)
        return str(found)


def _with_digest(location: str, digest: str) -> str:
    return str(URL(location, encoded=True).update_query({"digest": digest}))


class _Feed:
    """The body of a streamed request. Every chunk that could be sent gives the next one its time;
    the last one, the answer.

    aiohttp reads it in a task of its own and drops it where that task is when the request ends
    early; only `close` ends whatever makes the chunks.
    """

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        limit: asyncio.Timeout,
        stall_s: float,
        commit_s: float,
    ) -> None:
        self._chunks = chunks
        self._limit = limit
        self._stall_s = stall_s
        self._commit_s = commit_s
        self._reading = asyncio.Lock()
        self._now: Callable[[], float] = asyncio.get_running_loop().time

    def __aiter__(self) -> "_Feed":
        return self

    async def __anext__(self) -> bytes:
        async with self._reading:
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                self._give(self._commit_s)
                raise
            self._give(self._stall_s)
            return chunk

    def _give(self, time_s: float) -> None:
        if not self._limit.expired():
            self._limit.reschedule(self._now() + time_s)

    async def close(self) -> None:
        async with self._reading:
            await self._chunks.aclose()


async def _of_size(
    chunks: AsyncIterator[bytes], size_bytes: Callable[[], int]
) -> AsyncGenerator[bytes, None]:
    """The same bytes in pieces of this size; only the last one is smaller."""
    held = bytearray()
    async for chunk in chunks:
        held += chunk
        while len(held) >= (size := size_bytes()):
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)
