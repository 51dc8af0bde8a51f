"""What the clients' commands share: a daemon with a registry that stands in for Docker Hub, and
places to install clients in."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness import images
from harness.cache import built, command
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


def virtual_environment(name: str, requirements: Sequence[str]) -> Path:
    """A cached virtual environment with these packages from PyPI; its directory. Start its programs
    as modules of its python: their scripts name the place where it was made."""

    def build(work: Path) -> None:
        command(sys.executable, "-m", "venv", work)
        command(work / "bin/python", "-m", "pip", "install", "-q", *requirements)

    return built(name, " ".join(requirements), build)


def node_modules(name: str, packages: Sequence[str]) -> Path:
    """A cached `node_modules` directory with these packages from npm."""

    def build(work: Path) -> None:
        (work / "package.json").write_text("{}")
        command("npm", "install", "--no-audit", "--no-fund", "--prefix", work, *packages)

    return built(name, " ".join(packages), build) / "node_modules"
