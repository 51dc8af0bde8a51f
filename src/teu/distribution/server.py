"""HTTP for the registry: routes, access, limits, errors, counters, the audit log."""

import json
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import IO, Any

from aiohttp import web
from msgspec import Struct

from teu import clock
from teu.distribution import errors, grammar
from teu.distribution.access import Access
from teu.distribution.blobs import BlobEndpoints
from teu.distribution.errors import Refusal
from teu.distribution.exchange import CLIENT_GONE, JSON_TYPE, Exchange
from teu.distribution.listings import ListingEndpoints
from teu.distribution.manifests import ManifestEndpoints
from teu.distribution.metrics import Metrics
from teu.distribution.notify import Notifier
from teu.distribution.page import render
from teu.distribution.pullthrough import PullThrough
from teu.distribution.registry import Registry
from teu.errors import EngineError

Endpoint = Callable[[Exchange], Awaitable[web.StreamResponse]]
_PATH = re.compile(
    r"/v2/(?P<name>.+?)/(?:(?P<tags>tags/list)"
    r"|(?P<kind>manifests|referrers|blobs(?:/uploads)?)/(?P<reference>[^/]*))"
)
_READS = ("GET", "HEAD")
_RATE_MEMORY = 10_000  # clients
log = logging.getLogger(__name__)


class Route(Struct, frozen=True):
    """`action`: what the user must be allowed to do with the repository."""

    endpoint: Endpoint
    action: str
    event: str = ""


class Server:
    """`handle` is an aiohttp low-level handler. `rate`: requests a second for each client; 0: any.

    `audit`: gets a line of JSON for each request that changes or reads content.
    """

    def __init__(
        self,
        registry: Registry,
        access: Access,
        notifier: Notifier,
        *,
        upstream: PullThrough | None = None,
        read_only: bool = False,
        rate: float = 0,
        audit: IO[str] | None = None,
    ) -> None:
        self._registry = registry
        self._access = access
        self._notifier = notifier
        self._upstream = upstream
        self._read_only = read_only
        self._rate = rate
        self._audit = audit
        self._metrics = Metrics()
        self._tokens: dict[str, tuple[float, float]] = {}
        self._routes = self._table()
        self._listings = ListingEndpoints(registry)

    def _table(self) -> dict[tuple[str, str], Route]:
        blobs, manifests = BlobEndpoints(self._registry), ManifestEndpoints(self._registry)
        listings = ListingEndpoints(self._registry)
        return {
            ("GET", "tags"): Route(listings.tags, "pull"),
            ("GET", "manifests"): Route(manifests.get, "pull", "pull"),
            ("HEAD", "manifests"): Route(manifests.get, "pull"),
            ("PUT", "manifests"): Route(manifests.put, "push", "push"),
            ("DELETE", "manifests"): Route(manifests.delete, "delete", "delete"),
            ("GET", "referrers"): Route(manifests.referrers, "pull"),
            ("GET", "blobs"): Route(blobs.get, "pull"),
            ("HEAD", "blobs"): Route(blobs.get, "pull"),
            ("DELETE", "blobs"): Route(blobs.delete, "delete"),
            ("POST", "blobs/uploads"): Route(blobs.begin, "push"),
            ("GET", "blobs/uploads"): Route(blobs.status, "push"),
            ("PATCH", "blobs/uploads"): Route(blobs.append, "push"),
            ("PUT", "blobs/uploads"): Route(blobs.finish, "push"),
            ("DELETE", "blobs/uploads"): Route(blobs.cancel, "push"),
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        began = time.monotonic()
        exchange = Exchange(request, "", "")
        self._metrics.in_flight += 1
        kind = "other"
        status = errors.INTERNAL
        try:
            kind, work = self._find(exchange)
            response = await work(exchange)
            status = response.status
        except Refusal as refusal:
            status, response = refusal.status, exchange.refuse(refusal)
        except CLIENT_GONE as error:
            log.debug("%s %s: the client is gone: %r", request.method, request.path, error)
            response = exchange.answer(errors.BAD_REQUEST)
        except EngineError as error:
            log.error("%s %s: %s", request.method, request.path, error.message)
            response = exchange.refuse(Refusal("UNKNOWN", error.message))
        except Exception as error:
            log.exception("%s %s: unclassified error", request.method, request.path)
            response = exchange.refuse(Refusal("UNKNOWN", f"{type(error).__name__}: {error}"))
        finally:
            self._metrics.in_flight -= 1
            self._metrics.received_bytes += exchange.received_bytes
            self._metrics.sent_bytes += exchange.sent_bytes
            self._metrics.count(request.method, kind, status, time.monotonic() - began)
        if kind in ("blobs", "blobs/uploads", "manifests"):
            self._record(exchange, kind, status)
        return response

    def _find(self, exchange: Exchange) -> tuple[str, Endpoint]:
        """Raises: Refusal."""
        path, method = exchange.request.path, exchange.request.method
        fixed: dict[str, Endpoint] = {
            "/v2/": self._ping,
            "/v2": self._ping,
            "/v2/_catalog": self._catalog,
            "/token": self._token,
            "/healthz": self._health,
            "/metrics": self._show_metrics,
            "/": self._page,
        }
        self._limit_rate(exchange)
        if endpoint := fixed.get(path):
            if method not in _READS:
                raise Refusal("UNSUPPORTED", "The operation is unsupported.")
            return path.strip("/") or "page", endpoint
        match = _PATH.fullmatch(path)
        if not match:
            raise Refusal("UNSUPPORTED", "page not found", status=errors.NOT_FOUND)
        kind = match["kind"] or "tags"
        route = self._routes.get((method, kind))
        if route is None:
            raise Refusal("UNSUPPORTED", "The operation is unsupported.")
        exchange.repository = grammar.check_name(match["name"])
        exchange.reference = match["reference"] or ""
        return kind, lambda exchange: self._serve(exchange, kind, route)

    async def _serve(self, exchange: Exchange, kind: str, route: Route) -> web.StreamResponse:
        if self._read_only and route.action != "pull":
            raise Refusal("DENIED", "this registry is read-only", status=405)
        await self._check(exchange, route.action)
        if source := exchange.query("from"):
            await self._check(exchange, "pull", source)  # a mount reads the other repository
        if self._upstream and route.action == "pull" and kind in ("manifests", "blobs"):
            await self._upstream.provide(exchange.repository, exchange.reference, kind)
        response = await route.endpoint(exchange)
        if route.event and response.status < 300:
            self._notify(exchange, route.event, response)
        return response

    async def _check(self, exchange: Exchange, action: str, repository: str = "") -> None:
        name = repository or exchange.repository
        headers = exchange.request.headers
        exchange.user = await self._access.check(headers, exchange.origin, name, action)

    # What is not about one repository.

    async def _ping(self, exchange: Exchange) -> web.StreamResponse:
        await self._check(exchange, "")
        return exchange.answer(errors.OK, {"Content-Type": JSON_TYPE}, b"{}")

    async def _catalog(self, exchange: Exchange) -> web.StreamResponse:
        await self._check(exchange, "")
        return await self._listings.catalog(exchange)

    async def _token(self, exchange: Exchange) -> web.StreamResponse:
        scopes = exchange.request.query.getall("scope", [])
        headers = exchange.request.headers
        return exchange.json(await self._access.grant(headers, exchange.origin, scopes))

    async def _health(self, exchange: Exchange) -> web.StreamResponse:
        self._registry.store.repositories(limit=1)
        return exchange.json({"status": "ok"})

    async def _show_metrics(self, exchange: Exchange) -> web.StreamResponse:
        await self._check(exchange, "")
        gauges = {
            "repositories": len(self._registry.store.repositories()),
            "uploads": len(self._registry.store.uploads()),
        }
        text = self._metrics.text(gauges).encode()
        return exchange.answer(errors.OK, {"Content-Type": "text/plain; version=0.0.4"}, text)

    async def _page(self, exchange: Exchange) -> web.StreamResponse:
        await self._check(exchange, "")
        html = render(self._registry, exchange.query("repository"), exchange.request.host)
        return exchange.answer(errors.OK, {"Content-Type": "text/html; charset=utf-8"}, html)

    # Besides.

    def _limit_rate(self, exchange: Exchange) -> None:
        """A bucket of `rate` tokens for each address. Raises: Refusal TOOMANYREQUESTS."""
        if not self._rate:
            return
        client, now = exchange.request.remote or "", time.monotonic()
        left, then = self._tokens.pop(client, (self._rate, now))
        left = min(self._rate, left + (now - then) * self._rate)
        self._tokens[client] = (left - 1 if left >= 1 else left, now)
        while len(self._tokens) > _RATE_MEMORY:
            del self._tokens[next(iter(self._tokens))]
        if left < 1:
            raise Refusal("TOOMANYREQUESTS", "too many requests", headers={"Retry-After": "1"})

    def _notify(self, exchange: Exchange, action: str, response: web.StreamResponse) -> None:
        digest = response.headers.get("Docker-Content-Digest", "")
        target: dict[str, Any] = {
            "repository": exchange.repository,
            "digest": digest or exchange.reference,
            "mediaType": response.headers.get("Content-Type", ""),
            "url": f"{exchange.origin}/v2/{exchange.repository}/manifests/{digest}",
        }
        if ":" not in exchange.reference:
            target["tag"] = exchange.reference
        request = {
            "addr": exchange.request.remote or "",
            "host": exchange.request.host,
            "method": exchange.request.method,
            "useragent": exchange.header("User-Agent"),
        }
        self._notifier.tell(action, target, request, exchange.user)

    def _record(self, exchange: Exchange, kind: str, status: int) -> None:
        if self._audit is None:
            return
        entry = {
            "time": clock.format_ns(clock.now_ns()),
            "client": exchange.request.remote,
            "user": exchange.user,
            "method": exchange.request.method,
            "repository": exchange.repository,
            "kind": kind,
            "reference": exchange.reference,
            "status": status,
        }
        self._audit.write(json.dumps(entry) + "\n")
        self._audit.flush()
