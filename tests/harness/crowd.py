"""Many containers on one network, and ports that come and go; nothing may be left.

    tests/system/crowd [--containers 200] [--cycles 500] [--parallel 50]

First `--containers` on one user-defined network, `--parallel` at a time: each must find the first
one by name. Then `--cycles` starts and stops of containers with published ports, where every port
answers while its container runs and can be taken again at once. Exit code 1 with the list of
violations otherwise.
"""

import argparse
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from harness import leaks
from harness.engine import Engine
from harness.registry import Registry, free_port, lab_storage
from harness.waiting import until

SERVER = ["httpd", "-f", "-p", "80", "-h", "/etc"]
_NETWORK = "crowd"


@dataclass
class Crowd:
    """`violations` says what went wrong; `seconds` how long each part took."""

    engine: Engine
    parallel: int = 50
    violations: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, containers: int, cycles: int) -> None:
        before = leaks.snapshot(self.engine)
        subnet = f"10.142.{self.engine.slot.number}.0/24"
        ipam = {"Config": [{"Subnet": subnet}]}
        self._request("POST", "/networks/create", {"Name": _NETWORK, "IPAM": ipam})
        with ThreadPoolExecutor(self.parallel) as pool:
            began = time.monotonic()
            started = list(pool.map(self._member, range(containers)))
            self.seconds["start"] = time.monotonic() - began
            self._all_are_found(containers)
            list(pool.map(self._remove, started))
        self._request("DELETE", f"/networks/{_NETWORK}")
        began = time.monotonic()
        gone = {*started}
        port = free_port()
        for number in range(cycles):
            gone.add(self._cycle(number, port))
        self.seconds["cycles"] = time.monotonic() - began
        self.violations += self._left(before, gone)

    def _left(self, before: leaks.Snapshot, gone: set[str]) -> list[str]:
        """What the kernel and the engine have not freed after a while."""
        deadline = time.monotonic() + 30
        while (left := leaks.traces(self.engine, before, gone)) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def _member(self, number: int) -> str:
        config = {"NetworkMode": _NETWORK}
        asked = {"EndpointsConfig": {_NETWORK: {"Aliases": ["all", f"m{number}"]}}}
        return self._start(f"crowd-{number}", ["sleep", "100000"], config, asked)

    def _all_are_found(self, containers: int) -> None:
        """By each other: the first asks for all, the last for the first."""
        cli = self.engine.cli("docker")
        names = [f"m{number}" for number in range(containers)]
        script = "for n in $*; do nslookup $n >/dev/null 2>&1 || echo $n; done"
        lost = cli.ok("exec", "crowd-0", "sh", "-c", script, "x", *names).split()
        self.violations += [f"{name} is not found" for name in lost]
        cli.ok("exec", f"crowd-{containers - 1}", "ping", "-c1", "-W3", "m0")
        addresses = {
            network["IPAddress"]
            for number in range(containers)
            for network in self.engine.api.inspect(f"crowd-{number}")["NetworkSettings"][
                "Networks"
            ].values()
        }
        if len(addresses) != containers:
            self.violations.append(f"{containers} containers have {len(addresses)} addresses")

    def _cycle(self, number: int, port: int) -> str:
        """The same host port each time: it must be free at once."""
        bindings = {"80/tcp": [{"HostPort": str(port)}], "53/udp": [{"HostPort": str(port)}]}
        ident = self._start(f"cycle-{number}", SERVER, {"PortBindings": bindings}, {})
        if not self._answers(port):
            self.violations.append(f"cycle {number}: port {port} does not answer")
        self._remove(ident)
        return ident

    def _answers(self, port: int) -> bool:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", port), 2) as sock:
                    sock.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
                    return b"200 OK" in sock.recv(100)
            except OSError:
                time.sleep(0.005)
        return False

    def _start(self, name: str, command: list[str], host: object, networking: object) -> str:
        body = {
            "Image": "busybox", "Cmd": command, "HostConfig": host, "NetworkingConfig": networking,
            "StopSignal": "SIGKILL",
        }  # fmt: skip
        made = self._request("POST", "/containers/create", body, name=name)
        ident = str(made["Id"])
        self._request("POST", f"/containers/{ident}/start")
        return ident

    def _remove(self, ident: str) -> None:
        self._request("DELETE", f"/containers/{ident}", force=1)

    def _request(
        self, method: str, path: str, body: object = None, **query: object
    ) -> dict[str, object]:
        reply = self.engine.api.request(method, path, body, timeout_s=120, **query)
        assert reply.status < 300, f"{method} {path}: {reply}"
        return reply.json() if reply.body else {}


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Many containers on one network; see harness/crowd.py"
    )
    parser.add_argument("--containers", type=int, default=200)
    parser.add_argument("--cycles", type=int, default=500)
    parser.add_argument("--parallel", type=int, default=50)
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="teu-crowd-"))
    with Registry(lab_storage(), place, read_only=True) as registry:
        engine = Engine(registry.address)
        try:
            engine.start()
            reply = engine.api.request("POST", "/images/create", fromImage="busybox", tag="latest")
            assert reply.status == 200, reply
            for method, path, body in (
                ("POST", "/networks/create", {"Name": "warm-up"}),
                ("DELETE", "/networks/warm-up", None),
            ):
                engine.api.request(method, path, body)
            until("the resolver runs", (engine.exec_root / "resolver.sock").exists)
            crowd = Crowd(engine, options.parallel)
            crowd.run(options.containers, options.cycles)
        finally:
            engine.close()
    print(crowd.seconds)
    for violation in crowd.violations:
        print(violation)
    return 1 if crowd.violations else 0
