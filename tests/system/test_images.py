"""Images as far as running needs them: pull, load, import, list, inspect, tag, remove."""

import gzip
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import images
from harness.cache import command
from harness.clients import Cli
from harness.engine import Engine

DIGEST = r"sha256:[0-9a-f]{64}"


@pytest.fixture(autouse=True)
def _images_are_put_back(engine: Engine) -> Iterator[None]:
    """What the test tagged or loaded is removed; what it removed is pulled when needed."""

    def tags() -> set[str]:
        return {tag for row in engine.api.get("/images/json") for tag in row["RepoTags"] or []}

    before = tags()
    yield
    for tag in tags() - before:
        engine.api.request("DELETE", f"/images/{tag}", force=1)


def test_pull_says_what_it_does(cli: Cli, engine: Engine) -> None:
    cli.run("rmi", "-f", "clock")
    out = cli.ok("pull", "clock").splitlines()
    assert out[0] == "Using default tag: latest"
    assert out[1] == "latest: Pulling from library/clock"
    assert [line for line in out if line.endswith(": Pull complete")]
    assert re.fullmatch(rf"Digest: {DIGEST}", out[-3])
    assert out[-2] == "Status: Downloaded newer image for clock:latest"
    assert out[-1] == "docker.io/library/clock:latest"
    again = cli.ok("pull", "clock").splitlines()
    assert again[-2] == "Status: Image is up to date for clock:latest"
    assert cli.ok("pull", "-q", "clock") == "docker.io/library/clock:latest"


def test_pull_at_a_terminal_shows_progress(cli: Cli) -> None:
    cli.run("rmi", "-f", "clock")
    with cli.tty("pull", "clock", columns=120) as terminal:
        terminal.expect("latest: Pulling from library/clock")
        terminal.expect("Pull complete")
        terminal.expect("Status: Downloaded newer image")
        assert terminal.wait() == 0


def test_pull_by_digest_and_by_address(cli: Cli, lab_registry: str) -> None:
    digest = command("skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}",
                     f"docker://{lab_registry}/library/clock").strip()  # fmt: skip
    by_address = f"{lab_registry}/library/clock"
    assert f"Digest: {digest}" in cli.ok("pull", by_address)
    assert cli.ok("pull", "-q", f"{by_address}@{digest}") == f"{by_address}@{digest}"
    (shown,) = json.loads(cli.ok("image", "inspect", by_address))
    assert f"{by_address}@{digest}" in shown["RepoDigests"]
    cli.ok("rmi", "-f", shown["Id"])


def test_pull_all_platforms_of_nothing(cli: Cli) -> None:
    done = cli.run("pull", "--platform=linux/s390x", "clock")
    assert done.code == 1 or "does not match" in done.err + done.out


def test_load_a_docker_archive(cli: Cli, engine: Engine) -> None:
    cli.run("rmi", "-f", "busybox")
    out = cli.ok("load", "-i", str(images.busybox().archive))
    assert out.splitlines()[-1] == "Loaded image: busybox:latest"
    layers = engine.api.get("/images/busybox/json")["RootFS"]["Layers"]
    assert layers == [layer.diff_id for layer in images.busybox().layers]
    assert cli.ok("run", "--rm", "busybox", "echo", "works") == "works"


def test_load_from_stdin_and_compressed(cli: Cli, tmp_path: Path) -> None:
    archive = images.clock().archive.read_bytes()
    assert "Loaded image: clock:latest" in cli.ok("load", stdin=archive)
    assert "Loaded image: clock:latest" in cli.ok("load", stdin=gzip.compress(archive, 1))


def test_load_an_oci_layout(cli: Cli, engine: Engine, tmp_path: Path) -> None:
    if engine.kind == "dockerd":
        pytest.skip("this docker daemon is too old for OCI layouts")
    layout = tmp_path / "layout"
    source = f"docker-archive:{images.clock().archive}"
    command("skopeo", "copy", "-q", source, f"oci:{layout}:oci-clock:v1")
    archive = tmp_path / "layout.tar"
    with tarfile.open(archive, "w") as tar:
        for path in sorted(layout.rglob("*")):
            tar.add(path, str(path.relative_to(layout)), recursive=False)
    out = cli.ok("load", "-i", str(archive))
    assert re.search(r"Loaded image(?: ID)?: ", out)
    name = "oci-clock:v1" if "oci-clock:v1" in out else out.rpartition(" ")[2]
    layers = engine.api.get(f"/images/{name}/json")["RootFS"]["Layers"]
    assert layers == [layer.diff_id for layer in images.clock().layers]


def test_import_a_tree(cli: Cli, engine: Engine) -> None:
    layer = images.busybox().layers[0].path
    change = ["-c", 'CMD ["echo", "imported"]', "-m", "from a tar"]
    ident = cli.ok("import", *change, str(layer), "imported:v1")
    assert re.fullmatch(DIGEST, ident)
    assert cli.ok("run", "--rm", "imported:v1", "/bin/echo", "x") == "x"
    shown = engine.api.get("/images/imported:v1/json")
    assert shown["Config"]["Cmd"] == ["echo", "imported"]
    assert shown["Comment"] == "from a tar"
    with layer.open("rb") as tar:
        from_stdin = cli.ok("import", "-", "imported:v2", stdin=tar.read())
    assert engine.api.get("/images/imported:v2/json")["Id"] == from_stdin


def test_images_lists(cli: Cli) -> None:
    cli.ok("tag", "busybox", "listed:one")
    cli.ok("tag", "busybox", "listed:two")
    header, *rows = cli.ok("images", "listed").splitlines()
    assert header.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert [row.split()[:2] for row in rows] == [["listed", "one"], ["listed", "two"]] or [
        row.split()[:2] for row in rows
    ] == [["listed", "two"], ["listed", "one"]]
    short = cli.ok("images", "-q", "listed:one")
    assert re.fullmatch("[0-9a-f]{12}", short)
    full = cli.ok("images", "-q", "--no-trunc", "listed:one")
    assert full == cli.ok("image", "inspect", "-f", "{{.Id}}", "busybox")
    assert short == full.removeprefix("sha256:")[:12]
    assert cli.ok("images", "--format", "{{.Repository}}:{{.Tag}}", "listed:one") == "listed:one"
    filtered = cli.ok("images", "--filter", "reference=listed:t*", "--format", "{{.Tag}}")
    assert filtered == "two"
    assert "sha256:" in cli.ok("images", "--digests", "--no-trunc", "listed")


def test_inspect_and_history(cli: Cli, engine: Engine) -> None:
    cli.ok("run", "--rm", "clock", "true")
    (shown,) = json.loads(cli.ok("image", "inspect", "clock"))
    assert shown["RepoTags"] == ["clock:latest"]
    assert shown["Config"]["Cmd"] == ["/bin/sh", "/clock.sh"]
    assert shown["Os"] == "linux"
    assert shown["RootFS"]["Layers"] == [layer.diff_id for layer in images.clock().layers]
    assert shown["Created"] == "2024-01-01T00:00:00Z"
    assert len(cli.ok("history", "-q", "clock").splitlines()) == 2


def test_tag_and_rmi(cli: Cli, engine: Engine) -> None:
    ident = cli.ok("image", "inspect", "-f", "{{.Id}}", "busybox")
    cli.ok("tag", "busybox", "mine/box:v1")
    assert cli.ok("rmi", "mine/box:v1") == "Untagged: mine/box:v1"
    assert engine.api.get("/images/busybox/json")["Id"] == ident
    cli.ok("load", "-i", str(images.hello_world().archive))
    out = cli.ok("rmi", "hello-world").splitlines()
    assert "Untagged: hello-world:latest" in out
    assert any(re.fullmatch(rf"Deleted: {DIGEST}", line) for line in out)
    assert engine.api.request("GET", "/images/hello-world/json").status == 404


def test_rmi_of_a_used_image_is_refused(cli: Cli, engine: Engine) -> None:
    container = cli.ok("run", "-d", "clock")
    said = cli.fails(1, "rmi", "clock")
    assert re.search(r"(?i)conflict", said)
    assert container[:12] in said
    said = cli.fails(1, "rmi", "-f", cli.ok("image", "inspect", "-f", "{{.Id}}", "clock"))
    assert re.search(r"(?i)cannot be forced.*running container", said)
    cli.ok("rm", "-f", container)
    cli.ok("rmi", "clock")


def test_untagged_image_of_a_stopped_container_still_starts(cli: Cli) -> None:
    cli.ok("load", "-i", str(images.hello_world().archive))
    container = cli.ok("create", "hello-world")
    cli.ok("rmi", "-f", "hello-world")
    assert "Hello from Docker!" in cli.ok("start", "-a", container)


def test_images_by_id_and_prefix(cli: Cli) -> None:
    ident = cli.ok("image", "inspect", "-f", "{{.Id}}", "busybox")
    short = ident.removeprefix("sha256:")[:12]
    assert cli.ok("run", "--rm", short, "echo", "x") == "x"
    assert cli.ok("run", "--rm", ident, "echo", "x") == "x"
    assert cli.ok("ps", "-a", "--filter", "ancestor=busybox", "-q") == ""
