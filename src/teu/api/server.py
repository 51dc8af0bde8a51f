"""The HTTP handler: version, route, errors, headers. Handlers raise kinds; this answers them."""

import asyncio
import logging
from collections.abc import Iterable

from aiohttp import HttpVersion11, web

from teu.api import status
from teu.api.call import Call, answer
from teu.api.headers import HEADERS
from teu.api.router import Route, Router, split_version
from teu.errors import EngineError, NotFound

CONTINUE = f"HTTP/1.1 {status.CONTINUE} Continue\r\n\r\n".encode()
log = logging.getLogger(__name__)


class ApiServer:
    """`handle` is an aiohttp low-level handler (`aiohttp.web.Server(api.handle)`)."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._router = Router(routes)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            response = await self._dispatch(request)
        except EngineError as error:
            response = self._refusal(request, error)
        except (ConnectionError, asyncio.CancelledError):
            log.debug("%s %s: %d client gone", request.method, request.path, status.CLIENT_GONE)
            raise
        except Exception as error:
            log.exception("%s %s: unclassified error", request.method, request.path)
            response = answer({"message": f"{type(error).__name__}: {error}"}, status.INTERNAL)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        version, path = split_version(request.path)
        if "\0" in path:
            raise NotFound("page not found")
        found = self._router.find(request.method, path)
        if found is None:
            return self._no_route(path)
        route, params = found
        if version < route.minimum:
            raise NotFound(
                f'"{request.method} {path}" requires API version '
                f"{route.minimum[0]}.{route.minimum[1]}, but the client speaks "
                f"{version[0]}.{version[1]}"
            )
        if "Expect" in request.headers and request.version >= HttpVersion11:
            await request.writer.write(CONTINUE)
            request.writer.output_size = 0  # no part of the answer
        return await route.handler(Call(request, params, version))

    def _no_route(self, path: str) -> web.Response:
        if methods := self._router.methods(path):
            refused = answer({"message": "method not allowed"}, status.METHOD_NOT_ALLOWED)
            refused.headers["Allow"] = ", ".join(sorted(methods))
            return refused
        return answer({"message": "page not found"}, status.NOT_FOUND)

    def _refusal(self, request: web.BaseRequest, error: EngineError) -> web.Response:
        code = status.status_of(error)
        if code == status.INTERNAL:
            log.error("%s %s: %s", request.method, request.path, error.message)
        else:
            log.debug("%s %s: %d %s", request.method, request.path, code, error.message)
        if not status.has_body(code):
            return web.Response(status=code)
        return answer({"message": error.message}, code)
