"""The MTU of bridge networks follows the host's default route, also while containers run.

A VPN that comes up, or another uplink, makes the way out narrower: containers that go on sending
large packets see connections that open and then hang. Looked at a second after links or routes
changed (containers that come and go change them, too), once for many changes.
"""

import asyncio
import logging
from typing import Final

from teu.errors import EngineError
from teu.model.network import EndpointRecord, NetworkRecord
from teu.network.catalog import Catalog
from teu.network.drivers import Drivers
from teu.network.endpoints import EndpointTable
from teu.network.kernel import RouteWatch, Worker
from teu.network.sandbox import Sandboxes
from teu.sys.netlink import set_link

LOOK_DELAY_S: Final = 1.0
log = logging.getLogger(__name__)


class MtuFollower:
    """`start` and `stop` on the loop."""

    def __init__(
        self,
        catalog: Catalog,
        endpoints: EndpointTable,
        sandboxes: Sandboxes,
        drivers: Drivers,
        worker: Worker,
    ) -> None:
        self._catalog = catalog
        self._endpoints = endpoints
        self._sandboxes = sandboxes
        self._drivers = drivers
        self._worker = worker
        self._watch: RouteWatch | None = None
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._watch = RouteWatch()
        self._listen(self._watch)

    async def stop(self) -> None:
        if self._watch:
            asyncio.get_running_loop().remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None
        if self._looking:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _listen(self, watch: RouteWatch) -> None:
        asyncio.get_running_loop().add_reader(watch.fileno(), self._changed, watch)

    def _changed(self, watch: RouteWatch) -> None:
        asyncio.get_running_loop().remove_reader(watch.fileno())  # until it was looked at
        self._looking = asyncio.create_task(self._look(watch), name="follow the host's MTU")

    async def _look(self, watch: RouteWatch) -> None:
        await asyncio.sleep(LOOK_DELAY_S)
        watch.drain()
        for record in self._catalog.bridges():
            try:
                await self._worker.run(self._follow, record, self._endpoints.of_network(record.id))
            except (EngineError, OSError) as error:  # it may be on its way out
                log.info("network %s: its MTU was not changed: %s", record.name, error)
        self._listen(watch)

    def _follow(self, record: NetworkRecord, endpoints: list[EndpointRecord]) -> None:
        mtu = self._drivers.bridged(record).follow_mtu(record, endpoints)
        if not mtu:
            return
        for endpoint in endpoints:
            with self._sandboxes.inside(endpoint.container_id) as inside:
                inside.run(set_link(endpoint.link, mtu=mtu))
        log.info("network %s: MTU %d, as on the host's default route", record.name, mtu)
