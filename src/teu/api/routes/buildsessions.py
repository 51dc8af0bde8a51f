"""`/build/sessions/…`: what our own client hands over before a build. See `build/sessions.py`.

Not a part of Docker's API: its clients send everything with `POST /build`.
"""

import asyncio
import socket

from aiohttp import web

from teu.api import status
from teu.api.call import Call, answer
from teu.api.engine import Engine
from teu.api.hijack import RAW, Hijacked, take_over, upgrade_head
from teu.api.router import Route
from teu.build.sessions import LIST_LIMIT_BYTES
from teu.errors import InvalidParameter


class BuildSessionRoutes:
    def __init__(self, engine: Engine) -> None:
        self._sessions = engine.builds.sessions

    def routes(self) -> list[Route]:
        base = "/build/sessions/{id}"
        return [
            Route("POST", "/build/sessions", self.open),
            Route("PUT", f"{base}/files", self.files),
            Route("PUT", f"{base}/content", self.content),
            Route("PUT", f"{base}/secrets/{{name}}", self.secret),
            Route("POST", f"{base}/ssh/{{name}}", self.agent),
            Route("DELETE", base, self.close),
        ]

    async def open(self, call: Call) -> web.StreamResponse:
        """The body is the Dockerfile. Answers `{"Id": …, "Paths": [...] or null}`."""
        session, paths = self._sessions.open(
            await call.raw_body(), call.text("dockerfile") or "Dockerfile", call.text("target")
        )
        return answer({"Id": session.id, "Paths": paths}, status.CREATED)

    async def files(self, call: Call) -> web.StreamResponse:
        """The body is the list of files. Answers the paths whose content is needed."""
        session = self._sessions.get(call.params["id"])
        data = bytearray()
        async for chunk in call.chunks():
            data += chunk
            if len(data) > LIST_LIMIT_BYTES:
                raise InvalidParameter("the context has too many files")
        name, key = call.text("context").lower(), call.text("key")
        return answer(await self._sessions.list_files(session, name, key, bytes(data)))

    async def content(self, call: Call) -> web.StreamResponse:
        session = self._sessions.get(call.params["id"])
        await self._sessions.content(session, call.text("context").lower(), call.chunks())
        return web.Response(status=status.NO_CONTENT)

    async def secret(self, call: Call) -> web.StreamResponse:
        session = self._sessions.get(call.params["id"])
        self._sessions.add_secret(session, call.params["name"], await call.raw_body())
        return web.Response(status=status.NO_CONTENT)

    async def agent(self, call: Call) -> web.StreamResponse:
        session = self._sessions.get(call.params["id"])
        head = upgrade_head(call.request, content_type=RAW)
        fd = await take_over(call.request, head)
        self._sessions.add_agent(session, call.params["name"], socket.socket(fileno=fd))
        return Hijacked()

    async def close(self, call: Call) -> web.StreamResponse:
        session = self._sessions.take(call.params["id"])
        await asyncio.shield(self._sessions.close(session))
        return web.Response(status=status.NO_CONTENT)
