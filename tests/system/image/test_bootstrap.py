"""`image bootstrap`: with tools that only look like the real ones, except where marked slow."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from harness.clients import Cli
from harness.engine import Engine, processes_naming
from harness.imagelab import Lab
from harness.waiting import until
from teu.errors import EngineError, InvalidParameter, SystemFailure
from teu.image.bootstrap import Bootstrapper, Plan
from teu.image.service import ImageService
from teu.model.image import Image

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEBOOTSTRAP = """#!/bin/sh
echo "$@" >{log}
for last; do mirror=$root root=$last; done
root=$(printf '%s\\n' "$@" | grep ^/ | head -1)
echo "I: Retrieving base-files"
mkdir -p "$root/etc" "$root/var/log/apt" "$root/var/lib/apt/lists" "$root/bin" "$root/proc"
mount -t proc proc "$root/proc" && touch {mounted}
echo secret >"$root/etc/hostname"
ln -s {victim} "$root/etc/resolv.conf"
ln -s {directory} "$root/var/cache"
mkdir -p {directory}/apt
echo x >"$root/var/log/apt/term.log"
echo x >"$root/var/lib/apt/lists/all"
echo tool >"$root/bin/tool"
umount "$root/proc"
{more}
"""


class Tools:
    """A directory that is searched for programs first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir(parents=True)
        self.victim = root / "victim"
        self.victim.write_text("untouched")
        self.directory = root / "outside"
        (self.directory / "apt").mkdir(parents=True)
        (self.directory / "apt/kept").write_text("untouched")

    def add(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def debootstrap(self, more: str = "") -> None:
        places = {
            "log": self.root / "log",
            "mounted": self.root / "mounted",
            "victim": self.victim,
            "directory": self.directory,
        }
        self.add("debootstrap", DEBOOTSTRAP.format(more=more, **places))


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(tmp_path / "tools")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path / "store")
    lab.root.mkdir()
    return lab


def bootstrap(
    lab: Lab,
    plan: Plan,
    path: str,
    look: Callable[[ImageService, Image], Awaitable[None]] | None = None,
) -> None:
    async def work(service: ImageService) -> None:
        boot = Bootstrapper(
            lab.root / "bootstrap", service.import_image, service.archive_tree, path
        )
        try:
            image = await boot.run(plan, lab.messages.append)
        finally:
            scratch = lab.root / "bootstrap"
            assert not scratch.exists() or not os.listdir(scratch)
        if look:
            await look(service, image)

    lab.run(work)


def test_debian_out_of_a_tree(lab: Lab, tools: Tools) -> None:
    tools.debootstrap()

    async def look(service: ImageService, image: Image) -> None:
        assert image.repo_tags == ["mine:1"]
        assert image.config.config.cmd == ["bash"]
        [top] = service.layer_directories(image.chain_ids)
        assert (top / "etc/hostname").read_text() == ""
        assert os.readlink(top / "etc/resolv.conf") == str(tools.victim)
        assert (top / "bin/tool").read_text() == "tool\n"
        assert [*(top / "var/log").rglob("*")] == [top / "var/log/apt"]
        assert os.listdir(top / "var/lib/apt/lists") == []

    plan = Plan(
        source="debian:trixie", name="mine:1", mirror="http://mirror.lan/d", include="curl,git"
    )
    bootstrap(lab, plan, f"{tools.bin}:{DEFAULT_PATH}", look)
    words = (tools.root / "log").read_text().split()
    assert words[:3] == ["--force-check-gpg", "--variant=minbase", "--include=curl,git"]
    assert (words[3], words[5]) == ("trixie", "http://mirror.lan/d")
    assert tools.victim.read_text() == "untouched"
    assert (tools.directory / "apt/kept").read_text() == "untouched"
    assert (tools.root / "mounted").exists()  # and the mount was nobody else's
    assert str(lab.root) not in Path("/proc/self/mountinfo").read_text()
    assert "mine:1: Retrieving base-files\n" in lab.text


def test_a_tool_that_fails(lab: Lab, tools: Tools) -> None:
    tools.debootstrap("echo 'W: hm'; echo 'E: Release signed by unknown key' >&2; exit 1")
    with pytest.raises(SystemFailure) as caught:
        bootstrap(lab, Plan(source="debian:sid"), f"{tools.bin}:{DEFAULT_PATH}")
    assert "cannot bootstrap debian:sid: E: Release signed by unknown key: see that" in str(
        caught.value
    )
    assert {name for name in lab.files() if "layers" in name} == set()


def test_a_tool_that_is_not_installed(lab: Lab, tools: Tools) -> None:
    with pytest.raises(SystemFailure, match="debootstrap and debian-archive-keyring are installed"):
        bootstrap(lab, Plan(source="debian:sid"), str(tools.bin))


def test_a_cancelled_bootstrap_leaves_nothing(lab: Lab, tools: Tools) -> None:
    tools.debootstrap("sleep 1000 # the end")

    async def work(service: ImageService) -> None:
        boot = Bootstrapper(
            lab.root / "bootstrap",
            service.import_image,
            service.archive_tree,
            f"{tools.bin}:{DEFAULT_PATH}",
        )
        begun = asyncio.Event()
        plan = Plan(source="debian:sid")
        task = asyncio.create_task(boot.run(plan, lambda message: begun.set()))
        async with asyncio.timeout(20):
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    lab.run(work)
    assert os.listdir(lab.root / "bootstrap") == []
    until("its processes are gone", lambda: not processes_naming(lab.root / "bootstrap"))


BAD: dict[str, dict[str, Any]] = {
    "nothing": {"source": ""},
    "something else": {"source": "alpine:3"},
    "no suite": {"source": "debian"},
    "an option as the suite": {"source": "debian:--help"},
    "a path as the suite": {"source": "debian:../../x"},
    "an unknown variant": {"source": "debian:sid", "variant": "fakechroot"},
    "an option as a package": {"source": "debian:sid", "include": "--foreign"},
    "a mirror that is no URL": {"source": "debian:sid", "mirror": "--help"},
    "a mirror of another kind": {"source": "debian:sid", "mirror": "ssh://host/x"},
    "a bad name": {"source": "busybox", "name": "UPPER"},
}


@pytest.mark.parametrize("case", BAD)
def test_bad_plans(lab: Lab, tools: Tools, case: str) -> None:
    tools.debootstrap()
    with pytest.raises(InvalidParameter):
        bootstrap(lab, Plan(**BAD[case]), f"{tools.bin}:{DEFAULT_PATH}")
    assert not (tools.root / "log").exists()


def busybox_package(root: Path, program: Path) -> Path:
    """A package that holds a busybox."""
    tree = root / "package"
    (tree / "bin").mkdir(parents=True)
    (tree / "DEBIAN").mkdir()
    shutil.copy(program, tree / "bin/busybox")
    control = (
        "Package: busybox-static\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
    )
    (tree / "DEBIAN/control").write_text(control)
    subprocess.run(["dpkg-deb", "-b", tree, root / "busybox-static_1_all.deb"], check=True)
    return root / "busybox-static_1_all.deb"


def test_busybox_out_of_the_mirror(lab: Lab, tools: Tools) -> None:
    """The host's own is linked dynamically here, so that of the package is taken."""
    shutil.copy("/bin/true", tools.bin / "busybox")
    package = busybox_package(tools.root, Path("/bin/busybox"))
    tools.add("apt-get", f"#!/bin/sh\ncp {package} .\n")
    for name in ("dpkg-deb", "sh", "cp", "tar", "xz"):
        (tools.bin / name).symlink_to(shutil.which(name) or name)

    async def look(service: ImageService, image: Image) -> None:
        [top] = service.layer_directories(image.chain_ids)
        assert os.readlink(top / "bin/sh") == "busybox"
        assert (top / "bin/busybox").read_bytes() == Path("/bin/busybox").read_bytes()

    bootstrap(lab, Plan(source="busybox"), str(tools.bin), look)
    tools.add(
        "apt-get", "#!/bin/sh\necho 'E: Unable to locate package busybox-static' >&2; exit 100\n"
    )
    with pytest.raises(EngineError, match="Unable to locate package busybox-static: install"):
        bootstrap(lab, Plan(source="busybox"), str(tools.bin))


def test_busybox_of_the_host_runs(private_engine: Engine, names: Callable[[str], str]) -> None:
    teu = client(private_engine)
    name = names("own").lower()
    out = teu.ok("image", "bootstrap", "-t", name, "busybox")
    assert out.endswith(f"Status: Image {name}:latest is ready")
    assert teu.ok("run", "--rm", name, "id", "-u") == "0"
    assert teu.ok("run", "--rm", "--user", "nobody", name, "id", "-un") == "nobody"
    said = teu.fails(1, "image", "bootstrap", "gentoo")
    assert "this can be made: busybox, debian:SUITE" in said
    assert teu.ok("image", "bootstrap", "-q", "busybox") == ""


def client(engine: Engine) -> Cli:
    if engine.kind != "teu":
        pytest.skip("docker has no such command")
    return engine.cli("teu")


def test_a_killed_daemon_leaves_no_tool_behind(private_engine: Engine) -> None:
    teu = client(private_engine)
    scratch = private_engine.data_root / "bootstrap"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a mirror that never answers
        mirror = f"http://127.0.0.1:{silent.getsockname()[1]}/debian"
        asking = teu.spawn("image", "bootstrap", "--mirror", mirror, "debian:bookworm")
        connection, _ = silent.accept()
        assert processes_naming(scratch)
        private_engine.kill()
        asking.communicate(timeout=20)
        until("the tools are gone", lambda: not processes_naming(scratch), 10)
        connection.close()
    private_engine.start()
    assert not scratch.exists() or not os.listdir(scratch)


@pytest.mark.slow
def test_debian_for_real(private_engine: Engine) -> None:
    teu = client(private_engine)
    teu.ok("image", "bootstrap", "debian:bookworm", timeout_s=900)
    assert teu.ok("run", "--rm", "debian:bookworm", "cat", "/etc/debian_version").startswith("12")
    assert (
        teu.ok("run", "--rm", "debian:bookworm", "find", "/var/lib/apt/lists", "-type", "f") == ""
    )
