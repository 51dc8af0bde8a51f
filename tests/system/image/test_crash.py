"""kill -9 in the middle of taking an image in: afterwards it is there as a whole or not at all."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.imagelab import Archived, Lab, digest, docker_archive, member, tar_of
from teu.image.service import ImageService

PROGRAM = """
import asyncio, sys
from pathlib import Path
from harness.imagelab import Lab, chunks

async def work(service):
    print("ready", flush=True)
    for data in sys.argv[2:]:
        await service.load(chunks(Path(data).read_bytes(), 1 << 16), lambda message: None)
        print("done", flush=True)

Lab(Path(sys.argv[1])).run(work)
"""
RNG = random.Random(7)


@pytest.mark.parametrize("moment", range(6))
def test_killed_while_loading(moment: int, tmp_path: Path) -> None:
    files = [member(f"d{n // 50}/f{n}", RNG.randbytes(RNG.randrange(9000))) for n in range(600)]
    layers = [tar_of(*files[start : start + 200]) for start in range(0, 600, 200)]
    images = [Archived(layers, ["one:1"]), Archived(layers[1:], ["two:1"])]
    paths = []
    for number, image in enumerate(images):
        paths.append(tmp_path / f"{number}.tar")
        paths[-1].write_bytes(docker_archive(image))
    lab = Lab(tmp_path / "store")
    lab.root.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(lab.root), *map(str, paths)]
    environment = {"PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 0.03 * moment
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        told = process.stdout.read().count(b"done")

    async def look(service: ImageService) -> list[str]:
        found = [image for image in images if service.find(image.id)]
        for image in found:
            saved = b"".join([piece async for piece in service.save([image.tags[0]])])
            assert all(digest(layer)[7:].encode() in saved for layer in image.layers)
        return [image.id for image in found]

    kept = lab.run(look)
    assert len(kept) >= told
    assert kept == [image.id for image in images[: len(kept)]]
    known = lab.run(_layer_directories)
    left = {name for name in lab.files() if name.startswith("layers/")}
    assert {name.partition(".")[0].removeprefix("layers/") for name in left} == known


async def _layer_directories(service: ImageService) -> set[str]:
    images = [service.get(row["Id"]) for row in service.list_images({})]
    return {path.name for i in images for path in service.layer_directories(i.chain_ids)}
