"""Answers that are a stream of JSON lines: pull, load, push, import, events.

Before the first line an error is an ordinary HTTP error; after it, it is told in the stream as
`{"errorDetail": {"message": …}, "error": …}`, as Docker's clients expect.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from teu.api.call import Call
from teu.api.headers import HEADERS
from teu.errors import EngineError
from teu.tasks import TaskOwner

Emit = Callable[[dict[str, Any]], None]
_encode = msgspec.json.Encoder().encode
_END = object()


async def stream_progress(
    call: Call,
    tasks: TaskOwner,
    name: str,
    work: Callable[[Emit], Awaitable[object]],
    *,
    errors_in_stream: bool = False,
) -> web.StreamResponse:
    """Runs `work` to its end, whatever the client does; the client sees its messages as they come.

    Raises: what `work` raises before its first message, unless `errors_in_stream`.
    """
    queue: asyncio.Queue[Any] = asyncio.Queue()

    async def run() -> None:
        try:
            await work(queue.put_nowait)
        except EngineError as error:
            queue.put_nowait(error)
        finally:
            queue.put_nowait(_END)

    tasks.start(run(), name)
    first = await queue.get()
    if isinstance(first, EngineError) and not errors_in_stream:
        raise first
    response = web.StreamResponse(headers={"Content-Type": "application/json", **HEADERS})
    await response.prepare(call.request)
    message = first
    while message is not _END:
        await response.write(line(message))
        message = await queue.get()
    await response.write_eof()
    return response


def line(message: Any) -> bytes:
    """One message, or an error: with the code of a command that failed, clients exit with it."""
    if isinstance(message, EngineError):
        detail: dict[str, Any] = {"message": message.message}
        if code := getattr(message, "exit_code", 0):
            detail["code"] = code
        message = {"errorDetail": detail, "error": message.message}
    return _encode(message) + b"\r\n"
