"""The clients that drive an engine: command lines (docker's and ours) and plain HTTP."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from harness.terminal import Terminal
from harness.waiting import PATIENCE

COMMAND_LIMIT_S = 30
_TEU_MAIN = "from teu.cli.main import main; sys.exit(main(sys.argv))"


@dataclass(frozen=True)
class Result:
    """What a finished command said."""

    args: tuple[str, ...]
    code: int
    out: str
    err: str
    took_s: float


class Cli:
    """One command line program talking to one engine."""

    def __init__(self, name: str, argv: list[str], host: str, home: Path) -> None:
        self.name = name
        self.argv = argv
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
        # Both are set, as a shell of a person who moves from one to the other has both.
        self.env = kept | {
            "HOME": str(home),
            "DOCKER_CONFIG": str(home / ".docker"),
            "DOCKER_HOST": host,
            "DOCKER_CLI_HINTS": "false",
        }

    def run(
        self, *args: str, stdin: bytes | None = None, timeout_s: float = COMMAND_LIMIT_S
    ) -> Result:
        """Runs a command to its end; without `stdin` it reads from /dev/null."""
        begin = time.monotonic()
        process = self.spawn(*args, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE)
        try:
            out, err = process.communicate(stdin, timeout_s * PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            said = f"out: {out.decode(errors='replace')!r} err: {err.decode(errors='replace')!r}"
            raise AssertionError(
                f"{self.name} {args} did not end in {timeout_s:g} s; {said}"
            ) from None
        took_s = time.monotonic() - begin
        texts = (out.decode(errors="replace"), err.decode(errors="replace"))
        return Result(args, process.returncode, *texts, took_s)

    def ok(self, *args: str, stdin: bytes | None = None, timeout_s: float = COMMAND_LIMIT_S) -> str:
        """Runs a command that must succeed; its output without the last newline."""
        done = self.run(*args, stdin=stdin, timeout_s=timeout_s)
        assert done.code == 0, f"{self.name} {done}"
        return done.out.rstrip("\n")

    def fails(self, code: int, *args: str, stdin: bytes | None = None) -> str:
        """Runs a command that must end with `code`; what it said on stderr."""
        done = self.run(*args, stdin=stdin)
        assert done.code == code, f"expected exit code {code}: {self.name} {done}"
        assert "Traceback" not in done.err, f"{self.name} {done}"
        return done.err

    def spawn(self, *args: str, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        """Starts a command whose output and errors are pipes; the caller ends it."""
        return subprocess.Popen(
            [*self.argv, *args],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
        )

    def tty(self, *args: str, rows: int = 24, columns: int = 80) -> Terminal:
        """Starts a command at a terminal."""
        return Terminal([*self.argv, *args], self.env, rows, columns)

    def at(self, host: str) -> "Cli":
        """The same program, told to talk to another address."""
        return Cli(self.name, self.argv, host, Path(self.env["HOME"]))

    def as_user(self, uid: int) -> "Cli":
        """The same program, run by a user with no groups and no privileges."""
        wrapped = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *self.argv]
        return Cli(self.name, wrapped, self.env["DOCKER_HOST"], Path("/nonexistent"))


def cli_argv(name: str) -> list[str] | None:
    """How to start the program `docker` or `teu`; None where there is none."""
    if name == "docker":
        found = shutil.which("docker")
        return [found] if found else None
    return teu_argv()


def teu_argv() -> list[str]:
    """Our command line, from $TEU_TEST_CLI (an installed one) or from the source tree."""
    if told := os.environ.get("TEU_TEST_CLI"):
        return told.split()
    source = str(Path(__file__).parents[2] / "src")
    program = f"import sys; sys.path.insert(0, {source!r}); sys.argv[0] = 'teu'; {_TEU_MAIN}"
    return [sys.executable, "-I", "-S", "-c", program]


# --- plain HTTP -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Api:
    """The Engine API without any client library: what is sent is what the test says."""

    def __init__(self, socket_path: str | Path) -> None:
        self.socket_path = str(socket_path)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        timeout_s: float = COMMAND_LIMIT_S,
        **query: Any,
    ) -> Reply:
        """One request on a connection of its own. `body`: bytes as they are, else JSON."""
        head = {"Connection": "close", **(headers or {})}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            head.setdefault("Content-Type", "application/json")
        target = path + ("?" + urlencode(query, doseq=True) if query else "")
        connection = _UnixConnection(self.socket_path, timeout_s * PATIENCE)
        try:
            connection.request(method, target, body, head)
            reply = connection.getresponse()
            names = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(reply.status, names, reply.read())
        finally:
            connection.close()

    def get(self, path: str, **query: Any) -> Any:
        """The decoded answer of a GET that must succeed."""
        reply = self.request("GET", path, **query)
        assert reply.status == 200, f"GET {path} {query}: {reply}"
        return reply.json()

    def alive(self) -> bool:
        """Whether the engine answers at all."""
        try:
            return self.request("GET", "/_ping", timeout_s=5).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def inspect(self, container: str) -> Any:
        """`GET /containers/ID/json`."""
        return self.get(f"/containers/{container}/json")

    def state(self, container: str) -> dict[str, Any]:
        """A container's `State`."""
        state: dict[str, Any] = self.inspect(container)["State"]
        return state

    def container_ids(self) -> set[str]:
        """Full ids of all containers, running or not."""
        return {row["Id"] for row in self.get("/containers/json", all=1)}
