"""Who uses which volume right now: has it mounted, or must not lose it for a moment."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Uses:
    """In memory only: after a restart of the daemon the running containers are counted anew."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._mounted: dict[str, set[str]] = {}
        self._idle: dict[str, asyncio.Future[None]] = {}

    @contextmanager
    def holding(self) -> Iterator[Callable[[str], None]]:
        """What is called with a name keeps that volume from being removed until the end."""
        names: list[str] = []

        def hold(name: str) -> None:
            self._held[name] += 1
            names.append(name)

        try:
            yield hold
        finally:
            self._held.subtract(names)
            self._held += Counter()  # drops the zeros

    def is_held(self, name: str) -> bool:
        return name in self._held

    def of(self, name: str) -> list[str]:
        """Who has it mounted."""
        return sorted(self._mounted.get(name, ()))

    def add(self, name: str, user: str) -> None:
        self._mounted.setdefault(name, set()).add(user)

    def discard(self, name: str, user: str) -> bool:
        """False for somebody who did not use it."""
        users = self._mounted.get(name, set())
        if user not in users:
            return False
        users.discard(user)
        if not users:
            del self._mounted[name]
        return True

    def rename(self, name: str, new_name: str) -> None:
        if (users := self._mounted.pop(name, None)) is not None:
            self._mounted[new_name] = users

    def tell_idle(self, name: str) -> None:
        """The last user has given it up for good."""
        if (idle := self._idle.pop(name, None)) is not None:
            idle.set_result(None)

    async def until_idle(self, name: str, limit_s: float) -> None:
        """Raises: TimeoutError."""
        if name in self._mounted:
            idle = self._idle.setdefault(name, asyncio.get_running_loop().create_future())
            async with asyncio.timeout(limit_s):
                await asyncio.shield(idle)
