"""A registry that misbehaves on request: lies about digests, hangs, breaks off."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar"


class BadRegistry(ThreadingHTTPServer):
    """Serves one image `x:latest` with one layer; `fault` says what goes wrong.

    Faults: `""` none, `lying-layer`, `lying-config`, `hanging-layer`, `cut-layer`, `error-500`,
    `nonsense-manifest`.
    """

    daemon_threads = True

    def __init__(self, fault: str, layer: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fault = fault
        self.release = threading.Event()  # ends what hangs
        self.hanging = threading.Event()  # a client waits for a blob that never comes
        diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["true"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
        config = json.dumps(document).encode()
        self.blobs = {_digest(config): config, _digest(layer): layer}
        self.layer = _digest(layer)
        self.config = _digest(config)
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": _entry(CONFIG, config),
                "layers": [_entry(LAYER, layer)],
            }
        ).encode()

    @property
    def image(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}/x"


@contextmanager
def bad_registry(fault: str, layer: bytes) -> Iterator[BadRegistry]:
    """Runs a BadRegistry in a thread of its own until the end of the block."""
    with BadRegistry(fault, layer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: BadRegistry

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in ("/v2", "/v2/"):
            self._answer(b"{}", "application/json")
        elif self.server.fault == "error-500":
            self._answer(b"broken", "text/plain", 500)
        elif path.startswith("/v2/x/manifests/"):
            nonsense = self.server.fault == "nonsense-manifest"
            self._answer(b"<html>hello</html>" if nonsense else self.server.manifest, MANIFEST)
        elif (digest := path.rpartition("/")[2]) in self.server.blobs:
            self._blob(digest)
        else:
            self._answer(b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}', "application/json", 404)

    do_HEAD = do_GET

    def _blob(self, digest: str) -> None:
        data, fault = self.server.blobs[digest], self.server.fault
        what = "layer" if digest == self.server.layer else "config"
        if fault == f"lying-{what}":
            data = data[:-1] + bytes([data[-1] ^ 1])
        if fault in (f"hanging-{what}", f"cut-{what}"):
            self._head(200, "application/octet-stream", len(data))
            self.wfile.write(data[: len(data) // 2])
            if fault.startswith("hanging"):
                self.server.hanging.set()
                self.server.release.wait(60)
            self.close_connection = True
            return
        self._answer(data, "application/octet-stream")

    def _answer(self, body: bytes, kind: str, status: int = 200) -> None:
        self._head(status, kind, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, kind: str, size: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.send_header("Connection", "close")
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if kind == MANIFEST:
            self.send_header("Docker-Content-Digest", _digest(self.server.manifest))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the test's own report is enough."""


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _entry(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "size": len(data), "digest": _digest(data)}
