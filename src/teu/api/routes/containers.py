"""`/containers/…`: thin handlers; what they do is in `container/`."""

import contextlib
import os
from collections.abc import Coroutine
from typing import Any

import msgspec
from aiohttp import web

from teu import clock
from teu.api import status, versions
from teu.api.call import Call, answer
from teu.api.decode import decode
from teu.api.engine import Engine
from teu.api.headers import HEADERS
from teu.api.hijack import (
    MULTIPLEXED,
    RAW,
    Hijacked,
    head_was_read,
    stream_head,
    take_over,
    upgrade_head,
)
from teu.api.router import Route
from teu.api.websocket import WebSocketRelay
from teu.api.wire import containers as wire
from teu.container.container import Container
from teu.container.create import CreateRequest
from teu.container.streams import LogOptions
from teu.errors import Conflict, InvalidParameter, NotFound, NotImplementedYet
from teu.model.config import (
    ContainerConfig,
    HostConfig,
    NetworkingConfig,
    RestartPolicy,
    Wire,
)
from teu.runtime.shim import Client

DETACH_KEYS = b"\x10\x11"
_NOTHING = (b"", b"{}", b"null", b"{}\n", b"null\n")  # what clients send where there is no body
_encode = msgspec.json.Encoder().encode


class CreateBody(ContainerConfig):
    """`POST /containers/create`: the portable part with the two others inside."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None
    runtime: str = ""  # docker-py names it here; Docker does not look


class UpdatePolicy(Wire):
    """`POST /containers/{id}/update`: besides the limits, which are `HostConfig`'s."""

    restart_policy: RestartPolicy | None = None


class ContainerRoutes:
    """Every changing request runs as a task of the daemon: a client that leaves only stops
    waiting."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/containers/json", self.listing),
            Route("POST", "/containers/create", self.create),
            Route("GET", "/containers/{id}/json", self.inspect),
            Route("GET", "/containers/{id}/top", self.top),
            Route("GET", "/containers/{id}/logs", self.logs),
            Route("POST", "/containers/{id}/start", self.start),
            Route("POST", "/containers/{id}/stop", self.stop),
            Route("POST", "/containers/{id}/restart", self.restart),
            Route("POST", "/containers/{id}/kill", self.kill),
            Route("POST", "/containers/{id}/pause", self.pause),
            Route("POST", "/containers/{id}/unpause", self.unpause),
            Route("POST", "/containers/{id}/rename", self.rename),
            Route("POST", "/containers/{id}/attach", self.attach),
            Route("GET", "/containers/{id}/attach/ws", self.attach_websocket),
            Route("POST", "/containers/{id}/resize", self.resize),
            Route("POST", "/containers/{id}/wait", self.wait),
            Route("DELETE", "/containers/{id}", self.remove),
            Route("DELETE", "/containers/{id}/{alias}", self.remove_link),
            Route("POST", "/containers/prune", self.prune, (1, 25)),
            Route("POST", "/containers/{id}/update", self.update),
            Route("GET", "/containers/{id}/stats", self.stats),
        ]

    def _get(self, call: Call) -> Container:
        return self._engine.services.containers.get(call.params["id"])

    async def _change(self, work: Coroutine[Any, Any, None], what: str) -> web.Response:
        await self._engine.services.tasks.shielded(work, what)
        return web.Response(status=status.NO_CONTENT)

    async def _hand_over(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Giving a connection away cancels its handler; this is not to stop half way."""
        await self._engine.services.tasks.shielded(work, what)

    # --- queries -------------------------------------------------------------------------

    async def listing(self, call: Call) -> web.StreamResponse:
        limit = call.number("limit")
        chosen = self._engine.listing.select(
            call.filters(), all_=call.flag("all"), limit=-1 if limit is None else limit
        )
        images = self._engine.services.images
        rows = [wire.summary(container, images) for container in chosen]
        if call.flag("size"):
            for container, row in zip(chosen, rows, strict=True):
                row["SizeRw"], row["SizeRootFs"] = await self._engine.looks.sizes(container)
        return answer(rows)

    async def inspect(self, call: Call) -> web.StreamResponse:
        container = self._get(call)
        services = self._engine.services
        shown = wire.inspect(container, services, container.record.config.image)
        versions.adapt_inspect(shown, call.version)
        if call.flag("size"):
            shown["SizeRw"], shown["SizeRootFs"] = await self._engine.looks.sizes(container)
        return answer(shown)

    async def top(self, call: Call) -> web.StreamResponse:
        titles, rows = await self._engine.looks.top(self._get(call), call.text("ps_args") or "-ef")
        return answer({"Titles": titles, "Processes": rows})

    async def stats(self, call: Call) -> web.StreamResponse:
        container = self._get(call)
        if not call.flag("stream", default=True):
            one_shot = call.flag("one-shot") and call.version >= (1, 41)
            return answer(await self._engine.stats.once(container, one_shot=one_shot))
        if call.flag("one-shot") and call.version >= (1, 41):
            raise InvalidParameter("cannot have stream=true and one-shot=true")
        response = web.StreamResponse(headers={"Content-Type": "application/json", **HEADERS})
        await response.prepare(call.request)
        async with contextlib.aclosing(self._engine.stats.stream(container)) as samples:
            async for sample in samples:
                await response.write(_encode(sample) + b"\n")
        await response.write_eof()
        return response

    async def logs(self, call: Call) -> web.StreamResponse:
        container = self._get(call)
        options = _log_options(call)
        self._engine.streams.check_readable(container)
        content_type = RAW if container.record.config.tty else MULTIPLEXED
        fd = await take_over(call.request, stream_head(content_type, HEADERS))
        await self._hand_over(self._engine.streams.logs(container, options, fd), "logs")
        return Hijacked()

    # --- changes -------------------------------------------------------------------------

    async def create(self, call: Call) -> web.StreamResponse:
        body = await call.body(CreateBody)
        config = {name: getattr(body, name) for name in ContainerConfig.__struct_fields__}
        request = CreateRequest(
            name=call.text("name"),
            platform=call.text("platform"),
            config=ContainerConfig(**config),
            host=body.host_config or HostConfig(),
            networking=body.networking_config or NetworkingConfig(),
        )
        request.host.runtime = request.host.runtime or body.runtime
        services = self._engine.services
        warnings = versions.adapt_create(
            request, call.version, unified=services.runtime.cgroups.unified
        )
        created = await services.tasks.shielded(self._engine.creator.create(request), "create")
        warnings += created.warnings
        return answer({"Id": created.container.id, "Warnings": warnings}, status.CREATED)

    async def start(self, call: Call) -> web.StreamResponse:
        container = self._get(call)
        if await call.raw_body() not in _NOTHING:
            raise InvalidParameter(
                "starting container with non-empty request body was deprecated since API v1.22 "
                "and removed in v1.24"
            )
        if call.text("checkpoint"):
            raise NotImplementedYet("teu does not restore checkpoints; start without --checkpoint")
        return await self._change(self._engine.lifecycle.start(container), "start")

    async def stop(self, call: Call) -> web.StreamResponse:
        work = self._engine.lifecycle.stop(
            self._get(call), timeout_s=call.number("t"), signal_name=call.text("signal")
        )
        return await self._change(work, "stop")

    async def restart(self, call: Call) -> web.StreamResponse:
        work = self._engine.lifecycle.restart(
            self._get(call), timeout_s=call.number("t"), signal_name=call.text("signal")
        )
        return await self._change(work, "restart")

    async def kill(self, call: Call) -> web.StreamResponse:
        try:
            work = self._engine.lifecycle.kill(self._get(call), call.text("signal"))
            return await self._change(work, "kill")
        except (NotFound, Conflict) as error:
            kind = NotFound if isinstance(error, NotFound) else Conflict
            raise kind(f"cannot kill container: {call.params['id']}: {error.message}") from error

    async def pause(self, call: Call) -> web.StreamResponse:
        return await self._change(self._engine.lifecycle.pause(self._get(call)), "pause")

    async def unpause(self, call: Call) -> web.StreamResponse:
        return await self._change(self._engine.lifecycle.unpause(self._get(call)), "unpause")

    async def update(self, call: Call) -> web.StreamResponse:
        container = self._get(call)
        data = await call.json_body()
        policy = decode(data, UpdatePolicy).restart_policy
        if policy is not None and not policy.name:
            policy = None
        warnings = await self._engine.services.tasks.shielded(
            self._engine.updater.update(container, decode(data, HostConfig), policy), "update"
        )
        return answer({"Warnings": warnings or None})

    async def rename(self, call: Call) -> web.StreamResponse:
        self._engine.lifecycle.rename(self._get(call), call.text("name"))
        return web.Response(status=status.NO_CONTENT)

    async def remove(self, call: Call) -> web.StreamResponse:
        if call.flag("link"):
            raise InvalidParameter("a link is named /CONTAINER/ALIAS")
        work = self._engine.lifecycle.remove(
            self._get(call), force=call.flag("force"), volumes=call.flag("v")
        )
        return await self._change(work, "remove")

    async def remove_link(self, call: Call) -> web.StreamResponse:
        """`rm --link CONTAINER/ALIAS`: the slash comes as it is."""
        if not call.flag("link"):
            raise NotFound("page not found")
        container = self._get(call)
        return await self._change(
            self._engine.links.remove(container, call.params["alias"]), "unlink"
        )

    async def prune(self, call: Call) -> web.StreamResponse:
        removed, reclaimed = await self._engine.services.tasks.shielded(
            self._engine.pruner.containers(call.filters()), "prune containers"
        )
        return answer({"ContainersDeleted": removed or None, "SpaceReclaimed": reclaimed})

    # --- streams -------------------------------------------------------------------------

    async def attach(self, call: Call) -> web.StreamResponse:
        container = self._get(call)
        tty = container.record.config.tty
        keys = parse_detach_keys(call.text("detachKeys"))
        self._engine.streams.check_attachable(container)
        content_type = RAW if tty or call.version < (1, 42) else MULTIPLEXED
        fd = await take_over(call.request, upgrade_head(call.request, content_type=content_type))
        client = Client(
            fd=fd,
            stdin=call.flag("stdin") and container.record.config.open_stdin,
            stdout=call.flag("stdout"),
            stderr=call.flag("stderr"),
            multiplexed=not tty,
            detach_keys=keys,
        )
        work = self._attach(container, client, logs=call.flag("logs"), live=call.flag("stream"))
        await self._hand_over(work, "attach")
        return Hijacked()

    async def _attach(
        self, container: Container, client: Client, *, logs: bool, live: bool
    ) -> None:
        if logs:
            try:
                await head_was_read(client.fd)
            except BaseException:
                os.close(client.fd)
                raise
        await self._engine.streams.attach(container, client, logs=logs, live=live)

    async def attach_websocket(self, call: Call) -> web.StreamResponse:
        """Both output streams as they come, without frames: a browser's terminal."""
        container = self._get(call)
        keys = parse_detach_keys(call.text("detachKeys"))
        self._engine.streams.check_attachable(container)
        every = call.version < (1, 42)
        async with WebSocketRelay(call.request, text=call.version < (1, 28)) as relay:
            client = Client(
                fd=relay.give_fd(),
                stdin=(every or call.flag("stdin")) and container.record.config.open_stdin,
                stdout=every or call.flag("stdout"),
                stderr=every or call.flag("stderr"),
                multiplexed=False,
                detach_keys=keys,
            )
            await self._engine.streams.attach(
                container, client, logs=call.flag("logs"), live=call.flag("stream")
            )
            return await relay.run()

    async def resize(self, call: Call) -> web.StreamResponse:
        container = self._get(call)
        height, width = window_size(call)
        await self._engine.streams.resize(container, height, width)
        return web.Response(status=status.OK)

    async def wait(self, call: Call) -> web.StreamResponse:
        """The head goes out at once: clients start the container only when they have it."""
        container = self._get(call)
        outcome = self._engine.streams.wait(container, call.text("condition"))
        response = web.StreamResponse(headers={"Content-Type": "application/json", **HEADERS})
        await response.prepare(call.request)
        if not outcome.done():
            await response.write(b"")
        result = await outcome
        body: dict[str, Any] = {"StatusCode": result.exit_code}
        if result.error:
            body["Error"] = {"Message": result.error}
        await response.write(_encode(body) + b"\n")
        await response.write_eof()
        return response


def window_size(call: Call) -> tuple[int, int]:
    """(height, width). Raises: InvalidParameter."""
    height, width = call.number("h"), call.number("w")
    if height is None or width is None or not (0 <= height < 65536 and 0 <= width < 65536):
        raise InvalidParameter("resize needs h and w from 0 to 65535")
    return height, width


def parse_detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` -> bytes; empty is the default. Raises: InvalidParameter."""
    if not text:
        return DETACH_KEYS
    keys = bytearray()
    for key in text.split(","):
        name = key.lower()
        if name == "del":
            keys.append(127)
        elif name.startswith("ctrl-") and len(name) == 6 and name[5] in _CONTROLS:
            keys.append(_CONTROLS[name[5]])
        elif len(key) == 1 and key.isascii():
            keys.append(ord(key))
        else:
            raise InvalidParameter(f"Invalid detach keys ({text}) provided")
    return bytes(keys)


_CONTROLS = {chr(ord("a") + i): i + 1 for i in range(26)} | {
    "@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31,
}  # fmt: skip


def _log_options(call: Call) -> LogOptions:
    if not (call.flag("stdout") or call.flag("stderr")):
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    tail = call.text("tail", "all")
    return LogOptions(
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        follow=call.flag("follow"),
        timestamps=call.flag("timestamps"),
        details=call.flag("details"),
        since_ns=parse_instant(call.text("since")),
        until_ns=parse_instant(call.text("until")),
        tail=int(tail) if tail.isdigit() else -1,
    )


def parse_instant(text: str) -> int:
    """`1700000000.123456789`, RFC 3339 or nothing -> nanoseconds. Raises: InvalidParameter."""
    if not text or text == "0":
        return 0
    seconds, _, fraction = text.partition(".")
    if seconds.lstrip("-").isdigit() and (not fraction or fraction.isdigit()):
        return int(seconds) * 1_000_000_000 + int((fraction or "0")[:9].ljust(9, "0"))
    try:
        return clock.parse_rfc3339(text)
    except ValueError as error:
        raise InvalidParameter(f"invalid time: {error}") from None
