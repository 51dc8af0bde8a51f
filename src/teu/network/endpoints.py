"""Endpoints: in memory for every question, in the database before the kernel is touched."""

import logging
from collections.abc import Container, Iterable

from teu.ids import short
from teu.model.network import EndpointRecord, PublishedPort
from teu.store.networks import NetworkRepository

log = logging.getLogger(__name__)


class EndpointTable:
    """All endpoints, by container and by network."""

    def __init__(self, rows: NetworkRepository) -> None:
        self._rows = rows
        self._by_container: dict[str, dict[str, EndpointRecord]] = {}
        self._by_network: dict[str, dict[str, EndpointRecord]] = {}

    def load(self, network_ids: Container[str]) -> None:
        """Leaves out endpoints of networks that are not known (any more)."""
        for record in self._rows.endpoints():
            if record.network_id in network_ids:
                self._remember(record)
            else:
                log.error(
                    "container %s has an endpoint on network %s, which is not known",
                    record.container_name,
                    short(record.network_id),
                )

    def save(self, record: EndpointRecord) -> None:
        """Adds or updates, the row first."""
        self._rows.save_endpoint(record)
        self._remember(record)

    def remove(self, record: EndpointRecord) -> None:
        """Accepts "already gone"."""
        self._rows.remove_endpoint(record.network_id, record.container_id)
        for index, outer, inner in (
            (self._by_container, record.container_id, record.network_id),
            (self._by_network, record.network_id, record.container_id),
        ):
            index.get(outer, {}).pop(inner, None)
            if not index.get(outer, True):
                del index[outer]

    def all(self) -> list[EndpointRecord]:
        return [one for found in self._by_container.values() for one in found.values()]

    def containers(self) -> list[str]:
        return list(self._by_container)

    def of_container(self, container_id: str) -> list[EndpointRecord]:
        return list(self._by_container.get(container_id, {}).values())

    def of_network(self, network_id: str) -> list[EndpointRecord]:
        return list(self._by_network.get(network_id, {}).values())

    def find(self, container_id: str, network_id: str) -> EndpointRecord | None:
        return self._by_container.get(container_id, {}).get(network_id)

    def ports(self) -> list[PublishedPort]:
        return [port for record in self.all() for port in record.ports]

    def _remember(self, record: EndpointRecord) -> None:
        self._by_container.setdefault(record.container_id, {})[record.network_id] = record
        self._by_network.setdefault(record.network_id, {})[record.container_id] = record


def free_link_name(prefix: str, taken: Iterable[EndpointRecord]) -> str:
    """`eth0`, or the first number that no other endpoint of the container has."""
    used = {record.link for record in taken}
    number = 0
    while f"{prefix}{number}" in used:
        number += 1
    return f"{prefix}{number}"
