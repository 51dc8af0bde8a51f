"""Removing all containers that do not run, by filter."""

import time

from teu import clock, units
from teu.container.lifecycle import Lifecycle
from teu.container.looks import Looks
from teu.container.services import Services
from teu.errors import EngineError, InvalidParameter
from teu.model.container import ContainerRecord, Status

_FINISHED = (Status.CREATED, Status.EXITED, Status.DEAD)
Filters = dict[str, list[str]]


class Pruner:
    def __init__(self, services: Services, lifecycle: Lifecycle, looks: Looks) -> None:
        self._services = services
        self._lifecycle = lifecycle
        self._looks = looks

    async def containers(self, filters: Filters) -> tuple[list[str], int]:
        """(ids removed, bytes reclaimed). Raises: InvalidParameter."""
        for name in filters:
            if name not in ("until", "label", "label!"):
                raise InvalidParameter(f"invalid filter '{name}'")
        removed: list[str] = []
        reclaimed = 0
        for container in self._services.containers.in_status(*_FINISHED):
            if not passes(container.record, filters):
                continue
            own, _ = await self._looks.sizes(container)
            try:
                await self._lifecycle.remove(container)
            except EngineError:  # started or removed by somebody else meanwhile
                continue
            removed.append(container.id)
            reclaimed += own
        self._services.events.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
        return removed, reclaimed


def passes(record: ContainerRecord, filters: Filters) -> bool:
    labels = record.config.labels or {}
    until = filters.get("until")
    if until and record.created_ns > parse_until(until[0]):
        return False
    if not all(has_label(labels, value) for value in filters.get("label", ())):
        return False
    return not any(has_label(labels, value) for value in filters.get("label!", ()))


def has_label(labels: dict[str, str], text: str) -> bool:
    """`key` or `key=value`."""
    key, wants_value, value = text.partition("=")
    return key in labels and (not wants_value or labels[key] == value)


def parse_until(text: str) -> int:
    """An instant, or a duration ago (`24h`), in epoch nanoseconds. Raises: InvalidParameter."""
    if text.isdigit():
        return int(text) * 1_000_000_000
    try:
        return time.time_ns() - int(units.parse_duration(text) * 1e9)
    except ValueError:
        pass
    try:
        return clock.parse_rfc3339(text)
    except ValueError as error:
        raise InvalidParameter(f"invalid filter 'until': {error}") from None
