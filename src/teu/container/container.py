"""One live container: its stored record, and what only lives in this daemon."""

import asyncio
from dataclasses import dataclass, field

from teu.container.state import is_running
from teu.model.container import ContainerRecord
from teu.runtime.shim import Client, Shim


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a waiter gets: the exit code, and why a start or removal failed (else empty)."""

    exit_code: int
    error: str = ""


@dataclass(eq=False, slots=True)
class Container:
    """`lock` serialises changes (start, stop, remove, …); readers never take it.

    `pending` are clients that attached before the start. `teardown` frees the last run's mount and
    network after its exit was told; a new start waits for it.
    """

    record: ContainerRecord
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    shim: Shim | None = None
    pending: list[Client] = field(default_factory=list)
    teardown: asyncio.Task[None] | None = None
    restart: asyncio.Task[None] | None = None
    health_watch: asyncio.Task[None] | None = None
    exec_ids: list[str] = field(default_factory=list)
    stopping: bool = False  # a stop or kill is under way: the restart policy must not act
    _exits: list[asyncio.Future[Outcome]] = field(default_factory=list)
    _removals: list[asyncio.Future[Outcome]] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def running(self) -> bool:
        return is_running(self.record)

    def next_exit(self) -> asyncio.Future[Outcome]:
        """Done at the next exit, or at the removal."""
        self._exits = [waiter for waiter in self._exits if not waiter.done()]
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._exits.append(future)
        return future

    def removal(self) -> asyncio.Future[Outcome]:
        """Done when name and id are free; the outcome is the last exit's."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._removals.append(future)
        return future

    def tell_exit(self, outcome: Outcome) -> None:
        _resolve(self._exits, outcome)

    def tell_removal(self, outcome: Outcome) -> None:
        _resolve(self._exits, outcome)
        _resolve(self._removals, outcome)

    def take_pending(self) -> list[Client]:
        clients, self.pending = self.pending, []
        return clients


def _resolve(waiters: list[asyncio.Future[Outcome]], outcome: Outcome) -> None:
    while waiters:
        waiter = waiters.pop()
        if not waiter.done():
            waiter.set_result(outcome)
