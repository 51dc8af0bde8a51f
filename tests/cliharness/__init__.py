"""A daemon of strings and sockets: records every request, answers as Docker's would.

It serves the command line's tests, where what counts is what goes over the wire and what the
terminal sees; a real daemon is used by the labs and by `test_against_dockerd.py`.
"""

import contextlib
import json
import re
import socket
import subprocess
import threading
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

ID = "ab12" * 16


MULTIPLEXED = "Content-Type: application/vnd.docker.multiplexed-stream\r\n"


class Request:
    """One request; the handler answers through `reply`, `upgrade` or `sock` itself."""

    def __init__(self, sock: socket.socket, reader: Any) -> None:
        line = reader.readline().decode()
        if not line:
            raise EOFError
        self.sock = sock
        self.reader = reader
        self.method, target, _ = line.split(" ", 2)
        self.headers: dict[str, str] = {}
        while header := reader.readline().strip():
            name, _, value = header.decode("latin-1").partition(":")
            self.headers[name.lower()] = value.strip()
        self.body = self._read_body()
        path, _, query = target.partition("?")
        self.version = (re.match(r"/v([\d.]+)/", path) or ["", ""])[1]
        self.path = re.sub(r"^/v[\d.]+", "", path)
        self.query = urllib.parse.parse_qs(query, keep_blank_values=True)

    def _read_body(self) -> bytes:
        if "content-length" in self.headers:
            return bytes(self.reader.read(int(self.headers["content-length"])))
        body = b""
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(self.reader.readline(), 16):
                body += self.reader.read(size)
                self.reader.readline()
            self.reader.readline()
        return body

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None

    def reply(self, status: int, value: Any = None, headers: str = "") -> None:
        body = value if isinstance(value, bytes) else b""
        if value is not None and not body:
            body = json.dumps(value).encode()
        head = (
            f"HTTP/1.1 {status} X\r\nApi-Version: 1.51\r\nOstype: linux\r\n{headers}"
            f"Content-Length: {len(body)}\r\n"
        )
        if "Content-Type" not in headers:
            head += "Content-Type: application/json\r\n"
        self.sock.sendall(f"{head}\r\n".encode() + (b"" if self.method == "HEAD" else body))

    def upgrade(self) -> None:
        self.sock.sendall(
            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )


Handler = Callable[[Request], None]


class FakeDaemon:
    """Listens on a socket; `requests` grows as they come. Handlers: regular expression of
    "METHOD path" -> function; later ones win.
    """

    def __init__(self, path: str, listener: socket.socket | None = None) -> None:
        self.path = path
        self.url = f"unix://{path}"
        self.requests: list[Request] = []
        self.running = threading.Event()
        self.exit_code = 0
        self._changed = threading.Condition()
        self._handlers: list[tuple[str, Handler]] = []
        self._listener = listener or socket.socket(socket.AF_UNIX)
        if listener is None:
            self._listener.bind(path)
            self._listener.listen(64)
        self._defaults()
        self._peers: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def on(self, pattern: str, handler: Handler) -> None:
        self._handlers.insert(0, (pattern, handler))

    def _defaults(self) -> None:
        config = {"Tty": False, "OpenStdin": True, "Image": "x"}
        state = {"Running": True, "Paused": False, "Restarting": False, "Status": "running"}
        info = {
            "Id": ID, "Name": "/x", "Config": config, "State": state,
            "HostConfig": {"AutoRemove": False}, "NetworkSettings": {"Ports": {}},
        }  # fmt: skip
        self.on(r".*", lambda r: r.reply(200, {}))
        self.on(r"\w+ /_ping", lambda r: r.reply(200, b"OK"))
        self.on(
            r"GET /containers/[^/]+/logs",
            lambda r: r.reply(200, b"\1\0\0\0\0\0\0\2hi", MULTIPLEXED),
        )
        top = {"Titles": ["PID", "CMD"], "Processes": [["1", "sh -c x"]]}
        self.on(r"GET /containers/[^/]+/top", lambda r: r.reply(200, top))
        self.on(
            r"(HEAD|GET) /containers/[^/]+/archive", lambda r: r.reply(404, {"message": "no x"})
        )
        self.on(r"POST /containers/create", lambda r: r.reply(201, {"Id": ID, "Warnings": []}))
        self.on(r"POST /containers/[^/]+/exec", lambda r: r.reply(201, {"Id": ID}))
        self.on(r"GET /exec/.*/json", lambda r: r.reply(200, {"ExitCode": self.exit_code}))
        self.on(r"GET /containers/[^/]+/json", lambda r: r.reply(200, info))
        self.on(r"GET /containers/[^/]+/changes", lambda r: r.reply(200, []))
        self.on(r"POST /commit", lambda r: r.reply(201, {"Id": f"sha256:{ID}"}))
        self.on(r"DELETE /images/", lambda r: r.reply(200, [{"Untagged": "x:latest"}]))
        self.on(r"POST /(containers|exec)/[^/]+/(start|stop|kill|resize|rename)", self._change)
        self.on(r"POST /containers/.*/attach", self._close_attach)
        self.on(r"POST /exec/.*/start", self._exec)
        self.on(r"POST /containers/.*/wait", self._wait)

    def _change(self, request: Request) -> None:
        request.reply(204)
        if request.path.endswith("/start"):
            self.running.set()

    def _close_attach(self, request: Request) -> None:
        request.upgrade()
        self.running.wait(10)
        request.sock.shutdown(socket.SHUT_RDWR)

    def _exec(self, request: Request) -> None:
        if request.json["Detach"]:
            request.reply(200)
        else:
            request.upgrade()
            request.sock.shutdown(socket.SHUT_RDWR)

    def _wait(self, request: Request) -> None:
        request.reply(200, {"StatusCode": self.exit_code})

    def wait_for(self, pattern: str, count: int = 1, timeout_s: float = 10) -> list[Request]:
        """The requests that match, as soon as there are `count`. Raises: TimeoutError."""
        with self._changed:
            found = self._changed.wait_for(lambda: len(self.matching(pattern)) >= count, timeout_s)
        if not found:
            seen = [f"{r.method} {r.path} {r.query}" for r in self.requests]
            raise TimeoutError(f"{count} of {pattern} did not come; seen: {seen}")
        return self.matching(pattern)

    def matching(self, pattern: str) -> list[Request]:
        return [r for r in self.requests if re.match(pattern, f"{r.method} {r.path}")]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._peers.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        reader = sock.makefile("rb")
        try:
            while sock.fileno() >= 0:
                request = Request(sock, reader)
                with self._changed:
                    self.requests.append(request)
                    self._changed.notify_all()
                line = f"{request.method} {request.path}"
                handler = next(h for pattern, h in self._handlers if re.match(pattern, line))
                handler(request)
        except (EOFError, OSError, ValueError):
            pass
        finally:
            reader.close()
            sock.close()
            self._peers.discard(sock)

    def close(self) -> None:
        """Ends everything, whatever a test left open."""
        self.running.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in list(self._peers):
            with contextlib.suppress(OSError):  # closed already
                peer.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)


class Cli:
    """Runs `teu` against the fake daemon."""

    def __init__(self, program: str, environment: dict[str, str], folder: Path) -> None:
        self.program = program
        self.environment = environment
        self.folder = folder

    def __call__(
        self, *words: str, stdin: bytes | None = None, timeout_s: float = 20
    ) -> subprocess.CompletedProcess[bytes]:
        source: dict[str, Any] = (
            {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        )
        return subprocess.run(
            [self.program, *words], capture_output=True, env=self.environment,
            cwd=self.folder, timeout=timeout_s, check=False, **source,
        )  # fmt: skip

    def start(self, *words: str, **settings: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self.program, *words], env=self.environment, cwd=self.folder, **settings
        )
