"""Both clients, side by side: `docker` from PATH and ours."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.clients import teu_argv
from harness.fakeapi import Said

Both = Callable[..., tuple[Said, Said]]
"""`both(host, *words)` runs the command line with docker and with teu, and returns what each said.

In docker's texts its own name is replaced by ours.
"""


@pytest.fixture(scope="session")
def docker() -> str:
    found = shutil.which("docker")
    if found is None:
        pytest.skip("no docker client here")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    if "version 28.2" not in version.stdout:
        pytest.skip(f"expects Docker's client 28.2, not {version.stdout.strip()}")
    return found


@pytest.fixture
def both(docker: str, tmp_path: Path) -> Both:
    def run(host: str, *words: str, answer: str = "") -> tuple[Said, Said]:
        said = []
        for argv in ([docker], teu_argv()):
            config = tmp_path / argv[0].replace("/", "_")
            config.mkdir(exist_ok=True)
            environment = {
                "PATH": os.environ["PATH"], "HOME": str(config), "DOCKER_CONFIG": str(config),
                "DOCKER_HOST": host, "TZ": "UTC",
            }  # fmt: skip
            done = subprocess.run(
                [*argv, *words], input=answer, capture_output=True, check=False, encoding="utf-8",
                errors="surrogateescape", timeout=60, env=environment,
            )  # fmt: skip
            texts = (text.replace(str(config), "CONFIG") for text in (done.stdout, done.stderr))
            out, err = (text.replace("docker", "teu") for text in texts)
            said.append(Said(done.returncode, out, err))
        return said[0], said[1]

    return run
