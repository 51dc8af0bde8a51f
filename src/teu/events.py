"""The event bus: every change of an object, told to subscribers and kept in a bounded history.

An event is stored before it is told. History and live events join without a gap: `stream`
subscribes first and reads the history in the same step of the loop.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable

from teu import clock
from teu.model.event import Event
from teu.store.events import EventStore

BACKLOG = 4_096  # events a slow subscriber may lag behind before it is cut off
Predicate = Callable[[Event], bool]


class EventBus:
    """One per daemon. All methods belong to the loop's thread."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._queues: set[asyncio.Queue[Event | None]] = set()

    @property
    def listeners(self) -> int:
        """How many streams there are now."""
        return len(self._queues)

    def publish(self, kind: str, action: str, actor: str, attributes: dict[str, str]) -> None:
        event = Event(
            type=kind, action=action, actor=actor, attributes=attributes, at_ns=clock.now_ns()
        )
        self._store.append(event)
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
            now = clock.now_ns()
            if since_ns:
                for event in self._store.between(since_ns, until_ns or now):
                    if wanted(event):
                        yield event
            while not until_ns or clock.now_ns() < until_ns:
                event_or_end = await self._next(queue, until_ns)
                if event_or_end is None:
                    return
                if wanted(event_or_end) and not (until_ns and event_or_end.at_ns > until_ns):
                    yield event_or_end
        finally:
            self._queues.discard(queue)

    @staticmethod
    async def _next(queue: asyncio.Queue[Event | None], until_ns: int) -> Event | None:
        if not until_ns:
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
