"""How a registry wants to be asked: Basic credentials, or a bearer token from its token server.

Source: distribution `docs/spec/auth/token.md`, `oauth2.md`; RFC 7235 (challenges).
"""

import base64
import re
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from teu.errors import Forbidden, InvalidParameter, Unauthorized
from teu.registry.answers import read_limited
from teu.registry.errors import parse_error, request_error

_CHALLENGE = re.compile(
    r"(?i)\b(bearer|basic)\b\s*((?:[a-z_]+\s*=\s*(?:\"[^\"]*\"|[^\s,]+)\s*,?\s*)*)"
)
_PARAMETER = re.compile(r"(?i)([a-z_]+)\s*=\s*(?:\"([^\"]*)\"|([^\s,]+))")
_CLIENT_ID = "teu"
_DEFAULT_LIFETIME_S = 60
_LIFETIME_MARGIN_S = 10
_TOKEN_LIMIT_BYTES = 1 << 20
_MAX_TOKENS = 512


class Credentials(Struct, frozen=True):
    """What a client sent in X-Registry-Auth, decoded."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    @property
    def basic(self) -> str:
        text = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(text).decode()}"


def credentials(auth: Mapping[str, Any] | None) -> Credentials:
    """Raises: InvalidParameter for a field that is not text."""
    fields = dict(auth or {})
    if not all(isinstance(value, str) for value in fields.values() if value is not None):
        raise InvalidParameter("X-Registry-Auth: every field must be a string")
    username, password = fields.get("username") or "", fields.get("password") or ""
    if not username and fields.get("auth"):
        try:
            decoded = base64.b64decode(fields["auth"]).decode()
        except ValueError as error:
            raise InvalidParameter("X-Registry-Auth: `auth` is not base64") from error
        username, _, password = decoded.partition(":")
    return Credentials(
        username,
        password,
        fields.get("identitytoken") or "",
        fields.get("registrytoken") or "",
    )


class Challenge(Struct, frozen=True):
    scheme: str  # `bearer` or `basic`
    realm: str = ""
    service: str = ""
    scope: str = ""


def parse_challenges(headers: list[str]) -> list[Challenge]:
    """The challenges of WWW-Authenticate headers that we can answer, bearer first."""
    found = []
    for header in headers:
        for scheme, parameters in _CHALLENGE.findall(header):
            values = {
                k.lower(): quoted or bare for k, quoted, bare in _PARAMETER.findall(parameters)
            }
            challenge = Challenge(
                scheme.lower(),
                values.get("realm", ""),
                values.get("service", ""),
                values.get("scope", ""),
            )
            found.append(challenge)
    return sorted(found, key=lambda c: c.scheme != "bearer")


class _Token(Struct):
    token: str = ""
    access_token: str = ""
    refresh_token: str = ""
    expires_in: int = _DEFAULT_LIFETIME_S


# Sends a request (method, URL, Authorization, form) to a token server.
Exchange = Callable[[str, URL, str, Any], AbstractAsyncContextManager[aiohttp.ClientResponse]]


class Authorizer:
    """Answers challenges; keeps tokens until they expire."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._tokens: dict[tuple[Challenge, str, Credentials], tuple[str, float]] = {}

    async def answer(
        self,
        challenges: list[Challenge],
        who: Credentials,
        *,
        request: str,
        plain_http: bool,
        scope: str,
    ) -> str:
        """The Authorization header for a challenged request. `plain_http`: the registry itself was
        reached without TLS, so its token server may be, too.

        Raises: Unauthorized without usable credentials; Forbidden.
        """
        if who.registry_token:
            return f"Bearer {who.registry_token}"
        for challenge in challenges:
            if challenge.scheme == "basic":
                if not who.username:
                    raise Unauthorized(f"{request}: no basic auth credentials")
                return who.basic
            _check_realm(challenge.realm, request, plain_http)
            return await self._bearer(challenge, who, _scopes(challenge.scope, scope))
        raise Unauthorized(f"{request}: unauthorized: authentication required")

    async def identity(
        self, challenges: list[Challenge], who: Credentials, *, request: str, plain_http: bool
    ) -> str:
        """A token that may be kept instead of the password; "" from a registry that gives none.

        Raises: Unauthorized, Forbidden.
        """
        for challenge in challenges:
            if challenge.scheme == "bearer":
                _check_realm(challenge.realm, request, plain_http)
                return (await self._fetch(challenge, who, "", offline=True)).refresh_token
        return ""

    async def _bearer(self, challenge: Challenge, who: Credentials, scope: str) -> str:
        key = challenge, scope, who
        token, expires = self._tokens.get(key, ("", 0.0))
        if time.monotonic() >= expires:
            answer = await self._fetch(challenge, who, scope)
            token = answer.token or answer.access_token
            lifetime_s = max(answer.expires_in, _DEFAULT_LIFETIME_S) - _LIFETIME_MARGIN_S
            while len(self._tokens) >= _MAX_TOKENS:
                del self._tokens[next(iter(self._tokens))]
            self._tokens[key] = token, time.monotonic() + lifetime_s
        return f"Bearer {token}"

    def forget(self, header: str) -> None:
        """A token that was refused is not offered again."""
        token = header.removeprefix("Bearer ")
        self._tokens = {key: known for key, known in self._tokens.items() if known[0] != token}

    async def _fetch(
        self, challenge: Challenge, who: Credentials, scope: str, *, offline: bool = False
    ) -> _Token:
        request = f'Get "{challenge.realm}"'
        asked = [("service", challenge.service)] if challenge.service else []
        if who.identity_token:
            form = {
                **dict(asked),
                "scope": scope,
                "grant_type": "refresh_token",
                "refresh_token": who.identity_token,
                "client_id": _CLIENT_ID,
            }
            call = self._exchange("POST", URL(challenge.realm), "", form)
        else:
            asked += [("scope", part) for part in scope.split()]
            if who.username:
                asked += [("account", who.username), ("client_id", _CLIENT_ID)]
            if offline:
                asked.append(("offline_token", "true"))
            url = URL(challenge.realm).extend_query(asked)
            call = self._exchange("GET", url, who.basic if who.username else "", None)
        async with call as response:
            body = await read_limited(response, _TOKEN_LIMIT_BYTES) or b""
            if response.status >= 400:
                raise request_error(response.status, parse_error(response.status, body), request)
        return _decoded(body, request)


def _decoded(body: bytes, request: str) -> _Token:
    try:
        answer = msgspec.json.decode(body, type=_Token)
    except msgspec.DecodeError as error:
        raise Unauthorized(f"{request}: the token server's answer is not a token") from error
    if not (answer.token or answer.access_token):
        raise Unauthorized(f"{request}: the token server gave no token")
    return answer


def _check_realm(realm: str, request: str, plain_http: bool) -> None:
    """Raises: Forbidden for a token server to which credentials must not go."""
    scheme = URL(realm).scheme
    if scheme != "https" and not (plain_http and scheme == "http"):
        raise Forbidden(
            f"{request}: the registry names the token server {realm}, which has no TLS: "
            "credentials are not sent there"
        )


def _scopes(demanded: str, wanted: str) -> str:
    """What the registry demands, and what we shall need besides (another repository to mount a
    layer from)."""
    return " ".join(dict.fromkeys([*demanded.split(), *wanted.split()]))
