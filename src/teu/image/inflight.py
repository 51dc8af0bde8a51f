"""Work that several callers want at once is done once."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

from teu.image.progress import Progress

T = TypeVar("T")


class Listeners:
    """Whoever watches a shared piece of work hears its messages from now on."""

    def __init__(self) -> None:
        self._all: list[Progress] = []

    def add(self, listener: Progress) -> None:
        self._all.append(listener)

    def remove(self, listener: Progress) -> None:
        self._all.remove(listener)

    def __call__(self, message: dict[str, Any]) -> None:
        for listener in list(self._all):
            listener(message)


class _Shared(Generic[T]):
    def __init__(self, listeners: Listeners, task: "asyncio.Task[T]") -> None:
        self.listeners = listeners
        self.task = task
        self.waiting = 0


class InFlight(Generic[T]):
    """Pieces of work by key. Loop's thread."""

    def __init__(self) -> None:
        self._shared: dict[str, _Shared[T]] = {}

    async def join(
        self,
        key: str,
        start: Callable[[Listeners], Coroutine[Any, Any, T]],
        listener: Progress,
    ) -> T:
        """The result of the work with this key: what is under way, or `start`.

        Cancel: the work goes on while anybody else waits for it, else it is cancelled too, and
        this returns when its clean-up is done.
        """
        shared = self._shared.get(key)
        if shared is None:
            listeners = Listeners()
            task = asyncio.create_task(start(listeners), name=f"shared {key}")
            shared = self._shared[key] = _Shared(listeners, task)
            task.add_done_callback(lambda _: self._shared.pop(key, None))
        shared.waiting += 1
        shared.listeners.add(listener)
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            shared.listeners.remove(listener)
            if not shared.waiting and not shared.task.done():
                self._shared.pop(key, None)
                shared.task.cancel()
                await finished(shared.task)


async def finished(task: "asyncio.Future[Any]") -> None:
    """Waits for the end of a task whatever happens; a cancel meanwhile is raised afterwards."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if not task.cancelled():
        task.exception()  # seen: asyncio need not report it
    if cancelled is not None:
        raise cancelled


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Runs all; the first failure cancels the rest and, once they ended, is raised."""
    tasks = [asyncio.create_task(item) for item in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        for task in tasks:
            await finished(task)
        raise
