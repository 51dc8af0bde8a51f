"""The registry server with the programs that people use: skopeo, docker, this engine, podman."""

import concurrent.futures
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.hub import Hub, Peer, serving, sha256
from harness.images import busybox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with serving(tmp_path_factory.mktemp("hub") / "root") as hub:
        yield hub


def tool(name: str, *words: str) -> str:
    if not shutil.which(name):
        pytest.skip(f"needs {name} (Debian package)")
    done = subprocess.run([name, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def skopeo_push(hub: Hub, name: str, *more: str) -> None:
    source = f"docker-archive:{busybox().archive}"
    target = f"docker://{hub.address}/{name}"
    tool("skopeo", "copy", "-q", "--dest-tls-verify=false", *more, source, target)


class TestSkopeo:
    def test_copy_inspect_list_delete(self, hub: Hub, tmp_path: Path) -> None:
        skopeo_push(hub, "skopeo/bb:1")
        skopeo_push(hub, "skopeo/bb:2", "--format", "oci")
        there = f"docker://{hub.address}/skopeo/bb"
        listed = json.loads(tool("skopeo", "list-tags", "--tls-verify=false", there))
        assert listed["Tags"] == ["1", "2"]
        shown = json.loads(tool("skopeo", "inspect", "--tls-verify=false", f"{there}:1"))
        assert shown["Architecture"] == "amd64"
        tool("skopeo", "copy", "-q", "--src-tls-verify=false", f"{there}:2", f"dir:{tmp_path}/d")
        tool("skopeo", "delete", "--tls-verify=false", f"{there}:1")
        assert hub.ask("GET", "/v2/skopeo/bb/tags/list").json["tags"] == ["2"]

    def test_sync(self, hub: Hub, tmp_path: Path) -> None:
        skopeo_push(hub, "sync/bb:1")
        source = f"{hub.address}/sync/bb"
        tool(
            *("skopeo", "sync", "--src-tls-verify=false", "--src", "docker", "--dest", "dir"),
            *(source, str(tmp_path)),
        )
        assert list(tmp_path.glob("bb*/manifest.json"))


class TestEngines:
    def test_push_and_pull(self, cli: Cli, engine: Engine, hub: Hub) -> None:
        """`cli`: the docker client and ours, with this engine (or Docker's daemon)."""
        engine.registries.add(hub.address)
        name = f"{hub.address}/engine/{cli.name}:1"
        cli.run("tag", "busybox", name)
        pushed = cli.run("push", name)
        assert "digest: sha256:" in pushed.out
        cli.run("rmi", name)
        pulled = cli.run("pull", name)
        assert f"Downloaded newer image for {name}" in pulled.out or "up to date" in pulled.out
        assert (
            cli.run("run", "--rm", name, "echo", "from the registry").out == "from the registry\n"
        )
        again = cli.run("push", name)
        assert "Layer already exists" in again.out

    @pytest.mark.parametrize("program", ["podman", "buildah"])
    def test_others_pull(self, program: str, hub: Hub, tmp_path: Path) -> None:
        skopeo_push(hub, f"{program}/bb:1")
        name = f"{hub.address}/{program}/bb:1"
        with tempfile.TemporaryDirectory() as run:  # podman accepts no long path here
            storage = ["--root", f"{tmp_path}/root", "--runroot", run, "--storage-driver", "vfs"]
            tool(program, *storage, "pull", "-q", "--tls-verify=false", name)
            tool(program, *storage, "push", "-q", "--tls-verify=false", name, f"{name}-again")
        assert hub.ask("GET", f"/v2/{program}/bb/manifests/1-again").status == 200


class TestArtifacts:
    def test_anything_with_a_type(self, hub: Hub) -> None:
        """As `oras push` makes them: the empty config, files as layers, an artifact type."""
        digest = hub.push_image(
            *("artifacts/report", "1", b"col1,col2\n"),
            artifactType="application/vnd.example.report",
            annotations={"org.opencontainers.image.created": "2026-01-01T00:00:00Z"},
        )
        got = hub.ask("GET", f"/v2/artifacts/report/manifests/{digest}").json
        assert got["artifactType"] == "application/vnd.example.report"


class TestManyAtOnce:
    def test_pushes_and_pulls(self, hub: Hub) -> None:
        """16 pushes, then 64 pulls at a time, each byte checked."""
        layers = {f"v{number}": os.urandom(500_000) for number in range(16)}

        def push(tag: str) -> str:
            return Peer(hub.address).push_image("many/app", tag, layers[tag])

        def pull(tag: str) -> bool:
            peer = Peer(hub.address)
            manifest = peer.ask("GET", f"/v2/many/app/manifests/{tag}")
            digest = manifest.json["layers"][0]["digest"]
            got = peer.ask("GET", f"/v2/many/app/blobs/{digest}")
            return sha256(got.body) == digest and got.body == layers[tag]

        with concurrent.futures.ThreadPoolExecutor(16) as pushers:
            digests = list(pushers.map(push, layers))
        assert len(set(digests)) == 16
        with concurrent.futures.ThreadPoolExecutor(64) as pullers:
            assert all(pullers.map(pull, list(layers) * 8))

    def test_idle_connections_cost_little(self, hub: Hub) -> None:
        host, port = hub.address.split(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(400)]
        try:
            assert hub.ask("GET", "/v2/").status == 200
        finally:
            for connection in idle:
                connection.close()

    def test_a_large_blob_in_constant_memory(self, hub: Hub) -> None:
        assert hub.process
        before = memory(hub.process.pid)
        data = os.urandom(1 << 20) * 200
        digest = hub.push_blob("large", data)
        assert sha256(hub.ask("GET", f"/v2/large/blobs/{digest}").body) == digest
        assert memory(hub.process.pid) - before < 30 << 20


def memory(pid: int) -> int:
    """Peak resident bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10
