"""The client over TCP, TLS, mutual TLS and ssh, and what it says when they fail."""

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cliharness import Cli, FakeDaemon, Request

pytestmark = pytest.mark.skipif(
    not shutil.which("openssl"), reason="needs openssl for certificates"
)


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca, server-* and cert/key (the client's), as DOCKER_CERT_PATH has them; a stranger's too."""
    folder = tmp_path_factory.mktemp("certificates")
    for ca in ("ca", "other"):
        openssl(
            folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", f"{ca}-key.pem", "-out", f"{ca}.pem", "-days", "2",
            "-subj", f"/CN={ca}",
        )  # fmt: skip
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name, ca in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
        openssl(
            folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", f"{name}-key.pem", "-out", f"{name}.csr", "-subj", f"/CN={name}",
        )  # fmt: skip
        openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey",
            f"{ca}-key.pem", "-CAcreateserial", "-out", f"{name}-cert.pem", "-days", "2",
            "-extfile", "extensions",
        )  # fmt: skip
    for source, target in (("client-cert", "cert"), ("client-key", "key")):
        shutil.copy(folder / f"{source}.pem", folder / f"{target}.pem")
    return folder


Listen = Callable[..., FakeDaemon]


@pytest.fixture
def listen(certificates: Path, cli: Cli) -> Iterator[Listen]:
    daemons: list[FakeDaemon] = []

    def start(*, tls: bool, mutual: bool = False) -> FakeDaemon:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(
                certificates / "server-cert.pem", certificates / "server-key.pem"
            )
            if mutual:
                context.load_verify_locations(certificates / "ca.pem")
                context.verify_mode = ssl.CERT_REQUIRED
            listener = context.wrap_socket(listener, server_side=True)
        daemons.append(FakeDaemon("", listener))
        cli.environment["DOCKER_HOST"] = f"tcp://127.0.0.1:{port}"
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.close()


@pytest.fixture
def trusting(cli: Cli, certificates: Path) -> Cli:
    cli.environment |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certificates)}
    return cli


def test_plain_tcp(cli: Cli, listen: Listen) -> None:
    daemon = listen(tls=False)
    assert cli("run", "-d", "x").returncode == 0
    assert len(daemon.requests) == 2


def echo(daemon: FakeDaemon) -> None:
    def attach(request: Request) -> None:
        request.upgrade()
        data = b""
        while piece := request.reader.read1(1 << 16):
            data += piece
        frame = b"\1\0\0\0" + len(data).to_bytes(4, "big") + data
        request.sock.sendall(frame)
        request.sock.shutdown(socket.SHUT_RDWR)

    daemon.on(r"POST .*/attach", attach)


@pytest.mark.parametrize("mutual", [False, True])
def test_streams_over_tls(trusting: Cli, listen: Listen, mutual: bool) -> None:
    daemon = listen(tls=True, mutual=mutual)
    echo(daemon)
    daemon.exit_code = 3
    data = os.urandom(500_000)
    done = trusting("run", "-i", "x", "cat", stdin=data)
    assert (done.returncode, done.stderr) == (3, b"")
    assert done.stdout == data


def test_flags_name_the_certificates(cli: Cli, listen: Listen, certificates: Path) -> None:
    daemon = listen(tls=True, mutual=True)
    words = [
        "--tlsverify", f"--tlscacert={certificates}/ca.pem", f"--tlscert={certificates}/cert.pem",
        f"--tlskey={certificates}/key.pem",
    ]  # fmt: skip
    assert cli(*words, "run", "-d", "x").returncode == 0
    assert len(daemon.requests) == 2


def test_strange_daemon_is_not_trusted(trusting: Cli, listen: Listen, tmp_path: Path) -> None:
    daemon = listen(tls=True)
    folder = tmp_path / "c"
    folder.mkdir()
    source = Path(trusting.environment["DOCKER_CERT_PATH"])
    shutil.copy(source / "other.pem", folder / "ca.pem")
    trusting.environment["DOCKER_CERT_PATH"] = str(folder)
    done = trusting("ps")
    assert done.returncode == 1
    assert b"certificate verify failed" in done.stderr
    assert b"DOCKER_CERT_PATH" in done.stderr
    assert not daemon.requests


def test_strange_client_is_refused(
    trusting: Cli, listen: Listen, certificates: Path, tmp_path: Path
) -> None:
    daemon = listen(tls=True, mutual=True)
    words = [
        f"--tlscert={certificates}/stranger-cert.pem", f"--tlskey={certificates}/stranger-key.pem",
    ]  # fmt: skip
    done = trusting(*words, "ps")
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert not daemon.requests


def test_nobody_listens(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    cli.environment["DOCKER_HOST"] = f"tcp://127.0.0.1:{port}"
    done = cli("ps")
    assert done.returncode == 1
    assert done.stderr.startswith(b"Cannot connect to the Docker daemon at tcp://127.0.0.1:")
    assert b"Connection refused" in done.stderr


def test_tls_with_a_daemon_that_speaks_plain_http(trusting: Cli, listen: Listen) -> None:
    listen(tls=False)
    done = trusting("ps")
    assert done.returncode == 1
    assert b"error during connect: TLS with tcp://127.0.0.1:" in done.stderr


@pytest.fixture
def ssh(cli: Cli, daemon: FakeDaemon, tmp_path: Path) -> Path:
    """An `ssh` that goes nowhere: writes down how it was called, and joins with the daemon."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ssh"
    program.write_text(
        f'#!/bin/sh\necho "$@" > {folder}/asked\n'
        f"DOCKER_HOST={daemon.url} exec {cli.program} system dial-stdio\n"
    )
    program.chmod(0o755)
    cli.environment["PATH"] = f"{folder}:{cli.environment['PATH']}"
    cli.environment["DOCKER_HOST"] = "ssh://me@far:2222"
    return folder


def test_through_ssh(cli: Cli, daemon: FakeDaemon, ssh: Path) -> None:
    echo(daemon)
    daemon.exit_code = 3
    data = os.urandom(300_000)
    done = cli("run", "-i", "x", "cat", stdin=data)
    assert (done.returncode, done.stderr) == (3, b"")
    assert done.stdout == data
    asked = (ssh / "asked").read_text()
    assert "-p 2222 -- me@far " in asked
    assert "system dial-stdio" in asked


def test_ssh_that_fails(cli: Cli, daemon: FakeDaemon, ssh: Path) -> None:
    (ssh / "ssh").write_text("#!/bin/sh\necho 'far: unknown host' >&2; exit 255\n")
    done = cli("ps")
    assert done.returncode == 1
    assert b"far: unknown host" in done.stderr
    assert b"the connection to ssh://me@far:2222 broke" in done.stderr
    cli.environment["DOCKER_HOST"] = "ssh://-oProxyCommand=x"
    assert b"invalid ssh address" in cli("ps").stderr
