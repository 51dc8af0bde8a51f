"""Webhooks: tells other programs what was pushed, pulled and deleted.

The envelope is the reference registry's (`{"events": [{"action", "target", "actor", …}]}`), so
that what receives its notifications receives these. Each event is sent until the receiver accepts
it, in order, with growing pauses; events that wait too long in number push the oldest out.
"""

import asyncio
import collections
import contextlib
import json
import logging
import secrets
from typing import Any

import aiohttp

from teu import clock

QUEUE_LIMIT = 10_000
ATTEMPT_LIMIT_S = 10.0
PAUSE_S, PAUSE_LIMIT_S = 0.2, 60.0
MEDIA_TYPE = "application/vnd.docker.distribution.events.v2+json"
log = logging.getLogger(__name__)


class Notifier:
    """One task for each receiver. `start` in the loop; `close` drops what was not told yet."""

    def __init__(self, urls: list[str]) -> None:
        self._queues = {url: collections.deque[dict[str, Any]](maxlen=QUEUE_LIMIT) for url in urls}
        self._more = {url: asyncio.Event() for url in urls}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._send(url)) for url in self._queues]

    def tell(self, action: str, target: dict[str, Any], request: dict[str, str], user: str) -> None:
        """`action`: push, pull, mount or delete."""
        event = {
            "id": secrets.token_hex(16),
            "timestamp": clock.format_ns(clock.now_ns()),
            "action": action,
            "target": target,
            "request": request,
            "actor": {"name": user},
        }
        for url, queue in self._queues.items():
            queue.append(event)
            self._more[url].set()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self, url: str) -> None:
        queue, more = self._queues[url], self._more[url]
        limit = aiohttp.ClientTimeout(total=ATTEMPT_LIMIT_S)
        async with aiohttp.ClientSession(timeout=limit) as session:
            pause_s = PAUSE_S
            while True:
                await more.wait()
                while queue:
                    event = queue[0]
                    if await self._accepted(session, url, event):
                        with contextlib.suppress(IndexError, ValueError):
                            queue.remove(event)
                        pause_s = PAUSE_S
                    else:
                        await asyncio.sleep(pause_s)
                        pause_s = min(2 * pause_s, PAUSE_LIMIT_S)
                more.clear()

    async def _accepted(self, session: aiohttp.ClientSession, url: str, event: Any) -> bool:
        body = json.dumps({"events": [event]})
        try:
            async with session.post(url, data=body, headers={"Content-Type": MEDIA_TYPE}) as answer:
                if answer.ok:
                    return True
                log.warning("%s answers a notification with %d", url, answer.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("%s cannot be notified: %s", url, error)
        return False
