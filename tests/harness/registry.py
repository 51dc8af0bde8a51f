"""A real registry (Debian's docker-registry) that holds the labs' images.

The images are pushed once per machine with skopeo; each test process then serves the same files
read-only on a free loopback port of its own. What a test pushes goes to a registry of its own.
"""

import http.client
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from types import TracebackType

import pytest

from harness import images
from harness.cache import built, command
from harness.waiting import until

_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {storage}}}
  delete: {{enabled: true}}
  maintenance: {{readonly: {{enabled: {read_only}}}}}
http: {{addr: '{address}'{tls}}}
"""
_AUTH = "auth: {{htpasswd: {{realm: lab, path: {path}}}}}\n"
_TLS = ", tls: {{certificate: {pair}/cert, key: {pair}/key}}"
USER, PASSWORD = "ada", "s3cret"
_HTPASSWD = f"{USER}:$2y$04$zo6eiePZ9QeAOgACQYcfuOpYKpcemwMiVNul8uT7ATHKZcvBrwYKa\n"


class Registry:
    """docker-registry on 127.0.0.1, or with TLS on `host`; a context manager that stops it.

    `login`: only USER with PASSWORD may do anything. `pair`: a directory with `cert` and `key`.
    """

    def __init__(
        self,
        storage: Path,
        scratch: Path,
        *,
        read_only: bool,
        login: bool = False,
        host: str = "127.0.0.1",
        pair: Path | None = None,
    ) -> None:
        self.address = f"{host}:{free_port()}"
        self.needs_login, self.needs_certificate = login, pair is not None
        self._pair = pair
        self.log = scratch / "registry.log"
        scratch.mkdir(parents=True, exist_ok=True)
        config = scratch / "registry.yml"
        only = "true" if read_only else "false"
        tls = _TLS.format(pair=pair) if pair else ""
        text = _CONFIG.format(storage=storage, address=self.address, read_only=only, tls=tls)
        if login:
            (scratch / "htpasswd").write_text(_HTPASSWD)
            text += _AUTH.format(path=scratch / "htpasswd")
        config.write_text(text)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["docker-registry", "serve", config], stdout=log, stderr=log, start_new_session=True
            )
        until(f"docker-registry answers on {self.address}", self._answers)

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"docker-registry ended: {self.log.read_text()}")
        connection = self._connection()
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status in (200, 401)
        except OSError:
            return False
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._pair is None:
            return http.client.HTTPConnection(self.address, timeout=5)
        context = ssl.create_default_context(cafile=str(self._pair / "cert"))
        return http.client.HTTPSConnection(self.address, timeout=5, context=context)

    def __enter__(self) -> "Registry":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()


def lab_storage() -> Path:
    """The filled registry's files, made when missing (a minute or two on a fresh machine)."""
    if missing := [
        tool for tool in ("docker-registry", "skopeo", "debootstrap") if not shutil.which(tool)
    ]:
        pytest.skip(f"needs {', '.join(missing)} (Debian packages of these names)")
    tags = {
        "busybox:latest": images.busybox(),
        "clock:latest": images.clock(),
        "hello-world:latest": images.hello_world(),
        "ubuntu:latest": images.base(),
        "debian:bookworm": images.base(),
        "nginx:latest": images.nginx(),
    }
    recipe = "3" + "".join(f"{tag} {image.archive.parent.name}" for tag, image in tags.items())

    def build(work: Path) -> None:
        with Registry(work, work / "scratch", read_only=False) as registry:
            for tag, image in tags.items():
                copy(image, f"{registry.address}/library/{tag}")
        shutil.rmtree(work / "scratch")

    return built("registry", recipe, build)


def copy(image: images.Image, target: str) -> None:
    """Pushes an image with skopeo to `HOST:PORT/NAME:TAG` over plain HTTP."""
    source = f"docker-archive:{image.archive}"
    command("skopeo", "copy", "-q", "--dest-tls-verify=false", source, f"docker://{target}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
