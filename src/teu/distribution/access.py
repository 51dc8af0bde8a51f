"""Who may do what: an htpasswd file, rules, and tokens with scopes.

Without an htpasswd file everybody may do everything. With one, a request brings a user's name and
password (Basic) or a token that this server gave for them (Bearer); without rules every user may
do everything and others nothing. The rules file is JSON, the first rule that fits decides:

    {"rules": [{"users": ["ci-*"], "repositories": ["team/**"], "actions": ["pull", "push"]},
               {"users": ["anonymous"], "repositories": ["public/*"], "actions": ["pull"]}]}

`*` stands for anything but a slash, `**` for anything; `anonymous` is who brings no name.
Source: Docker registry v2 token authentication; RFC 7617, RFC 6750.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from teu.distribution.errors import Refusal
from teu.errors import InvalidParameter

ANONYMOUS = "anonymous"
ACTIONS = ("pull", "push", "delete")
TOKEN_LIFETIME_S = 300
_REMEMBERED_S = 60.0  # bcrypt takes a tenth of a second by design
_SCOPE = re.compile(r"repository:([^:]+(?::\d+/[^:]+)?):([a-z*,]+)")
_DUMMY_HASH = b"$2b$10$C6UzMDM.H6dfI/f/IKcEeO7ZBF1lXcKnCKrOMeVwRk9Xyx5UBXpLm"


class Rule(Struct, forbid_unknown_fields=True):
    users: list[str]
    repositories: list[str]
    actions: list[str] = field(default_factory=lambda: list(ACTIONS))

    def fits(self, user: str, repository: str) -> bool:
        return any(_fits(pattern, user) for pattern in self.users) and any(
            _fits(pattern, repository) for pattern in self.repositories
        )


class Rules(Struct, forbid_unknown_fields=True):
    rules: list[Rule]


class Access:
    """`htpasswd`, `rules`: files, read again when they change. `tokens`: ask for Bearer."""

    def __init__(
        self, htpasswd: Path | None = None, rules: Path | None = None, *, tokens: bool = False
    ) -> None:
        self._htpasswd = htpasswd
        self._rules = rules
        self._tokens = tokens
        self._key = secrets.token_bytes(32)
        self._remembered: dict[bytes, float] = {}
        self._cache: dict[Path, tuple[int, Any]] = {}
        self._passwords()
        self._rule_list()

    async def check(
        self, headers: Mapping[str, str], origin: str, repository: str, action: str
    ) -> str:
        """The user who asks. `action`: of ACTIONS, or "" for what needs only to be a user.

        Raises: Refusal UNAUTHORIZED (says how to authenticate), DENIED.
        """
        if self._htpasswd is None:
            return ANONYMOUS
        kind, _, value = headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            user, granted = self._token(value, origin, repository, action)
            if action and action not in granted.get(repository, ()):
                raise self._challenge(origin, repository, action, "insufficient_scope")
            return user
        user = ANONYMOUS
        if kind.lower() == "basic":
            user = await self._basic(value, origin, repository, action)
        if self._may(user, repository, action):
            return user
        if user == ANONYMOUS:
            raise self._challenge(origin, repository, action)
        raise Refusal("DENIED", "requested access to the resource is denied")

    async def grant(
        self, headers: Mapping[str, str], origin: str, scopes: list[str]
    ) -> dict[str, Any]:
        """A token for as much of the scopes (`repository:NAME:pull,push`) as the user may.

        Raises: Refusal UNAUTHORIZED for a wrong name or password.
        """
        kind, _, value = headers.get("Authorization", "").partition(" ")
        user = ANONYMOUS
        if kind.lower() == "basic":
            user = await self._basic(value, origin, "", "")
        granted: dict[str, list[str]] = {}
        for repository, words in _SCOPE.findall(" ".join(scopes)):
            wanted = ACTIONS if "*" in words else words.split(",")
            allowed = [w for w in wanted if w in ACTIONS and self._may(user, repository, w)]
            granted[repository] = allowed
        now = int(time.time())
        body = json.dumps({"user": user, "access": granted, "until": now + TOKEN_LIFETIME_S})
        token = _encode(body.encode()) + "." + _encode(self._signature(body.encode()))
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        return {
            **{"token": token, "access_token": token},
            **{"expires_in": TOKEN_LIFETIME_S, "issued_at": issued},
        }

    def _may(self, user: str, repository: str, action: str) -> bool:
        rules = self._rule_list()
        if rules is None or not action:
            return user != ANONYMOUS or (not action and rules is not None)
        for rule in rules:
            if rule.fits(user, repository):
                return action in rule.actions
        return False

    async def _basic(self, value: str, origin: str, repository: str, action: str) -> str:
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise self._challenge(origin, repository, action) from None
        stored = self._passwords().get(user)
        proof = hashlib.sha256(f"{user}:{password}:{stored!r}".encode() + self._key).digest()
        if stored and self._remembered.get(proof, 0.0) > time.monotonic():
            return user
        # Takes as long for a name that is not there: the time says nothing about names.
        good = await asyncio.to_thread(_matches, password.encode(), stored or _DUMMY_HASH)
        if not good or not stored:
            raise self._challenge(origin, repository, action)
        now = time.monotonic()
        self._remembered = {key: until for key, until in self._remembered.items() if until > now}
        self._remembered[proof] = now + _REMEMBERED_S
        return user

    def _token(
        self, token: str, origin: str, repository: str, action: str
    ) -> tuple[str, dict[str, list[str]]]:
        body, _, signature = token.partition(".")
        try:
            content = _decode(body)
            given = _decode(signature)
        except (ValueError, binascii.Error):
            content = given = b""
        if not hmac.compare_digest(self._signature(content), given):
            raise self._challenge(origin, repository, action, "invalid_token")
        said = json.loads(content)
        if said["until"] < time.time():
            raise self._challenge(origin, repository, action, "invalid_token")
        return said["user"], said["access"]

    def _signature(self, content: bytes) -> bytes:
        return hmac.digest(self._key, content, "sha256")

    def _challenge(self, origin: str, repository: str, action: str, error: str = "") -> Refusal:
        value = 'Basic realm="Registry Realm"'
        if self._tokens:
            value = f'Bearer realm="{origin}/token",service="{origin.partition("//")[2]}"'
            if repository and action:
                words = action if action == "pull" else f"pull,{action}"
                value += f',scope="repository:{repository}:{words}"'
            if error:
                value += f',error="{error}"'
        detail = [{"Type": "repository", "Name": repository, "Action": action}]
        return Refusal(
            "UNAUTHORIZED",
            "authentication required",
            detail if repository else None,
            headers={"WWW-Authenticate": value},
        )

    def _passwords(self) -> dict[str, bytes]:
        return self._read(self._htpasswd, _parse_htpasswd) if self._htpasswd else {}

    def _rule_list(self) -> list[Rule] | None:
        return self._read(self._rules, _parse_rules) if self._rules else None

    def _read(self, path: Path, parse: Any) -> Any:
        """The parsed file as it is now. Raises: InvalidParameter."""
        try:
            changed = path.stat().st_mtime_ns
            known = self._cache.get(path)
            if known is None or known[0] != changed:
                known = self._cache[path] = (changed, parse(path))
        except OSError as error:
            raise InvalidParameter(f"cannot read {path}: {error.strerror}") from error
        return known[1]


def _matches(password: bytes, stored: bytes) -> bool:
    import bcrypt

    good: bool = bcrypt.checkpw(password[:72], stored)
    return good


def _parse_htpasswd(path: Path) -> dict[str, bytes]:
    found = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, stored = line.strip().partition(":")
        if not colon or not stored.startswith(("$2a$", "$2b$", "$2y$")):
            raise InvalidParameter(
                f"{path}, line {number}: not `user:bcrypt-hash`; make it with htpasswd -B"
            )
        found[user] = stored.encode()
    return found


def _parse_rules(path: Path) -> list[Rule]:
    try:
        rules = msgspec.json.decode(path.read_bytes(), type=Rules).rules
    except msgspec.DecodeError as error:
        raise InvalidParameter(f"{path}: {error}") from error
    for word in (word for rule in rules for word in rule.actions):
        if word not in ACTIONS:
            raise InvalidParameter(f"{path}: unknown action {word!r}: use pull, push, delete")
    return rules


def _fits(pattern: str, text: str) -> bool:
    parts = re.split(r"(\*\*|\*)", pattern)
    kinds = {"**": ".*", "*": "[^/]*"}
    return bool(re.fullmatch("".join(kinds.get(p) or re.escape(p) for p in parts), text))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
