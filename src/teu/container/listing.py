"""Which containers a list shows: `docker ps` filters. Source: API 1.51 ContainerList."""

import re
from collections.abc import Callable, Iterable
from functools import partial

from teu.container import state
from teu.container.container import Container
from teu.container.containers import Containers
from teu.container.healthcheck import STATUSES, status_of
from teu.errors import InvalidParameter
from teu.image.service import ImageService
from teu.model.container import ContainerRecord, Status

_STATUSES = {
    "created": (Status.CREATED, Status.CREATING, Status.STARTING),
    "running": (Status.RUNNING,),
    "paused": (Status.PAUSED,),
    "restarting": (Status.RESTARTING,),
    "exited": (Status.EXITED,),
    "removing": (Status.REMOVING,),
    "dead": (Status.DEAD,),
}
_NUMBER = re.compile(r"[+-]?[0-9]{1,10}")
_TRUE, _FALSE = frozenset({"true", "1"}), frozenset({"false", "0"})
Filters = dict[str, list[str]]
Test = Callable[[ContainerRecord, list[str]], bool]


class Listing:
    """Reads only; answers from what is in memory."""

    def __init__(self, containers: Containers, images: ImageService) -> None:
        self._containers = containers
        self._images = images
        self._tests: dict[str, Test] = {
            "id": lambda r, values: any(r.id.startswith(v) for v in values),
            "name": _name_matches,
            "label": _labels_match,
            "status": _status_matches,
            "exited": _exit_matches,
            "ancestor": self._ancestor_matches,
            "before": partial(self._on_side, earlier=True),
            "since": partial(self._on_side, earlier=False),
            "volume": _volume_matches,
            "network": _network_matches,
            "publish": _publish_matches,
            "expose": _expose_matches,
            "health": lambda r, values: status_of(r) in values,
            "is-task": lambda r, values: values[0] in _FALSE,
            "isolation": lambda r, values: True,
        }

    def select(self, filters: Filters, *, all_: bool, limit: int) -> list[Container]:
        """Newest first. Raises: InvalidParameter with Docker's text."""
        for name in filters:
            if name not in self._tests:
                raise InvalidParameter(f"invalid filter '{name}'")
        for status in filters.get("status", ()):
            if status not in _STATUSES:
                raise InvalidParameter(f"invalid filter 'status={status}'")
        _check_values(filters)
        everything = all_ or limit > 0 or bool({"status", "exited"} & filters.keys())
        chosen: Iterable[Container] = (
            c
            for c in self._containers
            if (everything or state.is_active(c.record)) and self._passes(c.record, filters)
        )
        ordered = sorted(chosen, key=lambda c: c.record.created_ns, reverse=True)
        return ordered[:limit] if limit > 0 else ordered

    def _passes(self, record: ContainerRecord, filters: Filters) -> bool:
        return all(self._tests[name](record, values) for name, values in filters.items() if values)

    def _ancestor_matches(self, record: ContainerRecord, values: list[str]) -> bool:
        return any(self._images.descends(record.image_id, value) for value in values)

    def _on_side(self, record: ContainerRecord, values: list[str], *, earlier: bool) -> bool:
        other = self._containers.get(values[0]).record
        if earlier:
            return record.created_ns < other.created_ns
        return record.created_ns > other.created_ns


def _name_matches(record: ContainerRecord, values: list[str]) -> bool:
    """A value is a regular expression, searched in the name with and without its slash."""
    import re

    try:
        return any(
            re.search(value, record.name) or re.search(value, f"/{record.name}") for value in values
        )
    except re.error as error:
        raise InvalidParameter(f"invalid filter 'name': {error}") from None


def _check_values(filters: Filters) -> None:
    """Raises: InvalidParameter with Docker's texts."""
    for value in filters.get("exited", ()):
        if not _NUMBER.fullmatch(value):
            raise InvalidParameter(f'strconv.Atoi: parsing "{value}": invalid syntax')
    for health in filters.get("health", ()):
        if health not in STATUSES:
            raise InvalidParameter(f"invalid filter 'health={health}'")
    if (tasks := filters.get("is-task")) and (len(tasks) > 1 or tasks[0] not in _TRUE | _FALSE):
        raise InvalidParameter(f"invalid filter 'is-task=[{' '.join(tasks)}]'")


def _labels_match(record: ContainerRecord, values: list[str]) -> bool:
    """`key` or `key=value`; all must match."""
    labels = record.config.labels or {}
    for value in values:
        key, has_value, wanted = value.partition("=")
        if key not in labels or (has_value and labels[key] != wanted):
            return False
    return True


def _status_matches(record: ContainerRecord, values: list[str]) -> bool:
    return any(record.status in _STATUSES[value] for value in values)


def _exit_matches(record: ContainerRecord, values: list[str]) -> bool:
    if record.status is not Status.EXITED or not record.started_ns:
        return False
    return record.exit_code in {int(value) for value in values}


def _volume_matches(record: ContainerRecord, values: list[str]) -> bool:
    return any(value in (p.name, p.destination) for p in record.mounts for value in values)


def _network_matches(record: ContainerRecord, values: list[str]) -> bool:
    if record.host.network_mode == "host":
        return "host" in values
    return any(
        value == name or (s.network_id and s.network_id.startswith(value))
        for name, s in record.networks.items()
        for value in values
    )


def _ports_of(values: list[str]) -> set[tuple[int, str]]:
    wanted: set[tuple[int, str]] = set()
    for value in values:
        numbers, _, protocol = value.partition("/")
        first, _, last = numbers.partition("-")
        try:
            span = range(int(first), int(last or first) + 1)
        except ValueError:
            raise InvalidParameter(f"invalid port filter: {value!r}") from None
        wanted |= {(number, protocol or "tcp") for number in span}
    return wanted


def _publish_matches(record: ContainerRecord, values: list[str]) -> bool:
    wanted = _ports_of(values)
    return any(
        (int(binding["HostPort"]), port.partition("/")[2]) in wanted
        for port, bindings in record.ports.items()
        for binding in bindings
    )


def _expose_matches(record: ContainerRecord, values: list[str]) -> bool:
    exposed = [*(record.config.exposed_ports or {}), *record.ports]
    return bool(_ports_of(exposed) & _ports_of(values)) if exposed else False
