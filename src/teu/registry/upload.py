"""Pushing: blobs that a registry lacks, then the manifest that names them.

Source: OCI distribution-spec 1.1, "Pushing Content".
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from urllib.parse import urljoin

from yarl import URL

from teu.errors import SystemFailure
from teu.model.reference import Reference
from teu.model.registry import BrokenTransfer, Upload
from teu.registry.auth import Credentials
from teu.registry.errors import parse_error, request_error
from teu.registry.session import Sessions, is_retryable, shown, translated

_ERROR_LIMIT_BYTES = 64 << 10


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

    async def has_blob(self, digest: str) -> bool:
        url = f"{self._base}/blobs/{digest}"
        async with self._sessions.request(
            "HEAD", url, who=self._who, scope=self._scope
        ) as response:
            return response.status == 200

    async def mount(self, digest: str, repository: str) -> bool:
        """Takes a blob over from another repository of the registry; False when it will not."""
        query = {"mount": digest, "from": repository}
        url = str(URL(f"{self._base}/blobs/uploads/").update_query(query))
        scope = f"{self._scope} repository:{repository}:pull"
        async with self._sessions.request("POST", url, who=self._who, scope=scope) as response:
            location = response.headers.get("Location", "")
            started = response.status == 202
            mounted = response.status == 201
        if started and location:  # it began an ordinary upload instead
            await self._call("DELETE", urljoin(f"{self._root}/", location), (202, 204, 404))
        return mounted

    async def blob(self, upload: Upload) -> None:
        """Sends a blob whose digest is known at its end; again from the start when it broke.

        Raises: BrokenTransfer, Unauthorized, Forbidden, SystemFailure, ….
        """
        attempts = self._sessions.config.max_attempts
        for attempt in range(1, attempts + 1):
            try:
                await self._blob_once(upload)
                return
            except BrokenTransfer:
                if attempt == attempts:
                    raise
            await asyncio.sleep(self._sessions.delay_s(attempt))

    async def _blob_once(self, upload: Upload) -> None:
        location = await self._call("POST", f"{self._base}/blobs/uploads/", (202,))
        stall_s = self._sessions.config.stall_timeout_s
        try:
            async with asyncio.timeout(stall_s) as limit:
                body = _watched(upload.chunks(), limit, stall_s)
                location = await self._call("PATCH", location, (202,), body)
        except TimeoutError as error:
            raise BrokenTransfer(
                f"{shown('PATCH', location)}: the registry takes no more data"
            ) from error
        url = str(URL(location).update_query({"digest": upload.digest}))
        await self._call("PUT", url, (201, 204))

    async def manifest(self, data: bytes, media_type: str, reference: str) -> None:
        """Raises: SystemFailure, Forbidden, …."""
        url = f"{self._base}/manifests/{reference}"
        await self._call("PUT", url, (201, 202), data, media_type)

    async def _call(
        self,
        method: str,
        url: str,
        good: tuple[int, ...],
        data: bytes | AsyncIterator[bytes] | None = None,
        media_type: str = "application/octet-stream",
    ) -> str:
        """The answer's Location, absolute (empty when it has none)."""
        headers = {"Content-Type": media_type} if data is not None else {"Content-Length": "0"}
        async with self._sessions.request(
            method, url, who=self._who, scope=self._scope, headers=headers, data=data
        ) as response:
            with translated(shown(method, url)):
                body = await response.content.read(_ERROR_LIMIT_BYTES)
            if response.status in good:
                location = response.headers.get("Location", "")
                return urljoin(f"{self._root}/", location) if location else ""
            error = request_error(
                response.status, parse_error(response.status, body), shown(method, url)
            )
            if is_retryable(response.status):
                raise BrokenTransfer(str(error))
            if response.status == 416:
                raise SystemFailure(f"{error}: the registry lost the upload")
            raise error


async def _watched(
    chunks: AsyncGenerator[bytes, None], limit: asyncio.Timeout, stall_s: float
) -> AsyncGenerator[bytes, None]:
    """Every chunk that could be sent gives the next one its time."""
    now: Callable[[], float] = asyncio.get_running_loop().time
    try:
        async for chunk in chunks:
            limit.reschedule(now() + stall_s)
            yield chunk
    finally:
        await chunks.aclose()
