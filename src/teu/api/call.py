"""One API call as a handler sees it: path parameters, query, body, version."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from teu.api.decode import INT64, decode
from teu.errors import InvalidParameter

T = TypeVar("T")
Filters = dict[str, list[str]]
_FALSE = frozenset({"", "0", "no", "false", "none"})
BODY_LIMIT_BYTES = 16 << 20
CHUNK_BYTES = 1 << 18
STALL_LIMIT_LOCAL_S = 0.9  # a JSON body is sent in one go; over a network packets may get lost
STALL_LIMIT_REMOTE_S = 10.0
_JSON = "application/json"
_TOO_LARGE = "request body is too large (16 MiB at most)"
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}")


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
        if not _NUMBER.fullmatch(value):
            raise InvalidParameter(
                f'strconv.Atoi: parsing "{value[:64]}": invalid syntax (parameter {name})'
            )
        if (number := int(value)) not in INT64:
            raise InvalidParameter(
                f'strconv.Atoi: parsing "{value}": value out of range (parameter {name})'
            )
        return number

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
        """The JSON body as `kind`; without one, its defaults.

        Raises: InvalidParameter naming the field, or the content type that is not JSON.
        """
        return decode(await self.json_body(), kind)

    async def json_body(self) -> bytes:
        """The body that says it is JSON, as it came; `{}` without one. Raises: InvalidParameter."""
        data = await self.raw_body()
        if not data.strip():
            return b"{}"
        content_type = self.request.headers.get("Content-Type", "")
        if content_type.partition(";")[0].strip().lower() != _JSON:
            raise InvalidParameter(
                f"unsupported Content-Type header ({content_type}): must be '{_JSON}'"
            )
        return data

    async def raw_body(self) -> bytes:
        """The whole body. Raises: InvalidParameter over BODY_LIMIT_BYTES, or when it is cut short
        or stops arriving."""
        if (self.request.content_length or 0) > BODY_LIMIT_BYTES:
            raise InvalidParameter(_TOO_LARGE)
        content = self.request.content
        chunks: list[bytes] = []
        size = 0
        while not content.at_eof():
            chunk = await self._next_chunk()
            size += len(chunk)
            if size > BODY_LIMIT_BYTES:
                raise InvalidParameter(_TOO_LARGE)
            chunks.append(chunk)
        return b"".join(chunks)

    async def _next_chunk(self) -> bytes:
        limit_s = STALL_LIMIT_LOCAL_S if _is_local(self.request) else STALL_LIMIT_REMOTE_S
        try:
            async with asyncio.timeout(limit_s):
                return await self.request.content.readany()
        except TimeoutError:
            raise InvalidParameter(
                f"the request's body stopped arriving: nothing came for {limit_s:g} s"
            ) from None
        except web.RequestPayloadError as error:
            raise InvalidParameter(f"the request's body is broken: {error}") from error

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """A body of any size, piece by piece, as fast as the client sends it.

        Raises: InvalidParameter when it is cut short or its framing is broken.
        """
        try:
            async for chunk in self.request.content.iter_chunked(CHUNK_BYTES):
                yield chunk
        except web.RequestPayloadError as error:
            raise InvalidParameter(f"the request's body is broken: {error}") from error


def _is_local(request: web.BaseRequest) -> bool:
    transport = request.transport
    return transport is not None and isinstance(transport.get_extra_info("sockname"), str)


def check_filters(filters: Filters, known: frozenset[str]) -> None:
    """Raises: InvalidParameter with Docker's text for a filter that does not exist."""
    for name in filters:
        if name not in known:
            raise InvalidParameter(f"invalid filter '{name}'")


_encode = msgspec.json.Encoder().encode


def answer(value: Any, status: int = 200) -> web.Response:
    """A JSON answer; structs are spelled in Docker's words."""
    return web.Response(body=_encode(value) + b"\n", status=status, content_type="application/json")
