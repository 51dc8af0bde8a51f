"""All or nothing: a stack of undo steps that survives cancellation.

    async with Transaction("start", short_id) as tx:
        tx.on_rollback("netns", lambda: remove_netns(name))   # BEFORE the acquire
        create_netns(name)
        ...
        tx.commit()                                           # last line

Undo steps must be idempotent and accept "never happened". Without `commit` they run in reverse,
in a task of their own: further cancels of the caller are remembered and raised afterwards, a
failing or hanging step (limit: `UNDO_LIMIT_S` each) is logged, noted on the first error, and the
next one runs.

Why not AsyncExitStack: on CPython 3.11 a second `cancel()` kills the undo step that is running,
and `enter_async_context` loses a result that is delivered together with a cancel.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

UNDO_LIMIT_S = 10.0
Undo = Callable[[], Awaitable[object] | object]
log = logging.getLogger(__name__)


class Transaction:
    """See the module's text. Not for use by two tasks at once."""

    def __init__(self, what: str, subject: str = "") -> None:
        self.name = f"{what} {subject}".strip()
        self._undo: list[tuple[str, Undo]] = []
        self._committed = False

    def on_rollback(self, what: str, undo: Undo) -> None:
        """Registers the undo of the acquire that comes next."""
        self._undo.append((what, undo))

    def commit(self) -> None:
        self._committed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._committed or not self._undo:
            return
        rollback = asyncio.create_task(self._roll_back(error), name=f"rollback {self.name}")
        cancelled: asyncio.CancelledError | None = None
        while not rollback.done():
            try:
                await asyncio.shield(rollback)
            except asyncio.CancelledError as cancel:
                cancelled = cancel
        if cancelled and not isinstance(error, asyncio.CancelledError):
            raise cancelled from error

    async def _roll_back(self, error: BaseException | None) -> None:
        while self._undo:
            what, undo = self._undo.pop()
            try:
                async with asyncio.timeout(UNDO_LIMIT_S):
                    result = undo()
                    if inspect.isawaitable(result):
                        await result
            except Exception as failure:
                log.exception("rollback of %s: undoing %s failed", self.name, what)
                if error is not None:
                    error.add_note(f"undoing {what} failed: {failure!r}")
