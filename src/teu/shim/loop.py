"""A small epoll loop: descriptors and timers call back, nothing else.

Level-triggered. A callback gets the epoll event mask. Callbacks of one batch never see a
descriptor that was closed, or whose number was reused, earlier in the same batch.
"""

import select
import time
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
GONE = select.EPOLLHUP | select.EPOLLERR

Callback = Callable[[int], None]


class _Watch:
    __slots__ = ("active", "callback", "events")

    def __init__(self, callback: Callback, events: int) -> None:
        self.callback = callback
        self.events = events
        self.active = True


class Timer:
    """A callback that is due at `due` (monotonic seconds) unless cancelled."""

    __slots__ = ("_loop", "callback", "due")

    def __init__(self, loop: "Loop", due: float, callback: Callable[[], None]) -> None:
        self._loop = loop
        self.due = due
        self.callback = callback

    def cancel(self) -> None:
        """Harmless after it ran or was cancelled."""
        self._loop.drop_timer(self)


class Loop:
    """Watches descriptors and timers; the owner calls `run_once` until its work is done."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watches: dict[int, _Watch] = {}
        self._timers: list[Timer] = []

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Starts, or changes, the watch of `fd`. HUP and ERR are reported whatever `events` is."""
        known = self._watches.get(fd)
        if known is None:
            self._epoll.register(fd, events)
            self._watches[fd] = _Watch(callback, events)
            return
        known.callback = callback
        if known.events != events:
            known.events = events
            self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Call before closing `fd`. Harmless if it is not watched."""
        known = self._watches.pop(fd, None)
        if known is not None:
            known.active = False
            self._epoll.unregister(fd)

    def later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self, time.monotonic() + delay_s, callback)
        self._timers.append(timer)
        return timer

    def drop_timer(self, timer: Timer) -> None:
        if timer in self._timers:
            self._timers.remove(timer)

    def run_once(self) -> None:
        """Waits for the next events or timers and runs their callbacks."""
        batch = [
            (self._watches[fd], events)
            for fd, events in self._epoll.poll(self._wait_s())
            if fd in self._watches
        ]
        for watch, events in batch:
            if watch.active:
                watch.callback(events)
        if self._timers:
            self._run_timers()

    def _wait_s(self) -> float | None:
        if not self._timers:
            return None
        return max(0.0, min(timer.due for timer in self._timers) - time.monotonic())

    def _run_timers(self) -> None:
        now = time.monotonic()
        for timer in [timer for timer in self._timers if timer.due <= now]:
            if timer in self._timers:
                self._timers.remove(timer)
                timer.callback()
