"""The distribution specification's client: manifests and blobs of any registry.

Source: OCI distribution-spec 1.1.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from teu.content.blobs import WrongDigest, digest_of
from teu.errors import EngineError
from teu.model.image import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from teu.model.reference import Reference
from teu.model.registry import BrokenTransfer, FetchedManifest, RegistryUnreachable, Target
from teu.registry.auth import Credentials, credentials
from teu.registry.config import Endpoint, RegistryConfig, endpoints
from teu.registry.errors import manifest_error, parse_error
from teu.registry.errors import request_error as refused
from teu.registry.login import check_login
from teu.registry.session import Sessions, WrongProtocol, is_retryable, shown, translated
from teu.registry.upload import Uploader

T = TypeVar("T")
_MANIFEST_LIMIT_BYTES = 4 << 20
_ERROR_LIMIT_BYTES = 64 << 10
_CHUNK_BYTES = 512 << 10
_MANIFEST_ATTEMPTS = 3  # somebody waits for the first sign of life
_GOOD_PROGRESS_BYTES = 1 << 20
_ACCEPT = ", ".join(
    (
        *MANIFEST_TYPES,
        *INDEX_TYPES,
        "application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.1",
        "*/*;q=0.05",
    )
)
_DENIED = b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'
log = logging.getLogger(__name__)


class RegistryClient:
    """Reads from registries. One for the daemon; loop's thread; `close` it."""

    def __init__(self, config: RegistryConfig) -> None:
        self._config = config
        self._sessions = Sessions(config)
        self._origins: dict[str, Endpoint] = {}
        self._answered: dict[str, Endpoint] = {}

    @property
    def max_concurrent_downloads(self) -> int:
        return self._config.max_concurrent_downloads

    @property
    def max_concurrent_uploads(self) -> int:
        return self._config.max_concurrent_uploads

    def reload(self, config: RegistryConfig) -> None:
        """Other settings from the next request on (the limits of parallel transfers stay)."""
        self._config = config
        self._sessions.reload(config)
        self._origins.clear()

    async def close(self) -> None:
        await self._sessions.close()

    async def login(self, server_address: str, auth: Mapping[str, Any]) -> None:
        """Checks credentials with a registry. Raises: Unauthorized, RegistryUnreachable, …"""
        await check_login(self._sessions, self._config, server_address, credentials(auth))

    async def manifest(
        self, name: Reference, auth: Mapping[str, Any] | None = None
    ) -> FetchedManifest:
        """The manifest or index of a tag or digest, checked.

        Raises: ManifestUnknown, PullDenied, Unauthorized, RegistryUnreachable, WrongDigest, …
        """
        who = credentials(auth)
        return await self._somewhere(name, lambda e: self._manifest(e, name, who))

    async def _manifest(
        self, endpoint: Endpoint, name: Reference, who: Credentials
    ) -> FetchedManifest:
        url = f"{endpoint.url}/v2/{name.path}/manifests/{name.digest or name.tag}"
        attempts = min(self._config.max_attempts, _MANIFEST_ATTEMPTS)
        for attempt in range(1, attempts + 1):
            async with self._sessions.request(
                "GET", url, who=who, scope=pull_scope(name), headers={"Accept": _ACCEPT}
            ) as response:
                data = await _limited(response.content, _MANIFEST_LIMIT_BYTES, url)
                if response.status == 200:
                    media_type = response.content_type
                    promised = response.headers.get("Docker-Content-Digest", "")
                    return _checked(data, media_type, name, promised)
                retry_after = response.headers.get("Retry-After", "")
                refusals = response.headers.getall("WWW-Authenticate", [])
            if any("insufficient_scope" in refusal for refusal in refusals):
                data = _DENIED
            if not is_retryable(response.status) or attempt == attempts:
                raise manifest_error(response.status, data, name, shown("GET", url))
            await asyncio.sleep(self._sessions.delay_s(attempt, retry_after))
        raise AssertionError("the loop returns or raises")

    async def target(self, name: Reference, auth: Mapping[str, Any] | None = None) -> Target:
        """Where to push a repository's content to (never a mirror).

        Raises: RegistryUnreachable, Unauthorized, ….
        """
        who = credentials(auth)

        async def ping(endpoint: Endpoint) -> Endpoint:
            async with self._sessions.request(
                "GET", f"{endpoint.url}/v2/", who=who, scope=f"repository:{name.path}:pull,push"
            ) as response:
                if response.status >= 400:
                    body = await response.content.read(_ERROR_LIMIT_BYTES)
                    error = parse_error(response.status, body)
                    raise refused(response.status, error, shown("GET", f"{endpoint.url}/v2/"))
            return endpoint

        endpoint = await self._at_origin(name, ping)
        return Uploader(self._sessions, endpoint.url, name, who)

    async def blob(
        self,
        name: Reference,
        descriptor: Descriptor,
        auth: Mapping[str, Any] | None = None,
        offset: int = 0,
    ) -> AsyncGenerator[bytes, None]:
        """A blob's bytes from `offset` to its size; a broken connection is resumed where it broke.

        The digest is the caller's to check (over all bytes, also those before `offset`).
        Raises: BrokenTransfer when the registry stalls, ends early or sends too much; NotFound, ….
        """
        who = credentials(auth)
        endpoint = self._answered.get(name.domain) or endpoints(self._config, name.domain)[-1]
        attempt = 0
        while offset < descriptor.size:
            attempt += 1
            before = offset
            retry_after = ""
            try:
                async for chunk in self._blob_once(endpoint, name, descriptor, who, offset):
                    offset += len(chunk)
                    yield chunk
                if offset < descriptor.size:
                    raise BrokenTransfer(
                        f"the registry sent {offset} bytes of {descriptor.digest}, which has "
                        f"{descriptor.size}"
                    )
            except _Busy as busy:
                error: BrokenTransfer | RegistryUnreachable = busy.error
                retry_after = busy.retry_after
            except (BrokenTransfer, RegistryUnreachable) as broken:
                error = broken
            else:
                return
            if offset - before >= _GOOD_PROGRESS_BYTES:
                attempt = 1
            if attempt >= self._config.max_attempts:
                raise error
            log.info("download of %s interrupted at %d: %s", descriptor.digest, offset, error)
            await asyncio.sleep(self._sessions.delay_s(attempt, retry_after))

    async def _blob_once(
        self,
        endpoint: Endpoint,
        name: Reference,
        descriptor: Descriptor,
        who: Credentials,
        offset: int,
    ) -> AsyncGenerator[bytes, None]:
        url = f"{endpoint.url}/v2/{name.path}/blobs/{descriptor.digest}"
        headers = {"Range": f"bytes={offset}-{descriptor.size - 1}"} if offset else {}
        async with self._sessions.request(
            "GET", url, who=who, scope=pull_scope(name), headers=headers
        ) as response:
            if response.status == 416:
                raise WrongDigest(
                    f"{descriptor.size} bytes", f"{offset} bytes", f"blob {descriptor.digest}"
                )
            if response.status not in (200, 206):
                body = await response.content.read(_ERROR_LIMIT_BYTES)
                error = refused(
                    response.status, parse_error(response.status, body), shown("GET", url)
                )
                if is_retryable(response.status):
                    raise _Busy(str(error), response.headers.get("Retry-After", ""))
                raise error
            skip = offset if response.status == 200 else 0
            left = descriptor.size - offset
            with translated(shown("GET", url)):
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    piece = chunk[skip:] if skip else chunk
                    skip -= len(chunk) - len(piece)
                    left -= len(piece)
                    if left < 0:
                        raise WrongDigest(
                            f"{descriptor.size} bytes", "more", f"blob {descriptor.digest}"
                        )
                    if piece:
                        yield piece

    async def _somewhere(self, name: Reference, ask: Callable[[Endpoint], Awaitable[T]]) -> T:
        """Asks the registry's mirrors, then the registry. A mirror that fails in any way is passed
        over; what follows a manifest comes from where the manifest came."""
        for endpoint in endpoints(self._config, name.domain):
            if not endpoint.mirror:
                continue
            try:
                answer = await ask(endpoint)
            except EngineError as error:
                log.info("mirror %s is of no use: %s", endpoint.url, error)
            else:
                self._answered[name.domain] = endpoint
                return answer
        answer = await self._at_origin(name, ask)
        self._answered[name.domain] = self._origins[name.domain]
        return answer

    async def _at_origin(self, name: Reference, ask: Callable[[Endpoint], Awaitable[T]]) -> T:
        """Asks the registry itself: plain HTTP, where that is allowed, after TLS."""
        candidates = [e for e in endpoints(self._config, name.domain) if not e.mirror]
        if (known := self._origins.get(name.domain)) in candidates:
            candidates = [known]
        failure: EngineError | None = None
        for endpoint in candidates:
            try:
                answer = await ask(endpoint)
            except WrongProtocol as error:
                failure = error
            except EngineError as error:
                if not isinstance(error, RegistryUnreachable):
                    self._origins[name.domain] = endpoint  # it speaks our protocol
                raise
            else:
                self._origins[name.domain] = endpoint
                return answer
        self._origins.pop(name.domain, None)
        assert failure is not None
        raise failure


class _Busy(Exception):
    """The registry asks to come back later."""

    def __init__(self, message: str, retry_after: str) -> None:
        super().__init__(message)
        self.error = BrokenTransfer(message)
        self.retry_after = retry_after


def pull_scope(name: Reference) -> str:
    return f"repository:{name.path}:pull"


def _checked(data: bytes, media_type: str, name: Reference, promised: str) -> FetchedManifest:
    actual = digest_of(data)
    for expected in (name.digest, promised):
        if expected.startswith("sha256:") and expected != actual:
            raise WrongDigest(expected, actual, f"the manifest of {name.familiar}")
    return FetchedManifest(data, media_type, actual)


async def _limited(content: Any, limit_bytes: int, url: str) -> bytes:
    parts = []
    size = 0
    with translated(shown("GET", url)):
        async for chunk in content.iter_chunked(_CHUNK_BYTES):
            parts.append(chunk)
            size += len(chunk)
            if size > limit_bytes:
                raise BrokenTransfer(f"{shown('GET', url)}: a manifest of more than 4 MiB")
    return b"".join(parts)
