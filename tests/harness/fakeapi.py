"""A daemon that says what a test tells it to say, for clients: canned answers on a unix socket."""

import contextlib
import gc
import http.server
import io
import json
import socketserver
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Answer = tuple[int, Any]


class FakeApi(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """`routes` maps `METHOD /path` (without version and query) to JSON, bytes, or (status, JSON).

    `requests` lists what came in, as (method, path with query, body).
    """

    daemon_threads = True

    def __init__(self, path: Path, routes: dict[str, Any], version: str) -> None:
        super().__init__(str(path), _Handler)
        self.host = f"unix://{path}"
        self.routes = routes
        self.version = version
        self.requests: list[tuple[str, str, bytes]] = []

    def get_request(self) -> tuple[Any, Any]:
        connection, _ = super().get_request()
        return connection, ("client", 0)

    def bodies(self, method: str, path: str) -> list[Any]:
        """The JSON bodies of the requests to that path."""
        return [
            json.loads(body)
            for verb, target, body in self.requests
            if verb == method and _plain(target) == path
        ]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeApi

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.server.requests.append((self.command, self.path, self.rfile.read(length)))
        status, body = self._choose()
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Api-Version", self.server.version)
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _choose(self) -> Answer:
        path = _plain(self.path)
        if path == "/_ping":
            return 200, b"OK"
        found = self.server.routes.get(f"{self.command} {path}")
        if found is None:
            return 404, {"message": f"No such thing: {path}"}
        return found if isinstance(found, tuple) else (200, found)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _answer

    def log_message(self, *args: object) -> None:
        pass


def _plain(target: str) -> str:
    path = target.partition("?")[0]
    return "/" + path.split("/", 2)[2] if path.startswith("/v1.") else path


@contextlib.contextmanager
def fake_api(routes: dict[str, Any], version: str = "1.51") -> Iterator[FakeApi]:
    """A running `FakeApi`, gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        server = FakeApi(Path(folder) / "api.sock", routes, version)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            server.server_close()
            thread.join(5)


class Said:
    """How a command line ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def teu_here(api: FakeApi | None, *words: str, config: Path | None = None) -> Said:
    """Runs `teu` inside this process, against `api` and with its own client directory."""
    from teu.cli.main import main

    argv = ["teu"]
    if api is not None:
        argv += ["-H", api.host]
    argv += ["--config", str(config or "/nonexistent")]
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        # The program leaves its idle connections to the end of its process.
        warnings.simplefilter("ignore", ResourceWarning)
        code = main([*argv, *words])
        gc.collect(1)  # objects of the run are young
    return Said(code, out.getvalue(), err.getvalue())
