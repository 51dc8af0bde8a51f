"""Where results go, and caches that travel."""

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import builds
from harness.cache import command
from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names
from harness.registry import Registry

FROM = "FROM busybox\n"


@pytest.fixture
def context(tmp_path: Path, names: Names) -> Path:
    where = tmp_path / "context"
    where.mkdir()
    (where / "Dockerfile").write_text(
        FROM + f"RUN echo {names('x')} > /made; rm /etc/group\nCOPY a /a\nRUN rm /a; mkdir /a\n"
    )
    (where / "a").write_text("A")
    return where


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with Registry(tmp_path / "storage", tmp_path / "scratch", read_only=False) as served:
        yield served.address


def images(engine: Engine) -> set[str]:
    return {row["Id"] for row in engine.api.get("/images/json", all=1)}


def test_files_tar_and_layout(
    teu: Cli, engine: Engine, context: Path, tmp_path: Path, names: Names
) -> None:
    before = images(engine)
    out = tmp_path / "out"
    teu.ok("build", "-o", str(out), str(context))
    assert (out / "made").read_text() == names("x") + "\n"
    assert (out / "a").is_dir()
    assert not (out / "etc" / "group").exists()
    assert not (out / ".dockerenv").exists()
    teu.ok("build", "-o", f"type=tar,dest={tmp_path}/f.tar", str(context))
    with tarfile.open(tmp_path / "f.tar") as archive:
        assert "made" in archive.getnames()
    teu.ok("build", "-o", f"type=oci,dest={tmp_path}/o.tar", str(context))
    with tarfile.open(tmp_path / "o.tar") as archive:
        assert {"index.json", "oci-layout"} <= set(archive.getnames())
    assert images(engine) == before, "what goes elsewhere is not kept"
    process = teu.spawn("build", "-o", "-", str(context))
    data, _ = process.communicate(timeout=60)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert "made" in archive.getnames()


def test_outputs_that_make_no_sense(teu: Cli, context: Path) -> None:
    assert "invalid output type" in teu.fails(1, "build", "-o", "type=zip,dest=x", str(context))
    assert "needs dest" in teu.fails(1, "build", "-o", "type=local", str(context))
    assert "tag is needed" in teu.fails(1, "build", "--push", str(context))
    assert "cache type" in teu.fails(1, "build", "--cache-to", "type=s3,x=y", str(context))


def test_id_and_metadata_files(teu: Cli, context: Path, tmp_path: Path, names: Names) -> None:
    tag = names("t")
    image = teu.ok(
        "build", "-q", "-t", tag, "--iidfile", f"{tmp_path}/id", "--metadata-file",
        f"{tmp_path}/meta", str(context),
    )  # fmt: skip
    assert (tmp_path / "id").read_text() == image
    facts = json.loads((tmp_path / "meta").read_text())
    assert facts["containerimage.config.digest"] == image
    assert facts["image.name"] == f"docker.io/library/{tag}:latest"


def test_push_and_run_elsewhere(
    teu: Cli, engine: Engine, context: Path, registry: str, names: Names
) -> None:
    name = f"{registry}/{names('x').lower()}"
    teu.ok("build", "-q", "-t", name, "--push", str(context))
    teu.ok("rmi", "-f", name)
    teu.ok("pull", "-q", name)
    assert teu.ok("run", "--rm", name, "cat", "/made") == names("x")
    teu.ok("rmi", "-f", name)


def test_squash(engine: Engine, names: Names) -> None:
    text = FROM + (
        f"RUN echo {names('x')} > /one && mkdir -p /d/sub && touch /d/sub/f\n"
        "RUN rm /etc/group /one && rm -r /d && mkdir /d && touch /d/g\nRUN ln -s g /d/l\n"
    )
    tar = builds.context_tar({"Dockerfile": (text.encode(), 0o644, "")})
    done = builds.build(engine.api, tar, squash=1)
    plain = builds.build(engine.api, tar)
    layers = [
        len(engine.api.get(f"/images/{image}/json")["RootFS"]["Layers"])
        for image in (done.image, plain.image)
    ]
    assert layers == [2, 4]
    one, other = (builds.tree_of(engine.api, image) for image in (done.image, plain.image))
    assert one.keys() == other.keys()
    assert "/d/g" in one
    assert "/etc/group" not in one
    assert {p: e.info.mode for p, e in one.items()} == {p: e.info.mode for p, e in other.items()}


@pytest.mark.parametrize("kind", ["local", "registry", "inline"])
def test_caches_travel(
    teu: Cli, engine: Engine, context: Path, registry: str, tmp_path: Path, names: Names, kind: str
) -> None:
    """A cache that was forgotten here is found again there."""
    name = f"{registry}/cached:{kind}"
    to, source = {
        "local": (f"type=local,dest={tmp_path}/cache", f"type=local,src={tmp_path}/cache"),
        "registry": (f"type=registry,ref={name}", f"type=registry,ref={name}"),
        "inline": ("type=inline", name),
    }[kind]
    push = ["-t", name, "--push"] if kind == "inline" else []
    image = teu.ok("build", "-q", "--cache-to", to, *push, str(context))
    engine.api.request("DELETE", f"/images/{image}", force=1)
    engine.api.request("POST", "/build/prune", all=1)
    said = teu.ok("build", "--cache-from", source, str(context))
    assert said.count("Using cache") == 3, said
    assert "Running in" not in said
    rebuilt = teu.ok("build", "-q", str(context))
    assert builds.tree_of(engine.api, rebuilt)["/made"].data.decode() == names("x") + "\n"


def test_a_cache_that_is_not_there_is_only_told(teu: Cli, context: Path, registry: str) -> None:
    said = teu.ok("build", "--cache-from", f"{registry}/nothing:x", str(context))
    assert "importing cache" in said
    assert "Successfully built" in said


def test_several_platforms_have_one_name(teu: Cli, engine: Engine, names: Names) -> None:
    text = b"FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY <<E /a\n$TARGETARCH\nE\n"
    tag = names("t")
    teu.ok("build", "-t", tag, "--platform", "linux/amd64,linux/arm64", "-", stdin=text)
    for architecture in ("amd64", "arm64"):
        platform = json.dumps({"os": "linux", "architecture": architecture})
        shown = engine.api.get(f"/images/{tag}/json", platform=platform)
        assert shown["Architecture"] == architecture
        assert shown["Config"]["Labels"] == {"arch": architecture}


def test_annotations(teu: Cli, context: Path, registry: str, names: Names) -> None:
    name = f"{registry}/annotated"
    teu.ok(
        "build", "-q", "-t", name, "--annotation", "org.x=one", "--annotation",
        "manifest:org.y=a=b", "--push", str(context),
    )  # fmt: skip
    raw = command("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    assert json.loads(raw)["annotations"] == {"org.x": "one", "org.y": "a=b"}
    assert "use KEY=VALUE" in teu.fails(1, "build", "--annotation", "x", str(context))


def test_names_that_are_no_text(teu: Cli, engine: Engine, context: Path) -> None:
    (context / "Dockerfile").write_text(FROM + "COPY . /all/\n")
    Path(os.fsdecode(os.fsencode(context) + b"/odd-\xff")).write_text("odd")
    tree = builds.tree_of(engine.api, teu.ok("build", "-q", str(context)))
    assert [path for path in tree if path.startswith("/all/odd-")]
