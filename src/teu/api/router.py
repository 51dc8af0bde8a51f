"""From method and path to handler. The version prefix (`/v1.47`) is taken off first.

Patterns are Docker's: `/containers/{id}/json`; `{name:path}` also takes slashes (image names).
Routes are grouped by method and first word, so a look-up tries a handful of expressions.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from aiohttp import web

from teu.api.call import Call
from teu.errors import InvalidParameter

MIN_VERSION: Final = (1, 24)
MAX_VERSION: Final = (1, 51)
Handler = Callable[[Call], Awaitable[web.StreamResponse]]
_VERSION = re.compile(r"/v(\d{1,3})\.(\d{1,3})(?=/|$)")
_PARAMETER = re.compile(r"\{(\w+)(:path)?\}")


class Route:
    """`minimum` is the first API version that has it."""

    def __init__(
        self, method: str, pattern: str, handler: Handler, minimum: tuple[int, int] = MIN_VERSION
    ) -> None:
        self.method = method
        self.pattern = pattern
        self.handler = handler
        self.minimum = minimum


class Router:
    """Immutable after construction."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[tuple[str, str], Route] = {}
        self._groups: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = {}
        for route in routes:
            if "{" not in route.pattern:
                self._exact[route.method, route.pattern] = route
                continue
            expression = _PARAMETER.sub(_group, route.pattern)
            key = (route.method, route.pattern.split("/")[1])
            self._groups.setdefault(key, []).append((re.compile(expression), route))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route and its path parameters (percent-decoded); None when there is none."""
        route = self._exact.get((method, path))
        if route is not None:
            return route, {}
        first = path.split("/", 2)[1] if path.startswith("/") else ""
        for expression, candidate in self._groups.get((method, first), ()):
            match = expression.fullmatch(path)
            if match:
                return candidate, match.groupdict()
        return None

    def methods(self, path: str) -> set[str]:
        """The methods that the path has."""
        return {m for m in ("GET", "HEAD", "POST", "PUT", "DELETE") if self.find(m, path)}


def split_version(path: str) -> tuple[tuple[int, int], str]:
    """(version, rest of the path). Raises: InvalidParameter with Docker's texts."""
    match = _VERSION.match(path)
    if not match:
        return MAX_VERSION, path
    version = (int(match[1]), int(match[2]))
    text = f"{version[0]}.{version[1]}"
    if version < MIN_VERSION:
        raise InvalidParameter(
            f"client version {text} is too old. Minimum supported API version is 1.24, please "
            "upgrade your client to a newer version"
        )
    if version > MAX_VERSION:
        raise InvalidParameter(
            f"client version {text} is too new. Maximum supported API version is 1.51"
        )
    return version, path[match.end() :] or "/"


def _group(match: re.Match[str]) -> str:
    return f"(?P<{match[1]}>{'.+' if match[2] else '[^/]+'})"
