"""The event bus: every change of an object, told to subscribers and kept in a bounded history.

An event is stored before it is told. History and live events join without a gap: `stream`
subscribes first and reads the history in the same step of the loop.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable

from teu import clock
from teu.model.event import Event
from teu.store.events import EventStore

PASSING_KEPT = 1_000
_FOREVER_NS = 2**63 - 1
BACKLOG = 4_096  # events a slow subscriber may lag behind before it is cut off
Predicate = Callable[[Event], bool]


class EventBus:
    """One per daemon. All methods belong to the loop's thread."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._passing: deque[Event] = deque(maxlen=PASSING_KEPT)
        self._queues: set[asyncio.Queue[Event | None]] = set()

    @property
    def listeners(self) -> int:
        """How many streams there are now."""
        return len(self._queues)

    def publish(
        self,
        kind: str,
        action: str,
        actor: str,
        attributes: dict[str, str],
        *,
        lasting: bool = True,
    ) -> None:
        """Tells an event. One that is not `lasting` comes so often that it would push the others
        out of the history: the last `PASSING_KEPT` of those are kept in memory only."""
        event = Event(
            type=kind, action=action, actor=actor, attributes=attributes, at_ns=clock.now_ns()
        )
        if lasting:
            self._store.append(event)
        else:
            self._passing.append(event)
        for queue in list(self._queues):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._queues.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)

    async def stream(
        self, since_ns: int, until_ns: int, wanted: Predicate
    ) -> AsyncGenerator[Event, None]:
        """History from `since_ns` (0: none), then live events until `until_ns` (0: for ever)."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(BACKLOG)
        self._queues.add(queue)
        try:
            last_ns = until_ns or _FOREVER_NS
            if since_ns:
                for event in self._history(since_ns, last_ns):
                    if wanted(event):
                        yield event
            while (told := await self._next(queue, until_ns)) is not None:
                if wanted(told) and told.at_ns <= last_ns:
                    yield told
        finally:
            self._queues.discard(queue)

    def _history(self, since_ns: int, last_ns: int) -> list[Event]:
        passing = [event for event in self._passing if since_ns <= event.at_ns <= last_ns]
        lasting = self._store.between(since_ns, last_ns)
        return sorted((*lasting, *passing), key=lambda event: event.at_ns)

    @staticmethod
    async def _next(queue: asyncio.Queue[Event | None], until_ns: int) -> Event | None:
        """The next event; what is queued already is told also after `until_ns`."""
        if not until_ns or not queue.empty():
            return await queue.get()
        try:
            async with asyncio.timeout((until_ns - clock.now_ns()) / 1e9):
                return await queue.get()
        except TimeoutError:
            return None

    def close(self) -> None:
        """Ends all streams."""
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
