"""Fixtures of the command line's tests: a fake daemon, and clients that talk to it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cliharness import Cli, FakeDaemon
from teu.cli.launcher import script

SOURCE = Path(__file__).parents[3] / "src"
DOCKER = "/usr/local/bin/docker"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    fake = FakeDaemon(str(tmp_path / "d.sock"))
    yield fake
    fake.close()


@pytest.fixture(scope="session")
def teu(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The installed form of the client: its launcher script."""
    path = tmp_path_factory.mktemp("bin") / "teu"
    interpreter = os.path.realpath(sys.executable)
    path.write_text(script(interpreter, str(SOURCE)))
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def environment(daemon: FakeDaemon, tmp_path: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TERM") if name in os.environ}
    return kept | {"DOCKER_HOST": daemon.url, "DOCKER_CONFIG": str(tmp_path), "TZ": "UTC"}


@pytest.fixture
def cli(teu: str, environment: dict[str, str], tmp_path: Path) -> Cli:
    return Cli(teu, environment, tmp_path)


@pytest.fixture
def docker(environment: dict[str, str], tmp_path: Path) -> Cli:
    """Docker's own client, for comparison."""
    for program in (DOCKER, "docker"):
        try:
            version = subprocess.run(
                [program, "--version"], capture_output=True, text=True, check=False
            )
        except OSError:
            continue
        if version.stdout.startswith("Docker version 28."):
            return Cli(program, environment, tmp_path)
    pytest.skip("no Docker 28 client here to compare with")
