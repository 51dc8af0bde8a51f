"""One API call as a handler sees it: path parameters, query, body, version."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from teu.errors import InvalidParameter

T = TypeVar("T")
Filters = dict[str, list[str]]
_FALSE = frozenset({"", "0", "no", "false", "none"})
BODY_LIMIT_BYTES = 16 << 20


class Call:
    """`version` is the API version that the client speaks, as (major, minor)."""

    __slots__ = ("params", "query", "request", "version")

    def __init__(
        self, request: web.BaseRequest, params: dict[str, str], version: tuple[int, int]
    ) -> None:
        self.request = request
        self.params = params
        self.version = version
        self.query: Mapping[str, str] = request.query

    def text(self, name: str, default: str = "") -> str:
        return self.query.get(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """Docker's boolean: everything but `0 no false none` and nothing is true."""
        value = self.query.get(name)
        return default if value is None else value.strip().lower() not in _FALSE

    def number(self, name: str) -> int | None:
        """None when absent or empty. Raises: InvalidParameter."""
        value = self.query.get(name, "")
        if not value:
            return None
        try:
            return int(value)
        except ValueError:
            raise InvalidParameter(
                f'strconv.Atoi: parsing "{value}": invalid syntax (parameter {name})'
            ) from None

    def values(self, name: str) -> list[str]:
        """All values of a repeated parameter."""
        return self.request.query.getall(name, [])

    def filters(self) -> Filters:
        """`{"name": ["a"]}` or the old `{"name": {"a": true}}`. Raises: InvalidParameter."""
        raw = self.query.get("filters", "")
        if not raw:
            return {}
        try:
            decoded = json.loads(raw)
        except ValueError as error:
            raise InvalidParameter(f"invalid filters: not JSON: {error}") from None
        if not isinstance(decoded, dict):
            raise InvalidParameter("invalid filters: not a JSON object")
        result: Filters = {}
        for key, value in decoded.items():
            if isinstance(value, dict):
                result[key] = [k for k, wanted in value.items() if wanted]
            elif isinstance(value, list) and all(isinstance(v, str) for v in value):
                result[key] = value
            else:
                raise InvalidParameter(f"invalid filters: values of {key!r} are not strings")
        return result

    async def body(self, kind: type[T]) -> T:
        """The JSON body as `kind`. Raises: InvalidParameter naming the field."""
        data = await self.raw_body()
        if not data.strip():
            data = b"{}"
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.ValidationError as error:
            raise InvalidParameter(f"invalid request body: {error}") from None
        except msgspec.DecodeError as error:
            raise InvalidParameter(f"invalid JSON: {error}") from None

    async def raw_body(self) -> bytes:
        """Raises: InvalidParameter over BODY_LIMIT_BYTES."""
        chunks: list[bytes] = []
        size = 0
        async for chunk in self.request.content.iter_any():
            size += len(chunk)
            if size > BODY_LIMIT_BYTES:
                raise InvalidParameter("request body is too large (16 MiB at most)")
            chunks.append(chunk)
        return b"".join(chunks)


def check_filters(filters: Filters, known: frozenset[str]) -> None:
    """Raises: InvalidParameter with Docker's text for a filter that does not exist."""
    for name in filters:
        if name not in known:
            raise InvalidParameter(f"invalid filter '{name}'")


_encode = msgspec.json.Encoder().encode


def answer(value: Any, status: int = 200) -> web.Response:
    """A JSON answer; structs are spelled in Docker's words."""
    return web.Response(body=_encode(value) + b"\n", status=status, content_type="application/json")
