"""Looking for images: the old index protocol, which Docker Hub still speaks, and for registries
without it the list of their repositories.

    GET https://index.docker.io/v1/search?q=TERM&n=LIMIT      {"results": [{"name", …}]}
    GET https://HOST/v2/_catalog                              {"repositories": ["a/b", …]}

Source: API 1.51 ImageSearch; moby registry/search.go; distribution-spec "catalog" (historical).
"""

import msgspec
from msgspec import Struct, field
from yarl import URL

from teu.errors import EngineError, InvalidParameter, SystemFailure
from teu.model.reference import DEFAULT_DOMAIN
from teu.model.registry import RegistryUnreachable
from teu.registry.answers import WrongProtocol, read_limited, shown
from teu.registry.auth import Credentials
from teu.registry.config import Endpoint, RegistryConfig, endpoints
from teu.registry.errors import parse_error, request_error
from teu.registry.session import Sessions

_HUB = "https://index.docker.io"
_LIMIT_BYTES = 8 << 20
_PAGE = 100
_MAX_PAGES = 100
DEFAULT_LIMIT = 25
MAX_LIMIT = 100


class Found(Struct):
    """One image, spelled as on the wire."""

    name: str = ""
    description: str = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Results(Struct):
    results: list[Found] = field(default_factory=list)


class _Catalog(Struct):
    repositories: list[str] | None = None


async def search(
    sessions: Sessions, config: RegistryConfig, text: str, limit: int, who: Credentials
) -> list[Found]:
    """At most `limit` images for `[HOST[:PORT]/]TERM`; Docker Hub's without a host.

    Raises: InvalidParameter; RegistryUnreachable with what to do instead; Unauthorized, ….
    """
    if "://" in text:
        raise InvalidParameter(f"invalid repository name: {text} (write it without the scheme)")
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidParameter(f"limit {limit} is outside the range of [1, {MAX_LIMIT}]")
    host, term = _split(text)
    if not term:
        raise InvalidParameter("search needs a term to look for")
    asking = _Search(sessions, term, limit, who)
    if host == DEFAULT_DOMAIN:
        try:
            return await asking.index(_HUB)
        except RegistryUnreachable as error:
            raise RegistryUnreachable(
                f"{error.message} (searching asks Docker Hub; to look in another registry: search "
                "HOST[:PORT]/TERM)"
            ) from error
    return await asking.anywhere([e for e in endpoints(config, host) if not e.mirror], host)


class _Search:
    def __init__(self, sessions: Sessions, term: str, limit: int, who: Credentials) -> None:
        self._sessions = sessions
        self._term = term
        self._limit = limit
        self._who = who

    async def anywhere(self, addresses: list[Endpoint], host: str) -> list[Found]:
        """From the first address that speaks our protocol."""
        problem: EngineError = RegistryUnreachable(f"no address of {host} is known")
        for endpoint in addresses:
            try:
                return await self._either(endpoint.url, host)
            except WrongProtocol as error:
                problem = error
        raise problem

    async def _either(self, base: str, host: str) -> list[Found]:
        try:
            return await self._catalog(base, host)
        except RegistryUnreachable:
            raise
        except EngineError as error:
            problem = error
        try:
            return await self.index(base)
        except EngineError:
            raise problem from None

    async def index(self, base: str) -> list[Found]:
        """By the index protocol."""
        query = {"q": self._term, "n": str(self._limit)}
        data = await self._get(str(URL(f"{base}/v1/search").with_query(query)), "")
        try:
            found = msgspec.json.decode(data, type=_Results).results
        except msgspec.DecodeError as error:
            raise SystemFailure(f"{base}: the answer is no search result: {error}") from error
        return found[: self._limit]

    async def _catalog(self, base: str, host: str) -> list[Found]:
        """From the registry's own list, page by page."""
        found: list[Found] = []
        last = ""
        for _ in range(_MAX_PAGES):
            query = {"n": str(_PAGE), "last": last} if last else {"n": str(_PAGE)}
            url = str(URL(f"{base}/v2/_catalog").with_query(query))
            data = await self._get(url, "registry:catalog:*")
            try:
                names = msgspec.json.decode(data, type=_Catalog).repositories or []
            except msgspec.DecodeError as error:
                raise SystemFailure(f"{url}: the answer is no list: {error}") from error
            wanted = [name for name in names if self._term.lower() in name]
            found += [Found(name=f"{host}/{name}") for name in wanted]
            if len(names) < _PAGE or len(found) >= self._limit or names[-1] == last:
                break
            last = names[-1]
        return found[: self._limit]

    async def _get(self, url: str, scope: str) -> bytes:
        async with self._sessions.request("GET", url, who=self._who, scope=scope) as response:
            data = await read_limited(response, _LIMIT_BYTES)
            if data is None:
                raise SystemFailure(f"{shown('GET', url)}: the answer is too long")
            if response.status >= 400:
                raise request_error(
                    response.status, parse_error(response.status, data), shown("GET", url)
                )
        return data


def _split(text: str) -> tuple[str, str]:
    """`HOST/TERM` where the first part looks like a host. `library/x` is Docker's `x`."""
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        host = DEFAULT_DOMAIN if first in ("docker.io", "index.docker.io") else first
        return host, rest
    return DEFAULT_DOMAIN, text.removeprefix("library/")
