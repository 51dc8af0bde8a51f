"""Pushing to registries that want it their way, and to those that fail in the middle."""

import asyncio
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from harness.fakeregistry import FakeRegistry, error, serving
from harness.imagelab import Archived, Lab, chunks, docker_archive, member, tar_of
from harness.pushregistry import PushRegistry
from teu.errors import EngineError, Forbidden, SystemFailure, Unauthorized, Unavailable
from teu.image.service import ImageService

BIG = random.Random(2).randbytes(20_000_000)  # does not compress
APP = Archived([tar_of(member("big", BIG))])
SMALL = Archived([tar_of(member("a", b"x"))])
LOGIN = {"username": "me", "password": "secret"}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def fake() -> PushRegistry:
    return PushRegistry()


def push(lab: Lab, fake: FakeRegistry, image: Archived = SMALL, **options: Any) -> None:
    async def work(service: ImageService) -> None:
        async with serving(fake) as address:
            await service.load(chunks(docker_archive(image), 1 << 20), lab.messages.append)
            service.tag(image.id, f"{address}/x:1")
            await service.push(f"{address}/x:1", progress=lab.messages.append, **options)

    lab.run(work)


def pushed_files(fake: FakeRegistry, name: str = "x:1") -> list[bytes]:
    """The layers, uncompressed, of what the registry has now."""
    document = json.loads(fake.manifests[name][1])
    assert document["config"]["digest"] in fake.blobs
    return [gzip.decompress(fake.blobs[layer["digest"]]) for layer in document["layers"]]


def test_layers_are_streamed_and_configs_sent_in_one(lab: Lab, fake: PushRegistry) -> None:
    push(lab, fake)
    assert pushed_files(fake) == SMALL.layers
    assert sorted(fake.sent, key=str) == [("PATCH", None), ("PUT", len(SMALL.config_data))]


@pytest.mark.parametrize("status", [411, 413, 501])
def test_a_registry_without_streams_gets_pieces(lab: Lab, fake: PushRegistry, status: int) -> None:
    fake.refuse_streams = status
    push(lab, fake, APP)
    assert pushed_files(fake) == APP.layers
    lengths = [length for method, length in fake.sent if method == "PATCH" and length]
    assert lengths[:2] == [8 << 20, 8 << 20]
    assert 0 < lengths[2] < 8 << 20


def test_pieces_have_the_size_that_the_registry_wants(lab: Lab, fake: PushRegistry) -> None:
    fake.refuse_streams, fake.minimum_bytes = 411, 9_000_000
    push(lab, fake, APP)
    assert pushed_files(fake) == APP.layers
    assert ("PATCH", 9_000_000) in fake.sent
    assert ("PATCH", 8 << 20) not in fake.sent


@pytest.mark.parametrize("status", [500, 503, 429, 416])
def test_an_upload_that_fails_once_is_sent_again(lab: Lab, fake: PushRegistry, status: int) -> None:
    failures = [web.Response(status=status, headers={"Retry-After": "0"})]

    async def fail(request: web.Request) -> web.Response | None:
        if request.method != "PATCH" or not failures:
            return None
        await request.read()
        return failures.pop()

    fake.on("/uploads/", fail)
    push(lab, fake)
    assert pushed_files(fake) == SMALL.layers


def test_a_cut_connection_is_no_end(lab: Lab, fake: PushRegistry) -> None:
    cuts = [3]

    async def cut(request: web.Request) -> web.Response | None:
        if request.method == "PATCH" and cuts:
            for _ in range(cuts.pop()):
                await request.content.readany()
            assert request.transport
            request.transport.abort()
        return None

    fake.on("/uploads/", cut)
    push(lab, fake, APP)
    assert pushed_files(fake) == APP.layers


def test_a_registry_that_takes_no_more_data(lab: Lab, fake: PushRegistry) -> None:
    lab.config.stall_timeout_s, lab.config.max_attempts = 0.2, 1

    async def stall(request: web.Request) -> web.Response | None:
        if request.method == "PATCH":
            await request.content.read(10)
            await asyncio.sleep(60)
        return None

    fake.on("/uploads/", stall)
    with pytest.raises(Unavailable, match="takes no more data"):
        push(lab, fake, APP)
    assert "x:1" not in fake.manifests


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (error(403, "DENIED", "requested access is denied"), Forbidden, "denied: requested access"),
        (error(401, "UNAUTHORIZED", "no"), Unauthorized, "authentication required"),
        (error(400, "SIZE_INVALID", "quota exceeded"), SystemFailure, "quota exceeded"),
        (error(404, "NAME_UNKNOWN", "no such project"), EngineError, "no such project"),
    ],
)
def test_refusals(
    lab: Lab, fake: PushRegistry, answer: web.Response, kind: type[EngineError], text: str
) -> None:
    async def refuse(request: web.Request) -> web.Response | None:
        return answer if request.method == "POST" else None

    fake.on("/uploads/", refuse)
    with pytest.raises(kind, match=text):
        push(lab, fake)


def test_a_refused_manifest(lab: Lab, fake: PushRegistry) -> None:
    async def refuse(request: web.Request) -> web.Response | None:
        return error(400, "MANIFEST_INVALID", "bad") if request.method == "PUT" else None

    fake.on("/manifests/", refuse)
    with pytest.raises(SystemFailure, match="manifest invalid: bad"):
        push(lab, fake)
    assert "digest:" not in lab.text


# --- mounting from other repositories ---------------------------------------------------------


def mounting(lab: Lab, fake: PushRegistry) -> list[str]:
    """Pushes an image that came from another repository of the registry; what was said."""
    fake.put(SMALL, "source:1")

    async def work(service: ImageService) -> None:
        async with serving(fake) as address:
            await service.pull(f"{address}/source:1", progress=lab.messages.append, auth=LOGIN)
            service.tag(SMALL.id, f"{address}/x:1")
            lab.messages.clear()
            await service.push(f"{address}/x:1", progress=lab.messages.append, auth=LOGIN)

    async def only_in_source(request: web.Request) -> web.Response | None:
        return web.Response(status=404) if request.method == "HEAD" else None

    fake.on("/v2/x/blobs/", only_in_source)
    lab.run(work)
    return [str(message.get("status")) for message in lab.messages]


def test_mount(lab: Lab, fake: PushRegistry) -> None:
    assert "Mounted from source" in mounting(lab, fake)
    assert fake.manifests["x:1"] == fake.manifests["source:1"]


def test_a_registry_that_does_not_mount(lab: Lab, fake: PushRegistry) -> None:
    fake.mounts = False
    assert "Pushed" in mounting(lab, fake)
    assert pushed_files(fake) == SMALL.layers


@pytest.mark.parametrize("status", [401, 403, 405])
def test_mounting_that_is_forbidden_is_not_needed(
    lab: Lab, fake: PushRegistry, status: int
) -> None:
    async def forbid(request: web.Request) -> web.Response | None:
        return web.Response(status=status) if "mount" in request.query else None

    fake.on("/uploads/", forbid)
    assert "Pushed" in mounting(lab, fake)


# --- where credentials go ---------------------------------------------------------------------


def test_an_upload_elsewhere_gets_no_credentials(lab: Lab, fake: PushRegistry) -> None:
    """Storage next to the registry is told nothing, even when it asks."""
    fake.user = ("me", "secret")
    storage = PushRegistry()
    storage._uploads = fake._uploads
    storage.blobs = fake.blobs

    async def work(service: ImageService) -> None:
        async with serving(fake) as address, serving(storage) as elsewhere:
            fake.location = f"http://{elsewhere}"
            await service.load(chunks(docker_archive(SMALL)), lab.messages.append)
            service.tag(SMALL.id, f"{address}/x:1")
            await service.push(f"{address}/x:1", progress=lab.messages.append, auth=LOGIN)

            async def ask(request: web.Request) -> web.Response | None:
                return error(401, "UNAUTHORIZED", "", 'Basic realm="gimme"')

            storage.on("/uploads/", ask)
            fake.blobs.clear()
            with pytest.raises(Unauthorized):
                await service.push(f"{address}/x:1", progress=lab.messages.append, auth=LOGIN)

    lab.run(work)
    assert storage.sent
    assert set(storage.authorizations) == {""}
    assert any(fake.authorizations)


def test_a_token_that_expires_in_the_middle(lab: Lab, fake: PushRegistry) -> None:
    fake.tokens = True
    expired = [True]

    async def expire(request: web.Request) -> web.Response | None:
        if request.method == "PATCH" and expired:
            expired.clear()
            await request.read()
            realm = f'Bearer realm="http://{fake.address}/token",error="invalid_token"'
            return error(401, "UNAUTHORIZED", "expired", realm)
        return None

    fake.on("/uploads/", expire)
    push(lab, fake)
    assert pushed_files(fake) == SMALL.layers
    assert fake.requests["/token"] > 1
