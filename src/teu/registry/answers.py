"""Answers of registries: read with a limit, and what goes wrong on the way in Docker's words."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from teu.errors import EngineError
from teu.model.registry import BrokenTransfer, RegistryUnreachable


class WrongProtocol(RegistryUnreachable):
    """Something answered, but not with TLS."""


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


async def read_limited(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes | None:
    """The whole body; None when it is longer than that. Raises: BrokenTransfer."""
    parts: list[bytes] = []
    size = 0
    with translated(shown(response.method, str(response.url))):
        async for part in response.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > limit_bytes:
                return None
    return b"".join(parts)
