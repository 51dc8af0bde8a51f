"""Starts many containers after a start of the daemon or of the machine, in an order that works.

Those that ask for an address of their own go first, with all that they need, before anybody gets it
by chance; one that joins another's namespace, or is linked to it, waits for that one.
"""

import asyncio
import logging
import os

from teu.container.container import Container
from teu.container.exits import Exits
from teu.container.lifecycle import Lifecycle
from teu.errors import EngineError, NotModified
from teu.model.container import ContainerRecord

PARALLEL = 4 * (os.cpu_count() or 1)
DEPENDENCY_LIMIT_S = 60.0
log = logging.getLogger(__name__)


class AutoStart:
    """`run` once. A start that fails is tried again as the restart policy says."""

    def __init__(self, lifecycle: Lifecycle, exits: Exits, wanted: list[Container]) -> None:
        self._lifecycle = lifecycle
        self._exits = exits
        self._wanted = wanted
        self._slots = asyncio.Semaphore(PARALLEL)
        self._attempted = {container.id: asyncio.Event() for container in wanted}
        self._ids = {container.name: container.id for container in wanted}

    async def run(self) -> None:
        first = self._fixed_and_needed()
        for group in (first, [c for c in self._wanted if c not in first]):
            await asyncio.gather(*(self._start(container) for container in group))

    def _fixed_and_needed(self) -> list[Container]:
        by_id = {container.id: container for container in self._wanted}
        found = [container for container in self._wanted if has_fixed_address(container.record)]
        for container in found:  # grows while it is walked
            for needed in needs(container.record):
                other = by_id.get(self._ids.get(needed, needed))
                if other is not None and other not in found:
                    found.append(other)
        return found

    async def _start(self, container: Container) -> None:
        try:
            for needed in needs(container.record):
                await self._wait_for(self._ids.get(needed, needed))
            async with self._slots:
                await self._lifecycle.start(container)
        except NotModified:
            pass  # a client was faster
        except EngineError as error:
            log.error("container %s: not started: %s", container.id[:12], error)
            async with container.lock:
                self._exits.start_failed(container)
        finally:
            self._attempted[container.id].set()

    async def _wait_for(self, container_id: str) -> None:
        """Not for ever: a start may hang, and names may have come to form a circle."""
        attempted = self._attempted.get(container_id)
        if attempted is not None:
            try:
                async with asyncio.timeout(DEPENDENCY_LIMIT_S):
                    await attempted.wait()
            except TimeoutError:
                log.warning("container %s: not started in time for others", container_id[:12])


def has_fixed_address(record: ContainerRecord) -> bool:
    asked = (settings.ipam_config for settings in record.networks.values())
    return any(ipam and (ipam.ipv4_address or ipam.ipv6_address) for ipam in asked)


def needs(record: ContainerRecord) -> list[str]:
    """Ids or names of the containers that must run before this one."""
    host = record.host
    joined = [
        mode.removeprefix("container:")
        for mode in (host.network_mode, host.pid_mode, host.ipc_mode)
        if mode.startswith("container:")
    ]
    return joined + [link.partition(":")[0].lstrip("/") for link in host.links or []]
