"""Images in several platforms, and artifacts: kept, listed, saved and removed."""

import contextlib
import gzip
import hashlib
import io
import json
import random
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import pytest

from harness.imagelab import (
    OCI_MANIFEST,
    Archived,
    Lab,
    artifact,
    descriptor,
    digest,
    docker_archive,
    layout_of,
    member,
    oci_index_layout,
    oci_layout,
    tar_of,
    unchanged,
)
from teu.errors import Conflict, EngineError, InvalidParameter, NotFound
from teu.image.platform import host_platform
from teu.image.service import ImageService
from teu.store.migrations import MIGRATIONS

BASE = tar_of(member("bin/sh", b"#!shell", mode=0o755))
HOST = str(host_platform())
OTHER = "linux/s390x"
NATIVE = Archived([BASE, tar_of(member("a", b"native"))], platform=HOST)
FOREIGN = Archived([BASE, tar_of(member("a", b"foreign"))], platform=OTHER)
RISCV = Archived([BASE], platform="linux/riscv64")
BOTH = oci_index_layout("docker.io/library/app:1", FOREIGN, NATIVE, absent=[RISCV])
RNG = random.Random(3)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def rows(service: ImageService, **options: Any) -> list[tuple[str, list[str]]]:
    return [(row["Id"], row["RepoTags"]) for row in service.list_images({}, **options)]


def test_all_platforms_of_an_index_are_kept(lab: Lab) -> None:
    assert lab.load(BOTH) == [FOREIGN.id, NATIVE.id]
    assert lab.text.count("Loaded image: app:1") == 1
    assert "already exists" not in lab.text

    async def look(service: ImageService) -> None:
        assert service.resolve("app:1").id == NATIVE.id
        assert service.resolve("app:1", OTHER).id == FOREIGN.id
        assert service.resolve(FOREIGN.id[7:19]).id == FOREIGN.id
        with pytest.raises(NotFound, match=r"specified platform \(linux/riscv64\): it has"):
            service.resolve("app:1", "linux/riscv64")
        with pytest.raises(NotFound, match="does not match the specified platform"):
            service.resolve(FOREIGN.id, HOST)
        assert rows(service) == [(NATIVE.id, ["app:1"])]
        assert sorted(rows(service, all_=True)) == sorted(
            [(NATIVE.id, ["app:1"]), (FOREIGN.id, ["app:1"])]
        )
        shown = service.inspect("app:1", platform=OTHER)
        assert (shown["Id"], shown["Architecture"]) == (FOREIGN.id, "s390x")
        assert service.history("app:1", OTHER)[0]["Id"] == FOREIGN.id

    lab.run(look)  # in the next daemon's life, too


def test_manifests_of_an_index_are_listed(lab: Lab) -> None:
    lab.load(BOTH)
    lab.users.containers = {FOREIGN.id: [("c" * 64, False)]}

    async def look(service: ImageService) -> None:
        [row] = service.list_images({})
        await service.add_manifests([row])
        native, foreign, absent, attestation = row["Manifests"]
        assert native["Kind"] == foreign["Kind"] == absent["Kind"] == "image"
        assert [m["Available"] for m in row["Manifests"]] == [True, True, False, False]
        assert foreign["ImageData"]["Platform"] == {"architecture": "s390x", "os": "linux"}
        assert foreign["ImageData"]["Containers"] == ["c" * 64]
        assert foreign["ImageData"]["Size"]["Unpacked"] == len(b"#!shell" + b"foreign")
        assert foreign["Size"]["Total"] == foreign["Size"]["Content"] + 14
        assert absent["ImageData"]["Platform"]["architecture"] == "riscv64"
        assert attestation["Kind"] == "attestation"
        assert attestation["AttestationData"]["For"] == foreign["ID"]
        assert row["Descriptor"]["mediaType"].endswith("image.index.v1+json")
        assert service.inspect("app:1", manifests=True)["Manifests"] == row["Manifests"]
        assert service.inspect("app:1")["Descriptor"] == row["Descriptor"]

    lab.run(look)


def test_one_platform_can_be_loaded(lab: Lab) -> None:
    assert lab.load(BOTH, platform=OTHER) == [FOREIGN.id]
    with pytest.raises(NotFound, match=r"no image for the specified platform \(linux/ppc64le\)"):
        lab.load(BOTH, platform="linux/ppc64le")
    with pytest.raises(NotFound, match="no image for the specified platform"):
        lab.load(docker_archive(NATIVE), platform=OTHER)

    async def look(service: ImageService) -> None:
        assert service.resolve("app:1").id == FOREIGN.id  # better than nothing

    lab.run(look)
    assert lab.load(BOTH, platform=HOST) == [NATIVE.id]

    async def both(service: ImageService) -> None:
        assert service.resolve("app:1").id == NATIVE.id  # joined, and it runs here
        assert service.resolve("app:1", OTHER).id == FOREIGN.id

    lab.run(both)


def test_a_newer_index_takes_the_name_from_all(lab: Lab) -> None:
    lab.load(BOTH)
    newer = Archived([BASE, tar_of(member("a", b"newer"))], platform=HOST)
    lab.load(oci_index_layout("app:1", newer))

    async def look(service: ImageService) -> None:
        assert service.resolve("app:1").id == newer.id
        assert service.get(NATIVE.id).repo_tags == service.get(FOREIGN.id).repo_tags == []
        records, _ = await service.prune({})
        assert {"Deleted": NATIVE.id} in records
        assert {"Deleted": FOREIGN.id} in records

    lab.run(look)


def test_save_and_load_again(lab: Lab, tmp_path: Path) -> None:
    lab.load(BOTH)
    whole, single = lab.save("app:1"), lab.save("app:1", platform=OTHER)
    with pytest.raises(NotFound, match="does not provide the specified platform"):
        lab.save("app:1", platform="linux/riscv64")
    second, third = Lab(tmp_path / "2"), Lab(tmp_path / "3")
    second.root.mkdir()
    third.root.mkdir()
    assert second.load(whole) == [NATIVE.id, FOREIGN.id]
    assert third.load(single) == [FOREIGN.id]

    async def look(service: ImageService) -> None:
        assert service.resolve("app:1").id == NATIVE.id
        assert service.resolve("app:1", OTHER).id == FOREIGN.id

    second.run(look)
    assert second.save("app:1") == whole
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        file = tar.extractfile("manifest.json")
        assert file is not None
        # Docker, which knows one platform a name, names this machine's.
        assert [item["RepoTags"] for item in json.load(file)] == [["app:1"], None]


def test_a_second_name_means_all_platforms(lab: Lab) -> None:
    lab.load(BOTH)

    async def work(service: ImageService) -> None:
        service.tag("app:1", "copy:1")
        service.tag(FOREIGN.id, "single:1")
        assert service.resolve("copy:1", OTHER).id == FOREIGN.id
        assert service.resolve("single:1").id == FOREIGN.id
        assert await service.remove("app:1") == [{"Untagged": "app:1"}]
        assert service.resolve("copy:1", OTHER).id == FOREIGN.id
        records = await service.remove("copy:1")
        assert {"Deleted": NATIVE.id} in records
        assert {"Deleted": FOREIGN.id} not in records
        assert {"Deleted": FOREIGN.id} in await service.remove("single:1")

    lab.run(work)
    assert lab.files() == set()


def test_removal_takes_all_platforms(lab: Lab) -> None:
    for ref in ("app:1", NATIVE.id):
        lab.load(BOTH)

        async def work(service: ImageService, ref: str = ref) -> None:
            records = await service.remove(ref)
            assert records[0] == {"Untagged": "app:1"}
            assert {"Deleted": NATIVE.id} in records
            assert {"Deleted": FOREIGN.id} in records

        lab.run(work)
        assert lab.files() == set()


def test_single_platforms_can_be_removed(lab: Lab) -> None:
    lab.load(BOTH)

    async def work(service: ImageService) -> None:
        with pytest.raises(NotFound, match="does not provide the specified platform"):
            await service.remove("app:1", platforms=["linux/riscv64"])
        lab.users.containers = {FOREIGN.id: [("c" * 64, True)]}
        with pytest.raises(Conflict, match="being used by running container"):
            await service.remove("app:1", platforms=[OTHER], force=True)
        assert await service.prune({"dangling": ["false"]}) == ([], 0)
        lab.users.containers = {}
        records = await service.remove("app:1", platforms=[OTHER])
        assert records[:2] == [{"Untagged": f"app:1 ({OTHER})"}, {"Deleted": FOREIGN.id}]
        assert service.resolve("app:1").id == NATIVE.id
        records = await service.remove("app:1", platforms=[HOST])
        assert records[0] == {"Untagged": "app:1"}
        assert service.count() == 0

    lab.run(work)
    assert lab.files() == set()


def test_a_variant_can_be_removed_by_its_id(lab: Lab) -> None:
    lab.load(BOTH)

    async def work(service: ImageService) -> None:
        assert (await service.remove(FOREIGN.id))[0] == {"Deleted": FOREIGN.id}
        assert service.resolve("app:1").repo_tags == ["app:1"]

    lab.run(work)


def test_an_index_without_any_of_its_images(lab: Lab) -> None:
    data = oci_index_layout("app:1", absent=[NATIVE])
    lab.load(docker_archive(Archived([BASE], ["kept:1"])))
    with unchanged(lab), pytest.raises(InvalidParameter, match="none of the images that index"):
        lab.load(data)


def test_an_index_in_an_index_in_an_index(lab: Lab) -> None:
    manifest_layout = oci_layout(NATIVE)
    with tarfile.open(fileobj=io.BytesIO(manifest_layout)) as tar:
        file = tar.extractfile("index.json")
        assert file is not None
        entries = json.load(file)["manifests"]
        blobs = [tar.extractfile(n).read() for n in tar.getnames() if n.startswith("blobs/")]  # type: ignore[union-attr]
    for _ in range(3):
        index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
        entries = [descriptor("application/vnd.oci.image.index.v1+json", index)]
        blobs.append(index)
    assert lab.load(layout_of(entries, blobs)) == [NATIVE.id]
    for _ in range(3):
        index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
        entries = [descriptor("application/vnd.oci.image.index.v1+json", index)]
        blobs.append(index)
    with unchanged(lab), pytest.raises(InvalidParameter, match="nested deeper"):
        lab.load(layout_of(entries, blobs))


# --- artifacts -------------------------------------------------------------------------------


def chart(name: str = "docker.io/library/chart:1") -> tuple[bytes, bytes, list[bytes]]:
    """A layout with an artifact of every kind of content: (layout, manifest, blobs)."""
    manifest, blobs = artifact(
        "application/vnd.example.chart",
        ("application/gzip", gzip.compress(BASE)),
        ("application/x-tar", tar_of(member("x", b"plain"))),
        ("text/plain", b"some text"),
        ("application/octet-stream", RNG.randbytes(9 << 20)),  # too big for memory
    )
    entry = descriptor(OCI_MANIFEST, manifest)
    entry["annotations"] = {"io.containerd.image.name": name}
    return layout_of([entry], [manifest, *blobs]), manifest, blobs


def test_artifacts_are_stored_saved_and_removed(lab: Lab, tmp_path: Path) -> None:
    data, manifest, blobs = chart()
    ident = digest(manifest)
    assert lab.load(data, 1 << 16) == [ident]
    assert "Loaded image: chart:1\n" in lab.text
    stored = {name.rpartition("/")[2] for name in lab.files()}
    assert stored == {digest(blob)[7:] for blob in [manifest, *blobs]}

    async def look(service: ImageService) -> None:
        with pytest.raises(InvalidParameter, match="not a container image but an artifact"):
            service.runnable("chart:1")
        [row] = service.list_images({})
        await service.add_manifests([row])
        assert (row["Id"], row["RepoTags"]) == (ident, ["chart:1"])
        assert row["Manifests"][0]["Kind"] == "unknown"
        assert row["Size"] == sum(map(len, [manifest, *blobs]))
        assert service.inspect("chart:1")["Created"] == "2024-05-06T07:08:09Z"
        service.tag("chart:1", "chart:2")

    lab.run(look)
    saved = lab.save("chart:2")
    second = Lab(tmp_path / "2")
    second.root.mkdir()
    assert second.load(saved, 1 << 16) == [ident]
    assert second.save("chart:2") == saved

    async def remove(service: ImageService) -> None:
        await service.remove(ident, force=True)

    lab.run(remove)
    assert lab.files() == set()


def test_an_artifact_and_an_image_may_share_a_blob(lab: Lab) -> None:
    layer = tar_of(member("x", b"shared"))
    image = Archived([layer])
    manifest, blobs = artifact("application/vnd.example", ("application/x-tar", layer))
    with tarfile.open(fileobj=io.BytesIO(oci_layout(image))) as tar:
        file = tar.extractfile("index.json")
        assert file is not None
        entries = json.load(file)["manifests"]
        more = [tar.extractfile(n).read() for n in tar.getnames() if n.startswith("blobs/")]  # type: ignore[union-attr]
    entries.append(descriptor(OCI_MANIFEST, manifest))
    assert lab.load(layout_of(entries, [*more, manifest, *blobs])) == [image.id, digest(manifest)]
    assert digest(layer)[7:].encode() in lab.save(digest(manifest))


def test_an_artifact_without_its_contents(lab: Lab) -> None:
    manifest, blobs = artifact("application/vnd.example", ("text/plain", b"not there"))
    data = layout_of([descriptor(OCI_MANIFEST, manifest)], [manifest, *blobs[:-1]])
    lab.load(docker_archive(Archived([BASE], ["kept:1"])))
    with unchanged(lab), pytest.raises(EngineError, match="which is not in it"):
        lab.load(data)


def sha512(media_type: str, data: bytes) -> dict[str, Any]:
    return descriptor(media_type, data) | {"digest": "sha512:" + hashlib.sha512(data).hexdigest()}


@pytest.mark.parametrize("how", [bytes, gzip.compress])
def test_digests_may_be_sha512(lab: Lab, how: Any, tmp_path: Path) -> None:
    layer = tar_of(member("x", b"long digest"))
    image = Archived([how(layer)], plain_layers=[layer])
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": sha512("application/vnd.oci.image.config.v1+json", image.config_data),
            "layers": [sha512("application/vnd.oci.image.layer.v1.tar", image.layers[0])],
        }
    ).encode()
    thing = json.dumps(
        {
            "schemaVersion": 2,
            "artifactType": "application/vnd.example",
            "config": sha512("application/vnd.oci.empty.v1+json", b"{}"),
            "layers": [sha512("application/x-tar", image.layers[0])],
        }
    ).encode()
    entries = [sha512(OCI_MANIFEST, manifest), sha512(OCI_MANIFEST, thing)]
    blobs = [manifest, thing, image.config_data, image.layers[0], b"{}"]
    data = layout_of(entries, blobs, "sha512")
    assert lab.load(data) == [image.id, digest(thing)]
    with unchanged(lab), pytest.raises(InvalidParameter, match="does not match its digest"):
        lab.load(data.replace(b'{"architecture', b'{"Architecture'))
    second = Lab(tmp_path / "2")
    second.root.mkdir()
    assert second.load(lab.save(image.id, digest(thing))) == [image.id, digest(thing)]
    found: list[dict[str, Any]] = []

    async def check(service: ImageService) -> None:
        await service.check(found.append)

    lab.run(check)
    sums = next(message["aux"] for message in found if "aux" in message)
    assert sums["Checked"]["Blobs"] > 3


@pytest.mark.parametrize("digest", ["sha256:../../x", "md5:1", ""])
def test_a_digest_that_cannot_be_checked_is_refused(lab: Lab, digest: str) -> None:
    entry = descriptor(OCI_MANIFEST, b"{}") | {"digest": digest}
    lab.load(docker_archive(Archived([BASE], ["kept:1"])))
    with unchanged(lab), pytest.raises(InvalidParameter, match="unsupported digest"):
        lab.load(layout_of([entry], [b"{}"]))


def test_a_foreign_layer_that_is_not_there_is_explained(lab: Lab) -> None:
    layer = tar_of(member("x", b"foreign"))
    image = Archived([layer])
    foreign = descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar", layer)
    foreign["urls"] = ["https://example.org/layer"]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": descriptor("application/vnd.oci.image.config.v1+json", image.config_data),
            "layers": [foreign],
        }
    ).encode()
    entries = [descriptor(OCI_MANIFEST, manifest)]
    lab.load(docker_archive(Archived([BASE], ["kept:1"])))
    with (
        unchanged(lab),
        pytest.raises(InvalidParameter, match=r"fetched from https://example\.org"),
    ):
        lab.load(layout_of(entries, [manifest, image.config_data]))
    assert lab.load(layout_of(entries, [manifest, image.config_data, layer])) == [image.id]


def test_an_empty_layer_is_a_layer(lab: Lab) -> None:
    image = Archived([BASE, tar_of(), tar_of()], ["empty:1"])
    assert lab.load(docker_archive(image)) == [image.id]
    second = lab.save("empty:1")
    assert second.count(digest(tar_of())[7:].encode()) >= 1


def test_an_old_data_root_opens(lab: Lab) -> None:
    """One from before names could mean several platforms."""
    lab.load(docker_archive(Archived([BASE], ["old:1"])))
    now, old = lab.root / "teu.db", lab.root / "old.db"
    with contextlib.closing(sqlite3.connect(old)) as db:
        db.executescript(MIGRATIONS[0])
        db.executescript(
            f"""
            CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT);
            INSERT INTO meta VALUES ('schema', '1');
            ATTACH '{now}' AS now;
            INSERT INTO image SELECT * FROM now.image;
            INSERT INTO layer SELECT * FROM now.layer;
            INSERT INTO blob_use SELECT * FROM now.blob_use;
            INSERT INTO reference SELECT name, image_id FROM now.reference;
            """
        )
    old.replace(now)

    async def look(service: ImageService) -> None:
        assert service.resolve("old:1").repo_tags == ["old:1"]

    lab.run(look)
