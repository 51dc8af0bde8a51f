"""HTTP to registries: sessions, redirects, authentication, and patience with those that are busy.

Credentials and tokens go to the registry that was named, never to where it redirects or refers
to; each host on the way is met with its own TLS settings.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import aiohttp
from msgspec import Struct
from yarl import URL

from teu import __version__
from teu.errors import EngineError, SystemFailure
from teu.model.registry import BrokenTransfer, RegistryUnreachable
from teu.registry.answers import shown, translated
from teu.registry.auth import Authorizer, Credentials, parse_challenges
from teu.registry.config import RegistryConfig, is_loopback
from teu.registry.errors import TooManyRequests
from teu.registry.tls import Certificates

T = TypeVar("T")
_RETRY_STATUSES = frozenset((408, 429, 500, 502, 503, 504))
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_SAME_METHOD_REDIRECTS = frozenset((307, 308))
_MAX_REDIRECTS = 5
_MAX_RETRY_AFTER_S = 60.0
_READ_BUFFER_BYTES = 1 << 20
_KEEPALIVE_S = 1.0  # the requests of one pull follow each other at once
_MAX_KNOWN_HEADERS = 512


class Busy(Exception):
    """The registry failed in a way that may pass; `retry_after` is its own word on when."""

    def __init__(self, error: EngineError, retry_after: str = "") -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after


class _Request(Struct, frozen=True):
    """`home`: the registry that may know who we are. `patience_s`: how long its answer may take."""

    method: str
    target: URL
    home: URL
    headers: dict[str, str]
    data: Any
    patience_s: float
    authorization: str = ""

    @property
    def shown(self) -> str:
        return shown(self.method, str(self.target))

    @property
    def is_repeatable(self) -> bool:
        return self.data is None or isinstance(self.data, bytes)


class Sessions:
    """Connections to all registries. Loop's thread; `close` it."""

    def __init__(self, config: RegistryConfig) -> None:
        self.config = config
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._certificates = Certificates(config)
        self._authorizer = Authorizer(self._with_authorization)
        self._headers: dict[tuple[URL, str, Credentials], str] = {}

    def reload(self, config: RegistryConfig) -> None:
        """Takes over what may change while running."""
        self.config = config
        self._certificates = Certificates(config)

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        who: Credentials,
        scope: str,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        home: str = "",
        patience_s: float = 0,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An authenticated request; any status but a first 401 is the caller's business.

        `home` is the registry's base URL where the request may go elsewhere (an upload's place).
        `patience_s`: how long the answer may take; the stall time-out when 0.
        Raises: RegistryUnreachable, WrongProtocol, BrokenTransfer, Unauthorized.
        """
        target = URL(url)
        at = URL(home).origin() if home else target.origin()
        patience_s = patience_s or self.config.stall_timeout_s
        key = at, scope, who
        for attempt in (1, 2):
            request = _Request(
                method,
                target,
                at,
                dict(headers or {}),
                data,
                patience_s,
                self._headers.get(key, ""),
            )
            async with self._following(request) as response:
                if response.status != 401 or attempt == 2 or not _is_home(at, response.url):
                    yield response
                    return
                challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
            await self._authenticate(request, challenges, key)
            if not request.is_repeatable:
                raise BrokenTransfer(f"{request.shown}: the registry wants to be asked again")

    async def identity(self, url: str, who: Credentials) -> str:
        """What a registry's token server gives to be kept in place of a password; "" for nothing.

        Raises: Unauthorized, Forbidden, RegistryUnreachable, BrokenTransfer, ….
        """
        target = URL(url)
        patience_s = self.config.stall_timeout_s
        request = _Request("GET", target, target.origin(), {}, None, patience_s)
        async with self._following(request) as response:
            headers = response.headers.getall("WWW-Authenticate", [])
        if response.status != 401 or not who.username:
            return ""
        return await self._authorizer.identity(
            parse_challenges(headers),
            who,
            request=request.shown,
            plain_http=target.scheme == "http",
        )

    async def _authenticate(
        self, request: _Request, challenges: list[Any], key: tuple[URL, str, Credentials]
    ) -> None:
        if request.authorization:
            self._authorizer.forget(request.authorization)
            self._headers.pop(key, None)
        header = await self._authorizer.answer(
            challenges,
            key[2],
            request=request.shown,
            plain_http=request.home.scheme == "http",
            scope=key[1],
        )
        while len(self._headers) >= _MAX_KNOWN_HEADERS:
            del self._headers[next(iter(self._headers))]
        self._headers[key] = header

    @asynccontextmanager
    async def _with_authorization(
        self, method: str, url: URL, authorization: str, data: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A request to a token server."""
        patience_s = self.config.stall_timeout_s
        request = _Request(method, url, url.origin(), {}, data, patience_s, authorization)
        async with self._following(request) as response:
            yield response

    @asynccontextmanager
    async def _following(self, request: _Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer at the end of all redirects."""
        for _ in range(_MAX_REDIRECTS + 1):
            with translated(request.shown):
                response = await self._send(request)
            try:
                following = _redirected(request, response)
                if following is None:
                    with translated(request.shown):
                        yield response
                    return
            finally:
                response.release()
            request = following
        raise SystemFailure(
            f"{request.shown}: stopped after {_MAX_REDIRECTS} redirects: the registry redirects "
            "to nowhere"
        )

    async def _send(self, request: _Request) -> aiohttp.ClientResponse:
        headers = request.headers
        if request.authorization and _is_home(request.home, request.target):
            headers = headers | {"Authorization": request.authorization}
        limit_s = self.config.connect_timeout_s + 2 * request.patience_s
        async with asyncio.timeout(limit_s if request.data is None else None):
            return await self._session(request.target).request(
                request.method,
                request.target,
                headers=headers,
                data=request.data,
                ssl=self._certificates.context(request.target),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    sock_connect=self.config.connect_timeout_s,
                    sock_read=request.patience_s,
                ),
            )

    def _session(self, target: URL) -> aiohttp.ClientSession:
        """Loopback is never reached through a proxy."""
        direct = is_loopback(target.host or "")
        if direct not in self._sessions:
            self._sessions[direct] = aiohttp.ClientSession(
                headers={"User-Agent": f"teu/{__version__}", "Accept-Encoding": "identity"},
                auto_decompress=False,
                read_bufsize=_READ_BUFFER_BYTES,
                trust_env=not direct,
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(keepalive_timeout=_KEEPALIVE_S),
            )
        return self._sessions[direct]

    # --- patience -----------------------------------------------------------------------

    async def persistently(self, attempts: int, work: Callable[[], Awaitable[T]]) -> T:
        """Does it again, later and later, while the registry is Busy or connections break.

        Raises: the last error; at once when the registry wants a longer wait than anybody has.
        """
        for attempt in range(1, attempts + 1):
            try:
                return await work()
            except Busy as busy:
                error, retry_after = busy.error, busy.retry_after
            except (BrokenTransfer, RegistryUnreachable) as broken:
                error, retry_after = broken, ""
            if attempt == attempts:
                raise error
            await asyncio.sleep(self.delay_s(attempt, retry_after, error))
        raise AssertionError("the loop returns or raises")

    def delay_s(self, attempt: int, retry_after: str, error: EngineError) -> float:
        """How long to wait before another attempt (the first is 1). Raises: TooManyRequests when
        the registry wants a wait that is too long."""
        wanted_s = _seconds(retry_after)
        if wanted_s is None:
            return self.config.backoff_s * 2.0 ** (attempt - 1) * random.uniform(0.8, 1.2)
        if wanted_s > _MAX_RETRY_AFTER_S:
            raise TooManyRequests(
                f"{error.message}: the registry asks to come back in {wanted_s:.0f} s"
            ) from error
        return wanted_s


def is_retryable(status: int) -> bool:
    return status in _RETRY_STATUSES


def _is_home(home: URL, target: URL) -> bool:
    """Whether a URL is the registry's own: the same origin, or its TLS side."""
    if target.origin() == home:
        return True
    return target.host == home.host and (home.scheme, target.scheme) == ("http", "https")


def _redirected(request: _Request, response: aiohttp.ClientResponse) -> _Request | None:
    """The request that a redirect asks for; None for any other answer.

    Raises: SystemFailure for one that cannot be followed.
    """
    location = response.headers.get("Location", "")
    if response.status not in _REDIRECTS or not location:
        return None
    reading = request.method in ("GET", "HEAD")
    if not reading and not (response.status in _SAME_METHOD_REDIRECTS and request.is_repeatable):
        return None
    try:
        target = response.url.join(URL(location, encoded=True))
        if target.scheme not in ("http", "https") or not target.host:
            raise ValueError("not an http:// or https:// address")
    except ValueError as error:
        raise SystemFailure(
            f"{request.shown}: the registry redirects to nowhere ({location[:200]}): {error}"
        ) from error
    return _Request(
        request.method, target, request.home, request.headers, request.data,
        request.patience_s, request.authorization,
    )  # fmt: skip


def _seconds(retry_after: str) -> float | None:
    """`Retry-After`: seconds, or an HTTP date. Source: RFC 9110, 10.2.3."""
    if retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
