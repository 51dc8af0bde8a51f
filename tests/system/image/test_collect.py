"""Nothing that is needed is ever collected, and nothing that is not needed stays: with everything
at once, and with kill -9 before and after each step that changes the disk.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from harness.fakeregistry import FakeRegistry, serving
from harness.imagelab import Archived, Lab, chunks, docker_archive, member, tar_of
from teu.errors import EngineError
from teu.image.service import ImageService
from teu.model.config import ContainerConfig

RNG = random.Random(5)
LAYERS = [
    tar_of(*(member(f"d{n}/f{i}", RNG.randbytes(RNG.randrange(3000))) for i in range(40)))
    for n in range(5)
]


def image(name: str, *layers: int) -> Archived:
    return Archived([LAYERS[n] for n in layers], [name], {"Labels": {"name": name}})


IMAGES = [image("a:1", 0, 1), image("b:1", 0, 1, 2), image("c:1", 3), image("d:1", 3, 0, 1, 4)]


async def sound(service: ImageService, lab: Lab) -> None:
    """No problem, and no file that nothing needs."""
    found: list[dict[str, Any]] = []
    await service.check(found.append)
    problems = [m["aux"] for m in found if "aux" in m and "Checked" not in m["aux"]]
    assert problems == []
    rows = service.list_images({}, all_=True)
    images = [service.get(row["Id"]) for row in rows]
    directories = {p.name for i in images for p in service.layer_directories(i.chain_ids)}
    on_disk = {
        name.removeprefix("layers/").partition(".")[0] for name in lab.files() if "layers/" in name
    }
    assert on_disk == directories
    blobs = {name.rpartition("/")[2] for name in lab.files() if "blobs/" in name}
    assert {image.id[7:] for image in images} <= blobs
    if not images:
        assert blobs == set()
    assert not any("ingest/" in name and not name.endswith(".part") for name in lab.files())


def settled(lab: Lab) -> None:
    """In the next daemon's life, which finds what the last one left."""

    async def look(service: ImageService) -> None:
        service.collect()

    lab.run(look)  # closing waits for what is being removed

    async def check(service: ImageService) -> None:
        await sound(service, lab)

    lab.run(check)


# --- everything at once ----------------------------------------------------------------------


class Crowd:
    """Tasks that load, pull, save, commit, import, tag, remove and prune the same few images."""

    def __init__(self, service: ImageService, lab: Lab, address: str, seed: int) -> None:
        self.service = service
        self.lab = lab
        self.address = address
        self.rng = random.Random(seed)
        self.failures: list[str] = []
        self.count = 0

    async def run(self, tasks: int, steps: int) -> None:
        async with asyncio.timeout(60):
            await asyncio.gather(*(self._member(steps) for _ in range(tasks)))

    async def _member(self, steps: int) -> None:
        actions: list[Callable[[Archived], Awaitable[Any]]] = [
            self._load, self._load, self._pull, self._pull, self._save, self._commit, self._import,
            self._tag, self._remove, self._remove, self._prune, self._cancelled_pull,
        ]  # fmt: skip
        for _ in range(steps):
            action = self.rng.choice(actions)
            try:
                await action(self.rng.choice(IMAGES))
            except EngineError as error:
                self._expected(action.__name__, error)
            self.count += 1

    def _expected(self, what: str, error: EngineError) -> None:
        """Only that something is not there (any more), or is in use."""
        text = str(error)
        if not any(part in text for part in ("No such image", "conflict:", "is missing from")):
            self.failures.append(f"{what}: {text}")

    async def _load(self, image: Archived) -> None:
        [loaded] = await self.service.load(
            chunks(docker_archive(image), 1 << 16), lambda message: None
        )
        assert loaded.id == image.id

    async def _pull(self, image: Archived) -> None:
        name = f"{self.address}/{image.tags[0]}"
        pulled = await self.service.pull(name, progress=lambda message: None)
        assert pulled.id == image.id

    async def _cancelled_pull(self, image: Archived) -> None:
        task = asyncio.create_task(self._pull(image))
        for _ in range(self.rng.randrange(60)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _save(self, image: Archived) -> None:
        size = 0
        async for piece in self.service.save([image.tags[0]]):
            size += len(piece)
        assert size > sum(map(len, image.layers))

    async def _commit(self, image: Archived) -> None:
        upper = self.lab.root / f"upper{self.rng.random()}"
        upper.mkdir()
        (upper / "changed").write_text(str(self.rng.random()))
        parent = self.service.resolve(image.tags[0])
        with self.service.keeping(parent.chain_ids):
            await self.service.commit(
                upper, parent_id=parent.id, config=ContainerConfig(), name="committed:1"
            )

    async def _import(self, image: Archived) -> None:
        await self.service.import_image(chunks(image.layers[-1], 1 << 14), name="imported:1")

    async def _tag(self, image: Archived) -> None:
        self.service.tag(image.tags[0], f"tagged:{self.rng.randrange(3)}")

    async def _remove(self, image: Archived) -> None:
        names = [image.tags[0], f"{self.address}/{image.tags[0]}", image.id, "tagged:1"]
        await self.service.remove(self.rng.choice(names), force=True)

    async def _prune(self, image: Archived) -> None:
        await self.service.prune({"dangling": [self.rng.choice(["true", "true", "false"])]})


@pytest.mark.parametrize("seed", range(3))
def test_a_crowd_leaves_a_sound_store(tmp_path: Path, seed: int) -> None:
    lab = Lab(tmp_path / "store")
    lab.root.mkdir()
    fake = FakeRegistry()
    for one in IMAGES:
        fake.put(one, one.tags[0])

    async def work(service: ImageService) -> None:
        async with serving(fake) as address:
            crowd = Crowd(service, lab, address, seed)
            await crowd.run(tasks=8, steps=10)
            assert crowd.failures == []
            assert crowd.count == 80

    lab.run(work)
    settled(lab)


def test_layers_of_a_container_outlive_their_image(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    [first, *_] = IMAGES

    async def work(service: ImageService) -> None:
        [loaded] = await service.load(chunks(docker_archive(first)), lambda message: None)
        directories = service.layer_directories(loaded.chain_ids)
        with service.keeping(loaded.chain_ids):  # a container that has no record yet
            await service.remove(first.id, force=True)
            service.collect()
        lab.users.layers = loaded.chain_ids
        service.collect()
        assert all(path.is_dir() for path in directories)
        lab.users.layers = []
        service.collect()

    lab.run(work)
    assert lab.files() == set()


# --- kill -9 ---------------------------------------------------------------------------------

PROGRAM = """
import asyncio, sys
from pathlib import Path
from system.image.test_collect import doomed
doomed(Path(sys.argv[1]), *sys.argv[2:])
"""
POINTS = {
    "a layer is settled": ("teu.image.layers.LayerFiles", "settle"),
    "layers are synced": ("teu.image.layers.LayerFiles", "sync"),
    "a layer's row": ("teu.store.images.ImageStore", "add_layer"),
    "a blob": ("teu.content.blobs.BlobStore", "put"),
    "an image's row": ("teu.store.images.ImageStore", "add"),
    "a name": ("teu.store.images.ImageStore", "name"),
    "names are dropped": ("teu.store.images.ImageStore", "unname"),
    "an image is removed": ("teu.store.images.ImageStore", "remove"),
    "layers' rows are removed": ("teu.store.images.ImageStore", "remove_layers"),
    "a layer's files are removed": ("teu.image.layers.LayerFiles", "remove"),
    "blobs are removed": ("teu.content.blobs.BlobStore", "remove"),
    "a part is resumed": ("teu.image.download._Download", "_resume"),
}


def doomed(root: Path, where: str, when: str, count: str) -> None:
    """Everything once, in a process that kills itself at a point."""
    module, name = POINTS[where]
    kind = _found(module)
    original = getattr(kind, name)
    left = [int(count)]

    def instead(self: Any, *args: Any, **options: Any) -> Any:
        left[0] -= 1
        if not left[0] and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(self, *args, **options)
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(kind, name, instead)
    lab = Lab(root)
    fake = FakeRegistry()
    for one in IMAGES:
        fake.put(one, one.tags[0])

    async def work(service: ImageService) -> None:
        async with serving(fake) as address:
            crowd = Crowd(service, lab, address, 1)
            for one in IMAGES:
                await crowd._pull(one)
                await crowd._load(one)
            service.tag("a:1", "tagged:1")
            service.tag("c:1", "a:1")
            await crowd._commit(IMAGES[1])
            await service.remove("committed:1")
            await service.remove("tagged:1")
            await service.prune({})
            for one in IMAGES:
                await service.remove(one.id, force=True)

    lab.run(work)
    print("lived on")


def _found(path: str) -> Any:
    import importlib

    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("where", POINTS)
def test_killed_at_a_point(tmp_path: Path, where: str, when: str) -> None:
    count = 1 + RNG.randrange(3 if "remove" not in where and "part" not in where else 1)
    lab = Lab(tmp_path / "store")
    lab.root.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, lab.root, where, when, str(count)],
        env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    settled(lab)
    for one in IMAGES:  # and it works as if nothing had been
        lab.load(docker_archive(one), 1 << 16)
    settled(lab)
