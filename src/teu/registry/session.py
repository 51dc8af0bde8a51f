"""HTTP to one registry: sessions, TLS, authentication, retries, and errors in Docker's words."""

import os
import random
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from teu import __version__
from teu.errors import EngineError, SystemFailure
from teu.model.registry import BrokenTransfer, RegistryUnreachable
from teu.registry.auth import Authorizer, Credentials, parse_challenges
from teu.registry.config import RegistryConfig, is_insecure, is_loopback

_RETRY_STATUSES = frozenset((408, 429, 500, 502, 503, 504))
_MAX_RETRY_AFTER_S = 60.0
_READ_BUFFER_BYTES = 1 << 20


class WrongProtocol(RegistryUnreachable):
    """Something answered, but not with TLS."""


class Sessions:
    """Connections to all registries. Loop's thread; `close` it."""

    def __init__(self, config: RegistryConfig) -> None:
        self.config = config
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._contexts: dict[str, ssl.SSLContext | bool] = {}
        self._authorizer = Authorizer()
        self._headers: dict[tuple[str, str, Credentials], str] = {}

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
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An authenticated request; any status but 401 is the caller's business.

        Raises: RegistryUnreachable, WrongProtocol, BrokenTransfer, Unauthorized.
        """
        target = URL(url)
        session = self._session(target)
        what = shown(method, url)
        key = f"{target.host}:{target.port}", scope, who
        sent = dict(headers or {})
        for attempt in (1, 2):
            if key in self._headers:
                sent["Authorization"] = self._headers[key]
            async with self._one(session, method, target, sent, data) as response:
                if response.status != 401 or attempt == 2:
                    yield response
                    return
                challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
            if key in self._headers:
                self._authorizer.forget(self._headers.pop(key))
            with translated(what):
                self._headers[key] = await self._authorizer.answer(
                    session,
                    challenges,
                    who,
                    request=what,
                    plain_http=target.scheme == "http",
                    scope=scope,
                )

    @asynccontextmanager
    async def _one(
        self,
        session: aiohttp.ClientSession,
        method: str,
        target: URL,
        headers: dict[str, str],
        data: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        with translated(shown(method, str(target))):
            call = session.request(
                method, target, headers=headers, data=data, ssl=self._tls(target), max_redirects=5
            )
            async with call as response:
                yield response

    def _session(self, target: URL) -> aiohttp.ClientSession:
        """Loopback is never reached through a proxy."""
        direct = is_loopback(target.host or "")
        if direct not in self._sessions:
            self._sessions[direct] = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    sock_connect=self.config.connect_timeout_s,
                    sock_read=self.config.stall_timeout_s,
                ),
                headers={"User-Agent": f"teu/{__version__}", "Accept-Encoding": "identity"},
                auto_decompress=False,
                read_bufsize=_READ_BUFFER_BYTES,
                trust_env=not direct,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._sessions[direct]

    def _tls(self, target: URL) -> ssl.SSLContext | bool:
        host = f"{target.host}:{target.port}"
        if host not in self._contexts:
            self._contexts[host] = self._new_tls(target)
        return self._contexts[host]

    def _new_tls(self, target: URL) -> ssl.SSLContext | bool:
        names = (target.authority, f"{target.host}:{target.port}", str(target.host))
        if any(is_insecure(self.config, name) for name in names):
            return False
        for base in self.config.certs_directories:
            for name in names:
                if (base / name).is_dir():
                    return _custom_tls(base / name)
        return True

    def delay_s(self, attempt: int, retry_after: str = "") -> float:
        """How long to wait before another attempt (the first is 1)."""
        if retry_after.isdigit():
            return min(float(retry_after), _MAX_RETRY_AFTER_S)
        return self.config.backoff_s * 2.0 ** (attempt - 1) * random.uniform(0.8, 1.2)


def _custom_tls(directory: Path) -> ssl.SSLContext:
    """`*.crt` are authorities to trust besides the system's, `NAME.cert` with `NAME.key` is our
    own certificate. Source: Docker's documentation, "Verify repository client with certificates".
    """
    context = ssl.create_default_context()
    try:
        for path in sorted(directory.glob("*.crt")):
            context.load_verify_locations(path)
        for path in sorted(directory.glob("*.cert")):
            context.load_cert_chain(path, path.with_suffix(".key"))
    except (OSError, ssl.SSLError) as error:
        raise SystemFailure(f"cannot use the certificates in {directory}: {error}") from error
    return context


def is_retryable(status: int) -> bool:
    return status in _RETRY_STATUSES


def shown(method: str, url: str) -> str:
    """A request the way Go prints it: `Get "https://…"`."""
    return f'{method.capitalize()} "{url}"'


@contextmanager
def translated(request: str) -> Iterator[None]:
    """Turns aiohttp's and asyncio's errors into ours."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _translation(request, error) from error


def _translation(request: str, error: BaseException) -> EngineError:
    match error:
        case aiohttp.ClientHttpProxyError():
            return RegistryUnreachable(
                f"{request}: proxyconnect tcp: the proxy answered {error.status}: check "
                "HTTPS_PROXY and NO_PROXY of the daemon"
            )
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return _tls_error(request, error)
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return _connect_error(request, error)
        case aiohttp.ServerDisconnectedError():
            return WrongProtocol(f"{request}: EOF: the registry closed the connection")
        case TimeoutError():
            return BrokenTransfer(
                f"{request}: the registry stopped answering (timeout awaiting its response): try "
                "again later"
            )
        case aiohttp.TooManyRedirects() | aiohttp.InvalidURL():
            return SystemFailure(f"{request}: the registry redirects to nowhere: {error}")
    return BrokenTransfer(f"{request}: the connection broke: {error}")


def _tls_error(request: str, error: aiohttp.ClientError) -> EngineError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return RegistryUnreachable(
            f"{request}: tls: failed to verify certificate: x509: {error.certificate_error}: "
            "put the authority's certificate into certs.d/HOST/ca.crt, or list the host in "
            "insecure-registries"
        )
    return WrongProtocol(
        f"{request}: http: server gave HTTP response to HTTPS client: if the registry has "
        "no TLS, list it in insecure-registries"
    )


def _connect_error(request: str, error: BaseException) -> RegistryUnreachable:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return RegistryUnreachable(
            f"{request}: dial tcp: lookup {error.host}: no such host: check the name and this "
            "host's DNS and network"
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        reason = os.strerror(number).lower() if number else str(error.os_error)
        return RegistryUnreachable(
            f"{request}: dial tcp {error.host}:{error.port}: connect: {reason}: is the "
            "registry running, and reachable from this host?"
        )
    return RegistryUnreachable(
        f"{request}: dial tcp: i/o timeout: is the registry reachable from this host?"
    )
