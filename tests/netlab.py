"""A whole host for network tests: a namespace of its own with an uplink to an "outside" machine.

    outside (198.51.100.2) ── up0 (198.51.100.1) host ── teu0 ── containers
            (2001:db8::2)          (2001:db8::1)

Everything of one `Lab` happens in namespaces made for it, so tests run side by side, may flush the
rule set, and cannot harm the machine. The engine's code runs in threads that were born in the
lab's host namespace. A container here is a sandbox without processes; servers are threads in it.
"""

import asyncio
import contextlib
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from teu.ids import new_id
from teu.model.config import EndpointSettings, PortBinding
from teu.network.service import NetworkConfig, NetworkService
from teu.store.db import Database
from teu.sys import netns

T = TypeVar("T")
UPLINK, HOST, OUTSIDE = "up0", "198.51.100.1", "198.51.100.2"
HOST6, OUTSIDE6 = "2001:db8::1", "2001:db8::2"


class Lab:
    """One host with its daemon's network: `service` is there inside `run`."""

    def __init__(self, **config: Any) -> None:
        self.config = NetworkConfig(**{"bip": "172.17.0.1/16", **config})
        self.root = Path(tempfile.mkdtemp(prefix="teu-net-"))
        self.exec_root = self.root / "exec"
        self.outside = self.root / "outside"
        self.db: Database
        self.service: NetworkService

    @property
    def table(self) -> str:
        return "teu" if self.config.bridge == "teu0" else f"teu-{self.config.bridge}"

    async def open(self) -> NetworkService:
        self.db = Database(self.root / "teu.db")
        self.service = NetworkService(self.db, self.exec_root, self.config)
        await self.service.start()
        return self.service

    async def close(self) -> None:
        await self.service.stop()
        self.db.close()

    async def restart(self) -> NetworkService:
        """What a restart of the daemon does to the network: containers run on."""
        await self.close()
        return await self.open()

    def run(self, scenario: Callable[["Lab"], Awaitable[T]]) -> T:
        """Runs `scenario` with the service started; then destroys all: nothing may be left."""
        before = open_files()
        try:
            result = netns.create(self.root / "host", lambda: self._in_host(scenario))
        finally:
            netns.remove(self.root / "host")
            netns.remove(self.outside)
            mounts = Path("/proc/self/mountinfo").read_text()
            shutil.rmtree(self.root, ignore_errors=True)
        assert str(self.root) not in mounts
        assert open_files() <= before
        return result

    def _in_host(self, scenario: Callable[["Lab"], Awaitable[T]]) -> T:
        sh("ip", "link", "set", "lo", "up")
        sh("ip", "link", "add", UPLINK, "type", "veth", "peer", "far0")
        netns.create(self.outside, lambda: sh("ip", "link", "set", "lo", "up"))
        sh("ip", "link", "set", "far0", "netns", str(self.outside))
        sh("ip", "address", "add", f"{HOST}/24", "dev", UPLINK)
        sh("ip", "link", "set", UPLINK, "up")
        self.from_outside(lambda: sh("ip", "address", "add", f"{OUTSIDE}/24", "dev", "far0"))
        self.from_outside(lambda: sh("ip", "link", "set", "far0", "up"))
        sh("ip", "route", "add", "default", "via", OUTSIDE)
        sh("ip", "address", "add", f"{HOST6}/64", "dev", UPLINK, "nodad")
        self.from_outside(
            lambda: sh("ip", "address", "add", f"{OUTSIDE6}/64", "dev", "far0", "nodad")
        )
        sh("ip", "route", "add", "default", "via", OUTSIDE6)
        return asyncio.run(self._whole(scenario))

    async def _whole(self, scenario: Callable[["Lab"], Awaitable[T]]) -> T:
        try:
            await self.open()
            result = await scenario(self)
        finally:
            await self.service.destroy()
            await self.close()
        assert nft("list", "ruleset") == ""
        wait_until(lambda: set(links()) <= {"lo", UPLINK})
        return result

    def from_outside(self, work: Callable[[], T]) -> T:
        """Runs `work` on the machine outside."""
        return netns.run_inside(self.outside, work)

    async def start(self, name: str = "", *, network: str = "bridge", **asked: Any) -> "Container":
        """A container's network without a container: sandbox and endpoint."""
        container = Container(self, new_id(), name or f"c{secrets.token_hex(3)}")
        container.sandbox = await self.service.open_sandbox(container.id)
        await container.connect(network, **asked)
        return container

    def elements(self, name: str) -> list[str]:
        """Elements of one map of our table, as nft prints them."""
        text = nft("list", "map", "inet", self.table, name)
        _, found, rest = text.partition("elements = {")
        body = rest.partition("}")[0] if found else ""
        return sorted(" ".join(part.split()) for part in body.split(",") if part.strip())

    def published(self) -> list[str]:
        maps = ("port-any", "port-at", "port-any6", "port-at6")
        return [element for name in maps for element in self.elements(name)]


class Container:
    def __init__(self, lab: Lab, ident: str, name: str) -> None:
        self.lab, self.id, self.name = lab, ident, name
        self.sandbox = ""
        self.endpoints: dict[str, EndpointSettings] = {}

    async def connect(self, network: str, **asked: Any) -> EndpointSettings:
        settings = EndpointSettings(**asked)
        service = self.lab.service
        got = await service.connect(self.id, self.name, self.sandbox, network, settings)
        self.endpoints[network] = got
        await service._names.settled()
        return got

    async def publish(
        self, bindings: dict[str, str], network: str = "bridge", **options: Any
    ) -> dict[str, list[dict[str, str]]]:
        """`{"80/tcp": "127.0.0.1:8080"}`, comma-separated for several."""
        wanted: dict[str, list[PortBinding] | None] = {}
        for key, text in bindings.items():
            for one in text.split(","):
                address, _, port = one.rpartition(":")
                binding = PortBinding(host_ip=address.strip("[]"), host_port=port)
                wanted[key] = [*(wanted.get(key) or []), binding]
        return await self.lab.service.publish(self.id, self.name, network, wanted, **options)

    async def disconnect(self, network: str) -> None:
        await self.lab.service.disconnect(self.id, network)

    async def release(self) -> None:
        await self.lab.service.release(self.id, self.sandbox)

    @property
    def ip6(self) -> str:
        found = (one.global_ipv6_address for one in self.endpoints.values())
        return next(one for one in found if one)

    @property
    def ip(self) -> str:
        return next(one.ip_address for one in self.endpoints.values() if one.ip_address)

    def inside(self, work: Callable[[], T]) -> T:
        return netns.run_inside(Path(self.sandbox), work)

    def ask(self, address: str, port: int, **options: Any) -> str:
        return self.inside(lambda: ask(address, port, **options))

    def cannot_reach(self, address: str, port: int, **options: Any) -> bool:
        return self.inside(lambda: unreachable(address, port, **options))

    @contextlib.contextmanager
    def serve(self, port: int, *, kind: str = "tcp") -> Iterator[list[str]]:
        """Answers every client with its address as seen here; yields the clients seen."""
        with serving(lambda: self.inside(lambda: listener(port, kind)), kind) as seen:
            yield seen


def listener(port: int, kind: str = "tcp", address: str = "") -> socket.socket:
    """A listening socket in the calling thread's namespace; without an address at all there are,
    of IPv4 and IPv6."""
    family = socket.AF_INET if "." in address else socket.AF_INET6
    sock = socket.socket(family, _kind(kind))
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        if kind == "tcp":
            sock.listen(64)
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def serving(make: Callable[[], socket.socket], kind: str = "tcp") -> Iterator[list[str]]:
    server = make()
    server.settimeout(0.05)
    seen: list[str] = []
    stop = threading.Event()
    thread = threading.Thread(target=_answer, args=(server, kind, seen, stop), daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(5)
        server.close()
        assert not thread.is_alive()


def _answer(server: socket.socket, kind: str, seen: list[str], stop: threading.Event) -> None:
    while not stop.is_set():
        with contextlib.suppress(TimeoutError, ConnectionError):
            if kind == "udp":
                _data, peer = server.recvfrom(2048)
                seen.append(peer[0].removeprefix("::ffff:"))
                server.sendto(seen[-1].encode(), peer)
                continue
            client, peer = server.accept()
            with client:
                seen.append(peer[0].removeprefix("::ffff:"))
                client.sendall(seen[-1].encode())


def _kind(kind: str) -> socket.SocketKind:
    return socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM


def ask(address: str, port: int, *, kind: str = "tcp", timeout_s: float = 3) -> str:
    """What the server answers: the client's address as it saw it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, _kind(kind)) as sock:
        sock.settimeout(timeout_s)
        sock.connect((address, port))
        if kind == "udp":
            sock.send(b"?")
        return sock.recv(100).decode()


def unreachable(address: str, port: int, *, kind: str = "tcp") -> bool:
    """No answer within a short time (refused, dropped or no route)."""
    try:
        answer = ask(address, port, kind=kind, timeout_s=0.3)
    except OSError:
        return True
    return answer == ""


def sh(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


def nft(*argv: str) -> str:
    return sh("nft", *argv)


def links() -> list[str]:
    return [name for _index, name in socket.if_nameindex()]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def wait_until(condition: Callable[[], bool], timeout_s: float = 5) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.005)
