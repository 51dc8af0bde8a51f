"""Names of containers on user-defined networks: what the resolver's process is told, and when.

A container that joins such a network gets two sockets at 127.0.0.11, opened here inside its
sandbox and handed over, so that a question never meets a closed port, not even while the process
is being replaced. They are on ports that the kernel chose: rules in the sandbox turn 53 into them,
so the container may listen on 0.0.0.0:53 itself. The rules work packet by packet, without
connection tracking, which a flood of questions could fill.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from msgspec import Struct, field

from teu.errors import EngineError, SystemFailure
from teu.ids import short
from teu.model.network import EndpointRecord, NetworkRecord
from teu.network.endpoints import EndpointTable
from teu.network.kernel import Worker
from teu.network.resolver import ResolverProcess
from teu.network.sandbox import Sandboxes
from teu.sys import netns
from teu.sys.nft import Nft

RESOLVER_ADDRESS: Final = "127.0.0.11"
_PORT: Final = 53
_BACKLOG: Final = 64
_SO_RCVBUFFORCE: Final = 33
_QUEUE_BYTES: Final = 1 << 20  # a burst of some thousand questions; no memory until it comes
_TABLE: Final = "ip teu-resolver"
log = logging.getLogger(__name__)

NetworkOf = Callable[[str], NetworkRecord]


class _Served(Struct):
    sandbox: Path
    servers: list[str] = field(default_factory=list)


class Names:
    """`network_of` finds a network by its id. All methods run on the loop."""

    def __init__(
        self,
        exec_root: Path,
        endpoints: EndpointTable,
        sandboxes: Sandboxes,
        network_of: NetworkOf,
        worker: Worker,
    ) -> None:
        self._endpoints = endpoints
        self._sandboxes = sandboxes
        self._network_of = network_of
        self._worker = worker
        self._served: dict[str, _Served] = {}
        self._process = ResolverProcess(exec_root, self._tell_all)

    @property
    def process_id(self) -> int:
        """Of the resolver; 0 while nobody needs it."""
        return self._process.pid

    def serves(self, container_id: str) -> bool:
        return container_id in self._served

    def foresee(self) -> None:
        """Containers with names will come: the process may begin to start."""
        self._process.foresee()

    async def serve(self, container_id: str, servers: Iterable[str]) -> None:
        """Names inside the sandbox from now on. `servers`: where other questions go; empty: the
        host's. Raises: SystemFailure. Crash, cancel: `forget`, or the end of the sandbox."""
        await self._process.ensure()
        served = _Served(self._sandboxes.path(container_id), list(servers))
        sockets = await self._worker.run(_open_inside, served.sandbox)
        self._served[container_id] = served
        self._hand_over(container_id, served, sockets)

    def joined(self, endpoint: EndpointRecord) -> None:
        """The endpoint is found by its names from now on; also after they have changed."""
        network = self._network_of(endpoint.network_id)
        if not network.has_names:
            return
        addresses = [one for one in (endpoint.address, endpoint.address6) if one]
        self._process.send(
            {
                "op": "join",
                "network": network.id,
                "name": network.name,
                "container": endpoint.container_id,
                "names": endpoint.names,
                "addresses": addresses,
            }
        )
        self._refresh(endpoint.container_id)

    def left(self, endpoint: EndpointRecord) -> None:
        """Is not found any more, and finds nobody there. Accepts "was not there"."""
        if not self._network_of(endpoint.network_id).has_names:
            return
        self._process.send(
            {"op": "leave", "network": endpoint.network_id, "container": endpoint.container_id}
        )
        self._refresh(endpoint.container_id, without=endpoint)

    async def settled(self) -> None:
        """Returns when all that was told is in force."""
        await self._process.settled()

    def forget(self, container_id: str) -> None:
        """Lets go of the sandbox, which its sockets would keep alive. Accepts "not served"."""
        if self._served.pop(container_id, None):
            self._process.send({"op": "forget", "container": container_id})

    async def restore(self, live: dict[str, list[str]]) -> None:
        """After a start of the daemon: `live` are the running containers with their servers."""
        wanted = {
            one.container_id
            for one in self._endpoints.all()
            if one.container_id in live and self._network_of(one.network_id).has_names
        }
        for container_id in wanted:
            path = self._sandboxes.path(container_id)
            self._served[container_id] = _Served(path, live[container_id])
        try:
            if not await self._process.find() and wanted:
                await self._process.ensure()
        except EngineError as error:
            log.error("names of containers do not work: %s", error)

    async def close(self) -> None:
        await self._process.close(end=not self._served)

    # --- telling -------------------------------------------------------------------------

    async def _tell_all(self, serving: set[str]) -> None:
        self._process.send({"op": "begin"})
        for endpoint in self._endpoints.all():
            self.joined(endpoint)
        missing = []
        for container_id, served in self._served.items():
            if container_id in serving:
                self._hand_over(container_id, served, ())
            else:
                missing.append(self._open_again(container_id, served))
        await asyncio.gather(*missing)
        self._process.send({"op": "end"})

    async def _open_again(self, container_id: str, served: _Served) -> None:
        try:
            sockets = await self._worker.run(_open_inside, served.sandbox)
        except (SystemFailure, OSError) as error:
            log.error("container %s has no names: %s", short(container_id), error)
        else:
            if self._served.get(container_id) is served:
                self._hand_over(container_id, served, sockets)
            else:
                for sock in sockets:
                    sock.close()

    def _refresh(self, container_id: str, *, without: EndpointRecord | None = None) -> None:
        if served := self._served.get(container_id):
            self._hand_over(container_id, served, (), without=without)

    def _hand_over(
        self,
        container_id: str,
        served: _Served,
        sockets: tuple[socket.socket, ...],
        *,
        without: EndpointRecord | None = None,
    ) -> None:
        endpoints = [one for one in self._endpoints.of_container(container_id) if one != without]
        endpoints.sort(key=lambda one: (-one.gw_priority, self._network_of(one.network_id).name))
        links = (link.partition(":") for one in endpoints for link in one.links)
        self._process.send(
            {
                "op": "serve",
                "container": container_id,
                "networks": [one.network_id for one in endpoints],
                "links": {alias or name: name for name, _, alias in links},
                "netns": str(served.sandbox),
                "servers": served.servers,
                "allowed": any(one.gateway or one.gateway6 or one.is_direct for one in endpoints),
                "has_ipv6": any(one.gateway6 for one in endpoints),
            },
            [sock.fileno() for sock in sockets],
        )
        for sock in sockets:
            sock.close()


def _open_inside(sandbox: Path) -> tuple[socket.socket, ...]:
    """UDP and TCP, reached at port 53 of `RESOLVER_ADDRESS` in there. About 0.6 ms.

    Raises: OSError.
    """
    return netns.run_inside(sandbox, _open_sockets)


def _open_sockets() -> tuple[socket.socket, ...]:
    sockets = _bound(0)
    try:
        udp, tcp = (sock.getsockname()[1] for sock in sockets)
        _write_rules(_rules(udp, tcp))
    except SystemFailure as error:  # no libnftables, or a kernel without
        for sock in sockets:
            sock.close()
        log.warning("containers with names cannot listen on port 53 themselves: %s", error)
        return _bound(_PORT)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bound(port: int) -> tuple[socket.socket, ...]:
    sockets: list[socket.socket] = []
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sock = socket.socket(socket.AF_INET, kind)
            sockets.append(sock)
            sock.bind((RESOLVER_ADDRESS, port))
        sockets[0].setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _QUEUE_BYTES)
        sockets[1].listen(_BACKLOG)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return tuple(sockets)


def _write_rules(commands: str) -> None:
    rules = Nft()
    try:
        rules.run(commands)
    finally:
        rules.close()


def _rules(udp: int, tcp: int) -> str:
    to, back = f"ip daddr {RESOLVER_ADDRESS}", f"ip saddr {RESOLVER_ADDRESS}"
    rules = (
        f"{to} udp dport {_PORT} notrack udp dport set {udp}",
        f"{to} tcp dport {_PORT} notrack tcp dport set {tcp}",
        f"{back} udp sport {udp} notrack udp sport set {_PORT}",
        f"{back} tcp sport {tcp} notrack tcp sport set {_PORT}",
    )
    return "\n".join(
        (
            f"add table {_TABLE}",
            f"delete table {_TABLE}",
            f"add table {_TABLE}",
            f"add chain {_TABLE} output {{ type filter hook output priority raw; }}",
            *(f"add rule {_TABLE} output {rule}" for rule in rules),
        )
    )
