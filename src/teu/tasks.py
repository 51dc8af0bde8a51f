"""Background tasks with an owner: named, awaited at shutdown, failures logged.

Changing requests run here, so a client that goes away stops the waiting, not the work.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


class TaskOwner:
    """Owns every task it spawned until that task ends."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Starts `work`; a failure nobody awaits is logged, never lost."""
        task = asyncio.create_task(work, name=name)
        self._own(task)
        return task

    def start(self, work: Coroutine[Any, Any, object], name: str) -> None:
        """`spawn` for work that nobody waits for."""
        self._own(asyncio.create_task(work, name=name))

    async def shielded(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Runs `work` to its end even when the caller is cancelled; returns its result."""
        return await asyncio.shield(self.spawn(work, name))

    def _own(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.debug("task %s failed: %s", task.get_name(), error)

    async def drain(self, timeout_s: float) -> None:
        """Waits for all tasks; cancels those still running after `timeout_s`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        leftover = list(self._tasks)
        for task in leftover:
            log.warning("task %s did not end in %.0f s; cancelled", task.get_name(), timeout_s)
            task.cancel()
        await asyncio.gather(*leftover, return_exceptions=True)
