"""`/v2/_catalog`, `/v2/NAME/tags/list`: names in pages.

Source: OCI distribution-spec 1.1, "Listing tags"; the reference registry's catalog.
"""

from urllib.parse import urlencode

from aiohttp import web

from teu.distribution.errors import Refusal
from teu.distribution.exchange import Exchange
from teu.distribution.registry import Registry

CATALOG_PAGE = 100
_NUMBER_DIGITS = 9


class ListingEndpoints:
    def __init__(self, registry: Registry) -> None:
        self._store = registry.store

    async def catalog(self, exchange: Exchange) -> web.StreamResponse:
        count = _page_size(exchange, CATALOG_PAGE)
        names = self._store.repositories(exchange.query("last"), count + 1)
        headers = _next_page(exchange, "/v2/_catalog", names, count)
        return exchange.json({"repositories": names[:count]}, headers)

    async def tags(self, exchange: Exchange) -> web.StreamResponse:
        repository = exchange.repository
        if not self._store.has_repository(repository):
            detail = {"name": repository}
            raise Refusal("NAME_UNKNOWN", "repository name not known to registry", detail)
        count = _page_size(exchange, -1)
        limit = count + 1 if count >= 0 else -1
        names = self._store.tags(repository, exchange.query("last"), limit)
        headers = _next_page(exchange, f"/v2/{repository}/tags/list", names, count)
        shown = names[:count] if count >= 0 else names
        return exchange.json({"name": repository, "tags": shown}, headers)


def _page_size(exchange: Exchange, default: int) -> int:
    """Raises: Refusal PAGINATION_NUMBER_INVALID."""
    text = exchange.query("n")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > _NUMBER_DIGITS:
        raise Refusal(
            "PAGINATION_NUMBER_INVALID", "invalid number of results requested", {"n": text}
        )
    return int(text)


def _next_page(exchange: Exchange, path: str, names: list[str], count: int) -> dict[str, str]:
    if count < 1 or len(names) <= count:
        return {}
    query = urlencode({"last": names[count - 1], "n": count})
    return {"Link": f'<{path}?{query}>; rel="next"'}
