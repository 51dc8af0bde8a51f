"""The client against a real Docker daemon: what works with ours must work with Docker's.

A private dockerd (any version from 20.10, so an older API is spoken too) without networking.
"""

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cliharness import Cli

BUSYBOX = "/bin/busybox"
START_LIMIT_S = 30

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a private dockerd"),
    pytest.mark.skipif(not shutil.which("dockerd"), reason="no dockerd here"),
    pytest.mark.skipif(not os.path.exists(BUSYBOX), reason="no busybox-static here"),
]


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Docker daemon that this module may fill."""
    root = Path(tempfile.mkdtemp(prefix="td", dir="/tmp"))
    address = f"unix://{root}/s"
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            ["dockerd", "--data-root", root / "d", "--exec-root", root / "e", "-H", address,
             "-p", root / "pid", "--bridge=none", "--iptables=false", "--ip-forward=false",
             "--storage-driver=vfs"],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while not (root / "s").exists():
            assert process.poll() is None, (root / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (root / "log").read_text()[-2000:]
            time.sleep(0.05)  # polled: dockerd has no other sign on a private socket
        yield address
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def peer(dockerd: str, teu: str, tmp_path: Path) -> Cli:
    """`teu` with the address of the Docker daemon, which has the image `busybox`."""
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "DOCKER_HOST": dockerd, "TZ": "UTC"
    }  # fmt: skip
    cli = Cli(teu, environment, tmp_path)
    if cli("image", "inspect", "busybox").returncode:
        made = tmp_path / "busybox.tar"
        with tarfile.open(made, "w") as tar:
            tar.add(BUSYBOX, "bin/busybox")
            for name in ("sh", "cat", "echo", "true", "sleep", "kill", "stty", "env", "ls"):
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
            for name in ("tmp", "etc"):
                folder = tarfile.TarInfo(name)
                folder.type, folder.mode = tarfile.DIRTYPE, 0o777
                tar.addfile(folder)
        done = cli("import", "-c", "ENV PATH=/bin", "-c", 'CMD ["sh"]', str(made), "busybox")
        assert done.returncode == 0, done.stderr
    return cli


NO_NETWORK = ("--rm", "--network", "none")


@pytest.fixture
def running(peer: Cli) -> Iterator[str]:
    done = peer("run", "-d", "--network", "none", "busybox", "sleep", "1000")
    assert done.returncode == 0, done.stderr
    container = done.stdout.decode().strip()
    yield container
    assert peer("rm", "-f", container).returncode == 0


def test_run(peer: Cli) -> None:
    done = peer("run", *NO_NETWORK, "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_stdin(peer: Cli) -> None:
    data = os.urandom(1_000_000)
    assert peer("run", "-i", *NO_NETWORK, "busybox", "cat", stdin=data).stdout == data


@pytest.mark.parametrize(("command", "status"), [("nosuch", 127), ("/etc", 126)])
def test_commands_that_cannot_run(peer: Cli, command: str, status: int) -> None:
    assert peer("run", *NO_NETWORK, "busybox", command).returncode == status


def test_flags_that_the_old_api_would_lose_are_refused(peer: Cli) -> None:
    version = peer("version", "--format", "{{.Server.APIVersion}}").stdout.decode().strip()
    done = peer("create", "--annotation", "a=b", "--network", "none", "busybox")
    if tuple(map(int, version.split("."))) < (1, 43):
        assert done.returncode == 1
        assert b'"--annotation" requires API version 1.43' in done.stderr
    else:
        assert done.returncode == 0


def test_exec(peer: Cli, running: str) -> None:
    done = peer("exec", "-i", "-e", "A=1", running, "sh", "-c", "cat; echo $A; exit 4", stdin=b"in")
    assert (done.returncode, done.stdout) == (4, b"in1\n")


def test_life(peer: Cli, running: str) -> None:
    name = f"n{os.getpid()}"
    for words in (
        ["rename", running, name], ["pause", name], ["unpause", name], ["restart", "-t0", name],
        ["kill", name], ["start", name], ["stop", "-t0", name],
    ):  # fmt: skip
        done = peer(*words)
        assert done.returncode == 0, (words, done.stderr)
    assert peer("wait", name).stdout == b"137\n"
    assert peer("start", "-a", name, "nosuch").returncode == 1


def test_logs(peer: Cli) -> None:
    words = ("run", "-d", "--network", "none", "busybox", "sh", "-c", "echo a; echo b >&2; echo c")
    container = peer(*words).stdout.decode().strip()
    assert peer("wait", container).returncode == 0
    done = peer("logs", container)
    assert (done.stdout, done.stderr) == (b"a\nc\n", b"b\n")
    last = peer("logs", "-t", "-n1", container)
    assert re.fullmatch(rb"\d{4}-.*Z [bc]\n", last.stdout + last.stderr)
    assert peer("rm", container).stdout.decode().strip() == container


def test_copies(peer: Cli, running: str, tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "file").write_text("content")
    assert peer("cp", "tree", f"{running}:/tmp/new").returncode == 0
    assert peer("exec", running, "cat", "/tmp/new/sub/file").stdout == b"content"
    assert peer("cp", f"{running}:/tmp/new/.", "back").returncode == 0
    assert (tmp_path / "back" / "sub" / "file").read_text() == "content"
    done = peer("cp", f"{running}:/nosuch", ".")
    assert done.returncode == 1
    assert b"Could not find the file /nosuch" in done.stderr
    assert b"A /tmp/new" in peer("diff", running).stdout


def test_images_go_out_and_come_in(peer: Cli, running: str, tmp_path: Path) -> None:
    assert peer("commit", "-c", "ENV X=1", running, "mine:1").returncode == 0
    assert peer("tag", "mine:1", "mine:2").returncode == 0
    assert peer("save", "-o", "mine.tar", "mine:1", "mine:2").returncode == 0
    assert peer("rmi", "mine:1", "mine:2").stdout.count(b"Untagged: mine:") == 2
    loaded = peer("load", "-i", "mine.tar").stdout.splitlines()
    assert sorted(loaded) == [b"Loaded image: mine:1", b"Loaded image: mine:2"]
    assert b"X=1" in peer("run", *NO_NETWORK, "mine:2", "env").stdout
    assert peer("rmi", "mine:1", "mine:2").returncode == 0


def test_views(peer: Cli, running: str) -> None:
    short = running[:12].encode()
    assert short in peer("ps").stdout
    assert b"sleep 1000" in peer("top", running).stdout
    assert peer("stats", "--no-stream", "--format", "{{.ID}}", running).stdout == short + b"\n"
    done = peer("events", "--since", "1m", "--until", "0s", "-f", f"container={running}")
    assert b"container start " + running.encode() in done.stdout
    assert peer("port", running).stdout == b""
    assert peer("update", "--memory", "64m", "--memory-swap", "-1", running).returncode == 0
