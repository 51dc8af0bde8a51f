"""Checking a login with a registry: what `docker login` has the daemon do.

Source: distribution-spec, "Determining Support" (`GET /v2/`); distribution token.md
(`offline_token`); API 1.51 SystemAuth.
"""

import re

from teu.errors import EngineError, InvalidParameter, Unauthorized
from teu.model.reference import DEFAULT_DOMAIN
from teu.model.registry import RegistryUnreachable
from teu.registry.answers import shown
from teu.registry.auth import Credentials
from teu.registry.config import Endpoint, RegistryConfig, endpoints
from teu.registry.errors import RegistryError, request_error
from teu.registry.session import Sessions

_HOST = re.compile(r"[A-Za-z0-9._-]{1,255}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,64}\](:[0-9]{1,5})?")
_HUB_NAMES = frozenset(("", "docker.io", "index.docker.io", "registry-1.docker.io"))


def registry_host(server_address: str) -> str:
    """`https://index.docker.io/v1/` -> `docker.io`, `http://host:5000/x` -> `host:5000`.

    Raises: InvalidParameter for what cannot be a host.
    """
    host = server_address.removeprefix("https://").removeprefix("http://").partition("/")[0]
    if host in _HUB_NAMES:
        return DEFAULT_DOMAIN
    if not _HOST.fullmatch(host):
        raise InvalidParameter(f"invalid registry address: {server_address!r}")
    return host


async def check_login(
    sessions: Sessions, config: RegistryConfig, server_address: str, who: Credentials
) -> str:
    """Asks the registry (never a mirror) whether it knows these credentials; the identity token
    that may be kept in place of the password, "" where the registry gives none.

    Raises: Unauthorized; RegistryUnreachable and others when no address of it answers.
    """
    problem: EngineError | None = None
    for endpoint in endpoints(config, registry_host(server_address)):
        if endpoint.mirror:
            continue
        try:
            return await _ask(sessions, endpoint, who)
        except RegistryUnreachable as error:
            problem = problem or error
    raise problem or RegistryUnreachable(f"no address of {server_address} is known")


async def _ask(sessions: Sessions, endpoint: Endpoint, who: Credentials) -> str:
    url = f"{endpoint.url}/v2/"
    token = await sessions.identity(url, who)
    async with sessions.request("GET", url, who=who, scope="") as response:
        status = response.status
    if status == 401:
        raise Unauthorized(f"login attempt to {url} failed with status: 401 Unauthorized")
    if status >= 400:
        error = RegistryError("UNKNOWN", "the registry refused the login")
        raise request_error(status, error, shown("GET", url))
    return token
