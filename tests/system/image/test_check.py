"""`system check`: damage of every kind is found; with a registry at hand it is repaired."""

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from harness.fakeregistry import FakeRegistry, serving
from harness.imagelab import (
    Archived,
    Lab,
    directory,
    docker_archive,
    hard_link,
    member,
    symlink,
    tar_of,
)
from teu.image.service import ImageService

LAYER = tar_of(
    directory("bin", mode=0o750, uid=3),
    member("bin/sh", b"#!shell", mode=0o755, uid=1, gid=2, mtime=5.25),
    member("bin/replaced", b"first"),
    member("bin/replaced", b"second"),
    symlink("bin/link", "sh"),
    hard_link("bin/twin", "bin/sh", mode=0o755, uid=1, gid=2, mtime=5.25),
    member("etc/empty", b"", mode=0o640, pax_headers={"SCHILY.xattr.user.k": "v"}),
    directory("gone"),
    member("gone/x", b"1"),
    symlink("gone", "bin"),
    member("gone/y", b"through a link"),
    member("etc/.wh.removed"),
    member("null", type=b"3", mode=0o666, devmajor=1, devminor=3),
)
TOP = tar_of(member("etc/conf", b"x=1\n"))
APP = Archived([LAYER, TOP], ["app:1"])


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


async def check(service: ImageService, **options: Any) -> list[dict[str, Any]]:
    """The problems found; the sums are checked here."""
    found: list[dict[str, Any]] = []
    await service.check(found.append, **options)
    aux = [message["aux"] for message in found if "aux" in message]
    assert aux[-1]["Checked"]["Layers"] >= 0
    return aux[:-1]


def problems(lab: Lab, **options: Any) -> list[dict[str, Any]]:
    async def work(service: ImageService) -> list[dict[str, Any]]:
        return await check(service, **options)

    return lab.run(work)


def test_a_sound_store(lab: Lab) -> None:
    lab.load(docker_archive(APP, Archived([TOP, LAYER], ["other:1"])))
    assert problems(lab) == []


def tree(lab: Lab) -> Path:
    [path] = lab.root.glob("layers/*/bin/sh")
    return path.parents[1]


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "content": (lambda t: _rewrite(t / "bin/sh", b"#!SHELL"), "contents of files were changed"),
    "content of a replaced file": (
        lambda t: _rewrite(t / "bin/replaced", b"SECOND"),
        "contents of files were changed",
    ),
    "shorter": (lambda t: os.truncate(t / "bin/sh", 1), "shorter than it was unpacked"),
    "longer": (lambda t: os.truncate(t / "bin/replaced", 99), "99 bytes instead of 6"),
    "removed": (lambda t: (t / "bin/replaced").unlink(), "No such file"),
    "empty file removed": (lambda t: (t / "etc/empty").unlink(), "/etc/empty: is missing"),
    "link": (lambda t: _relink(t / "bin/link", "elsewhere"), "/bin/link: points elsewhere"),
    "owner": (lambda t: os.chown(t / "etc/empty", 7, 7), "belongs to 7:7 instead of 0:0"),
    "mode": (lambda t: (t / "bin").chmod(0o777), "/bin: has mode 0777 instead of 0750"),
    "time": (lambda t: os.utime(t / "etc/empty", (1, 1)), "/etc/empty: has another time"),
    "xattr": (lambda t: os.removexattr(t / "etc/empty", "user.k"), "changed xattr user.k"),
    "whiteout": (lambda t: (t / "etc/removed").unlink(), "/etc/removed: is missing"),
    "kind": (lambda t: _remake(t / "null"), "/null: is of another kind"),
    "hard link": (lambda t: _copy(t / "bin/twin"), "/bin/twin: has other hard links"),
    "whole tree": (shutil.rmtree, "No such file"),
    "skeleton": (lambda t: t.with_name(t.name + ".skeleton").unlink(), "No such file"),
    "cut skeleton": (
        lambda t: os.truncate(t.with_name(t.name + ".skeleton"), 40),
        "is damaged",
    ),
    "orphan": (lambda t: shutil.rmtree(t.with_name(t.name + ".orphans")), "is damaged"),
}


def _rewrite(path: Path, data: bytes) -> None:
    found = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(found.st_mtime_ns, found.st_mtime_ns))


def _relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _remake(path: Path) -> None:
    path.unlink()
    path.touch()


def _copy(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_of_a_layer_is_found_and_repaired(lab: Lab, case: str) -> None:
    damage, text = DAMAGE[case]
    fake = FakeRegistry()
    fake.put(APP, "app:1")

    async def work(service: ImageService) -> None:
        async with serving(fake) as address:
            image = await service.pull(f"{address}/app:1", progress=lambda message: None)
            damage(tree(lab))
            [found] = await check(service)
            assert (found["Kind"], found["ID"]) == ("layer", image.chain_ids[0])
            assert text in found["Problem"]
            assert found["Images"] == [f"{address}/app:1"]
            assert not found["Repaired"]
            lab.users.mounted = {image.chain_ids[0]: "c" * 64}
            [found] = await check(service, repair=True)
            assert "running container cccccccccccc uses it" in found["Outcome"]
            lab.users.mounted = {}
            [found] = await check(service, repair=True)
            assert found["Repaired"]
            assert found["Outcome"] == f"fetched from {address}/app"
            assert await check(service) == []
            layers = service.layer_directories(image.chain_ids)
            assert (layers[-1] / "bin/sh").read_bytes() == b"#!shell"

    lab.run(work)
    assert problems(lab) == []  # and nothing was left behind
    assert len({name.partition(".")[0] for name in lab.files() if "layers/" in name}) == 2


def test_blobs_are_repaired(lab: Lab) -> None:
    fake = FakeRegistry()
    manifest = fake.put(APP, "app:1")

    async def work(service: ImageService) -> None:
        async with serving(fake) as address:
            image = await service.pull(f"{address}/app:1", progress=lambda message: None)
            blobs = lab.root / "content/blobs/sha256"
            (blobs / image.id[7:]).unlink()
            path = blobs / manifest[7:]
            path.chmod(0o600)
            path.write_bytes(path.read_bytes().replace(b"schemaVersion", b"SchemaVersion"))
            found = {problem["ID"]: problem for problem in await check(service)}
            assert found[image.id]["Problem"] == "is missing"
            assert found[manifest]["Problem"] == "is damaged"
            found = {problem["ID"]: problem for problem in await check(service, repair=True)}
            assert all(problem["Repaired"] for problem in found.values()), found
            assert stat.S_IMODE(path.stat().st_mode) == 0o400
            assert await check(service) == []

    lab.run(work)


def test_a_broken_image_is_usable_again_after_repair(lab: Lab) -> None:
    """Its config was lost while the daemon was down."""
    fake = FakeRegistry()
    fake.put(APP, "app:1")
    where: list[str] = []

    async def get(service: ImageService) -> None:
        async with serving(fake) as address:
            await service.pull(f"{address}/app:1", progress=lambda message: None)
            where.append(address)

    lab.run(get)
    (lab.root / "content/blobs/sha256" / APP.id[7:]).unlink()
    [found] = problems(lab)
    assert found["Images"] == [f"{where[0]}/app:1"]

    async def mend(service: ImageService) -> None:
        port = int(where[0].rpartition(":")[2])
        async with serving(fake, port=port):
            [found] = await check(service, repair=True)
            assert found["Repaired"], found
            assert service.resolve(f"{where[0]}/app:1").id == APP.id

    lab.run(mend)


def test_an_equal_layer_serves_as_the_source(lab: Lab) -> None:
    lab.load(docker_archive(APP, Archived([TOP], ["top:1"])))
    for path in lab.root.glob("layers/*/etc/conf"):
        if not (path.parents[1] / "bin").exists():
            broken = path
    broken.write_bytes(b"y=2\n")
    [found] = problems(lab, repair=True)
    assert found["Repaired"]
    assert found["Outcome"] == "copied from an equal layer"
    assert problems(lab) == []


def test_what_was_loaded_cannot_be_fetched(lab: Lab) -> None:
    lab.load(docker_archive(APP))
    shutil.rmtree(tree(lab))
    [found] = problems(lab, repair=True)
    assert not found["Repaired"]
    assert "its image has no name in a registry; load or build it again" in found["Outcome"]
    lab.load(docker_archive(APP))
    assert problems(lab) == []


def test_a_container_that_starts_meanwhile_keeps_its_layer(lab: Lab) -> None:
    fake = FakeRegistry()
    fake.put(APP, "app:1")

    async def work(service: ImageService) -> None:
        async with serving(fake) as address:
            image = await service.pull(f"{address}/app:1", progress=lambda message: None)
            damaged = tree(lab)
            (damaged / "etc/empty").unlink()

            starting = [True]

            async def start(request: web.Request) -> None:
                if starting:
                    lab.users.mounted = {image.chain_ids[0]: "c" * 64}

            fake.on("/blobs/", start)
            [found] = await check(service, repair=True)
            assert "running container cccccccccccc uses it" in found["Outcome"]
            assert damaged.is_dir()
            lab.users.mounted = {}
            starting.clear()
            with service.keeping(image.chain_ids):  # a build, say
                [found] = await check(service, repair=True)
            assert "something that is under way uses it" in found["Outcome"]
            [found] = await check(service, repair=True)
            assert found["Repaired"]

    lab.run(work)
    assert problems(lab) == []


def test_a_registry_that_lies_repairs_nothing(lab: Lab) -> None:
    fake = FakeRegistry()
    fake.put(APP, "app:1")

    async def work(service: ImageService) -> None:
        async with serving(fake) as address:
            image = await service.pull(f"{address}/app:1", progress=lambda message: None)
            (tree(lab) / "etc/empty").unlink()
            for name, data in list(fake.blobs.items()):
                fake.blobs[name] = data[:-1] + b"X"
            [found] = await check(service, repair=True)
            assert not found["Repaired"]
            assert "digest" in found["Outcome"]
            assert service.layer_directories(image.chain_ids)

    before: set[str] = set()
    lab.run(work)
    before = lab.files()
    problems(lab)
    assert lab.files() == before


def test_damage_of_the_database_is_found(lab: Lab) -> None:
    lab.load(docker_archive(APP))
    with sqlite3.connect(lab.root / "teu.db") as db:
        db.execute("INSERT INTO reference VALUES ('docker.io/library/x:1', 'sha256:nope', '')")
        db.execute("DELETE FROM layer WHERE parent = ''")
    stray, layer = problems(lab)
    assert (stray["Kind"], stray["ID"]) == ("name", "docker.io/library/x:1")
    assert (layer["Kind"], layer["Problem"]) == ("layer", "is missing")
    stray, layer = problems(lab, repair=True)
    assert stray["Repaired"]
    assert not layer["Repaired"]
    [layer] = problems(lab)
    with sqlite3.connect(lab.root / "teu.db") as db:
        db.execute("UPDATE image SET record = '{'")
    assert [p["Kind"] for p in problems(lab, repair=True)] == ["image"]


def test_a_layer_that_only_a_container_needs(lab: Lab) -> None:
    lab.users.layers = ["sha256:" + "a" * 64]
    [found] = problems(lab, repair=True)
    assert (found["Kind"], found["Problem"]) == ("layer", "is missing")
    assert "no image has it, only containers or the build cache use it" in found["Outcome"]
