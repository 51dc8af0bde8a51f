"""Sandboxes: one network namespace per container, kept by a file under `exec_root/netns/`.

exec_root/netns/CONTAINER_ID     nsfs bind mount, there from `create` to `remove`
"""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from teu.sys import netns
from teu.sys.netlink import IPAddress, Netlink, set_link

_LOOPBACK: Final = 1  # its index in every namespace
_OPEN_SOCKETS: Final = 64
_NEW_LINKS_IPV6: Final = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")


class Sandboxes:
    """Blocking calls for the worker's threads; each container by one thread at a time.

    A route socket inside each of the newest sandboxes is kept open: the endpoint that follows
    needs it, and it saves a thread and a setns.
    """

    def __init__(self, exec_root: Path) -> None:
        self._root = exec_root / "netns"
        self._sockets: OrderedDict[str, Netlink] = OrderedDict()
        self._lock = threading.Lock()

    def path(self, container_id: str) -> Path:
        return self._root / container_id

    def create(self, container_id: str) -> Path:
        """A fresh sandbox with its loopback up; one left over under that id is replaced.

        Raises: OSError.
        """
        path = self.path(container_id)
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        try:
            inside = netns.create(path, _prepare)
        except FileExistsError:
            self.remove(container_id)
            inside = netns.create(path, _prepare)
        self._keep(container_id, inside)
        return path

    @contextmanager
    def inside(self, container_id: str) -> Iterator[Netlink]:
        """A route socket in the sandbox. Raises: OSError (no such sandbox)."""
        with self._lock:
            kept = self._sockets.pop(container_id, None)
        inside = kept or netns.run_inside(self.path(container_id), Netlink)
        try:
            yield inside
        except BaseException:
            inside.close()
            raise
        self._keep(container_id, inside)

    def route(self, container_id: str, address: IPAddress) -> tuple[str, str] | None:
        """(link, gateway or empty) of packets to that address, as the kernel would choose."""
        with self.inside(container_id) as inside:
            links = {link.index: link.name for link in inside.links()}
            fitting = [route for route in inside.routes() if address in route.destination]
        if not fitting:
            return None
        best = max(fitting, key=lambda route: (route.destination.prefixlen, -route.metric))
        return links.get(best.link_index, ""), str(best.gateway or "")

    def remove(self, container_id: str) -> None:
        """Accepts "never existed". The kernel reaps the links in the background."""
        self._drop_socket(container_id)
        netns.remove(self.path(container_id))

    def existing(self) -> list[str]:
        """Container ids of all sandboxes that are there."""
        try:
            return [entry.name for entry in self._root.iterdir()]
        except FileNotFoundError:
            return []

    def close(self) -> None:
        for container_id in list(self._sockets):
            self._drop_socket(container_id)

    def _keep(self, container_id: str, inside: Netlink) -> None:
        with self._lock:
            self._sockets[container_id] = inside
            oldest = None
            if len(self._sockets) > _OPEN_SOCKETS:
                _, oldest = self._sockets.popitem(last=False)
        if oldest:
            oldest.close()

    def _drop_socket(self, container_id: str) -> None:
        with self._lock:
            kept = self._sockets.pop(container_id, None)
        if kept:
            kept.close()


def _prepare() -> Netlink:
    # Links that come get no IPv6 by themselves: its duplicate detection and router solicitations
    # would be flooded to every container of the bridge at each start. The loopback keeps ::1.
    with contextlib.suppress(FileNotFoundError):
        _NEW_LINKS_IPV6.write_text("1")
    inside = Netlink()
    try:
        inside.run(set_link(_LOOPBACK, up=True))
    except BaseException:
        inside.close()
        raise
    return inside
