"""`--link` on the default bridge: names in /etc/hosts and variables, from before resolvers.

On user-defined networks a link is one more name that only this container sees (`network.names`).
"""

from msgspec.structs import replace

from teu.container.container import Container
from teu.container.services import Services
from teu.errors import Conflict, NotFound
from teu.model.container import ContainerRecord
from teu.model.network import BRIDGE

_NOT_PASSED_ON = ("HOME=", "PATH=")


class Links:
    """Reads the running containers' records, and writes files under /etc."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def of(self, record: ContainerRecord) -> list[tuple[Container, str]]:
        """(linked container, alias). Raises: Conflict when one does not run."""
        found = []
        for ref, alias in _parsed(record):
            other = self._services.containers.find(ref)
            if other is None or not other.running:
                raise Conflict(
                    f"Cannot link to a non running container: /{ref} AS /{record.name}/{alias}"
                )
            found.append((other, alias or other.name))
        return found

    def hosts(self, record: ContainerRecord) -> list[str]:
        """`NAME:ADDRESS` for every name of a linked container. Raises: Conflict."""
        return [
            f"{name}:{_address(other)}"
            for other, alias in self.of(record)
            for name in _names(other, alias)
            if _address(other)
        ]

    def environment(self, record: ContainerRecord) -> list[str]:
        """Docker's variables: `DB_PORT=tcp://172.17.0.5:6379` and more. Raises: Conflict."""
        found: list[str] = []
        for other, alias in self.of(record):
            prefix = alias.replace("-", "_").upper()
            found += [f"{prefix}_NAME=/{record.name}/{alias}", *_ports(other, prefix)]
            found += [
                f"{prefix}_ENV_{entry}"
                for entry in other.record.config.env or []
                if not entry.startswith(_NOT_PASSED_ON)
            ]
        return found

    async def remove(self, container: Container, alias: str) -> None:
        """Takes one link away; from the next start on it is not there. Raises: NotFound."""
        async with container.lock:
            host = container.record.host
            parsed = [(link, *_parse(link)) for link in host.links or []]
            kept = [link for link, ref, name in parsed if (name or ref) != alias]
            if len(kept) == len(parsed):
                raise NotFound(f"no such link: /{container.name}/{alias}")
            container.record.host = replace(host, links=kept or None)
            self._services.containers.save(container)

    def follow(self, started: Container) -> None:
        """Writes a container's new address into /etc/hosts of those that link to it."""
        address = _address(started)
        for container in self._services.containers:
            if not (container.running and address and container.record.host.links):
                continue
            for ref, alias in _parsed(container.record):
                if self._services.containers.find(ref) is started:
                    home = self._services.paths.home(container.id)
                    self._services.etc.point(home, _names(started, alias), address)


def _parsed(record: ContainerRecord) -> list[tuple[str, str]]:
    """(name or id, alias); nothing on other networks than the default one."""
    if BRIDGE not in record.networks:
        return []
    return [_parse(link) for link in record.host.links or []]


def _parse(link: str) -> tuple[str, str]:
    """`db:one`, `db`, and what Docker's inspect shows, `/db:/web/one`."""
    ref, _, alias = link.partition(":")
    return ref.lstrip("/"), alias.rpartition("/")[2]


def _names(other: Container, alias: str) -> list[str]:
    return list(dict.fromkeys((alias or other.name, other.name, other.id[:12])))


def _address(other: Container) -> str:
    settings = other.record.networks.get(BRIDGE)
    return settings.ip_address if settings else ""


def _ports(other: Container, prefix: str) -> list[str]:
    address, found = _address(other), []
    exposed = (key.partition("/") for key in other.record.config.exposed_ports or {})
    ports = sorted((int(port), kind or "tcp") for port, _, kind in exposed if port.isdigit())
    if ports:
        found.append(f"{prefix}_PORT={ports[0][1]}://{address}:{ports[0][0]}")
    for port, kind in ports:
        key = f"{prefix}_PORT_{port}_{kind.upper()}"
        found += [
            f"{key}={kind}://{address}:{port}",
            f"{key}_ADDR={address}",
            f"{key}_PORT={port}",
            f"{key}_PROTO={kind}",
        ]
    return found
