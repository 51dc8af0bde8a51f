"""`/containers/{id}/exec` and `/exec/…`."""

import os
from typing import Any

from aiohttp import web

from teu.api import status
from teu.api.call import Call, answer
from teu.api.engine import Engine
from teu.api.hijack import (
    MULTIPLEXED,
    RAW,
    Hijacked,
    head_was_read,
    loses_early_bytes,
    take_over,
    upgrade_head,
)
from teu.api.router import Route
from teu.api.routes.containers import parse_detach_keys, window_size
from teu.container.exec import Exec, ExecConfig
from teu.model.config import Wire
from teu.runtime.shim import Client


class StartBody(Wire):
    """API 1.51 `ExecStartConfig`."""

    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None


class ExecRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/containers/{id}/exec", self.create),
            Route("POST", "/exec/{id}/start", self.start),
            Route("POST", "/exec/{id}/resize", self.resize),
            Route("GET", "/exec/{id}/json", self.inspect),
        ]

    async def create(self, call: Call) -> web.StreamResponse:
        container = self._engine.services.containers.get(call.params["id"])
        config = await call.body(ExecConfig)
        parse_detach_keys(config.detach_keys or "")
        item = self._engine.execs.create(container, config)
        return answer({"Id": item.id}, status.CREATED)

    async def start(self, call: Call) -> web.StreamResponse:
        item = self._engine.execs.get(call.params["id"])
        body = await call.body(StartBody)
        self._engine.execs.check_startable(item)
        size = (body.console_size if body.tty else None) or item.config.console_size or [0, 0]
        console = (size[0], size[1]) if len(size) == 2 and all(size) else None
        if body.detach:
            await self._engine.services.tasks.shielded(
                self._engine.execs.start(item, None, console), "exec"
            )
            return web.Response(status=status.OK)
        # What is asked here decides about frames, even if the command has a terminal: a client that
        # did not say so expects them.
        content_type = RAW if body.tty or call.version < (1, 42) else MULTIPLEXED
        fd = await take_over(call.request, upgrade_head(call.request, content_type=content_type))
        client = Client(
            fd=fd,
            stdin=item.config.attach_stdin,
            stdout=item.config.attach_stdout,
            stderr=item.config.attach_stderr,
            multiplexed=not body.tty,
            detach_keys=parse_detach_keys(item.config.detach_keys or ""),
        )
        patient = loses_early_bytes(call.request)
        self._engine.services.tasks.start(
            self._start(item, client, console, patient), f"exec {item.id[:12]}"
        )
        return Hijacked()

    async def _start(
        self, item: Exec, client: Client, console: tuple[int, int] | None, patient: bool
    ) -> None:
        if patient:
            item.started = True
            try:
                await head_was_read(client.fd)
            except BaseException:
                os.close(client.fd)
                raise
        await self._engine.execs.start(item, client, console)

    async def resize(self, call: Call) -> web.StreamResponse:
        item = self._engine.execs.get(call.params["id"])
        height, width = window_size(call)
        await self._engine.execs.resize(item, height, width)
        return web.Response(status=status.OK)

    async def inspect(self, call: Call) -> web.StreamResponse:
        return answer(shown(self._engine.execs.get(call.params["id"])))


def shown(item: Exec) -> dict[str, Any]:
    """API 1.51 `ExecInspectResponse`."""
    config = item.config
    return {
        "ID": item.id,
        "Running": item.running,
        "ExitCode": item.exit_code,
        "ProcessConfig": {
            "tty": config.tty,
            "entrypoint": item.command[0],
            "arguments": item.command[1:],
            "privileged": config.privileged,
            "user": config.user,
        },
        "OpenStdin": config.attach_stdin,
        "OpenStderr": config.attach_stderr,
        "OpenStdout": config.attach_stdout,
        "CanRemove": False,
        "ContainerID": item.container.id,
        "DetachKeys": config.detach_keys or "",
        "Pid": item.pid,
    }
