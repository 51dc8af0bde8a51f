"""The host's network: routes, MTU and sysctls, and the threads for calls that may block."""

import asyncio
import contextlib
import errno
import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from teu.sys.netlink import IPAddress, IPNetwork, Link, Netlink
from teu.sys.netlink_socket import Request

P = ParamSpec("P")
T = TypeVar("T")
DEFAULT_MTU = 1500
_THREADS = 4
_ROUTE_CHANGES = 0x41  # RTMGRP_LINK, RTMGRP_IPV4_ROUTE
_EVENT_BYTES = 64 * 1024
_SYSCTL = Path("/proc/sys/net")
log = logging.getLogger(__name__)


class Worker:
    """Runs blocking kernel calls in a few threads, so that the loop never waits for rtnl.

    A cancelled caller still waits for the running call (milliseconds), then its CancelledError
    goes on: so an undo step never runs beside the work that it undoes.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="network")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        call = partial(work, *args, **kwargs)
        future = asyncio.get_running_loop().run_in_executor(self._pool, call)
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.shield(future)
            except asyncio.CancelledError as cancel:
                cancelled = cancel
            except BaseException:
                break
        if cancelled:
            raise cancelled
        return future.result()

    def close(self) -> None:
        self._pool.shutdown(wait=True)


class HostLinks:
    """The host namespace's route socket, shared by the worker's threads."""

    def __init__(self) -> None:
        self._netlink = Netlink()
        self._lock = threading.Lock()

    def run(self, *requests: Request) -> None:
        with self._lock:
            self._netlink.run(*requests)

    def link(self, name: str) -> Link | None:
        with self._lock:
            return self._netlink.link(name)

    def links(self) -> list[Link]:
        with self._lock:
            return self._netlink.links()

    def routed(self, ours: set[str]) -> list[IPNetwork]:
        """What the host has a route to, apart from the links named `ours`."""
        with self._lock:
            routes = self._netlink.routes()
            indexes = {link.index for link in self._netlink.links() if link.name in ours}
        return [route.destination for route in routes if route.link_index not in indexes]

    def addresses(self, link_index: int) -> list[str]:
        """`172.17.0.1/16` of one link."""
        with self._lock:
            found = self._netlink.addresses(link_index)
        return [str(one.interface) for one in found if one.link_index == link_index]

    def own_addresses(self) -> set[IPAddress]:
        with self._lock:
            return {one.interface.ip for one in self._netlink.addresses()}

    def default_mtu(self) -> int:
        """The MTU of the host's default route's link."""
        with self._lock:
            defaults = [one for one in self._netlink.routes() if not one.destination.prefixlen]
            best = min(defaults, key=lambda route: route.metric, default=None)
            try:
                link = self._netlink.link(socket.if_indextoname(best.link_index)) if best else None
            except OSError:  # the link went in between, or a multipath route names none
                link = None
        return link.mtu if link else DEFAULT_MTU

    def close(self) -> None:
        self._netlink.close()


class RouteWatch:
    """Hears of changes to the host's links and routes. For `loop.add_reader`."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        try:
            self._socket.bind((0, _ROUTE_CHANGES))
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> None:
        """Forgets what was told: something has changed, and whoever cares looks himself."""
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    self._socket.recv(_EVENT_BYTES)
                except OSError as error:  # more than the kernel could keep is a change as well
                    if error.errno != errno.ENOBUFS:
                        raise

    def close(self) -> None:
        self._socket.close()


def set_sysctl(name: str, value: str, why: str) -> bool:
    """Sets `ipv4/ip_forward` and the like if it differs, and logs it; True if it was changed.

    A key that this kernel does not have (IPv6 switched off) is left alone.
    Raises: OSError (read-only /proc).
    """
    path = _SYSCTL / name
    try:
        if path.read_text().strip() == value:
            return False
    except FileNotFoundError:
        return False
    path.write_text(value)
    log.info("set /proc/sys/net/%s to %s (%s)", name, value, why)
    return True


def machine_id() -> str:
    """The same at each start on this machine. Source: machine-id(5)."""
    for path in (Path("/etc/machine-id"), Path("/proc/sys/kernel/hostname")):
        try:
            if text := path.read_text().strip():
                return text
        except OSError:
            continue
    return ""


def keep_router_advertisements() -> None:
    """Links that learn addresses and routes from routers go on doing so when forwarding is on:
    accept_ra 1 means "unless I forward", 2 means "also then". Source: kernel ip-sysctl.rst."""
    for link in sorted((_SYSCTL / "ipv6/conf").glob("*/accept_ra")):
        if link.parent.name not in ("all", "lo") and link.read_text().strip() == "1":
            name = f"ipv6/conf/{link.parent.name}/accept_ra"
            set_sysctl(name, "2", "router advertisements go on while forwarding is on")


def read_sysctl(name: str) -> str:
    """Empty when there is no such key."""
    try:
        return (_SYSCTL / name).read_text().strip()
    except OSError:
        return ""
