"""Archives and registries that are broken, or lie: refused, and nothing of them is kept."""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import images
from harness.badregistry import bad_registry
from harness.clients import Cli
from harness.engine import Engine
from harness.terminal import CTRL_C
from harness.waiting import until


@pytest.fixture(autouse=True)
def _no_image_is_left_behind(engine: Engine) -> Iterator[None]:
    def seen() -> set[str]:
        return {row["Id"] for row in engine.api.get("/images/json", all=1)}

    before = seen()
    yield
    assert seen() == before


def _tar(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _archive(layer: bytes, diff_id: str) -> bytes:
    document = {"architecture": "amd64", "os": "linux", "config": {}}
    config = json.dumps(document | {"rootfs": {"type": "layers", "diff_ids": [diff_id]}}).encode()
    manifest = [{"Config": "c.json", "RepoTags": ["teu-bad:latest"], "Layers": ["l.tar"]}]
    return _tar(c__json=config, l__tar=layer, manifest__json=json.dumps(manifest).encode())


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _escaping_layer(name: str, link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        if link:
            entry = tarfile.TarInfo("way")
            entry.type, entry.linkname = tarfile.SYMTYPE, link
            tar.addfile(entry)
        info = tarfile.TarInfo(name)
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    return out.getvalue()


GOOD_LAYER = _tar(hello=b"x" * 3000)
NO_MANIFEST = _tar(hello=b"x")
WRONG_DIGEST = _archive(GOOD_LAYER, _digest(b"something else"))
NOT_A_TAR = _archive(b"not a tar at all" * 100, _digest(b"not a tar at all" * 100))
MISSING_LAYER = _tar(
    c__json=b"{}", manifest__json=b'[{"Config":"c.json","RepoTags":["a:b"],"Layers":["gone.tar"]}]'
)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"garbage" * 500, id="garbage"),
        pytest.param(NO_MANIFEST, id="no-manifest"),
        pytest.param(_tar(manifest__json=b"{nonsense"), id="bad-json"),
        pytest.param(MISSING_LAYER, id="missing-layer"),
        pytest.param(WRONG_DIGEST, id="wrong-digest"),
        pytest.param(NOT_A_TAR, id="layer-is-no-tar"),
    ],
)
def test_load_refuses(cli: Cli, engine: Engine, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.tar"
    path.write_bytes(data)
    if engine.kind == "dockerd" and data in (b"", NOT_A_TAR):
        pytest.skip("docker accepts it without a word")
    done = cli.run("load", "-i", str(path))
    assert done.code == 1, done
    assert done.err.strip()
    assert "Traceback" not in done.err
    assert "Loaded image" not in done.out


def test_load_of_a_cut_off_archive(cli: Cli, tmp_path: Path) -> None:
    whole = images.busybox().archive.read_bytes()
    path = tmp_path / "cut.tar"
    path.write_bytes(whole[: len(whole) // 2])
    assert cli.fails(1, "load", "-i", str(path)).strip()


def test_load_of_a_file_that_is_not_there(cli: Cli) -> None:
    assert "/no/such.tar" in cli.fails(1, "load", "-i", "/no/such.tar")


@pytest.mark.parametrize(
    ("name", "link"), [("../../escaped", ""), ("way/escaped", "/tmp"), ("/escaped", "")]
)
def test_layers_cannot_write_outside(
    cli: Cli, engine: Engine, tmp_path: Path, name: str, link: str
) -> None:
    """Refused, or written inside the image's own root; never on the host."""
    layer = _escaping_layer(name, link)
    path = tmp_path / "evil.tar"
    path.write_bytes(_archive(layer, _digest(layer)))
    done = cli.run("load", "-i", str(path))
    assert not Path("/tmp/escaped").exists()
    assert not Path("/escaped").exists()
    assert not list(engine.root.rglob("../escaped"))
    if done.code == 0:
        cli.ok("rmi", "-f", "teu-bad")


@pytest.mark.parametrize(
    ("fault", "pattern"),
    [
        ("lying-layer", r"(?i)digest|verif|mismatch|checksum"),
        ("lying-config", r"(?i)digest|verif|mismatch|checksum"),
        ("cut-layer", r"(?i)eof|cut|short|incomplete|closed|retr|broke|length"),
        ("error-500", r"(?i)500|internal server error|broken"),
        ("nonsense-manifest", r"(?i)manifest|invalid|json|digest"),
    ],
)
def test_pull_from_a_registry_that_lies(cli: Cli, engine: Engine, fault: str, pattern: str) -> None:
    if engine.kind == "dockerd" and fault == "cut-layer":
        pytest.skip("docker tries again for minutes")
    with bad_registry(fault, _tar(hello=f"{cli.name} {fault}".encode() * 300)) as registry:
        done = cli.run("pull", registry.image, timeout_s=60)
    assert done.code == 1, done
    assert re.search(pattern, done.err), done


def test_pull_from_a_registry_that_hangs_can_be_ended(cli: Cli, engine: Engine) -> None:
    layer = _tar(hello=f"{cli.name} hangs".encode() * 300)
    with bad_registry("hanging-layer", layer) as registry:
        with cli.tty("pull", registry.image) as terminal:
            until("the registry hangs", registry.hanging.is_set)
            assert engine.api.alive()
            assert isinstance(cli.ok("ps", "-q"), str)
            terminal.send(CTRL_C)
            assert terminal.wait() != 0
        registry.release.set()
        registry.fault = ""
        # Nothing of the first attempt stands in the way of the next one.
        cli.ok("pull", registry.image)
        cli.ok("rmi", registry.image)


def test_pull_of_what_the_registry_does_not_have(cli: Cli, lab_registry: str) -> None:
    for image in (f"{lab_registry}/library/nosuch", f"{lab_registry}/library/busybox:nosuch"):
        said = cli.fails(1, "pull", image)
        assert re.search(r"(?i)not found|manifest unknown|does not exist", said)
    said = cli.fails(125, "run", "--rm", f"{lab_registry}/library/nosuch")
    assert f"Unable to find image '{lab_registry}/library/nosuch:latest' locally" in said
    assert re.search(r"(?i)not found|manifest unknown|does not exist", said)


def test_pull_from_a_port_that_nobody_listens_on(cli: Cli) -> None:
    said = cli.fails(1, "pull", "127.0.0.1:1/x")
    assert re.search(r"(?i)connection refused|cannot connect", said)
