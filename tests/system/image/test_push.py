"""Pushing to a real registry."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.imagelab import Archived, Lab, chunks, directory, docker_archive, member, tar_of
from harness.registry import Registry
from teu.errors import NotFound, Unavailable
from teu.image.pushing import NotHere
from teu.image.service import ImageService
from teu.registry.config import RegistryConfig

BASE = tar_of(directory("bin"), member("bin/sh", b"#!shell", mode=0o755))
TOP = tar_of(member("etc/conf", b"x=1\n"))
APP = Archived([BASE, TOP, TOP])


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "lab")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("registry")
    with Registry(root / "storage", root / "scratch", read_only=False) as running:
        yield running.address


def skopeo(*arguments: str) -> str:
    command = ["skopeo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_push_and_pull_again(lab: Lab, registry: str, tmp_path: Path) -> None:
    lab.root.mkdir()
    name = f"{registry}/group/app"

    async def work(service: ImageService) -> None:
        await service.load(chunks(docker_archive(APP)), lab.messages.append)
        for tag in ("1", "2"):
            service.tag(APP.id, f"{name}:{tag}")
        lab.messages.clear()
        await service.push(name, tag="1", progress=lab.messages.append)
        assert lab.text.startswith(f": The push refers to repository [{name}]\n")
        assert [m.get("status") for m in lab.messages].count("Pushed") == 2
        aux = lab.messages[-1]["aux"]
        assert lab.messages[-2]["status"] == f"1: digest: {aux['Digest']} size: {aux['Size']}"
        assert service.get(APP.id).repo_digests == [f"{name}@{aux['Digest']}"]

        lab.messages.clear()  # again, all tags, nothing to send
        await service.push(name, progress=lab.messages.append)
        said = [m.get("status") for m in lab.messages]
        assert said.count("Layer already exists") == 4
        assert "Pushed" not in said
        assert {m["aux"]["Digest"] for m in lab.messages if "aux" in m} == {aux["Digest"]}

        lab.messages.clear()  # another repository of the same registry
        service.tag(APP.id, f"{registry}/other:1")
        await service.push(f"{registry}/other", tag="1", progress=lab.messages.append)
        assert [m.get("status") for m in lab.messages].count("Mounted from group/app") == 2

        await service.remove(APP.id, force=True)
        image = await service.pull(f"{name}:2", progress=lab.messages.append)
        assert image.id == APP.id

    lab.run(work)
    config = json.loads(skopeo("inspect", "--tls-verify=false", "--config", f"docker://{name}:1"))
    assert len(config["rootfs"]["diff_ids"]) == 3


def test_a_pulled_image_keeps_its_manifest(lab: Lab, registry: str, tmp_path: Path) -> None:
    lab.root.mkdir()
    archive = tmp_path / "app.tar"
    archive.write_bytes(docker_archive(Archived([BASE], ["app:1"])))
    source, copy = f"{registry}/oci/source:1", f"{registry}/oci/copy:1"
    skopeo(
        "copy", "-q", "--format=oci", "--dest-tls-verify=false",
        f"docker-archive:{archive}", f"docker://{source}",
    )  # fmt: skip

    async def work(service: ImageService) -> None:
        image = await service.pull(source, progress=lab.messages.append)
        service.tag(image.id, copy)
        await service.push(copy, progress=lab.messages.append)

    lab.run(work)
    raw = [
        skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{n}") for n in (source, copy)
    ]
    assert raw[0] == raw[1]


def test_what_cannot_be_pushed(lab: Lab, registry: str) -> None:
    lab.root.mkdir()
    lab.config = RegistryConfig(backoff_s=0.01, max_attempts=2, connect_timeout_s=2)

    async def work(service: ImageService) -> None:
        await service.load(chunks(docker_archive(APP)), lab.messages.append)
        service.tag(APP.id, "127.0.0.1:1/app:1")
        with pytest.raises(NotHere, match=f"tag does not exist: {registry}/app:9"):
            await service.push(f"{registry}/app:9", progress=lab.messages.append)
        with pytest.raises(NotFound, match="does not exist locally with the tag: nothing"):
            await service.push("nothing", progress=lab.messages.append)
        with pytest.raises(Unavailable, match="connection refused"):
            await service.push("127.0.0.1:1/app", tag="1", progress=lab.messages.append)

    lab.run(work)


def test_a_cancelled_push_ends(lab: Lab, registry: str) -> None:
    lab.root.mkdir()
    big = Archived([tar_of(member("big", bytes(range(256)) * 100_000))], [f"{registry}/big:1"])

    async def work(service: ImageService) -> None:
        await service.load(chunks(docker_archive(big), 1 << 20), lab.messages.append)
        started = asyncio.Event()

        def told(message: dict[str, object]) -> None:
            if message.get("status") == "Pushing":
                started.set()

        push = asyncio.create_task(service.push(f"{registry}/big:1", progress=told))
        async with asyncio.timeout(20):
            await started.wait()
            push.cancel()
            with pytest.raises(asyncio.CancelledError):
                await push
        await service.push(f"{registry}/big:1", progress=told)

    lab.run(work)
