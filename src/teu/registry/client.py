"""The distribution specification's client: manifests, tags and blobs of any registry.

Source: OCI distribution-spec 1.1.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import aiohttp
import msgspec
from msgspec import Struct, field
from yarl import URL

from teu.content.blobs import WrongDigest, digest_of
from teu.errors import EngineError, SystemFailure
from teu.model.image import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from teu.model.reference import Reference
from teu.model.registry import BrokenTransfer, FetchedManifest, RegistryUnreachable, Target
from teu.registry.answers import WrongProtocol, read_limited, shown, translated
from teu.registry.auth import Credentials, credentials
from teu.registry.config import Endpoint, RegistryConfig, endpoints
from teu.registry.errors import manifest_error, parse_error
from teu.registry.errors import request_error as refused
from teu.registry.login import check_login
from teu.registry.pace import Pace
from teu.registry.search import Found, search
from teu.registry.session import Busy, Sessions, is_retryable
from teu.registry.upload import Uploader

T = TypeVar("T")
_MANIFEST_LIMIT_BYTES = 4 << 20
_TAGS_LIMIT_BYTES = 16 << 20
_ERROR_LIMIT_BYTES = 64 << 10
_CHUNK_BYTES = 512 << 10
_MANIFEST_ATTEMPTS = 3  # somebody waits for the first sign of life
_GOOD_PROGRESS_BYTES = 1 << 20
_MAX_ANSWERED = 512
_MAX_TAG_PAGES = 1000
_ACCEPT = ", ".join(
    (
        *MANIFEST_TYPES,
        *INDEX_TYPES,
        "application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.1",
        "*/*;q=0.05",
    )
)
_DENIED = b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'
_NOBODY = Credentials()
log = logging.getLogger(__name__)


class _Tags(Struct):
    tags: list[str] | None = field(default_factory=list)


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
        """Other settings from the next request on."""
        self._config = config
        self._sessions.reload(config)
        self._origins.clear()
        self._answered.clear()

    async def close(self) -> None:
        await self._sessions.close()

    async def login(self, server_address: str, auth: Mapping[str, Any]) -> str:
        """Checks credentials with a registry; a token to keep instead of the password, or "".

        Raises: Unauthorized, RegistryUnreachable, …
        """
        return await check_login(self._sessions, self._config, server_address, credentials(auth))

    async def search(
        self, term: str, limit: int, auth: Mapping[str, Any] | None = None
    ) -> list[Found]:
        """What a registry offers for a term (`[HOST/]TERM`). Raises: see `search.py`."""
        return await search(self._sessions, self._config, term, limit, credentials(auth))

    # --- manifests ----------------------------------------------------------------------

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
        url = f"{_base(endpoint, name)}/manifests/{name.digest or name.tag}"
        response, data = await self._answer(
            endpoint, name, url, who, _MANIFEST_LIMIT_BYTES, {"Accept": _ACCEPT}
        )
        promised = response.headers.get("Docker-Content-Digest", "")
        return _checked(data, response.content_type, name, promised)

    async def tags(self, name: Reference, auth: Mapping[str, Any] | None = None) -> list[str]:
        """All tags of a repository, as the registry sorts them.

        Raises: PullDenied, Unauthorized, RegistryUnreachable, ….
        """
        who = credentials(auth)
        return await self._somewhere(name, lambda e: self._tags(e, name, who))

    async def _tags(self, endpoint: Endpoint, name: Reference, who: Credentials) -> list[str]:
        found: dict[str, None] = {}
        url = f"{_base(endpoint, name)}/tags/list"
        for _ in range(_MAX_TAG_PAGES):
            response, data = await self._answer(endpoint, name, url, who, _TAGS_LIMIT_BYTES, {})
            try:
                page = msgspec.json.decode(data, type=_Tags).tags or []
            except msgspec.DecodeError as error:
                raise SystemFailure(
                    f"{shown('GET', url)}: the registry's answer is no list of tags: {error}"
                ) from error
            before = len(found)
            found.update(dict.fromkeys(page))
            following = response.links.get("next")
            if following is None or len(found) == before:
                break
            url = _own(endpoint, str(following["url"]), url)
        return list(found)

    async def _answer(
        self,
        endpoint: Endpoint,
        name: Reference,
        url: str,
        who: Credentials,
        limit_bytes: int,
        headers: dict[str, str],
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """A good answer with its body, read within limits of size and time."""

        async def once() -> tuple[aiohttp.ClientResponse, bytes]:
            async with self._request(endpoint, name, url, who, headers) as response:
                with translated(shown("GET", url)):
                    async with asyncio.timeout(4 * self._config.stall_timeout_s):
                        data = await read_limited(response, limit_bytes)
                if data is None:
                    raise SystemFailure(
                        f"{shown('GET', url)}: a manifest of more than {limit_bytes >> 20} MiB"
                    )
                if response.status == 200:
                    return response, data
            refusals = response.headers.getall("WWW-Authenticate", [])
            if any("insufficient_scope" in refusal for refusal in refusals):
                data = _DENIED
            error = manifest_error(response.status, data, name, shown("GET", url))
            if is_retryable(response.status):
                raise Busy(error, response.headers.get("Retry-After", ""))
            raise error

        attempts = min(self._config.max_attempts, _MANIFEST_ATTEMPTS)
        return await self._sessions.persistently(attempts, once)

    def _request(
        self,
        endpoint: Endpoint,
        name: Reference,
        url: str,
        who: Credentials,
        headers: dict[str, str],
    ) -> Any:
        """Mirrors are not told who asks; but which registry they stand for, as containerd does."""
        if endpoint.mirror:
            url = str(URL(url).update_query(ns=name.domain))
        return self._sessions.request(
            "GET",
            url,
            who=_NOBODY if endpoint.mirror else who,
            scope=pull_scope(name),
            headers=headers,
        )

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
                    body = await read_limited(response, _ERROR_LIMIT_BYTES) or b""
                    error = parse_error(response.status, body)
                    raise refused(response.status, error, shown("GET", f"{endpoint.url}/v2/"))
            return endpoint

        endpoint = await self._at_origin(name, ping)
        return Uploader(self._sessions, endpoint.url, name, who)

    # --- blobs --------------------------------------------------------------------------

    async def blob(
        self,
        name: Reference,
        descriptor: Descriptor,
        auth: Mapping[str, Any] | None = None,
        offset: int = 0,
    ) -> AsyncGenerator[bytes, None]:
        """A blob's bytes from `offset` to its size; a broken connection is resumed where it broke,
        what a mirror fails to give is taken from the registry.

        The digest is the caller's to check (over all bytes, also those before `offset`).
        Raises: BrokenTransfer when the registry stalls, ends early or sends too much; NotFound, ….
        """
        who = credentials(auth)
        sources = self._sources(name, descriptor)
        for position, source in enumerate(sources):
            try:
                async with aclosing(self._whole(source, name, descriptor, who, offset)) as chunks:
                    async for chunk in chunks:
                        offset += len(chunk)
                        yield chunk
                return
            except EngineError as error:
                if position + 1 == len(sources):
                    raise
                log.info("%s does not come from %s: %s", descriptor.digest, source[1], error)

    def _sources(self, name: Reference, descriptor: Descriptor) -> list[tuple[Endpoint, str]]:
        """Where a blob may be, in order: (whom to ask as, URL)."""
        origin = self._origins.get(name.domain) or endpoints(self._config, name.domain)[-1]
        ordered = dict.fromkeys([self._answered.get(name.name, origin), origin])
        found = [(e, f"{_base(e, name)}/blobs/{descriptor.digest}") for e in ordered]
        # A foreign layer may lie where its maker says, and nobody there needs to know us.
        return found + [
            (Endpoint(url, mirror=True), url)
            for url in descriptor.urls or ()
            if url.startswith(("https://", "http://"))
        ]

    async def _whole(
        self,
        source: tuple[Endpoint, str],
        name: Reference,
        descriptor: Descriptor,
        who: Credentials,
        offset: int,
    ) -> AsyncGenerator[bytes, None]:
        """The rest of a blob from one source, however often it breaks off."""
        attempt = 0
        while offset < descriptor.size:
            attempt += 1
            before = offset
            retry_after = ""
            try:
                once = self._blob_once(source, name, descriptor, who, offset)
                async with aclosing(once) as chunks:
                    async for chunk in chunks:
                        offset += len(chunk)
                        yield chunk
                if offset >= descriptor.size:
                    return
                error: EngineError = BrokenTransfer(
                    f"the registry sent {offset} bytes of {descriptor.digest}, which has "
                    f"{descriptor.size}"
                )
            except Busy as busy:
                error, retry_after = busy.error, busy.retry_after
            except (BrokenTransfer, RegistryUnreachable) as broken:
                error = broken
            if offset - before >= _GOOD_PROGRESS_BYTES:
                attempt = 1
            if attempt >= self._config.max_attempts:
                raise error
            log.info("download of %s interrupted at %d: %s", descriptor.digest, offset, error)
            await asyncio.sleep(self._sessions.delay_s(attempt, retry_after, error))

    async def _blob_once(
        self,
        source: tuple[Endpoint, str],
        name: Reference,
        descriptor: Descriptor,
        who: Credentials,
        offset: int,
    ) -> AsyncGenerator[bytes, None]:
        endpoint, url = source
        headers = {"Range": f"bytes={offset}-{descriptor.size - 1}"} if offset else {}
        async with self._request(endpoint, name, url, who, headers) as response:
            if response.status == 416:
                raise WrongDigest(
                    f"{descriptor.size} bytes", f"{offset} bytes", f"blob {descriptor.digest}"
                )
            if response.status not in (200, 206):
                await _refuse(response, url)
            skip = offset if response.status == 200 else 0
            left = descriptor.size - offset
            pace = Pace(self._config.stall_timeout_s, shown("GET", url))
            with translated(shown("GET", url)):
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    pace.check(len(chunk))
                    piece = chunk[skip:] if skip else chunk
                    skip -= len(chunk) - len(piece)
                    left -= len(piece)
                    if left < 0:
                        raise WrongDigest(
                            f"{descriptor.size} bytes", "more", f"blob {descriptor.digest}"
                        )
                    if piece:
                        yield piece

    # --- which address ------------------------------------------------------------------

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
                self._remember(name, endpoint)
                return answer
        answer = await self._at_origin(name, ask)
        self._remember(name, self._origins[name.domain])
        return answer

    def _remember(self, name: Reference, endpoint: Endpoint) -> None:
        self._answered.pop(name.name, None)
        while len(self._answered) >= _MAX_ANSWERED:
            del self._answered[next(iter(self._answered))]
        self._answered[name.name] = endpoint

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


def pull_scope(name: Reference) -> str:
    return f"repository:{name.path}:pull"


def _base(endpoint: Endpoint, name: Reference) -> str:
    return f"{endpoint.url}/v2/{name.path}"


def _own(endpoint: Endpoint, url: str, asked: str) -> str:
    """The next page, if it is the registry's own. Raises: SystemFailure."""
    found = URL(asked).join(URL(url))
    if found.origin() != URL(endpoint.url).origin():
        raise SystemFailure(f"{shown('GET', asked)}: the list of tags goes on at another host")
    return str(found)


async def _refuse(response: aiohttp.ClientResponse, url: str) -> None:
    """Raises: Busy, or what the answer means."""
    body = await read_limited(response, _ERROR_LIMIT_BYTES) or b""
    error = refused(response.status, parse_error(response.status, body), shown("GET", url))
    if is_retryable(response.status):
        raise Busy(error, response.headers.get("Retry-After", ""))
    raise error


def _checked(data: bytes, media_type: str, name: Reference, promised: str) -> FetchedManifest:
    actual = digest_of(data)
    for expected in (name.digest, promised):
        if expected.startswith("sha256:") and expected != actual:
            raise WrongDigest(expected, actual, f"the manifest of {name.familiar}")
    return FetchedManifest(data, media_type, actual)
