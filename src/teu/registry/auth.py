"""How a registry wants to be asked: Basic credentials, or a bearer token from its token server.

Source: distribution `docs/spec/auth/token.md`, `oauth2.md`; RFC 7235 (challenges).
"""

import base64
import re
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from teu.errors import Forbidden, InvalidParameter, Unauthorized
from teu.registry.errors import parse_error, request_error

_CHALLENGE = re.compile(
    r"(?i)\b(bearer|basic)\b\s*((?:[a-z_]+\s*=\s*(?:\"[^\"]*\"|[^\s,]+)\s*,?\s*)*)"
)
_PARAMETER = re.compile(r"(?i)([a-z_]+)\s*=\s*(?:\"([^\"]*)\"|([^\s,]+))")
_CLIENT_ID = "teu"
_DEFAULT_LIFETIME_S = 60
_LIFETIME_MARGIN_S = 10


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
    expires_in: int = _DEFAULT_LIFETIME_S


class Authorizer:
    """Answers challenges; keeps tokens until they expire."""

    def __init__(self) -> None:
        self._tokens: dict[tuple[str, str, str, Credentials], tuple[str, float]] = {}

    async def answer(
        self,
        session: aiohttp.ClientSession,
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
            if URL(challenge.realm).scheme != "https" and not plain_http:
                raise Forbidden(
                    f"{request}: the registry names the token server {challenge.realm}, which "
                    "has no TLS: credentials are not sent there"
                )
            return await self._bearer(session, challenge, who, challenge.scope or scope)
        raise Unauthorized(f"{request}: unauthorized: authentication required")

    async def _bearer(
        self, session: aiohttp.ClientSession, challenge: Challenge, who: Credentials, scope: str
    ) -> str:
        key = challenge.realm, challenge.service, scope, who
        token, expires = self._tokens.get(key, ("", 0.0))
        if time.monotonic() >= expires:
            answer = await self._fetch(session, challenge, who, scope)
            token = answer.token or answer.access_token
            lifetime_s = max(answer.expires_in, _DEFAULT_LIFETIME_S) - _LIFETIME_MARGIN_S
            self._tokens[key] = token, time.monotonic() + lifetime_s
        return f"Bearer {token}"

    def forget(self, header: str) -> None:
        """A token that was refused is not offered again."""
        token = header.removeprefix("Bearer ")
        self._tokens = {key: known for key, known in self._tokens.items() if known[0] != token}

    async def _fetch(
        self, session: aiohttp.ClientSession, challenge: Challenge, who: Credentials, scope: str
    ) -> _Token:
        query = {"service": challenge.service, "scope": scope}
        query = {key: value for key, value in query.items() if value}
        request = f'Get "{challenge.realm}"'
        if who.identity_token:
            form = query | {
                "grant_type": "refresh_token",
                "refresh_token": who.identity_token,
                "client_id": _CLIENT_ID,
            }
            call = session.post(challenge.realm, data=form)
        else:
            headers = {"Authorization": who.basic} if who.username else {}
            call = session.get(URL(challenge.realm).update_query(query), headers=headers)
        async with call as response:
            body = await response.content.read(1 << 20)
            if response.status >= 400:
                raise request_error(response.status, parse_error(response.status, body), request)
        try:
            answer = msgspec.json.decode(body, type=_Token)
        except msgspec.DecodeError as error:
            raise Unauthorized(f"{request}: the token server's answer is not a token") from error
        if not (answer.token or answer.access_token):
            raise Unauthorized(f"{request}: the token server gave no token")
        return answer
