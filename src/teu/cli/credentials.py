"""Registry logins in `config.json`, or in the credential helper that it names.

    auths: {HOST: {"auth": base64("user:password"), "identitytoken"}}, credsStore, credHelpers
Source: docker/cli `config/credentials`, docker-credential-helpers protocol.
"""

from __future__ import annotations

import base64

from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.config import ClientConfig

DOCKER_HUB = "https://index.docker.io/v1/"
_NO_CREDENTIALS = "credentials not found in native keychain"
_TOKEN_USER = "<token>"


def server_of(domain: str) -> str:
    """The key under which logins of an image's domain are kept."""
    return DOCKER_HUB if domain in ("docker.io", "index.docker.io") else domain


def registry_auth(config: ClientConfig, domain: str) -> str:
    """The X-Registry-Auth header for a registry: base64url of the login's JSON.

    Raises: Failure when a credential helper fails.
    """
    from teu.cli.jsontext import dumps

    login = find_login(config, server_of(domain))
    return base64.urlsafe_b64encode(dumps(login).encode()).decode()


def find_login(config: ClientConfig, server: str) -> dict[str, str]:
    """The stored login for `server` in the API's shape, {} if there is none."""
    if helper := _helper(config, server):
        return _from_helper(helper, server)
    auths = config.table("auths")
    for key, entry in auths.items():
        if _host(key) == _host(server) and isinstance(entry, dict):
            return _from_entry(entry, server)
    return {}


def store_login(config: ClientConfig, server: str, user: str, password: str, token: str) -> bool:
    """Keeps a login; True when that put it unencrypted into `config.json` (where it may have been
    already). Raises: Failure, OSError."""
    if helper := _helper(config, server):
        from teu.cli.helper import call_helper

        secret = {"ServerURL": server, "Username": user, "Secret": password}
        if token:
            secret |= {"Username": _TOKEN_USER, "Secret": token}
        call_helper(helper, "store", _dumps(secret))
        return False
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    entry = {"auth": encoded}
    if token:
        entry = {"auth": base64.b64encode(f"{user}:".encode()).decode(), "identitytoken": token}
    auths = config.table("auths")
    if auths.get(server) == entry:
        return False
    config.save(config.content | {"auths": auths | {server: entry}})
    return True


def erase_login(config: ClientConfig, server: str) -> bool:
    """Forgets a login; False when there was none. Raises: Failure, OSError."""
    if helper := _helper(config, server):
        from teu.cli.helper import call_helper

        call_helper(helper, "erase", server.encode())
        return True
    auths = config.table("auths")
    kept = {key: entry for key, entry in auths.items() if _host(key) != _host(server)}
    if len(kept) == len(auths):
        return False
    config.save(config.content | {"auths": kept})
    return True


def _helper(config: ClientConfig, server: str) -> str:
    named = config.table("credHelpers").get(_host(server))
    return named if isinstance(named, str) and named else config.text("credsStore")


def _from_entry(entry: dict[str, Any], server: str) -> dict[str, str]:
    try:
        text = base64.b64decode(entry.get("auth") or "", validate=True).decode()
    except ValueError as error:
        raise Failure(
            f"the login for {server} in the client's config.json is damaged: {error}; log in again"
        ) from error
    user, _, password = text.partition(":")
    login = {"username": user or entry.get("username", "")}
    login["password"] = password.rstrip("\0") or entry.get("password", "")
    login["serveraddress"] = server
    if token := entry.get("identitytoken"):
        login["identitytoken"] = token
    if token := entry.get("registrytoken"):
        login["registrytoken"] = token
    return {key: value for key, value in login.items() if value}


def _from_helper(helper: str, server: str) -> dict[str, str]:
    from teu.cli.helper import call_helper
    from teu.cli.jsontext import loads

    answer = call_helper(helper, "get", server.encode(), missing_text=_NO_CREDENTIALS)
    if not answer:
        return {}
    try:
        found = loads(answer)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(f"docker-credential-{helper} sent no usable answer: {error}") from error
    if user == _TOKEN_USER:
        return {"identitytoken": secret, "serveraddress": server}
    return {"username": user, "password": secret, "serveraddress": server}


def _host(server: str) -> str:
    bare = server.removeprefix("https://").removeprefix("http://")
    return bare.partition("/")[0]


def _dumps(value: dict[str, str]) -> bytes:
    from teu.cli.jsontext import dumps

    return dumps(value).encode()


def all_logins(config: ClientConfig) -> dict[str, dict[str, str]]:
    """Every stored login by server. Raises: Failure when a credential helper fails."""
    servers = {*config.table("auths"), *config.table("credHelpers")}
    found = {server: find_login(config, server) for server in sorted(servers)}
    return {server: login for server, login in found.items() if login}
