"""Proxy settings of `config.json` as environment variables of new containers."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teu.cli.session import Session

_VARIABLES = {
    "httpProxy": "HTTP_PROXY",
    "httpsProxy": "HTTPS_PROXY",
    "noProxy": "NO_PROXY",
    "ftpProxy": "FTP_PROXY",
    "allProxy": "ALL_PROXY",
}


def add_proxies(session: Session, variables: list[str] | None) -> list[str] | None:
    """`variables` and, unless they are set there, the proxies for this daemon (or `default`)."""
    table = session.config.table("proxies")
    settings = table.get(session.client.endpoint.url) or table.get("default") or {}
    given = list(variables or ())
    names = {text.partition("=")[0] for text in given}
    for key, name in _VARIABLES.items():
        value = settings.get(key)
        if value:
            spellings = (name, name.lower())
            given += [f"{spelling}={value}" for spelling in spellings if spelling not in names]
    return given or None
