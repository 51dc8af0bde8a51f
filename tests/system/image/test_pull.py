"""Pulling: a real registry, and one that does what it should not."""

import asyncio
import contextlib
import gzip
import json
import random
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import zstandard
from aiohttp import web

from harness.fakeregistry import LIST, FakeRegistry, error, serving
from harness.imagelab import (
    Archived,
    Lab,
    digest,
    directory,
    docker_archive,
    member,
    tar_of,
)
from harness.registry import Registry
from teu.errors import EngineError, NotFound, Unauthorized, Unavailable
from teu.image.service import ImageService
from teu.model.image import InvalidImage
from teu.model.registry import BrokenTransfer, RegistryUnreachable
from teu.registry.config import RegistryConfig

BASE = tar_of(directory("bin"), member("bin/sh", b"#!shell", mode=0o755))
TOP = tar_of(member("etc/conf", b"x=1\n"))
APP = Archived([BASE, TOP])
BIG = tar_of(member("big", random.Random(1).randbytes(6_000_000)))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def fake() -> FakeRegistry:
    registry = FakeRegistry()
    registry.put(APP, "x:latest")
    return registry


def pull(lab: Lab, fake: FakeRegistry, name: str = "x", **options: Any) -> Any:
    """The image that a pull from the fake gives."""

    async def work(service: ImageService) -> Any:
        async with serving(fake) as address:
            image = await service.pull(f"{address}/{name}", progress=lab.messages.append, **options)
            assert service.layer_directories(image.chain_ids)
            return image

    return lab.run(work)


def test_a_real_registry(lab: Lab, tmp_path: Path) -> None:
    archive = tmp_path / "app.tar"
    archive.write_bytes(docker_archive(Archived([BASE, TOP], ["app:1"])))
    with Registry(tmp_path / "storage", tmp_path / "registry", read_only=False) as registry:
        name = f"{registry.address}/group/app"
        copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"docker-archive:{archive}"]
        subprocess.run([*copy, f"docker://{name}:1"], check=True)

        async def work(service: ImageService) -> None:
            image = await service.pull(f"{name}:1", progress=lab.messages.append)
            assert image.id == APP.id
            assert image.repo_tags == [f"{name}:1"]
            [by_digest] = image.repo_digests
            pulled = by_digest.partition("@")[2]
            top, _ = service.layer_directories(image.chain_ids)
            assert (top / "etc/conf").read_bytes() == b"x=1\n"
            layer = lab.messages[1]["id"]
            said = [m["status"] for m in lab.messages if m.get("id") == layer]
            assert said[0] == "Pulling fs layer"
            assert list(dict.fromkeys(said))[-4:] == [
                "Verifying Checksum", "Download complete", "Extracting", "Pull complete",
            ]  # fmt: skip
            assert lab.text.startswith("1: Pulling from group/app\n")
            assert lab.text.endswith(
                f": Digest: {pulled}\n: Status: Downloaded newer image for {name}:1\n"
            )
            lab.messages.clear()
            assert (await service.pull(f"{name}:1", progress=lab.messages.append)).id == APP.id
            assert [m["status"] for m in lab.messages[1:3]] == ["Already exists"] * 2
            assert lab.text.endswith(f"Status: Image is up to date for {name}:1\n")

            await service.remove(image.id)
            image = await service.pull(by_digest, progress=lab.messages.append)
            assert (image.repo_tags, image.repo_digests) == ([], [by_digest])
            assert service.resolve(by_digest).id == APP.id
            for ref, message in [
                (f"{name}:2", f"manifest for {name}:2 not found: manifest unknown"),
                (f"{registry.address}/none", "not found: manifest unknown"),
                (f"{name}@sha256:{'0' * 64}", "not found: manifest unknown"),
            ]:
                with pytest.raises(NotFound, match=message):
                    await service.pull(ref, progress=lab.messages.append)

        lab.run(work)


@pytest.mark.parametrize("how", [gzip.compress, zstandard.compress, bytes])
def test_compressions(lab: Lab, fake: FakeRegistry, how: Any) -> None:
    fake.put(APP, "y:1", how=how)
    assert pull(lab, fake, "y:1").id == APP.id


def test_platform_of_an_index(lab: Lab, fake: FakeRegistry) -> None:
    arm = Archived([BASE])
    arm_config = json.loads(arm.config_data) | {"architecture": "arm64"}
    data = json.dumps(arm_config).encode()
    entries = []
    for architecture, manifest in (("amd64", fake.put(APP)), ("arm64", fake.put(arm))):
        entries.append(
            {
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "digest": manifest,
                "size": len(fake.manifests[manifest][1]),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    index = fake.put_manifest({"schemaVersion": 2, "manifests": entries}, LIST, "multi:1")
    assert data
    image = pull(lab, fake, "multi:1", platform="linux/amd64")
    assert image.id == APP.id
    assert image.repo_digests[0].endswith(f"@{index}")
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list"):
        pull(lab, fake, "multi:1", platform="linux/s390x")
    with pytest.raises(NotFound, match="does not match the specified platform"):
        pull(lab, fake, "x", platform="linux/arm64")


# --- registries that ask for credentials ------------------------------------------------------


def test_basic_credentials(lab: Lab, fake: FakeRegistry) -> None:
    fake.user = ("me", "secret")
    with pytest.raises(Unauthorized, match="no basic auth credentials"):
        pull(lab, fake)
    with pytest.raises(EngineError, match="unauthorized: authentication required"):
        pull(lab, fake, auth={"username": "me", "password": "wrong"})
    assert pull(lab, fake, auth={"username": "me", "password": "secret"}).id == APP.id


def test_tokens(lab: Lab, fake: FakeRegistry) -> None:
    fake.tokens = True
    assert pull(lab, fake).id == APP.id
    assert fake.requests["/token"] == 1


def test_tokens_for_a_user(lab: Lab, fake: FakeRegistry) -> None:
    fake.tokens, fake.user = True, ("me", "secret")
    with pytest.raises(Unauthorized):
        pull(lab, fake)
    assert pull(lab, fake, auth={"username": "me", "password": "secret"}).id == APP.id
    assert pull(lab, fake, auth={"registrytoken": "good"}).id == APP.id


def test_no_access(lab: Lab, fake: FakeRegistry) -> None:
    async def denied(request: web.Request) -> web.Response:
        return error(403, "DENIED", "requested access to the resource is denied")

    fake.on("/manifests/", denied)
    with pytest.raises(NotFound) as caught:
        pull(lab, fake)
    assert str(caught.value) == (
        f"pull access denied for {fake.address}/x, repository does not exist or may require "
        "'docker login': denied: requested access to the resource is denied"
    )


# --- registries that fail, lie or hang --------------------------------------------------------


def test_not_there(lab: Lab) -> None:
    async def work(service: ImageService) -> None:
        for ref, message in [
            ("127.0.0.1:1/x", r"dial tcp 127.0.0.1:1: connect: connection refused: is the reg"),
            ("registry.invalid/x", "dial tcp: lookup registry.invalid: no such host"),
        ]:
            with pytest.raises(RegistryUnreachable, match=message):
                await service.pull(ref, progress=lab.messages.append)

    lab.run(work)


def test_hello_world_without_a_registry(lab: Lab, tmp_path: Path) -> None:
    lab.config.mirrors["docker.io"] = ["http://127.0.0.1:1"]
    asked: list[str] = []

    async def unreachable(name: object, auth: object = None) -> None:
        asked.append(str(name))
        raise RegistryUnreachable("Get https://…: dial tcp: no route to host: is the registry up?")

    async def work(service: ImageService) -> None:
        service._registry.manifest = unreachable  # type: ignore[method-assign, assignment]
        image = await service.pull("hello-world", progress=lab.messages.append)
        assert image.repo_tags == ["hello-world:latest"]
        assert "cannot be reached" in lab.text
        assert "comes with the engine" in lab.text
        with pytest.raises(RegistryUnreachable):
            await service.pull("busybox", progress=lab.messages.append)

    lab.run(work)
    [program] = lab.root.glob("layers/*/hello")
    out = subprocess.run([program], capture_output=True, text=True, check=True)
    assert "Hello" in out.stdout
    assert asked == ["docker.io/library/hello-world:latest", "docker.io/library/busybox:latest"]


async def _wrong(request: web.Request) -> web.Response:
    """Other bytes of the same length."""
    data = bytearray(gzip.compress(TOP))
    data[12] ^= 0xFF
    return web.Response(body=bytes(data))


async def _wrong_config(request: web.Request) -> web.Response:
    return web.Response(body=b" " * len(APP.config_data))


async def _longer(request: web.Request) -> web.Response:
    return web.Response(body=gzip.compress(TOP) + b"more")


async def _shorter(request: web.Request) -> web.Response:
    start = int(request.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
    if start:
        return web.Response(status=416)
    return web.Response(body=gzip.compress(TOP)[:-7])


async def _server_error(request: web.Request) -> web.Response:
    return web.Response(status=500, text="broken")


async def _hang(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"x")
    await asyncio.sleep(60)
    return response


async def _other_manifest(request: web.Request) -> web.Response:
    headers = {"Docker-Content-Digest": "sha256:" + "1" * 64}
    return web.Response(body=b'{"schemaVersion":2}', headers=headers)


async def _no_manifest(request: web.Request) -> web.Response:
    return web.Response(text="<html>hello</html>", content_type="text/html")


async def _huge_manifest(request: web.Request) -> web.Response:
    return web.Response(body=bytes(5 << 20))


async def _schema1(request: web.Request) -> web.Response:
    return web.json_response({"schemaVersion": 1, "name": "x", "fsLayers": []})


LAYER_PATH = f"/blobs/{digest(gzip.compress(TOP, mtime=0))}"
FAULTS = {
    "wrong layer": ("layer", _wrong, "filesystem layer verification failed for digest"),
    "longer layer": ("layer", _longer, "does not match its digest: expected .* bytes, got more"),
    "shorter layer": ("layer", _shorter, "does not match its digest: expected"),
    "layer fails": ("layer", _server_error, r"the registry answered 500 \(status 500\)"),
    "layer hangs": ("layer", _hang, "stopped answering"),
    "wrong config": ("config", _wrong_config, "the image's config does not match its digest"),
    "config hangs": ("config", _hang, "stopped answering"),
    "manifest digest": ("manifest", _other_manifest, "does not match its digest"),
    "no manifest": ("manifest", _no_manifest, "the manifest cannot be read"),
    "huge manifest": ("manifest", _huge_manifest, "a manifest of more than 4 MiB"),
    "manifest hangs": ("manifest", _hang, "stopped answering"),
    "manifest fails": ("manifest", _server_error, "the registry answered 500"),
    "schema 1": ("manifest", _schema1, "schema 1 manifest"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_leave_nothing(lab: Lab, case: str) -> None:
    where, answer, message = FAULTS[case]
    fake = FakeRegistry()
    fake.put(APP, "x:latest", how=lambda data: gzip.compress(data, mtime=0))
    stall_timeout_s = 0.2 if "hangs" in case else 20
    lab.config = RegistryConfig(backoff_s=0.001, stall_timeout_s=stall_timeout_s, max_attempts=2)
    layer = digest(gzip.compress(TOP, mtime=0))
    fake.on({"layer": layer, "config": APP.id, "manifest": "/manifests/"}[where], answer)
    with pytest.raises(EngineError, match=message):
        pull(lab, fake)
    left = lab.files()
    if "hangs" in case or "fails" in case:  # may be resumed
        left = {name for name in left if not name.endswith(".part")}
    assert left == set()
    assert "Status:" not in lab.text


def test_a_registry_that_never_answers_at_all(lab: Lab) -> None:
    lab.config = RegistryConfig(connect_timeout_s=0.2, stall_timeout_s=0.2)

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # the kernel connects, nobody reads
        port = silent.getsockname()[1]

        async def work(service: ImageService) -> None:
            async with asyncio.timeout(10):
                with pytest.raises(Unavailable, match="timeout"):
                    await service.pull(f"127.0.0.1:{port}/x", progress=lab.messages.append)

        lab.run(work)


# --- broken connections -----------------------------------------------------------------------


class Cutter:
    """Cuts the connection after `good` bytes of each answer, `times` times."""

    def __init__(self, data: bytes, good: int, times: int, *, ranges: bool = True) -> None:
        self.data, self.good, self.times, self.ranges = data, good, times, ranges
        self.starts: list[int] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        start = 0
        if self.ranges:
            start = int(request.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        self.starts.append(start)
        body = self.data[start:]
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(body)
        await response.prepare(request)
        if len(self.starts) > self.times:
            await response.write(body)
            return response
        await response.write(body[: self.good])
        assert request.transport
        request.transport.abort()
        return response


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_broken_download_is_resumed(lab: Lab, ranges: bool) -> None:
    image, fake = Archived([BIG]), FakeRegistry()
    fake.put(image, "big:latest", how=bytes)
    cutter = Cutter(BIG, 2_000_000, 2, ranges=ranges)
    fake.on(digest(BIG), cutter)
    assert pull(lab, fake, "big").id == image.id
    assert len(cutter.starts) == 3
    if ranges:
        assert cutter.starts[0] == 0 < cutter.starts[1] < cutter.starts[2]


def test_a_pull_goes_on_where_an_earlier_one_ended(lab: Lab) -> None:
    image, fake = Archived([BIG]), FakeRegistry()
    fake.put(image, "big:latest", how=bytes)
    lab.config.max_attempts = 1
    cutter = Cutter(BIG, 3_000_000, 1)
    fake.on(digest(BIG), cutter)
    with pytest.raises(BrokenTransfer):
        pull(lab, fake, "big")
    [part] = lab.files()
    assert part.endswith(".part")
    assert pull(lab, fake, "big").id == image.id
    assert cutter.starts[1] > 0
    assert not any(name.endswith(".part") for name in lab.files())


def test_a_bad_part_is_downloaded_again(lab: Lab, fake: FakeRegistry) -> None:
    ingest = lab.root / "content/ingest"
    ingest.mkdir(parents=True)
    for name in fake.blobs:
        (ingest / f"{name[7:]}.part").write_bytes(b"rubbish")
    assert pull(lab, fake).id == APP.id


def test_busy_registry(lab: Lab, fake: FakeRegistry) -> None:
    answers = [web.Response(status=429, headers={"Retry-After": "0"}) for _ in range(2)]

    async def busy(request: web.Request) -> web.Response | None:
        return answers.pop() if answers else None

    fake.on("/v2/x/", busy)
    assert pull(lab, fake).id == APP.id
    answers += [web.Response(status=429, headers={"Retry-After": "0"}) for _ in range(9)]
    with pytest.raises(Unavailable, match=r"too many requests.*log in for a higher limit"):
        pull(lab, fake)


def test_a_cancelled_pull_leaves_only_a_part(lab: Lab) -> None:
    image, fake = Archived([BASE, BIG]), FakeRegistry()
    fake.put(image, "big:latest", how=bytes)
    arrived = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(BIG))})
        await response.prepare(request)
        await response.write(BIG[:3_000_000])
        arrived.set()
        await asyncio.sleep(60)
        return response

    fake.on(digest(BIG), hang)

    async def work(service: ImageService) -> None:
        async with serving(fake) as address, asyncio.timeout(20):
            task = asyncio.create_task(service.pull(f"{address}/big", progress=lab.messages.append))
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert service.count() == 0

    lab.run(work)
    assert all(name.endswith(".part") for name in lab.files())


def test_pulls_at_the_same_time_share_layers(lab: Lab) -> None:
    one, two = Archived([BIG, BASE]), Archived([BIG, TOP])
    fake = FakeRegistry()
    fake.put(one, "one:latest", how=bytes)
    fake.put(two, "two:latest", how=bytes)

    async def work(service: ImageService) -> None:
        async with serving(fake) as address:
            pulls = [
                service.pull(f"{address}/{name}", progress=lab.messages.append)
                for name in ("one", "two", "one")
            ]
            images = await asyncio.gather(*pulls)
        assert [image.id for image in images] == [one.id, two.id, one.id]
        assert images[0].chain_ids[0] == images[1].chain_ids[0]

    lab.run(work)
    assert (
        fake.requests[f"/v2/one/blobs/{digest(BIG)}"]
        + (fake.requests[f"/v2/two/blobs/{digest(BIG)}"])
        == 1
    )


def test_one_of_two_pulls_is_cancelled(lab: Lab) -> None:
    """The other one gets its image all the same, from the same download."""
    image, fake = Archived([BIG, BASE]), FakeRegistry()
    fake.put(image, "big:latest", how=bytes)
    asked, go_on, all_wait = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def told(message: dict[str, Any]) -> None:
        lab.messages.append(message)
        if sum(m.get("status") == "Pulling fs layer" for m in lab.messages) == 4:
            all_wait.set()

    async def wait(request: web.Request) -> None:
        asked.set()
        await go_on.wait()

    fake.on(digest(BIG), wait)

    async def work(service: ImageService) -> None:
        async with serving(fake) as address, asyncio.timeout(20):
            first, second = (
                asyncio.create_task(service.pull(f"{address}/big", progress=told)) for _ in range(2)
            )
            await asked.wait()
            await all_wait.wait()
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await first
            go_on.set()
            assert (await second).id == image.id

    lab.run(work)
    assert fake.requests[f"/v2/big/blobs/{digest(BIG)}"] == 1


def test_a_mirror_is_asked_first_and_may_fail(lab: Lab, fake: FakeRegistry) -> None:
    other = FakeRegistry()

    async def work(service: ImageService) -> None:
        async with serving(fake) as address, serving(other) as mirror:
            lab.config.mirrors[address] = [f"http://{mirror}"]
            image = await service.pull(f"{address}/x", progress=lab.messages.append)
            assert image.repo_tags == [f"{address}/x:latest"]
            assert other.requests.total() == 1
            other.put(APP, "x:latest")
            before = fake.requests.total()
            await service.remove(image.id)
            await service.pull(f"{address}/x", progress=lab.messages.append)
            assert fake.requests.total() == before

    lab.run(work)


def test_the_same_layer_twice_in_one_image(lab: Lab, fake: FakeRegistry) -> None:
    image = Archived([BASE, TOP, TOP, tar_of(), tar_of()])
    fake.put(image, "twice:1")
    assert pull(lab, fake, "twice:1").id == image.id


def test_an_image_without_layers(lab: Lab, fake: FakeRegistry) -> None:
    image = Archived([])
    fake.put(image, "none:1")

    async def work(service: ImageService) -> None:
        async with serving(fake) as address:
            found = await service.pull(f"{address}/none:1", progress=lab.messages.append)
            assert service.layer_directories(found.chain_ids) == []

    lab.run(work)


def test_config_with_the_wrong_number_of_layers(lab: Lab, fake: FakeRegistry) -> None:
    wrong = Archived([BASE], plain_layers=[BASE, TOP])
    fake.put(wrong, "wrong:1")
    with pytest.raises(InvalidImage, match="the manifest has 1 layers, the image's config 2"):
        pull(lab, fake, "wrong:1")
    lying = Archived([BASE], plain_layers=[TOP])
    fake.put(lying, "lying:1")
    with pytest.raises(InvalidImage, match="damaged at its source"):
        pull(lab, fake, "lying:1")
