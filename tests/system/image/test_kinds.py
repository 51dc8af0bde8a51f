"""What registries carry besides plain images: indexes, artifacts, foreign and encrypted layers."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from harness.fakeregistry import LIST, FakeRegistry, error, serving
from harness.imagelab import (
    OCI_INDEX,
    OCI_MANIFEST,
    Archived,
    Lab,
    artifact,
    chunks,
    descriptor,
    digest,
    docker_archive,
    member,
    tar_of,
)
from harness.pushregistry import PushRegistry
from teu.errors import EngineError, NotFound
from teu.image.platform import host_platform
from teu.image.remote import RemoteImages
from teu.image.service import ImageService
from teu.image.variants import NotAnImage
from teu.model.image import InvalidImage
from teu.model.registry import BrokenTransfer
from teu.registry.client import RegistryClient

HOST = str(host_platform())
OTHER = "linux/s390x"
NATIVE = Archived([tar_of(member("a", b"native"))], platform=HOST)
FOREIGN = Archived([tar_of(member("a", b"other"))], platform=OTHER)
CHART = random.Random(4).randbytes(3_000_000)
RAW, BLOBS = artifact("application/vnd.cncf.helm.config.v1+json", ("application/vnd.x", CHART))
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def fake() -> PushRegistry:
    return PushRegistry()


def pull(lab: Lab, fake: FakeRegistry, name: str, **options: Any) -> Any:
    async def work(service: ImageService) -> Any:
        async with serving(fake) as address:
            return await service.pull(f"{address}/{name}", progress=lab.messages.append, **options)

    return lab.run(work)


def put_index(
    fake: FakeRegistry, *images: Archived, name: str = "multi:1", media_type: str = LIST
) -> str:
    """An index of images, and an attestation that is not there; the index's digest."""
    entries = [entry_for(fake, fake.put(image, how=plain), image.platform) for image in images]
    entries.append(
        {
            "mediaType": OCI_MANIFEST,
            "digest": "sha256:" + "a" * 64,
            "size": 5,
            "platform": {"os": "unknown", "architecture": "unknown"},
        }
    )
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
    return fake.put_manifest(document, media_type, name)


def entry_for(fake: FakeRegistry, of: str, platform: str = "") -> dict[str, Any]:
    media_type, data = fake.manifests[of]
    entry: dict[str, Any] = {"mediaType": media_type, "digest": of, "size": len(data)}
    if platform:
        system, architecture, *_ = platform.split("/")
        entry["platform"] = {"os": system, "architecture": architecture}
    return entry


def plain(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def put_artifact(fake: FakeRegistry, *names: str) -> str:
    for blob in BLOBS:
        fake.blobs[digest(blob)] = blob
    return fake.put_manifest(json.loads(RAW), OCI_MANIFEST, *names)


# --- several platforms ------------------------------------------------------------------------


@pytest.mark.parametrize("media_type", [LIST, OCI_INDEX])
def test_all_platforms(lab: Lab, fake: PushRegistry, media_type: str) -> None:
    index = put_index(fake, FOREIGN, NATIVE, media_type=media_type)
    image = pull(lab, fake, "multi:1", platform="all")
    assert image.id == NATIVE.id
    assert lab.text.count("Digest:") == lab.text.count("Status:") == 1

    async def look(service: ImageService) -> None:
        name = image.repo_tags[0]
        assert service.resolve(name).id == NATIVE.id
        assert service.resolve(name, OTHER).id == FOREIGN.id
        assert service.resolve(f"{name[:-2]}@{index}", OTHER).id == FOREIGN.id

    lab.run(look)


def test_platforms_pulled_one_after_the_other_stay(lab: Lab, fake: PushRegistry) -> None:
    put_index(fake, FOREIGN, NATIVE)

    async def work(service: ImageService) -> None:
        async with serving(fake) as address:
            name = f"{address}/multi:1"
            for platform, wanted in ((OTHER, FOREIGN), (HOST, NATIVE)):
                image = await service.pull(name, platform=platform, progress=lab.messages.append)
                assert image.id == wanted.id
            assert service.resolve(name, OTHER).id == FOREIGN.id

    lab.run(work)


def test_an_index_in_an_index(lab: Lab, fake: PushRegistry) -> None:
    inner = put_index(fake, FOREIGN, NATIVE)
    outer = {"schemaVersion": 2, "manifests": [entry_for(fake, inner)]}
    fake.put_manifest(outer, OCI_INDEX, "outer:1")
    assert pull(lab, fake, "outer:1").id == NATIVE.id


def test_indexes_without_an_end(lab: Lab, fake: PushRegistry) -> None:
    deepest = put_index(fake, NATIVE)
    for _ in range(6):
        document = {"schemaVersion": 2, "manifests": [entry_for(fake, deepest)]}
        deepest = fake.put_manifest(document, OCI_INDEX, "deep:1")
    with pytest.raises(InvalidImage, match="nested deeper"):
        pull(lab, fake, "deep:1")
    fake.put_manifest({"schemaVersion": 2, "manifests": []}, OCI_INDEX, "empty:1")
    with pytest.raises(NotFound, match="no matching manifest"):
        pull(lab, fake, "empty:1")
    assert lab.files() == set()


def test_push_sends_the_index_that_came(lab: Lab, fake: PushRegistry) -> None:
    """Without the attestation it would be another, so there is none in this one."""
    entries = [
        entry_for(fake, fake.put(image, how=plain), image.platform) for image in (FOREIGN, NATIVE)
    ]
    index = fake.put_manifest({"schemaVersion": 2, "manifests": entries}, LIST, "multi:1")

    async def work(service: ImageService) -> None:
        async with serving(fake) as address:
            await service.pull(f"{address}/multi:1", platform="all", progress=lab.messages.append)
            service.tag(f"{address}/multi:1", f"{address}/copy:1")
            await service.push(f"{address}/copy:1", progress=lab.messages.append)
            assert lab.messages[-1]["aux"]["Digest"] == index
            assert f"{address}/copy@{index}" in service.get(NATIVE.id).repo_digests

    lab.run(work)
    assert digest(fake.manifests["copy:1"][1]) == index
    for entry in entries:
        assert f"copy:{entry['digest']}" in fake.manifests


def test_push_makes_an_index_of_what_is_here(lab: Lab, fake: PushRegistry) -> None:
    put_index(fake, FOREIGN, NATIVE)
    target = PushRegistry()

    async def work(service: ImageService) -> None:
        async with serving(fake) as address, serving(target) as elsewhere:
            await service.pull(f"{address}/multi:1", platform="all", progress=lab.messages.append)
            service.tag(f"{address}/multi:1", f"{elsewhere}/x:1")
            await service.push(f"{elsewhere}/x:1", progress=lab.messages.append)
            service.tag(f"{address}/multi:1", f"{elsewhere}/one:1")
            await service.push(f"{elsewhere}/one:1", platform=OTHER, progress=lab.messages.append)
            with pytest.raises(NotFound, match="does not provide the specified platform"):
                await service.push(
                    f"{elsewhere}/one:1", platform="linux/riscv64", progress=lab.messages.append
                )

    lab.run(work)
    media_type, data = target.manifests["x:1"]
    members = json.loads(data)["manifests"]
    assert media_type == json.loads(data)["mediaType"] == LIST
    assert [m["platform"]["architecture"] for m in members] == [HOST.split("/")[1], "s390x"]
    assert all(f"x:{member['digest']}" in target.manifests for member in members)
    assert json.loads(target.manifests["one:1"][1])["config"]["digest"] == FOREIGN.id


# --- all tags ---------------------------------------------------------------------------------


def test_all_tags(lab: Lab, fake: PushRegistry) -> None:
    fake.put(NATIVE, "x:1", "x:2")
    fake.put_manifest({"schemaVersion": 1}, "application/json", "x:old")
    put_index(fake, FOREIGN, name="x:far")

    async def tags(request: web.Request) -> web.Response:
        return web.json_response({"name": "x", "tags": ["1", "2", "far", "old"]})

    fake.on("/tags/list", tags)

    async def work(service: ImageService) -> None:
        async with serving(fake) as address:
            image = await service.pull_tags(f"{address}/x", progress=lab.messages.append)
            assert image.repo_tags == [f"{address}/x:1", f"{address}/x:2"]

    lab.run(work)
    assert "old: Skipped: the image has a schema 1 manifest" in lab.text
    assert "far: Skipped: no matching manifest" in lab.text


def test_no_tags_at_all(lab: Lab, fake: PushRegistry) -> None:
    async def none(request: web.Request) -> web.Response:
        return web.json_response({"name": "x", "tags": None})

    async def work(service: ImageService) -> None:
        async with serving(fake) as address:
            with pytest.raises(NotFound, match="not found"):
                await service.pull_tags(f"{address}/x", progress=lab.messages.append)
            fake.on("/tags/list", none)
            with pytest.raises(InvalidImage, match="has no tag to pull"):
                await service.pull_tags(f"{address}/x", progress=lab.messages.append)

    lab.run(work)


# --- artifacts --------------------------------------------------------------------------------


def test_an_artifact_is_stored_and_pushed_as_it_is(lab: Lab, fake: PushRegistry) -> None:
    known = put_artifact(fake, "chart:1")
    target = PushRegistry()

    async def work(service: ImageService) -> None:
        async with serving(fake) as address, serving(target) as elsewhere:
            found = await service.pull(f"{address}/chart:1", progress=lab.messages.append)
            assert found.id == known
            assert found.repo_digests == [f"{address}/chart@{known}"]
            assert "Pulling an artifact (application/vnd.cncf.helm.config.v1+json)" in lab.text
            with pytest.raises(NotAnImage, match="cannot be run"):
                service.runnable(f"{address}/chart:1")
            lab.messages.clear()
            await service.pull(f"{address}/chart:1", progress=lab.messages.append)
            assert lab.text.count("Already exists") == 2
            service.tag(f"{address}/chart:1", f"{elsewhere}/y/chart:2")
            await service.push(f"{elsewhere}/y/chart:2", progress=lab.messages.append)

    lab.run(work)
    assert digest(target.manifests["y/chart:2"][1]) == known
    assert target.blobs == {digest(blob): blob for blob in BLOBS}
    assert ("PUT", len(CHART)) in target.sent


@pytest.mark.parametrize(
    "kind", ["application/vnd.in-toto+json", "application/vnd.dev.cosign.simplesigning.v1+json"]
)
def test_signatures_and_attestations_are_artifacts(lab: Lab, fake: PushRegistry, kind: str) -> None:
    """Their config says that they are images."""
    statement = b'{"predicateType": "x"}'
    config = Archived([], plain_layers=[statement]).config_data
    fake.blobs |= {digest(statement): statement, digest(config): config}
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [descriptor(kind, statement)],
    }
    fake.put_manifest(document, OCI_MANIFEST, "x:sig")
    assert pull(lab, fake, "x:sig").record.artifact_type == kind


def test_an_interrupted_artifact_is_resumed(lab: Lab, fake: PushRegistry) -> None:
    put_artifact(fake, "chart:1")
    lab.config.max_attempts = 1
    cuts = [1]

    async def cut(request: web.Request) -> web.StreamResponse | None:
        if not cuts:
            return None
        cuts.pop()
        response = web.StreamResponse(headers={"Content-Length": str(len(CHART))})
        await response.prepare(request)
        await response.write(CHART[:2_000_000])
        assert request.transport
        request.transport.abort()
        return response

    fake.on(digest(CHART), cut)
    with pytest.raises(BrokenTransfer):
        pull(lab, fake, "chart:1")
    pull(lab, fake, "chart:1")  # by another daemon
    [wanted] = fake.ranges
    assert 0 < int(wanted.removeprefix("bytes=").partition("-")[0]) <= 2_000_000
    assert not any(name.endswith(".part") for name in lab.files())


def test_a_damaged_artifact_leaves_nothing(lab: Lab, fake: PushRegistry) -> None:
    put_artifact(fake, "chart:1")
    fake.blobs[digest(CHART)] = CHART[:-1] + b"!"
    with pytest.raises(EngineError, match="verification failed"):
        pull(lab, fake, "chart:1")
    assert lab.files() == set()


# --- layers -----------------------------------------------------------------------------------


def with_layer(fake: FakeRegistry, name: str, **changes: Any) -> dict[str, Any]:
    """NATIVE, with a changed descriptor for its layer."""
    document = json.loads(fake.manifests[fake.put(NATIVE, how=plain)][1])
    document["layers"][0] |= changes
    fake.put_manifest(document, DOCKER_MANIFEST, name)
    return dict(document["layers"][0])


@pytest.mark.parametrize("in_registry", [True, False])
def test_foreign_layers(lab: Lab, fake: PushRegistry, in_registry: bool) -> None:
    """From the registry if it has it, else from where its maker says."""
    maker = FakeRegistry()
    data = plain(NATIVE.layers[0])
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

    async def layer(request: web.Request) -> web.Response:
        assert "Authorization" not in request.headers
        return web.Response(body=data)

    maker.on("/somewhere/layer", layer)
    fake.user = ("me", "secret")

    async def work(service: ImageService) -> None:
        async with serving(fake) as address, serving(maker) as elsewhere:
            url = f"http://{elsewhere}/somewhere/layer"
            with_layer(fake, "win:1", mediaType=kind, urls=["ftp://nowhere", url])
            if not in_registry:
                del fake.blobs[digest(data)]
            image = await service.pull(
                f"{address}/win:1",
                progress=lab.messages.append,
                auth={"username": "me", "password": "secret"},
            )
            assert image.id == NATIVE.id

    lab.run(work)
    assert maker.requests.total() == (not in_registry)


def test_encrypted_layers_are_refused(lab: Lab, fake: PushRegistry) -> None:
    kind = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"
    with_layer(fake, "secret:1", mediaType=kind)
    with pytest.raises(InvalidImage, match=r"is encrypted .*: decrypt the image"):
        pull(lab, fake, "secret:1")
    assert lab.files() == set()


def test_zstd_layers_go_out_in_an_oci_manifest(lab: Lab, fake: PushRegistry) -> None:
    """A layer that the registry knows as zstd, beside one that it does not know."""
    zstandard = pytest.importorskip("zstandard")
    two = Archived([NATIVE.layers[0], FOREIGN.layers[0]], platform=HOST)
    packed = zstandard.compress(NATIVE.layers[0])
    fake.blobs |= {digest(packed): packed, NATIVE.id: NATIVE.config_data}
    kind = "application/vnd.oci.image.layer.v1.tar+zstd"
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", NATIVE.config_data),
        "layers": [descriptor(kind, packed)],
    }
    fake.put_manifest(document, OCI_MANIFEST, "base:1")

    async def work(service: ImageService) -> None:
        async with serving(fake) as address:
            await service.pull(f"{address}/base:1", progress=lab.messages.append)
            await service.load(chunks(docker_archive(two)), lab.messages.append)
            service.tag(two.id, f"{address}/two:1")
            await service.push(f"{address}/two:1", progress=lab.messages.append)

    lab.run(work)
    media_type, data = fake.manifests["two:1"]
    pushed = json.loads(data)
    assert media_type == pushed["mediaType"] == OCI_MANIFEST
    assert pushed["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert [layer["mediaType"] for layer in pushed["layers"]] == [
        kind,
        "application/vnd.oci.image.layer.v1.tar+gzip",
    ]


# --- asking without pulling -------------------------------------------------------------------


def test_distribution_inspect(lab: Lab, fake: PushRegistry) -> None:
    index = put_index(fake, FOREIGN, NATIVE)
    single = fake.put(FOREIGN, "one:1")
    chart = put_artifact(fake, "chart:1")

    async def work(_: ImageService) -> None:
        client = RegistryClient(lab.config)
        remote = RemoteImages(client)
        try:
            async with serving(fake) as address:
                shown = await remote.inspect(f"{address}/multi:1", None)
                assert shown["Descriptor"]["digest"] == index
                assert shown["Descriptor"]["mediaType"] == LIST
                assert {"os": "linux", "architecture": "s390x"} in shown["Platforms"]
                shown = await remote.inspect(f"{address}/one:1", None)
                assert shown["Descriptor"] == {
                    "mediaType": DOCKER_MANIFEST,
                    "digest": single,
                    "size": len(fake.manifests[single][1]),
                }
                assert shown["Platforms"] == [{"os": "linux", "architecture": "s390x"}]
                shown = await remote.inspect(f"{address}/chart@{chart}", None)
                assert shown["Platforms"] == []
                with pytest.raises(NotFound, match="manifest unknown"):
                    await remote.inspect(f"{address}/one:2", None)
        finally:
            await client.close()

    lab.run(work)


def test_error_answers_are_read_whole(lab: Lab, fake: PushRegistry) -> None:
    async def denied(request: web.Request) -> web.Response:
        return error(403, "DENIED", "pay first")

    fake.on("/tags/list", denied)

    async def work(service: ImageService) -> None:
        async with serving(fake) as address:
            with pytest.raises(NotFound, match="denied: pay first"):
                await service.pull_tags(f"{address}/x", progress=lab.messages.append)

    lab.run(work)
