"""Images that go to other tools, and come from them: skopeo, podman, buildah, umoci, and Docker's
own daemon. Each in a store of its own; a tool that is not installed skips its tests.
"""

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import images
from harness.clients import Cli
from harness.engine import Engine
from harness.imagelab import Archived, directory, docker_archive, hard_link, member, symlink, tar_of
from harness.trees import Seen, inspected, mounted, tree_of, unlike

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000").decode(
    "utf-8", "surrogateescape"
)
BEGAN_NS = time.time_ns()
LONG = "/".join(["a-rather-long-directory-name"] * 6) + "/" + "n" * 120


def base_layer() -> bytes:
    """The busybox layer, with a file of every kind beside it."""
    out = io.BytesIO(images.busybox().layers[0].path.read_bytes())
    with tarfile.open(fileobj=out, mode="a", format=tarfile.PAX_FORMAT) as tar:
        for info, data in (
            directory("kinds", mode=0o2750, uid=7, gid=8, mtime=1_600_000_000.25),
            member("kinds/setuid", b"#!", mode=0o4755, uid=1000, gid=1000, mtime=1.5),
            member("kinds/large", b"x", uid=3_000_000_000, gid=2_000_000_000),
            member("kinds/null", type=b"3", mode=0o666, devmajor=1, devminor=3),
            member("kinds/disk", type=b"4", mode=0o660, gid=6, devmajor=8, devminor=1),
            member("kinds/pipe", type=b"6", mode=0o600),
            member("kinds/caps", b"", pax_headers={"SCHILY.xattr.security.capability": CAPABILITY}),
            member("kinds/noted", b"", pax_headers={"SCHILY.xattr.user.note": "hello"}),
            hard_link("kinds/again", "kinds/setuid", mode=0o4755, uid=1000, gid=1000, mtime=1.5),
            symlink("kinds/absolute", "/etc/passwd"),
            symlink("kinds/dangling", "../../../../nowhere"),
            member(LONG, b"long name"),
            member("kinds/später-ü", b"not ascii"),
            directory("gone", mode=0o700),
            member("gone/file", b"1"),
            directory("opaque", mode=0o711, uid=5),
            member("opaque/old", b"1"),
            directory("swapped"),
            member("swapped/old", b"1"),
            directory("passed", mode=0o751, uid=9, gid=9, mtime=1_500_000_000),
        ):
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def top_layer() -> bytes:
    return tar_of(
        member(".wh.gone"),
        directory("opaque", mode=0o711, uid=5),
        member("opaque/.wh..wh..opq"),
        member("opaque/new", b"2"),
        member("swapped", b"a file now"),
        member("kinds/.wh.large"),
        directory("passed", mode=0o751, uid=9, gid=9, mtime=1_500_000_000),
        member("passed/through", b"3", mtime=1_650_000_000.123456),
        directory("kinds", mode=0o2750, uid=7, gid=8, mtime=1_600_000_000.25),
        member("./dotted", b"4"),
        member("/rooted", b"5"),
        directory("kinds/late"),
        member("kinds/late/x", b"6"),
        symlink("kinds/late/up", "../.."),
    )


def image(name: str) -> Archived:
    return Archived(
        [base_layer(), top_layer()], [name], {"Cmd": ["sh"], "Env": ["PATH=/bin:/sbin"]}
    )


@pytest.fixture
def loaded(engine: Engine, names: Callable[[str], str]) -> Iterator[tuple[Cli, str, Archived]]:
    """An image with everything in it, on our engine: client, name, image."""
    if engine.kind != "teu":
        pytest.skip("compares our engine with others")
    teu = engine.cli("teu")
    name = names("rich").lower() + ":1"
    rich = image(name)
    teu.ok("load", stdin=docker_archive(rich))
    yield teu, name, rich
    for left in teu.ok("images", "-q", "--no-trunc").split():
        shown = inspected(teu.ok("image", "inspect", left))
        tags = [tag for tag in shown["RepoTags"] if "rich" in tag]
        if tags or not shown["RepoTags"]:
            teu.run("rmi", "-f", *(tags or [left]))


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} (Debian package of this name)")
    return found


def call(*words: str | Path, stdin: bytes | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        list(map(str, words)), input=stdin, capture_output=True, check=False, timeout=100,
        env=os.environ | (env or {}),
    )  # fmt: skip
    assert done.returncode == 0, f"{words}: {done.stderr.decode(errors='replace')}"
    return done.stdout.decode(errors="replace").strip()


class Containers:
    """podman or buildah with storage of their own."""

    def __init__(self, name: str, root: Path) -> None:
        self._argv = [
            *(tool(name), "--root", str(root / "root"), "--runroot", str(root / "run")),
            *("--storage-driver", "vfs"),
        ]
        policy = root / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        conf = root / "containers.conf"
        conf.write_text('[engine]\nevents_logger = "none"\ncgroup_manager = "cgroupfs"\n')
        self._env = {"CONTAINERS_CONF": str(conf), "HOME": str(root), "TMPDIR": str(root)}
        self.policy = policy

    def __call__(self, *words: str | Path, stdin: bytes | None = None) -> str:
        return call(*self._argv, *words, stdin=stdin, env=self._env)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """podman wants one of at most 50 characters."""
    with tempfile.TemporaryDirectory(prefix="ot", dir="/tmp") as directory:
        yield Path(directory)


def timed(tree: Seen) -> Seen:
    """What no archive gave a time to has that of its making."""
    for shown in tree.values():
        shown["time"] = shown["time"] if shown["time"] < BEGAN_NS else "now"
    return tree


def save(teu: Cli, name: str, path: Path) -> Path:
    teu.ok("save", "-o", str(path), name)
    return path


def test_skopeo_takes_and_gives(loaded: tuple[Cli, str, Archived], tmp_path: Path) -> None:
    teu, name, rich = loaded
    skopeo = [tool("skopeo"), "--insecure-policy", "copy", "-q"]
    archive = save(teu, name, tmp_path / "ours.tar")
    for number, source in enumerate((f"docker-archive:{archive}:{name}", f"oci-archive:{archive}")):
        for kind in ("oci", "docker-archive", "oci-archive"):
            target = tmp_path / f"{number}-{kind}"
            tag = f":{name}" if kind == "docker-archive" else ":x/rich:copied"
            call(*skopeo, source, f"{kind}:{target}{tag}")
            if kind == "oci":
                with tarfile.open(target.with_suffix(".tar"), "w") as tar:
                    tar.add(target, ".")
                target = target.with_suffix(".tar")
            out = teu.ok("load", "-i", str(target))
            shown = inspected(teu.ok("image", "inspect", out.rpartition(" ")[2]))
            assert shown["RootFS"]["Layers"] == rich.diff_ids
            # From Docker's format to OCI's skopeo writes the config anew.
            is_converted = source.startswith("docker") and kind.startswith("oci")
            assert (shown["Id"] != rich.id) == is_converted
    zstd = tmp_path / "zstd"
    options = ["--dest-compress-format", "zstd"]
    call(*skopeo, *options, f"oci-archive:{archive}", f"oci-archive:{zstd}:x/rich:zstd")
    with tarfile.open(zstd) as tar:
        blobs = [tar.extractfile(entry).read(4) for entry in tar if entry.isfile()]  # type: ignore[union-attr]
    assert blobs.count(b"\x28\xb5\x2f\xfd") == 2
    assert rich.id in teu.ok("image", "inspect", teu.ok("load", "-i", str(zstd)).rpartition(" ")[2])


def test_podman_takes_and_gives(
    loaded: tuple[Cli, str, Archived], tmp_path: Path, short_path: Path
) -> None:
    teu, name, rich = loaded
    podman = Containers("podman", short_path)
    podman("load", "-q", "-i", save(teu, name, tmp_path / "ours.tar"))
    found = json.loads(podman("image", "inspect", f"docker.io/library/{name}"))[0]
    assert found["Id"] == rich.id[7:]
    for kind in ("docker-archive", "oci-archive"):
        archive = tmp_path / f"{kind}.tar"
        podman("save", "-q", "--format", kind, "-o", archive, f"docker.io/library/{name}")
        teu.ok("rmi", "-f", name)
        out = teu.ok("load", "-i", str(archive))
        assert rich.id in teu.ok("image", "inspect", out.rpartition(" ")[2])
        if kind == "docker-archive":
            assert out.endswith(f"Loaded image: {name}")


def test_buildah_builds_on_it(
    loaded: tuple[Cli, str, Archived], tmp_path: Path, short_path: Path
) -> None:
    teu, name, _ = loaded
    buildah = Containers("buildah", short_path)
    archive = save(teu, name, tmp_path / "ours.tar")
    policy = ["--signature-policy", str(buildah.policy)]
    container = buildah("from", "-q", *policy, f"docker-archive:{archive}")
    mount = Path(buildah("mount", container))
    (mount / "added").write_text("by buildah\n")
    (mount / "dotted").unlink()
    buildah("umount", container)
    buildah("config", "--cmd", "cat /added", "--label", "made=there", container)
    for kind, options in (("oci-archive", []), ("docker-archive", ["--format", "docker"])):
        target = tmp_path / f"{kind}.tar"
        ref = f"{kind}:{target}:docker.io/library/built-rich:1"
        buildah("commit", "-q", *policy, *options, container, ref)
        out = teu.ok("load", "-i", str(target))
        built = out.rpartition(" ")[2]
        assert teu.ok("run", "--rm", built) == "by buildah"
        assert teu.run("run", "--rm", built, "ls", "/dotted").code != 0
        shown = inspected(teu.ok("image", "inspect", built))
        assert shown["Config"]["Labels"]["made"] == "there"
        assert shown["RootFS"]["Layers"][:2] == [
            inspected(teu.ok("image", "inspect", name))["RootFS"]["Layers"][n] for n in (0, 1)
        ]


def test_umoci_unpacks_the_same_tree_and_repacks(
    loaded: tuple[Cli, str, Archived], tmp_path: Path
) -> None:
    teu, name, _ = loaded
    umoci = tool("umoci")
    layout = tmp_path / "layout"
    layout.mkdir()
    call("tar", "-xf", save(teu, name, tmp_path / "ours.tar"), "-C", layout)
    bundle = tmp_path / "bundle"
    call(umoci, "unpack", "--image", f"{layout}:1", bundle)
    with mounted(inspected(teu.ok("image", "inspect", name)), tmp_path / "m") as ours:
        differing = unlike(timed(tree_of(ours)), timed(tree_of(bundle / "rootfs")))
    assert differing == {}
    (bundle / "rootfs/added").write_text("by umoci\n")
    (bundle / "rootfs/dotted").unlink()
    call(umoci, "repack", "--image", f"{layout}:2", bundle)
    call(umoci, "rm", "--image", f"{layout}:1")
    with tarfile.open(tmp_path / "repacked.tar", "w") as tar:
        tar.add(layout, ".")
    out = teu.ok("load", "-i", str(tmp_path / "repacked.tar"))
    built = out.rpartition(" ")[2]
    assert teu.ok("run", "--rm", built, "cat", "/added") == "by umoci"
    assert teu.run("run", "--rm", built, "ls", "/dotted").code != 0
    teu.ok("rmi", "-f", built)


@pytest.fixture(scope="module")
def peer() -> Iterator[Engine]:
    """A Docker daemon beside ours."""
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        pytest.skip("needs dockerd (Debian package docker.io) and root")
    other = Engine("127.0.0.1:1", "dockerd")
    try:
        other.start()
        yield other
    finally:
        other.close()


def test_docker_has_the_same_image_and_the_same_files(
    loaded: tuple[Cli, str, Archived], peer: Engine, tmp_path: Path
) -> None:
    teu, name, rich = loaded
    docker = peer.cli("docker")
    docker.ok("load", stdin=docker_archive(rich))
    ours, theirs = (inspected(cli.ok("image", "inspect", name)) for cli in (teu, docker))
    for field in ("Id", "RepoTags", "RootFS", "Size", "Architecture", "Os", "Created"):
        assert ours[field] == theirs[field], field
    with (
        mounted(ours, tmp_path / "ours") as here,
        mounted(theirs, tmp_path / "theirs") as there,
    ):
        assert unlike(timed(tree_of(here)), timed(tree_of(there))) == {}
    # And there and back again.
    docker.ok("rmi", name)
    docker.ok("load", "-i", str(save(teu, name, tmp_path / "ours.tar")))
    assert docker.ok("image", "inspect", "-f", "{{.Id}}", name) == rich.id
    docker.ok("save", "-o", str(tmp_path / "theirs.tar"), name)
    teu.ok("rmi", name)
    teu.ok("load", "-i", str(tmp_path / "theirs.tar"))
    assert teu.ok("image", "inspect", "-f", "{{.Id}}", name) == rich.id
    docker.ok("rmi", name)


def test_docker_commits_and_exports_the_same(
    loaded: tuple[Cli, str, Archived], peer: Engine, tmp_path: Path
) -> None:
    """The same changes give the same layer's files, and the same export."""
    _, name, rich = loaded
    change = (
        "rm -r /kinds; echo x >/new; mkdir /opaque2; chmod 700 /opaque; ln /new /new2; rm -r /home"
    )
    trees = []
    docker = peer.cli("docker")
    docker.ok("load", stdin=docker_archive(rich))
    for number, cli in enumerate((loaded[0], docker)):
        container = cli.ok("run", "-d", "--network=none", name, "sh", "-c", change)
        assert cli.ok("wait", container) == "0"
        committed = cli.ok("commit", container)
        with mounted(inspected(cli.ok("image", "inspect", committed)), tmp_path / str(number)) as m:
            trees.append(timed(tree_of(m)))
        cli.ok("rm", container)
        cli.ok("rmi", committed)
    docker.ok("rmi", name)
    assert unlike(*trees) == {}
