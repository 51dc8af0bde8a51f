"""A name and a certificate of this machine, for registries with TLS."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def host() -> str:
    """A name of this machine that is not `localhost`, so that TLS is required."""
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, 80)
    except OSError:
        pytest.skip(f"this machine cannot look up its own name {name}")
    return name


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, host: str) -> Path:
    """A self-signed certificate for the host: `cert` and `key`."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl (Debian package of this name)")
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", f"/CN={host}",
            "-addext", f"subjectAltName=DNS:{host}",
            "-keyout", directory / "key", "-out", directory / "cert",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return directory
