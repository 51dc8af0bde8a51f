"""Containers without an engine: a bundle of one busybox, a ShimService, and the clients' side."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from harness.waiting import until
from teu.runtime.shim import Client, ExecSpec, LaunchSpec, LogTarget, Shim, ShimService

BUSYBOX = "/usr/bin/busybox"
APPLETS = (
    "sh",
    "true",
    "cat",
    "sleep",
    "echo",
    "stty",
    "head",
    "seq",
    "tail",
    "yes",
    "grep",
    "usleep",
)
LIMIT_S = 20.0


class Box:
    """Bundles, runtime state and logs below one directory; `close` leaves nothing running."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "runtime"
        self.rootfs = base / "rootfs"
        self._bin = self.rootfs / "bin"
        for directory in (self.root, self._bin):
            directory.mkdir(parents=True)
        for name in ("proc", "dev", "sys", "tmp"):
            (self.rootfs / name).mkdir()
        shutil.copy(BUSYBOX, self._bin / "busybox")
        for applet in APPLETS:
            (self._bin / applet).symlink_to("busybox")
        self._names = 0
        self._prefix = f"shim{os.getpid()}-{base.name[-12:]}-"
        subprocess.run(["crun", "spec"], cwd=base, check=True)
        self._config: dict[str, Any] = json.loads((base / "config.json").read_text())
        self.made: list[str] = []

    def directory(self, name: str) -> Path:
        return self.base / "containers" / name

    def log(self, name: str) -> Path:
        return self.directory(name) / "log"

    def logged(self, name: str) -> str:
        return "".join(json.loads(line)["log"] for line in self.log(name).read_bytes().splitlines())

    def spec(
        self,
        args: list[str],
        *,
        tty: bool = False,
        memory: int = 0,
        host_pid: bool = False,
        **options: Any,
    ) -> LaunchSpec:
        """A new container of a name of its own; `sh -c LINE` for a single word with spaces."""
        self._names += 1
        name = f"{self._prefix}{self._names}"
        self.made.append(name)
        directory = self.directory(name)
        directory.mkdir(parents=True)
        config = json.loads(json.dumps(self._config))
        config["process"].update(args=shell(args), terminal=tty, **size(options))
        config["root"] = {"path": str(self.rootfs), "readonly": False}
        config["linux"]["cgroupsPath"] = f"/teu-shim-tests/{name}"
        config["linux"]["namespaces"] = [
            space
            for space in config["linux"]["namespaces"]
            if space["type"] != "pid" or not host_pid
        ]
        if memory:
            config["linux"]["resources"] = {"memory": {"limit": memory, "swap": memory}}
        (directory / "config.json").write_text(json.dumps(config))
        values: dict[str, Any] = {
            "id": name,
            "directory": directory,
            "bundle": directory,
            "runtime": ["crun", "--root", str(self.root)],
            "tty": tty,
            "open_stdin": False,
            "stdin_once": False,
            "console_size": None,
            "log": LogTarget(str(self.log(name))),
        }
        return LaunchSpec(**{**values, **options})

    def exec_spec(
        self, shim: Shim, args: list[str], *, tty: bool = False, **options: Any
    ) -> ExecSpec:
        self._names += 1
        name = f"exec{self._names}"
        words = {"args": shell(args), "terminal": tty, **size(options)}
        process = {**self._config["process"], **words}
        path = self.directory(shim.id) / f"{name}.json"
        path.write_text(json.dumps(process))
        return ExecSpec(**{"id": name, "process": path, "tty": tty, "open_stdin": False, **options})

    def shim_pid(self, name: str) -> int:
        """From state.json, which is written right after the launch is answered."""
        path = self.directory(name) / "state.json"
        return int(until(f"{path} exists", lambda: path.exists() and state(path)["shim_pid"]))

    def remove(self, name: str) -> None:
        subprocess.run(
            ["crun", "--root", str(self.root), "delete", "-f", name],
            stderr=subprocess.DEVNULL,
            check=False,
        )

    def close(self) -> None:
        for name in self.made:
            self.remove(name)


class Peer:
    """The client's end of an attached socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.received = bytearray()

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(LIMIT_S):
            await asyncio.get_running_loop().sock_sendall(self.socket, data)

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    async def read(self, end: bytes) -> bytes:
        """Until what was received ends with `end`; raises EOFError if the stream ends before."""
        async with asyncio.timeout(LIMIT_S):
            while not self.received.endswith(end):
                if not await self._more():
                    raise EOFError(f"stream ended after {self.received!r}, without {end!r}")
        return self._taken()

    async def to_end(self) -> bytes:
        async with asyncio.timeout(LIMIT_S):
            while await self._more():
                pass
        return self._taken()

    def _taken(self) -> bytes:
        taken, self.received = bytes(self.received), bytearray()
        return taken

    async def _more(self) -> bool:
        chunk = await asyncio.get_running_loop().sock_recv(self.socket, 1 << 18)
        self.received += chunk
        return bool(chunk)

    def close(self) -> None:
        self.socket.close()


def client(
    *,
    stdin: bool = False,
    stdout: bool = True,
    stderr: bool = True,
    multiplexed: bool = False,
    detach_keys: bytes = b"",
) -> tuple[Peer, Client]:
    """Both ends: the test's, and what `launch`, `attach` and `exec` take."""
    ours, theirs = socket.socketpair()
    return Peer(ours), Client(theirs.detach(), stdin, stdout, stderr, multiplexed, detach_keys)


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """A multiplexed stream as (1 or 2, payload)."""
    out: list[tuple[int, bytes]] = []
    while data:
        kind, size = struct.unpack(">BxxxL", data[:8])
        assert len(data) >= 8 + size, "a frame is cut off"
        out.append((kind, data[8 : 8 + size]))
        data = data[8 + size :]
    return out


def of_stream(data: bytes, kind: int) -> bytes:
    return b"".join(payload for stream, payload in frames(data) if stream == kind)


def size(options: dict[str, Any]) -> dict[str, Any]:
    """The runtime sets the size before the process runs, the shim only soon after."""
    height, width = options.get("console_size") or (0, 0)
    return {"consoleSize": {"height": height, "width": width}} if height else {}


def state(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def shell(args: list[str]) -> list[str]:
    return ["/bin/sh", "-c", args[0]] if len(args) == 1 and " " in args[0] else args


def run(box: Box, scenario: Callable[[ShimService], Awaitable[None]]) -> None:
    """Runs an async scenario with a started service, which is closed afterwards."""

    async def main() -> None:
        service = ShimService(box.base / "rehearsal")
        await service.start()
        try:
            async with asyncio.timeout(3 * LIMIT_S):
                await scenario(service)
        finally:
            await service.close()

    asyncio.run(main())


async def eventually(what: str, check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not check():
        assert time.monotonic() < deadline, f"not within {LIMIT_S} s: {what}"
        await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False
