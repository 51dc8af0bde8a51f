"""A thread of its own for work that may never come back: reading a container's file system.

A hostile or dead file system (FUSE, NFS) inside a container can hold a reader for ever. Such a
thread costs one thread, not one of the shared workers, and does not keep the daemon from ending.
It may also change its own view of the file system (`unshare`), which ends with it.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def run_apart(work: Callable[[], T], name: str) -> "asyncio.Future[T]":
    """Starts `work`; a future of its result. Cancelling the future does not stop the work."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # T may be None

    def body() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:
            failure = error
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:  # the loop has ended meanwhile
            return

    threading.Thread(target=body, name=name, daemon=True).start()
    return future
