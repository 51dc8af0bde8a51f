"""A network service on the real kernel with names of its own, and a look at what it leaves behind.

Bridges are called `tt` and hex digits and have subnets of their own, so tests run side by side.
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
from typing import TypeVar

from teu.ids import new_id
from teu.model.config import EndpointSettings, PortBinding
from teu.network.service import NetworkConfig, NetworkService
from teu.store.db import Database
from teu.sys import netns

T = TypeVar("T")


class Lab:
    """One daemon's network: `root` is its data and exec root, `service` runs inside `run`."""

    def __init__(self, **config: object) -> None:
        number = secrets.randbelow(1 << 14)
        self.bridge = f"tt{secrets.token_hex(4)}"
        self.subnet = f"10.{64 + (number >> 8)}.{number & 255}.0/24"
        self.gateway = self.subnet.replace(".0/24", ".1")
        self.table = f"teu-{self.bridge}"
        self.root = Path(tempfile.mkdtemp(prefix="teu-net-"))
        base = self.subnet.rpartition(".")[0]
        self.config = NetworkConfig(
            **{"bridge": self.bridge, "bip": f"{base}.1/24", "mtu": 1500, **config}  # type: ignore[arg-type]
        )
        self.db: Database
        self.service: NetworkService

    async def open(self) -> NetworkService:
        self.db = Database(self.root / "teu.db")
        self.service = NetworkService(self.db, self.root / "exec", self.config)
        await self.service.start()
        return self.service

    async def close(self) -> None:
        await self.service.stop()
        self.db.close()

    def run(self, scenario: Callable[["Lab"], Awaitable[T]]) -> T:
        """Runs `scenario` with the service started; destroys all and checks that nothing is left."""

        async def whole() -> T:
            await self.open()
            try:
                return await scenario(self)
            finally:
                await self.service.destroy()
                await self.close()

        before = open_files()
        try:
            result = asyncio.run(whole())
        finally:
            self.clean_up()
        assert self.leftovers() == []
        assert open_files() <= before
        return result

    def clean_up(self) -> None:
        """Waits until the kernel reaped the links of ended namespaces."""
        wait_until(lambda: not [name for name in links() if name == self.bridge])
        shutil.rmtree(self.root, ignore_errors=True)

    def leftovers(self) -> list[str]:
        found = [f"link {name}" for name in links() if name == self.bridge]
        if self.table in nft("list", "tables"):
            found.append(f"table {self.table}")
        mounts = Path("/proc/self/mountinfo").read_text()
        if str(self.root) in mounts:
            found.append("mounts")
        return found

    async def start(
        self, name: str = "", *, network: str = "bridge", **settings: object
    ) -> "Container":
        """A container's network without a container: sandbox and endpoint."""
        container = Container(self, new_id(), name or f"c{secrets.token_hex(3)}")
        container.sandbox = await self.service.open_sandbox(container.id)
        await container.connect(network, **settings)
        return container

    def elements(self, name: str) -> list[str]:
        """Elements of one map of our table, as nft prints them."""
        text = nft("list", "map", "inet", self.table, name)
        _, found, rest = text.partition("elements = {")
        body = rest.partition("}")[0] if found else ""
        return sorted(" ".join(part.split()) for part in body.split(",") if part.strip())


class Container:
    def __init__(self, lab: Lab, ident: str, name: str) -> None:
        self.lab, self.id, self.name = lab, ident, name
        self.sandbox = ""
        self.endpoints: dict[str, EndpointSettings] = {}

    async def connect(self, network: str, **settings: object) -> EndpointSettings:
        asked = EndpointSettings(**settings)  # type: ignore[arg-type]
        service = self.lab.service
        got = await service.connect(self.id, self.name, self.sandbox, network, asked)
        self.endpoints[network] = got
        return got

    async def publish(
        self, bindings: dict[str, str], network: str = "bridge", **options: object
    ) -> dict[str, list[dict[str, str]]]:
        """`{"80/tcp": "127.0.0.1:8080"}`, comma-separated for several."""
        wanted: dict[str, list[PortBinding] | None] = {}
        for key, text in bindings.items():
            for one in text.split(","):
                address, _, port = one.rpartition(":")
                binding = PortBinding(host_ip=address, host_port=port)
                wanted[key] = [*(wanted.get(key) or []), binding]
        return await self.lab.service.publish(
            self.id,
            self.name,
            network,
            wanted,
            **options,  # type: ignore[arg-type]
        )

    async def release(self) -> None:
        await self.lab.service.release(self.id, self.sandbox)

    @property
    def ip(self) -> str:
        return next(one.ip_address for one in self.endpoints.values() if one.ip_address)

    def inside(self, work: Callable[[], T]) -> T:
        return netns.run_inside(Path(self.sandbox), work)

    async def do(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(self.inside, work)

    @contextlib.contextmanager
    def serve(self, port: int, *, kind: str = "tcp", address: str = "") -> Iterator[list[str]]:
        """Answers every client with the client's address; yields the list of clients seen."""
        with serving(lambda: self.inside(lambda: listener(port, kind, address)), kind) as seen:
            yield seen


def listener(port: int, kind: str = "tcp", address: str = "") -> socket.socket:
    """A listening socket in the calling thread's namespace."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    if kind == "tcp":
        sock.listen(64)
    return sock


@contextlib.contextmanager
def serving(make: Callable[[], socket.socket], kind: str = "tcp") -> Iterator[list[str]]:
    server = make()
    server.settimeout(20)
    seen: list[str] = []

    def loop() -> None:
        with contextlib.suppress(OSError):
            while True:
                if kind == "udp":
                    _data, peer = server.recvfrom(2048)
                    seen.append(peer[0])
                    server.sendto(peer[0].encode(), peer)
                    continue
                client, peer = server.accept()
                with client:
                    seen.append(peer[0])
                    client.sendall(peer[0].encode())

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def ask(
    address: str, port: int, *, kind: str = "tcp", source: str = "", timeout_s: float = 2
) -> str:
    """What the server answers: the client's address as it saw it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(timeout_s)
        if source:
            sock.bind((source, 0))
        sock.connect((address, port))
        if kind == "udp":
            sock.send(b"?")
        return sock.recv(100).decode()


def unreachable(address: str, port: int, *, kind: str = "tcp") -> bool:
    """No answer within a short time (refused, dropped or no route)."""
    try:
        ask(address, port, kind=kind, timeout_s=0.3)
    except OSError:
        return True
    return False


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
