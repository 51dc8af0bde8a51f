"""`/build`. A client that goes away cancels its build, as in Docker."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from teu.api import status
from teu.api.call import Call, answer
from teu.api.engine import Engine
from teu.api.headers import HEADERS
from teu.api.progress import line
from teu.api.router import Route
from teu.api.wire.builds import build_request
from teu.build.context import unpack_context
from teu.build.progress import BuildProgress, ClassicProgress, EventProgress, QuietProgress
from teu.build.pruning import Space
from teu.build.remotecontext import open_remote
from teu.build.request import BuildRequest, Inputs
from teu.errors import EngineError, SystemFailure
from teu.model.image import Image
from teu.model.reference import Reference
from teu.tasks import TaskOwner

log = logging.getLogger(__name__)
_BACKLOG_BYTES = 1 << 20
_END = object()


class BuildRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._builds = engine.builds

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/build", self.build),
            Route("POST", "/build/prune", self.prune),
            Route("POST", "/build/failures", self.failure),
            Route("GET", "/build/cache/{id}", self.cache),
            Route("GET", "/build/trees/{name:path}", self.tree),
        ]

    async def build(self, call: Call) -> web.StreamResponse:
        """From an archive in the body, or from a session."""
        request = build_request(call)
        if session_id := call.text("session"):
            return await self._from_session(call, request, session_id)
        context = self._builds.new_context()
        try:
            inputs = Inputs(context=context)
            if request.remote:
                await open_remote(request, inputs, context)
            else:
                await unpack_context(call.chunks(), context)
            return await self._run(call, request, inputs)
        finally:
            await asyncio.shield(self._builds.drop_context(context))

    async def prune(self, call: Call) -> web.StreamResponse:
        space = Space(
            reserved=call.number("reserved-space") or call.number("keep-storage") or 0,
            max_used=call.number("max-used-space") or 0,
            min_free=call.number("min-free-space") or 0,
        )
        work = self._builds.pruner.prune(call.filters(), all_=call.flag("all"), space=space)
        gone, freed = await self._engine.services.tasks.shielded(work, "prune build cache")
        self._engine.events.publish("builder", "prune", "", {"reclaimed": str(freed)})
        return answer({"CachesDeleted": gone or None, "SpaceReclaimed": freed})

    async def failure(self, call: Call) -> web.StreamResponse:
        """An image of what was there before a step failed, for `build shell` of our client."""
        image, command = await self._builds.failures.image(call.text("id"))
        return answer({"Id": image.id, "Command": command}, status.CREATED)

    async def cache(self, call: Call) -> web.StreamResponse:
        """What `--cache-to type=local` of our own client writes."""
        return await _archive(call, self._builds.cache_archive(call.params["id"]))

    async def tree(self, call: Call) -> web.StreamResponse:
        """What `--output type=local` and `type=tar` of our own client write."""
        self._engine.services.images.runnable(call.params["name"])
        return await _archive(call, self._builds.tree(call.params["name"]))

    async def _from_session(
        self, call: Call, request: BuildRequest, session_id: str
    ) -> web.StreamResponse:
        session = self._builds.sessions.take(session_id)
        try:
            request.dockerfile_text = session.dockerfile
            request.dockerfile = session.name
            return await self._run(call, request, self._builds.sessions.inputs(session))
        finally:
            await asyncio.shield(self._builds.sessions.close(session))

    async def _run(self, call: Call, request: BuildRequest, inputs: Inputs) -> web.StreamResponse:
        if request.check:
            text, count = await self._builds.check(request, inputs)
            return answer({"Text": text, "Warnings": count})
        stream = Stream()
        progress = _progress(call, request, stream)
        inputs.flow = stream.flow

        async def work() -> None:
            image = await self._builds.build(request, inputs, progress)
            self._finish(request, image, stream, progress)

        return await stream.serve(call, self._engine.services.tasks, work)

    def _finish(
        self, request: BuildRequest, image: Image, stream: "Stream", progress: BuildProgress
    ) -> None:
        events = self._engine.events
        if request.quiet:
            stream.emit({"stream": f"{image.id}\n"})
        else:
            stream.emit({"aux": {"ID": image.id}})
            progress.say(f"Successfully built {image.short_id}\n")
        for tag in request.tags:
            events.publish("image", "tag", image.id, {"name": tag})
            progress.say(f"Successfully tagged {_familiar(tag)}\n")


async def _archive(call: Call, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar", **HEADERS})
    await response.prepare(call.request)
    async for piece in pieces:
        await response.write(piece)
    await response.write_eof()
    return response


def _familiar(tag: str) -> str:
    return Reference.parse(tag).with_default_tag().familiar


def _progress(call: Call, request: BuildRequest, stream: "Stream") -> BuildProgress:
    if request.quiet:
        return QuietProgress()
    if call.text("progress") == "events":
        return EventProgress(stream.emit)
    return ClassicProgress(stream.emit)


class Stream:
    """Messages on their way to one client. An error before the first one is an ordinary HTTP
    error."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._backlog_bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    def emit(self, message: dict[str, Any]) -> None:
        data = line(message)
        self._backlog_bytes += len(data)
        if self._backlog_bytes > _BACKLOG_BYTES:
            self._room.clear()
        self._queue.put_nowait(data)

    async def flow(self) -> None:
        """Waits while the client is too far behind."""
        await self._room.wait()

    async def serve(
        self, call: Call, tasks: TaskOwner, work: Callable[[], Awaitable[None]]
    ) -> web.StreamResponse:
        """Runs `work` for as long as the client listens.

        Raises: what `work` raises before its first message.
        """
        running = tasks.spawn(self._run(work), "build")
        try:
            first = await self._queue.get()
            if isinstance(first, EngineError):
                raise first
            response = web.StreamResponse(headers={"Content-Type": "application/json", **HEADERS})
            await response.prepare(call.request)
            await self._write(response, first)
            await response.write_eof()
            return response
        finally:
            running.cancel()
            self._room.set()
            await asyncio.shield(asyncio.gather(running, return_exceptions=True))

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except EngineError as error:
            self._queue.put_nowait(error)
        except Exception as error:
            log.exception("build: unclassified error")
            self._queue.put_nowait(SystemFailure(f"{type(error).__name__}: {error}"))
        finally:
            self._queue.put_nowait(_END)

    async def _write(self, response: web.StreamResponse, message: Any) -> None:
        while message is not _END:
            if isinstance(message, EngineError):
                await response.write(line(message))
            else:
                await response.write(message)
                self._backlog_bytes -= len(message)
                if self._backlog_bytes < _BACKLOG_BYTES // 2:
                    self._room.set()
            message = await self._queue.get()
