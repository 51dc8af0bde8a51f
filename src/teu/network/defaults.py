"""The networks that every daemon has (`bridge`, `host`, `none`), brought in line at each start."""

from teu.model.network import BRIDGE, HOST, NONE, NetworkRecord
from teu.network.bridge import BridgeDriver
from teu.network.catalog import Catalog
from teu.network.config import NetworkConfig
from teu.network.endpoints import EndpointTable
from teu.network.files import resolver_networks
from teu.network.firewall import Firewall
from teu.network.kernel import HostLinks
from teu.store.networks import NetworkRepository

NO_BRIDGE = "none"  # the configuration's word for "no default bridge"


class DefaultNetworks:
    """Decides what the default bridge is today: configuration, what is stored, what is there."""

    def __init__(
        self,
        config: NetworkConfig,
        rows: NetworkRepository,
        catalog: Catalog,
        endpoints: EndpointTable,
        driver: BridgeDriver,
        host: HostLinks,
        firewall: Firewall | None,
    ) -> None:
        self._config = config
        self._rows = rows
        self._catalog = catalog
        self._endpoints = endpoints
        self._driver = driver
        self._host = host
        self._firewall = firewall

    def ensure(self) -> None:
        """Stores all three. Kernel calls of some milliseconds, at start only.

        Raises: InvalidParameter (bip, fixed-cidr), PoolsExhausted, SystemFailure.
        """
        for name in (HOST, NONE):
            if self._catalog.find(name) is None:
                self._store(self._catalog.plan_predefined(name))
        stored = self._catalog.find(BRIDGE)
        if stored and self._endpoints.of_network(stored.id):
            # Its containers run on; a changed configuration waits until they are gone.
            self._name_table_after(stored.link)
            return
        if stored and stored.link != self._config.bridge:
            self._drop(stored)
            stored = None
        self._name_table_after(self._config.bridge)
        if self._config.bridge != NO_BRIDGE:
            self._store(self._planned(stored))

    def _planned(self, stored: NetworkRecord | None) -> NetworkRecord:
        link = self._host.link(self._config.bridge)
        present = self._host.addresses(link.index) if link else []
        routed = self._host.routed(self._catalog.links() | {self._config.bridge})
        routed += resolver_networks()
        record = self._catalog.plan_bridge(
            stored, next((one for one in present if ":" not in one), ""), routed
        )
        if stored is None:
            record.link_is_ours = link is None or self._driver.made(link)
        return record

    def _drop(self, record: NetworkRecord) -> None:
        """The default bridge of an earlier configuration, with the table named after it."""
        self._name_table_after(record.link)
        if self._firewall:
            self._firewall.destroy()
        self._driver.remove(record)
        self._rows.remove_network(record.id)
        self._catalog.drop(record)

    def _name_table_after(self, link: str) -> None:
        if self._firewall:
            self._firewall.name_after(link)

    def _store(self, record: NetworkRecord) -> None:
        self._rows.save_network(record)
        self._catalog.add(record)
