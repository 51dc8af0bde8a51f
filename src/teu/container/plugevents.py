"""Events of networks and volumes that a container's start and end bring with them, as Docker
tells them: before `start`, and after `die`."""

from teu.container.container import Container
from teu.container.services import Services
from teu.errors import NotFound
from teu.model.network import HOST


class PlugEvents:
    def __init__(self, services: Services) -> None:
        self._services = services

    def started(self, container: Container) -> None:
        record = container.record
        self._tell_networks(container, "connect")
        for point in record.mounts:
            if point.type == "volume":
                self._services.events.publish(
                    "volume",
                    "mount",
                    point.name,
                    {
                        "container": record.id,
                        "destination": point.destination,
                        "driver": point.driver or "local",
                        "propagation": point.propagation,
                        "read/write": "true" if point.rw else "false",
                    },
                )

    def ended(self, container: Container) -> None:
        record = container.record
        self._tell_networks(container, "disconnect")
        for point in record.mounts:
            if point.type == "volume":
                facts = {"container": record.id, "driver": point.driver or "local"}
                self._services.events.publish("volume", "unmount", point.name, facts)

    def _tell_networks(self, container: Container, action: str) -> None:
        record = container.record
        names = [HOST] if record.host.network_mode == HOST else list(record.networks)
        for name in names:
            try:
                network = self._services.networks.get(name)
            except NotFound:
                continue
            facts = {"container": record.id, "name": network.name, "type": network.driver}
            self._services.events.publish("network", action, network.id, facts)
