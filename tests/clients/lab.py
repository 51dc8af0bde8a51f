"""What the clients' commands share: a daemon with a registry that stands in for Docker Hub, and
places to install clients in."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import images
from harness.cache import built
from harness.engine import Engine
from harness.registry import Registry, copy

# Names on Docker Hub that the clients' tests use, served from our own images.
HUB = {
    "busybox:latest": images.busybox,
    "alpine:latest": images.alpine,
    "alpine:3.10": images.alpine,
    "hello-world:latest": images.hello_world,
    "debian:bookworm": images.base,
}


def hub_storage() -> Path:
    """The files of a registry with all of HUB; made when missing."""
    made = {name: image() for name, image in HUB.items()}
    recipe = "1" + "".join(f"{name} {image.archive.parent.name}" for name, image in made.items())

    def build(work: Path) -> None:
        with Registry(work, work / "scratch", read_only=False) as registry:
            for name, image in made.items():
                copy(image, f"{registry.address}/library/{name}")
        shutil.rmtree(work / "scratch")

    return built("hub", recipe, build)


@contextmanager
def private_engine(*options: str) -> Iterator[Engine]:
    """A daemon that gets Docker Hub's names from `hub_storage`; swept away afterwards."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        Registry(hub_storage(), Path(scratch) / "hub", read_only=True) as registry,
    ):
        engine = Engine(registry.address)
        engine.options = options
        try:
            engine.start()
            yield engine
        finally:
            engine.close()


def client_environment(engine: Engine) -> dict[str, str]:
    """The environment of a program that finds the daemon as Docker's clients do."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
    return kept | {"HOME": str(engine.home), "DOCKER_HOST": engine.host}
