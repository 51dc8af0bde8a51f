"""An engine under test: our daemon from the source tree, or a peer to check the tests against.

    $TEU_TEST_ENGINE   unset     teud, started here
                       dockerd   a private Docker daemon, started here: what passes on it and fails
                                 on ours is our fault
                       unix://…  an engine that runs already; not stopped, killed or leak checked

All that an engine started here makes is below one short directory and on one bridge; both are
numbered by a slot that this process holds a lock on, so that many can run at once.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness import cache
from harness.clients import Api, Cli, cli_argv
from harness.waiting import until

SOURCE = Path(__file__).parents[2] / "src"
KIND = os.environ.get("TEU_TEST_ENGINE") or "teu"
_SLOTS = 250


class Slot:
    """A number that no other test process on this machine has, until this process ends."""

    def __init__(self) -> None:
        directory = cache.directory() / "slots"
        directory.mkdir(exist_ok=True)
        for number in range(1, _SLOTS):
            self._file = (directory / str(number)).open("a+")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._file.close()
                continue
            self.number = number
            return
        raise RuntimeError("all test slots are taken")

    def claim(self, root: Path) -> str:
        """Notes the root of the slot's engine; the one before, if its process was killed."""
        self._file.seek(0)
        before = self._file.read()
        self._file.truncate(0)
        self._file.write(str(root))
        self._file.flush()
        return before

    def release(self) -> None:
        self._file.truncate(0)
        self._file.close()


class Engine:
    """One daemon with its roots, socket, bridge and log."""

    def __init__(self, registry: str, kind: str = KIND) -> None:
        self.kind = kind
        self.registry = registry
        self.registries = {registry}  # and others that a test makes it talk to
        self.options: tuple[str, ...] = ()  # more of the daemon's command line
        self.known_ids: set[str] = set()  # containers that the leak check must look for
        self.process: subprocess.Popen[bytes] | None = None
        self._containerd: subprocess.Popen[bytes] | None = None  # the peer's
        self.root = Path(tempfile.mkdtemp(prefix="tt", dir="/tmp"))
        self.root.chmod(0o711)  # the socket's own mode decides who may connect
        self.home = self.root / "home"
        self.home.mkdir()
        self.log = self.root / "log"
        self.log.touch()
        self.socket = self.root / "s"
        if kind.startswith("unix://"):
            self.kind = "external"
            self.socket = Path(kind.removeprefix("unix://"))
        else:
            self.slot = Slot()
            self.bridge = f"tt{self.slot.number}"
            if left := self.slot.claim(self.root):
                sweep(Path(left), self.bridge)
            self.gateway = f"10.140.{self.slot.number}.1"
        self.host = f"unix://{self.socket}"
        self.api = Api(self.socket)

    # --- life -------------------------------------------------------------------------------

    @property
    def data_root(self) -> Path:
        return self.root / "d"

    @property
    def exec_root(self) -> Path:
        return self.root / "e"

    @property
    def pid(self) -> int:
        assert self.process, "the engine was not started here"
        return self.process.pid

    def start(self, *more: str) -> None:
        """Starts the daemon and returns when it answers."""
        if self.kind != "external":
            self.launch(*more)
        until("the engine answers on its socket", self._up, 20)

    def launch(self, *more: str) -> None:
        """Starts the daemon's process without waiting for it."""
        self._make_bridge()
        if self.kind == "dockerd" and not self._containerd:
            self._start_containerd()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command(), *self.options, *more],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.root,
                start_new_session=True,  # ctrl-C is for the test runner, which stops it
                env=os.environ | {"PYTHONPATH": str(SOURCE)},
            )

    def command(self) -> list[str]:
        """The daemon's command line."""
        config = self.root / "daemon.json"
        if not config.exists():
            config.write_text("{}\n")
        argv = [
            *("--data-root", str(self.data_root), "--exec-root", str(self.exec_root)),
            *("--host", self.host, "--pidfile", str(self.root / "pid")),
            *("--config-file", str(config), "--registry-mirror", f"http://{self.registry}"),
            *("--bridge", self.bridge, "--max-download-attempts", "2"),
            *("--default-address-pool", f"base=10.141.{self.slot.number}.0/24,size=28"),
        ]
        if self.kind == "dockerd":
            address = str(self.root / "c.sock")
            return ["dockerd", "--iptables=false", "--containerd", address, *argv]
        return [sys.executable, "-m", "teu.daemon.main", *argv]

    def _up(self) -> bool:
        if self.process and self.process.poll() is not None:
            raise AssertionError(
                f"the daemon ended with {self.process.returncode}: {self.log_tail()}"
            )
        return self.api.alive()

    def kill(self) -> None:
        """kill -9, and nobody is told."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def terminate(self, timeout_s: float = 20) -> int:
        """SIGTERM; the daemon's exit code."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def running(self) -> bool:
        return self.kind == "external" or (self.process is not None and self.process.poll() is None)

    def close(self) -> None:
        """Ends the daemon and takes away what is left of it, by force."""
        if self.kind == "external":
            shutil.rmtree(self.root)
            return
        if self.process and self.process.poll() is None:
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                self.kill()
        if self._containerd:
            self._containerd.kill()
            self._containerd.wait()
        sweep(self.root, self.bridge)
        self.slot.release()

    # --- what is there ----------------------------------------------------------------------

    def mount_points(self) -> set[str]:
        """Where something is mounted below the engine's root; not the peer's namespace cache."""
        points = mounts_below(self.root)
        return {point for point in points if self.kind == "teu" or "/netns/" not in point}

    def processes(self) -> set[int]:
        """Processes that name the engine's root on their command line (daemon, shims, runtimes)."""
        return processes_naming(self.root)

    def log_tail(self, size: int = 4000) -> str:
        return self.log.read_text(errors="replace")[-size:]

    def cli(self, name: str) -> Cli:
        """A command line client of this engine. Skips the test where there is none of that name."""
        argv = cli_argv(name)
        if argv is None:
            pytest.skip(f"no `{name}` command on this machine")
        return Cli(name, argv, self.host, self.home)

    def _start_containerd(self) -> None:
        """One of the peer's own, so that it is not killed with the peer's daemon."""
        config = self.root / "containerd.toml"
        config.write_text(
            f'version = 2\nroot = "{self.root}/cr"\nstate = "{self.root}/cs"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{self.root}/c.sock"\n'
        )
        with self.log.open("ab") as log:
            self._containerd = subprocess.Popen(
                ["containerd", "--config", config], stdout=log, stderr=log, start_new_session=True
            )
        until("containerd's socket", (self.root / "c.sock").exists)

    def _make_bridge(self) -> None:
        """The default bridge; and NAT for the peer, which would change the whole machine's
        firewall itself."""
        if Path(f"/sys/class/net/{self.bridge}").exists():
            return
        cache.command("ip", "link", "add", self.bridge, "type", "bridge")
        cache.command("ip", "addr", "add", f"{self.gateway}/24", "dev", self.bridge)
        cache.command("ip", "link", "set", self.bridge, "up")
        if self.kind != "dockerd":
            return
        hook = "type nat hook postrouting priority 100;"
        rule = f"ip saddr {self.gateway}/24 oifname != {self.bridge} masquerade"
        cache.command("nft", f"table ip peer_{self.bridge} {{ chain post {{ {hook} {rule}; }}; }}")


def mounts_below(root: Path) -> set[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {point for point in (line.split()[4] for line in lines) if point.startswith(f"{root}/")}


def processes_naming(root: Path) -> set[int]:
    """Processes, but this one, with a path below `root` on their command line."""
    found = set()
    needle = f"{root}/".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if needle in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


def _is_of(alias: Path, root: Path) -> bool:
    """Whether a link carries the note of the engine that ran below `root`."""
    try:
        return f"{root}/" in alias.read_text()
    except OSError:
        return False


def sweep(root: Path, bridge: str) -> None:
    """Takes away, by force, all that an engine left: processes, mounts, bridges, files."""
    for pid in processes_naming(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until("all processes of the engine are gone", lambda: not processes_naming(root))
    for point in sorted(mounts_below(root), reverse=True):
        subprocess.run(["umount", "-l", point], check=False, capture_output=True)
    made = [
        link.parent.name for link in Path("/sys/class/net").glob("*/ifalias") if _is_of(link, root)
    ]
    for command in (
        *(["ip", "link", "del", link] for link in made),
        ["ip", "link", "del", bridge],
        ["nft", "delete", "table", "inet", f"teu-{bridge}"],
        ["nft", "delete", "table", "ip", f"peer_{bridge}"],
    ):
        subprocess.run(command, check=False, capture_output=True)
    shutil.rmtree(root, ignore_errors=True)
