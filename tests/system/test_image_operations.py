"""What image commands do beside the everyday: URLs, platforms, events, conflicts."""

import functools
import http.server
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import images
from harness.clients import Cli
from harness.engine import Engine
from harness.imagelab import (
    OCI_MANIFEST,
    Archived,
    artifact,
    descriptor,
    layout_of,
    member,
    oci_index_layout,
    tar_of,
)
from teu.image.platform import host_platform

HOST = str(host_platform())
OTHER = "linux/s390x"
COLORS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def _new_images_go(engine: Engine) -> Iterator[None]:
    def found() -> dict[str, list[str]]:
        return {row["Id"]: row["RepoTags"] for row in engine.api.get("/images/json", all=1)}

    before = found()
    yield
    for image_id, tags in found().items():
        for tag in set(tags) - set(before.get(image_id, [])):
            engine.api.request("DELETE", f"/images/{tag}", force=1)
        if image_id not in before:
            engine.api.request("DELETE", f"/images/{image_id}", force=1)


@pytest.fixture
def only_teu(engine: Engine) -> None:
    if engine.kind != "teu":
        pytest.skip("this docker daemon keeps one platform of an image")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A directory and the URL that it is served at."""
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield tmp_path, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def test_import_from_a_url(cli: Cli, web: tuple[Path, str], names: Callable[[str], str]) -> None:
    root, url = web
    (root / "tree.tar").write_bytes(images.busybox().layers[0].path.read_bytes())
    name = names("url").lower()
    out = cli.ok("import", "-c", 'CMD ["sh"]', f"{url}/tree.tar", name)
    assert f"Downloading from {url}/tree.tar" in out
    assert re.search(r"sha256:[0-9a-f]{64}$", out)
    assert cli.ok("run", "--rm", name, "echo", "imported") == "imported"
    assert cli.ok("image", "inspect", "-f", "{{.Comment}}", name).startswith("Imported from ")
    assert re.search("404|Not Found", cli.fails(1, "import", f"{url}/nothing.tar"))
    said = cli.fails(1, "import", "http://127.0.0.1:1/x.tar")
    assert re.search("(?i)connection refused", said)
    (root / "bad.tar").write_bytes(b"no tar at all " * 100)
    assert cli.fails(1, "import", f"{url}/bad.tar").strip()


def multi_platform(name: str) -> bytes:
    layer = images.busybox().layers[0].path.read_bytes()
    native = Archived([layer], config={"Cmd": ["sh"]}, platform=HOST)
    other = Archived([tar_of(member("a", b"other"))], platform=OTHER)
    return oci_index_layout(name, other, native)


@pytest.mark.usefixtures("only_teu")
def test_platforms_of_an_image(cli: Cli, names: Callable[[str], str], tmp_path: Path) -> None:
    name = names("multi").lower() + ":1"
    out = cli.ok("load", stdin=multi_platform(f"docker.io/library/{name}"))
    assert out == f"Loaded image: {name}"
    form = ("-f", "{{.Id}} {{.Architecture}}")
    native = cli.ok("image", "inspect", *form, name)
    other = cli.ok("image", "inspect", "--platform", OTHER, *form, name)
    assert native.split()[1] != "s390x"
    assert other.split()[1] == "s390x"
    assert cli.ok("run", "--rm", name, "echo", "native") == "native"
    tree = COLORS.sub("", cli.ok("image", "ls", "--tree", name)).splitlines()
    assert [line.split()[:2] for line in tree if line.startswith(("├", "└"))] == [
        ["├─", HOST],
        ["└─", OTHER],
    ]
    assert cli.ok("images", "-q", name) == native[7:19]
    both, one = tmp_path / "both.tar", tmp_path / "one.tar"
    cli.ok("save", "-o", str(both), name)
    cli.ok("save", "--platform", OTHER, "-o", str(one), name)
    assert one.stat().st_size < both.stat().st_size
    said = cli.fails(1, "save", "--platform", "linux/arm", "-o", str(tmp_path / "x"), name)
    assert "does not provide the specified platform" in said
    out = cli.ok("rmi", "--platform", OTHER, name).splitlines()
    assert out[:2] == [f"Untagged: {name} ({OTHER})", f"Deleted: {other.split()[0]}"]
    assert "does not match the specified platform" in cli.fails(
        1, "image", "inspect", "--platform", OTHER, name
    )
    cli.ok("rmi", name)
    cli.ok("load", "--platform", OTHER, "-i", str(both))
    assert cli.ok("image", "inspect", *form, name) == other
    cli.ok("rmi", name)


@pytest.mark.usefixtures("only_teu")
def test_an_artifact_is_kept_but_not_run(cli: Cli, names: Callable[[str], str]) -> None:
    manifest, blobs = artifact("application/vnd.example.chart", ("text/plain", b"some text"))
    name = names("art").lower() + ":1"
    entry = descriptor(OCI_MANIFEST, manifest)
    entry["annotations"] = {"io.containerd.image.name": f"docker.io/library/{name}"}
    cli.ok("load", stdin=layout_of([entry], [manifest, *blobs]))
    assert cli.ok("images", "--format", "{{.Tag}}", name) == "1"
    said = cli.fails(125, "run", "--rm", name)
    assert "not a container image but an artifact (application/vnd.example.chart)" in said
    assert cli.ok("rmi", name).startswith(f"Untagged: {name}")


def test_a_parent_loses_its_name_but_stays(cli: Cli, names: Callable[[str], str]) -> None:
    base, child, container = (names(n).lower() for n in ("base", "child", "c"))
    cli.ok("import", "-c", 'CMD ["sh"]', str(images.busybox().layers[0].path), base)
    cli.ok("run", "--name", container, base, "sh", "-c", "echo x > /x")
    base_id = cli.ok("image", "inspect", "-f", "{{.Id}}", base)
    cli.ok("commit", container, child)
    cli.ok("rm", container)
    assert cli.ok("rmi", "-f", base) == f"Untagged: {base}:latest"
    assert cli.ok("image", "inspect", "-f", "{{.Parent}}", child) == base_id
    assert base_id not in cli.ok("images", "-q", "--no-trunc").split()
    out = cli.ok("rmi", child)
    assert f"Deleted: {base_id}" in out  # nothing else needs it


def test_events_of_images(cli: Cli, names: Callable[[str], str], tmp_path: Path) -> None:
    began = time.time()
    name = names("told").lower()
    image_id = cli.ok(
        "import", "-c", "LABEL k=v", str(images.busybox().layers[0].path), f"{name}:1"
    )
    cli.ok("tag", f"{name}:1", f"{name}:2")
    cli.ok("save", "-o", str(tmp_path / "x.tar"), f"{name}:1")
    cli.ok("rmi", f"{name}:1", f"{name}:2")
    lines = cli.ok(
        "events", "--since", f"{began:.6f}", "--until", f"{time.time():.6f}",
        "--filter", "type=image", "--format", "{{json .}}",
    )  # fmt: skip
    told = [json.loads(line) for line in lines.splitlines()]
    mine = [event for event in told if event["id"] == image_id]
    actions = [event["Action"] for event in mine]
    assert actions == ["tag", "import", "tag", "save", "untag", "untag", "delete"]
    attributes = {event["Action"]: event["Actor"]["Attributes"] for event in mine}
    assert attributes["tag"] == {"name": f"{name}:2", "k": "v"}
    assert attributes["untag"] == {"name": image_id, "k": "v"}
    assert attributes["delete"]["name"] == image_id
