"""How many transfers may run at a time: a limit that can change while they do."""

import asyncio
from collections import deque
from collections.abc import Callable


class Slots:
    """A context manager for each transfer. `limit` is asked each time. Loop's thread.

    A higher limit counts from the end of the next transfer, a lower one never stops any.
    """

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def locked(self) -> bool:
        """Whether the next one has to wait."""
        return self._taken >= self._limit()

    async def __aenter__(self) -> None:
        while self.locked():
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake()  # it was our turn: the next one's, then
                raise
            finally:
                self._waiting.remove(turn)
        self._taken += 1

    async def __aexit__(self, *_: object) -> None:
        self._taken -= 1
        self._wake()

    def _wake(self) -> None:
        free = self._limit() - self._taken
        for turn in self._waiting:
            if free > 0 and not turn.done():
                turn.set_result(None)
                free -= 1
