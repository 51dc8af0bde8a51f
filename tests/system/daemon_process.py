"""Runs `fake_daemon.py` as a real process in a directory of its own, and talks HTTP to it."""

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LIMIT_S = 20.0
PROGRAM = Path(__file__).with_name("fake_daemon.py")


def wait_for(what: Callable[[], Any], described: str, limit_s: float = LIMIT_S) -> Any:
    """The first true answer. Fails after the limit."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.01)
    raise AssertionError(f"{described}: not within {limit_s} s")


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=LIMIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT_S)
        self.sock.connect(str(self._path))


def ask(connection: http.client.HTTPConnection, path: str = "/_ping") -> str:
    """The body of a GET that must succeed."""
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        return answer.read().decode()


class Daemon:
    """One process. `root` holds its data, exec root, pid file, socket and log."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "s.sock"
        self.pidfile = root / "pid"
        self.file = root / "daemon.json"
        self.log_path = root / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *flags: str) -> list[str]:
        return [sys.executable, str(PROGRAM), *flags]

    def places(self) -> list[str]:
        return [
            f"--data-root={self.root}/data", f"--exec-root={self.root}/exec",
            f"--pidfile={self.pidfile}", f"--config-file={self.file}",
        ]  # fmt: skip

    def spawn(self, *flags: str, pass_fds: tuple[int, ...] = (), **env: str) -> None:
        """Starts without waiting. Without a `-H` it listens on `self.socket`."""
        if not self.file.exists():
            self.file.write_text("{}")
        hosts = (
            []
            if any(f.startswith("-H") for f in flags) or pass_fds
            else [f"-Hunix://{self.socket}"]
        )
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(*self.places(), *hosts, *flags),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=pass_fds,
                env=os.environ | env,
            )  # fmt: skip

    def start(self, *flags: str, pass_fds: tuple[int, ...] = (), **env: str) -> None:
        """Starts and waits until it serves."""
        seen = len(self.log())
        self.spawn(*flags, pass_fds=pass_fds, **env)
        wait_for(lambda: self._served(seen), "the daemon serves")

    def _served(self, seen: int) -> bool:
        assert self.process is not None
        log = self.log()[seen:]
        assert self.process.poll() is None, log
        return "completed initialization" in log

    def refused(self, *flags: str, pass_fds: tuple[int, ...] = (), **env: str) -> str:
        """What it says when it must not start."""
        seen = len(self.log())
        self.spawn(*flags, pass_fds=pass_fds, **env)
        assert self.wait() == 1, self.log()
        return self.log()[seen:]

    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def logged(self, text: str) -> None:
        wait_for(lambda: text in self.log(), f"{text!r} in the log")

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(timeout=LIMIT_S)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def ping(self) -> str:
        return ask(UnixConnection(self.socket))

    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(ask(UnixConnection(self.socket), "/config"))
        return found

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def notify_socket(path: Path) -> Iterator[Callable[[], str]]:
    """A service manager's ear: the next message, or a failure."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(path))
        ear.settimeout(LIMIT_S)
        yield lambda: ear.recv(4096).decode()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Authority:
    """A certificate authority in a directory: `ca.pem`, and `NAME.pem` with `NAME-key.pem`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", "/CN=test authority", "-days", "2", "-keyout", "ca-key.pem", "-out", "ca.pem",
        )  # fmt: skip

    def issue(self, name: str, usage: str) -> tuple[Path, Path]:
        """Certificate and key for `serverAuth` or `clientAuth`."""
        (self.root / "ext").write_text(
            f"subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={usage}\n"
        )
        self._openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", f"/CN={name}", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr",
        )  # fmt: skip
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem",
            "-CAcreateserial", "-days", "2", "-extfile", "ext", "-out", f"{name}.pem",
        )  # fmt: skip
        return self.root / f"{name}.pem", self.root / f"{name}-key.pem"

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.root, check=True, capture_output=True)

    def client_context(self, identity: tuple[Path, Path] | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.root / "ca.pem")
        if identity:
            context.load_cert_chain(*identity)
        return context
