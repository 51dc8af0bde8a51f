"""The registry server as a process, Debian's docker-registry beside it, and raw HTTP to both."""

import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.waiting import until

SOURCE = Path(__file__).parents[2] / "src"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The specification's error code."""
        return str(self.json["errors"][0]["code"])


@dataclass
class Peer:
    """Raw requests to a registry at `address`."""

    address: str
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request; a keyword `content_type` is the header Content-Type."""
        host, _, port = self.address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(connection):
            connection.request(method, path, body, {**self.headers, **told})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())

    def push_blob(self, repository: str, data: bytes) -> str:
        digest = sha256(data)
        begun = self.ask("POST", f"/v2/{repository}/blobs/uploads/")
        assert begun.status == 202, begun
        place = path_of(begun.headers["location"])
        mark = "&" if "?" in place else "?"
        done = self.ask("PUT", f"{place}{mark}digest={digest}", data)
        assert done.status == 201, done
        return digest

    def push_image(self, repository: str, tag: str, layer: bytes = b"layer", **more: Any) -> str:
        """A small image; the digest of its manifest. `more`: fields of the manifest."""
        config = json.dumps({"architecture": "amd64", "os": "linux", "of": tag}).encode()
        content = image(
            (self.push_blob(repository, config), len(config)),
            (self.push_blob(repository, layer), len(layer)),
            **more,
        )
        put = self.put_manifest(repository, tag, content)
        assert put.status == 201, put
        return put.headers["docker-content-digest"]

    def put_manifest(
        self, repository: str, reference: str, content: bytes, media_type: str = MANIFEST
    ) -> Answer:
        path = f"/v2/{repository}/manifests/{reference}"
        return self.ask("PUT", path, content, content_type=media_type)


def image(config: tuple[str, int], *layers: tuple[str, int], **more: Any) -> bytes:
    """An OCI manifest of blobs (digest, size)."""
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config[0], "size": config[1]},
        "layers": [{"mediaType": LAYER, "digest": d, "size": size} for d, size in layers],
        **more,
    }
    return json.dumps(content).encode()


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def path_of(location: str) -> str:
    """A Location without its scheme and host."""
    return re.sub(r"^https?://[^/]+", "", location)


class Hub(Peer):
    """Our server, serving `root` on a free loopback port; can be killed and started again."""

    def __init__(self, root: Path, **options: Any) -> None:
        super().__init__("")
        self.root = root
        self.log = root.parent / f"{root.name}.log"
        self._options = {"root": str(root), "listen": "127.0.0.1:0", **options}
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        seen = self.log.stat().st_size if self.log.exists() else 0
        told = json.dumps({name.replace("_", "-"): v for name, v in self._options.items()})
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "teu.distribution.main", told],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(SOURCE)},
                start_new_session=True,
            )
        served = until("the registry serves", lambda: self._served(seen), 30)
        self.address = served[1]

    def _served(self, seen: int) -> re.Match[str] | None:
        assert self.process is not None
        text = self.log.read_bytes()[seen:].decode()
        assert self.process.poll() is None, text
        return re.search(r"serving on https?://(\S+)", text)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def files(self) -> set[str]:
        """Digests of all blobs on disk, and `uploads/NAME`."""
        blobs = self.root / "blobs"
        found = {f"{kind.name}:{file.name}" for kind in blobs.iterdir() for file in kind.iterdir()}
        return found | {f"uploads/{path.name}" for path in (self.root / "uploads").iterdir()}


@contextlib.contextmanager
def serving(root: Path, **options: Any) -> Iterator[Hub]:
    hub = Hub(root, **options)
    try:
        yield hub
    finally:
        if hub.process and hub.process.poll() is None:
            hub.kill()
