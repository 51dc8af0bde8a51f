"""Loading, listing, naming, removing and saving images on a real store."""

import asyncio
import bz2
import gzip
import io
import json
import lzma
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from harness.imagelab import (
    Archived,
    Lab,
    chunks,
    digest,
    directory,
    docker_archive,
    member,
    oci_layout,
    symlink,
    tar_of,
    unchanged,
)
from teu.errors import Conflict, DataLoss, EngineError, InvalidParameter, NotFound
from teu.image.service import ImageService
from teu.model.config import ContainerConfig

BASE = tar_of(directory("bin"), member("bin/sh", b"#!shell", mode=0o755))
TOP = tar_of(directory("etc"), member("etc/conf", b"x=1\n"))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def app(*tags: str, **config: Any) -> Archived:
    return Archived([BASE, TOP], list(tags), config)


def compressed(data: bytes, how: str) -> bytes:
    pack = {
        "plain": bytes,
        "gzip": gzip.compress,
        "zstd": zstandard.compress,
        "xz": lzma.compress,
        "bzip2": bz2.compress,
    }
    return pack[how](data)


# --- load ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd", "xz", "bzip2"])
def test_load_docker_archive(lab: Lab, how: str) -> None:
    image = app("app:1", "app:2", Env=["A=1"])
    assert lab.load(compressed(docker_archive(image), how)) == [image.id]
    assert "Loaded image: app:1\nLoaded image: app:2\n" in lab.text
    layers = {message["id"] for message in lab.messages if "progressDetail" in message}
    assert layers == {digest(layer)[7:19] for layer in image.layers}

    async def look(service: ImageService) -> None:
        for ref in ("app:1", "app:2", image.id, image.id[7:], image.id[7:19], image.id[:20]):
            assert service.resolve(ref).id == image.id
        found = service.resolve("app:1")
        assert found.config.config.env == ["A=1"]
        assert found.repo_tags == ["app:1", "app:2"]
        assert found.size_bytes == len(b"#!shell") + len(b"x=1\n")
        top, base = service.layer_directories(found.chain_ids)
        assert (top / "etc/conf").read_bytes() == b"x=1\n"
        assert (base / "bin/sh").read_bytes() == b"#!shell"

    lab.run(look)  # a second daemon's life: everything was kept


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd"])
def test_load_oci_layout(lab: Lab, how: str) -> None:
    layers = [compressed(layer, how) for layer in (BASE, TOP)]
    image = Archived(layers, plain_layers=[BASE, TOP])
    lab.load(oci_layout(image, "docker.io/library/app:latest"))
    assert "Loaded image: app:latest" in lab.text

    async def look(service: ImageService) -> None:
        assert service.resolve("app").id == image.id

    lab.run(look)


def test_load_without_a_name(lab: Lab) -> None:
    image = app()
    lab.load(docker_archive(image))
    assert lab.text.endswith(f"Loaded image ID: {image.id}\n")


def test_load_takes_the_name_away(lab: Lab) -> None:
    old, new = app("app:1"), app("app:1", Env=["NEW=1"])
    lab.load(docker_archive(old))
    lab.load(docker_archive(new))
    renaming = f"The image app:1 already exists, renaming the old one with ID {old.id} to empty"
    assert renaming in lab.text

    async def look(service: ImageService) -> None:
        assert service.resolve("app:1").id == new.id
        assert service.get(old.id).repo_tags == []
        rows = {row["Id"]: row["RepoTags"] for row in service.list_images({})}
        assert rows == {old.id: [], new.id: ["app:1"]}

    lab.run(look)


def test_several_images_share_layers(lab: Lab) -> None:
    other = Archived([BASE], ["base:1"])
    moved = Archived([TOP, BASE], ["moved:1"])  # the same layers, stacked the other way round
    lab.load(docker_archive(app("app:1"), other, moved))
    lab.load(docker_archive(app("app:1"), other))

    async def look(service: ImageService) -> None:
        assert service.count() == 3
        base = service.resolve("base:1")
        top_to_base = service.layer_directories(service.resolve("app:1").chain_ids)
        assert service.layer_directories(base.chain_ids) == top_to_base[1:]
        shuffled = service.layer_directories(service.resolve("moved:1").chain_ids)
        assert (shuffled[0] / "bin/sh").read_bytes() == b"#!shell"
        assert len({*shuffled, *top_to_base}) == 4
        assert service.descends(service.resolve("app:1").id, "base:1")
        assert not service.descends(base.id, "app:1")
        [row] = service.list_images({"reference": ["base"]}, shared_size=True)
        assert row["SharedSize"] == row["Size"] == len(b"#!shell")

    lab.run(look)
    assert sum(name.startswith("layers/") for name in lab.files()) == 8  # tree and skeleton each


def test_links_between_layers_of_old_archives(lab: Lab) -> None:
    """Docker 1.10 to 24 wrote a repeated layer as a symlink."""
    image = Archived([BASE, BASE], ["twice:1"])
    config = f"{image.id[7:]}.json"
    manifest = [
        {"Config": config, "RepoTags": image.tags, "Layers": ["a/layer.tar", "b/layer.tar"]}
    ]
    data = tar_of(
        directory("a"),
        member("a/VERSION", b"1.0"),
        member("a/json", b"{}"),
        member("a/layer.tar", BASE),
        directory("b"),
        symlink("b/layer.tar", "../a/layer.tar"),
        member(config, image.config_data),
        member("manifest.json", json.dumps(manifest).encode()),
        member("repositories", b"{}"),
    )
    assert lab.load(data) == [image.id]


def _without(data: bytes, name: str) -> bytes:
    out = []
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            if info.name != name:
                file = tar.extractfile(info)
                out.append((info, file.read() if file else b""))
    return tar_of(*out)


def _bad_archives() -> dict[str, tuple[bytes, str]]:
    good = docker_archive(app("app:1"))
    layer = f"{digest(TOP)[7:]}/layer.tar"
    config = f"{app().id[7:]}.json"
    other = Archived([BASE, TOP], ["app:1"], plain_layers=[BASE, BASE])
    oci = oci_layout(app(), "app")
    hostile = Archived([tar_of(member("../../escaped", b"x"))], ["bad:1"])
    damaged = Archived([gzip.compress(TOP)[:-9]], ["bad:1"], plain_layers=[TOP])
    return {
        "empty": (b"", "neither manifest.json nor index.json"),
        "text": (b"this is not an archive at all\n" * 100, "invalid tar header"),
        "cut off": (good[: len(good) // 2], "unexpected EOF"),
        "cut off in gzip": (gzip.compress(good)[:-20], "unexpected EOF"),
        "damaged gzip": (
            gzip.compress(good)[:200] + b"\0" * 500,
            "gzip data is damaged|invalid tar header",
        ),
        "a root file system": (BASE, "a root file system becomes an image with `teu import`"),
        "no layer": (_without(good, layer), "names layer"),
        "no config": (_without(good, config), "which is not in it"),
        "other layer": (docker_archive(other), "does not match its digest"),
        "lying blob name": (oci.replace(b"#!shell", b"#!SHELL"), "does not match its digest"),
        "hostile layer": (docker_archive(hostile), "outside of the archive's root"),
        "damaged layer": (docker_archive(damaged), "unexpected EOF"),
        "bad manifest": (tar_of(member("manifest.json", b"{]")), "cannot be read"),
        "bad tag": (docker_archive(app("App:1")), "must be lowercase"),
    }


BAD_ARCHIVES = _bad_archives()


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_bad_archives_leave_nothing(lab: Lab, case: str) -> None:
    data, message = BAD_ARCHIVES[case]
    lab.load(docker_archive(Archived([BASE], ["kept:1"])))
    lab.messages.clear()
    with unchanged(lab), pytest.raises(EngineError, match=message):
        lab.load(data)
    assert "Loaded" not in lab.text


def test_an_upload_that_breaks_off_leaves_nothing(lab: Lab) -> None:
    data = docker_archive(app("app:1"))

    async def broken() -> AsyncIterator[bytes]:
        yield data[:4000]
        raise ConnectionResetError("gone")

    async def work(service: ImageService) -> None:
        with pytest.raises(EngineError, match="the upload broke off: gone"):
            await service.load(broken(), lab.messages.append)

    with unchanged(lab):
        lab.run(work)


def test_a_cancelled_load_leaves_nothing(lab: Lab) -> None:
    data = docker_archive(app("app:1"))
    started = asyncio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        yield data[:4000]
        started.set()
        await asyncio.Event().wait()

    async def work(service: ImageService) -> None:
        task = asyncio.create_task(service.load(hanging(), lab.messages.append))
        async with asyncio.timeout(10):
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with unchanged(lab):
        lab.run(work)


def test_what_a_crash_left_goes_at_the_next_start(lab: Lab) -> None:
    lab.load(docker_archive(Archived([BASE], ["kept:1"])))
    before = lab.files()
    for name in ("77.partial", "78", "78.orphans"):
        (lab.root / "layers" / name / "inner").mkdir(parents=True)
    (lab.root / "layers/78.skeleton").touch()
    (lab.root / "content/ingest/half").write_bytes(b"x")
    (lab.root / "content/blobs/sha256/.tmp").write_bytes(b"x")

    async def look(service: ImageService) -> None:
        assert service.resolve("kept:1")

    lab.run(look)
    assert lab.files() == before


# --- names and removal -----------------------------------------------------------------------


def test_unknown_images(lab: Lab) -> None:
    image = app("app:1")
    lab.load(docker_archive(image))

    async def work(service: ImageService) -> None:
        for ref, message in [
            ("app", "No such image: app:latest"),
            ("app:2", "No such image: app:2"),
            ("host:5000/x/y", "No such image: host:5000/x/y:latest"),
            ("f" * 64, "No such image: " + "f" * 64),
            ("app@sha256:" + "0" * 64, "No such image: app@sha256:" + "0" * 64),
        ]:
            with pytest.raises(NotFound) as caught:
                service.resolve(ref)
            assert str(caught.value) == message
        with pytest.raises(InvalidParameter, match="must be lowercase"):
            service.resolve("App")
        with pytest.raises(NotFound, match=r"platform \(linux/amd64\) does not match"):
            service.resolve("app:1", "linux/arm64")
        assert service.is_name_of("app:1", image.id)
        assert not service.is_name_of("App", image.id)

    lab.run(work)


def test_tag_and_untag(lab: Lab) -> None:
    image = app("app:1")
    lab.load(docker_archive(image))

    async def work(service: ImageService) -> None:
        service.tag("app:1", "host:5000/other")
        assert service.get(image.id).repo_tags == ["app:1", "host:5000/other:latest"]
        with pytest.raises(InvalidParameter, match="digest reference"):
            service.tag("app:1", f"x@{image.id}")
        with pytest.raises(Conflict) as caught:
            await service.remove(image.id)
        assert str(caught.value) == (
            f"conflict: unable to delete {image.id[7:19]} (must be forced) - "
            "image is referenced in multiple repositories"
        )
        assert await service.remove("app:1") == [{"Untagged": "app:1"}]
        chain = service.get(image.id).chain_ids
        assert await service.remove("host:5000/other") == [
            {"Untagged": "host:5000/other:latest"},
            {"Deleted": image.id},
            {"Deleted": chain[1]},
            {"Deleted": chain[0]},
        ]
        with pytest.raises(NotFound):
            service.get(image.id)

    lab.run(work)
    assert lab.files() == set()


def test_removal_keeps_what_others_need(lab: Lab) -> None:
    base, image = Archived([BASE], ["base:1"]), app("app:1")
    lab.load(docker_archive(base, image))

    async def work(service: ImageService) -> None:
        records = await service.remove(image.id[7:19])
        assert [next(iter(record)) for record in records] == ["Untagged", "Deleted", "Deleted"]
        assert service.layer_directories(service.resolve("base:1").chain_ids)[0].is_dir()

    lab.run(work)


def test_conflicts_with_containers(lab: Lab) -> None:
    image = app("app:1")
    lab.load(docker_archive(image))
    short = image.id[7:19]
    container = "c" * 64

    async def work(service: ImageService) -> None:
        lab.users.containers = {image.id: [(container, False)]}
        lab.users.layers = service.get(image.id).chain_ids
        for ref, message in [
            (
                "app:1",
                f'conflict: unable to remove repository reference "app:1" (must force) - '
                f"container {'c' * 12} is using its referenced image {short}",
            ),
            (
                image.id,
                f"conflict: unable to delete {short} (must be forced) - "
                f"image is being used by stopped container {'c' * 12}",
            ),
        ]:
            with pytest.raises(Conflict) as caught:
                await service.remove(ref)
            assert str(caught.value) == message
        lab.users.containers = {image.id: [(container, True)]}
        with pytest.raises(Conflict) as caught:
            await service.remove(image.id, force=True)
        assert str(caught.value) == (
            f"conflict: unable to delete {short} (cannot be forced) - "
            f"image is being used by running container {'c' * 12}"
        )
        # By name, force takes the name away; the running container keeps the image.
        assert await service.remove("app:1", force=True) == [{"Untagged": "app:1"}]
        lab.users.containers = {image.id: [(container, False)]}
        directories = service.layer_directories(service.get(image.id).chain_ids)
        assert await service.remove(image.id, force=True) == [{"Deleted": image.id}]
        # The image is gone, its layers are the container's still.
        assert service.layer_directories(lab.users.layers) == directories
        lab.users.containers, lab.users.layers = {}, []
        assert service.collect() > 0

    lab.run(work)
    assert lab.files() == set()


def test_prune(lab: Lab) -> None:
    tagged, dangling = app("app:1"), Archived([BASE], config={"Labels": {"keep": "yes"}})
    used = Archived([TOP])
    lab.load(docker_archive(tagged, dangling, used))
    lab.users.containers = {used.id: [("c" * 64, False)]}

    async def work(service: ImageService) -> None:
        assert await service.prune({"label!": ["keep"]}) == ([], 0)
        assert await service.prune({"until": ["2020-01-01"]}) == ([], 0)
        records, freed = await service.prune({})
        assert records == [{"Deleted": dangling.id}]
        assert freed == len(dangling.config_data)  # its layer is the tagged image's too
        records, freed = await service.prune({"dangling": ["false"]})
        assert records[:2] == [{"Untagged": "app:1"}, {"Deleted": tagged.id}]
        assert freed > len(b"#!shell")
        assert [row["Id"] for row in service.list_images({})] == [used.id]
        with pytest.raises(InvalidParameter, match="invalid filter 'nope'"):
            await service.prune({"nope": ["1"]})

    lab.run(work)


def test_list_filters(lab: Lab) -> None:
    one = Archived([BASE], ["one:1", "host/x/one:2"], {"Labels": {"a": "b"}})
    two, dangling = Archived([TOP], ["two:1"]), Archived([BASE, BASE])
    lab.load(docker_archive(one, two, dangling))

    async def work(service: ImageService) -> None:
        def ids(**filters: list[str]) -> set[str]:
            return {row["Id"] for row in service.list_images(filters)}

        everything = {one.id, two.id, dangling.id}
        assert ids() == everything
        assert ids(dangling=["true"]) == {dangling.id}
        assert ids(dangling=["0"]) == {one.id, two.id}
        assert ids(label=["a"]) == ids(label=["a=b"]) == {one.id}
        assert ids(label=["a=c"]) == set()
        assert ids(reference=["one"]) == ids(reference=["o*"]) == {one.id}
        assert ids(reference=["*:1"]) == {one.id, two.id}
        assert ids(reference=["host/*/one"]) == {one.id}
        assert ids(reference=["*"]) == {one.id, two.id}  # a star stops at a slash
        assert ids(before=["one:1"]) == ids(since=["one:1"]) == set()
        assert ids(until=["1h"]) == everything
        [row] = service.list_images({"reference": ["one:1"]})
        assert row["RepoTags"] == ["one:1"]
        for filters, said in (
            ({"x": ["1"]}, "invalid filter 'x'"),
            ({"dangling": ["maybe"]}, "invalid filter 'dangling=[maybe]'"),
            ({"dangling": ["true", "false"]}, "invalid filter 'dangling=[true false]'"),
            ({"until": ["soon"]}, 'failed to parse value as time or duration: "soon"'),
        ):
            with pytest.raises(InvalidParameter) as caught:
                service.list_images(filters)
            assert str(caught.value) == said

    lab.run(work)


def test_inspect_and_history(lab: Lab) -> None:
    image = app("app:1", Labels={"k": "v"}, ExposedPorts={"80/tcp": {}})
    lab.load(docker_archive(image))

    async def work(service: ImageService) -> None:
        shown = service.inspect("app:1")
        assert shown["Id"] == image.id
        assert shown["RepoTags"] == ["app:1"]
        assert shown["Created"] == "2024-01-02T03:04:05.678901234Z"
        assert shown["Config"]["Labels"] == {"k": "v"}
        assert shown["Config"]["Cmd"] == ["sh"]
        assert "Healthcheck" not in shown["Config"]
        assert shown["RootFS"] == {"Type": "layers", "Layers": [digest(BASE), digest(TOP)]}
        assert Path(shown["GraphDriver"]["Data"]["UpperDir"], "etc/conf").is_file()
        steps = service.history("app:1")
        assert [step["CreatedBy"] for step in steps] == ["step 1", "step 0"]
        assert [step["Size"] for step in steps] == [len(b"x=1\n"), len(b"#!shell")]
        assert [step["Id"] for step in steps] == [image.id, "<missing>"]
        assert steps[0]["Tags"] == ["app:1"]

    lab.run(work)


# --- made here -------------------------------------------------------------------------------


def test_import(lab: Lab) -> None:
    async def work(service: ImageService) -> str:
        image = await service.import_image(
            chunks(gzip.compress(BASE)),
            name="mine",
            changes=["CMD sleep 1", "ENV A=b"],
            message="from a test",
            platform="linux/arm64",
        )
        assert image.repo_tags == ["mine:latest"]
        assert image.config.config.cmd == ["/bin/sh", "-c", "sleep 1"]
        assert str(image.config.platform) == "linux/arm64"
        assert image.config.rootfs.diff_ids == [digest(BASE)]
        assert service.history("mine")[0]["Comment"] == "from a test"
        for bad in ({"changes": ["RUN x"]}, {"name": "Bad"}, {"platform": "a/b/c/d"}):
            with pytest.raises(InvalidParameter):
                await service.import_image(chunks(BASE), **bad)
        with pytest.raises(InvalidParameter, match="invalid tar header"):
            await service.import_image(chunks(b"nonsense" * 200))
        return image.id

    image_id = lab.run(work)
    kept = lab.files()

    async def remove(service: ImageService) -> None:
        await service.remove(image_id)

    assert len(kept) == 3  # tree, skeleton, config
    lab.run(remove)
    assert lab.files() == set()


def test_commit(lab: Lab, tmp_path: Path) -> None:
    base = Archived([BASE], ["base:1"], {"Env": ["A=1"]})
    lab.load(docker_archive(base))
    upper = tmp_path / "upper"
    (upper / "srv").mkdir(parents=True)
    (upper / "srv/file").write_bytes(b"new")
    (upper / "etc").mkdir()
    (upper / "etc/hosts").touch()  # a mount point of the runtime's
    (upper / "proc").mkdir()

    async def work(service: ImageService) -> None:
        image = await service.commit(
            upper,
            parent_id=base.id,
            config=ContainerConfig(cmd=["run", "it"], env=["A=1", "B=2"]),
            container_id="c" * 64,
            name="mine:1",
            author="Me",
            comment="done",
            changes=["LABEL x=y"],
        )
        assert image.config.rootfs.diff_ids[0] == digest(BASE)
        assert image.record.parent_id == base.id
        assert image.config.config.env == ["A=1", "B=2"]
        assert image.config.config.labels == {"x": "y"}
        assert (image.config.author, image.config.comment) == ("Me", "done")
        assert service.history("mine:1")[0]["CreatedBy"] == "run it"
        top = service.layer_directories(image.chain_ids)[0]
        assert sorted(str(p.relative_to(top)) for p in top.rglob("*")) == ["etc", "srv", "srv/file"]
        with pytest.raises(Conflict, match="image has dependent child images"):
            await service.remove(base.id, force=True)
        (tmp_path / "empty").mkdir()
        same = await service.commit(
            tmp_path / "empty", parent_id=image.id, config=ContainerConfig(), name="same"
        )
        assert same.chain_ids == image.chain_ids
        assert same.config.history[-1].empty_layer
        await service.remove("same")
        await service.remove("mine:1")
        assert [row["RepoTags"] for row in service.list_images({})] == [["base:1"]]

    lab.run(work)


def saved(lab: Lab, *refs: str) -> bytes:
    async def work(service: ImageService) -> bytes:
        return b"".join([piece async for piece in service.save(refs)])

    return lab.run(work)


def test_save_is_both_kinds_of_archive(lab: Lab, tmp_path: Path) -> None:
    image = app("app:1", "app:2", "other:1")
    lab.load(docker_archive(image))
    data = saved(lab, "app", image.id)
    (tmp_path / "saved.tar").write_bytes(data)
    with tarfile.open(tmp_path / "saved.tar") as tar:
        names = tar.getnames()
        file = tar.extractfile("manifest.json")
        assert file is not None
        [manifest] = json.load(file)
    assert {"index.json", "oci-layout", "repositories", f"blobs/sha256/{digest(TOP)[7:]}"} < {
        *names
    }
    assert manifest["RepoTags"] == ["app:1", "app:2"]
    for source in ("docker-archive:{}:app:1", "oci-archive:{}:2"):
        command = ["skopeo", "inspect", "--config", source.format(tmp_path / "saved.tar")]
        out = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(out.stdout)["config"]["Cmd"] == ["sh"]

    second = Lab(tmp_path / "second")
    second.root.mkdir()
    assert second.load(data) == [image.id]
    assert second.load(_without(data, "manifest.json")) == [image.id]
    assert saved(second, "app") == saved(second, "app")


def test_save_finds_damage(lab: Lab) -> None:
    lab.load(docker_archive(app("app:1")))
    [path] = lab.root.glob("layers/*/etc/conf")
    path.write_bytes(b"y=2\n")
    with pytest.raises(DataLoss, match="changed or damaged"):
        saved(lab, "app:1")
    with pytest.raises(NotFound, match="No such image: nope:latest"):
        saved(lab, "nope")


def test_a_reader_that_goes_away_stops_the_save(lab: Lab) -> None:
    big = tar_of(member("big", bytes(20_000_000)))
    lab.load(docker_archive(Archived([big], ["big:1"])), 1 << 20)

    async def work(service: ImageService) -> None:
        pieces = service.save(["big:1"])
        async for piece in pieces:
            assert piece
            break
        await pieces.aclose()

    lab.run(work)  # closing would hang on a thread that still writes


def test_a_lost_layer_and_a_lost_config_are_reported(lab: Lab) -> None:
    image, other = app("app:1"), Archived([BASE], ["other:1"])
    lab.load(docker_archive(image, other))
    [path] = lab.root.glob("layers/*/etc/conf")
    subprocess.run(["rm", "-r", path.parent.parent], check=True)
    (lab.root / "content/blobs/sha256" / other.id[7:]).unlink()

    async def work(service: ImageService) -> None:
        with pytest.raises(DataLoss, match="missing from the store: pull or load its image again"):
            service.layer_directories(service.resolve("app:1").chain_ids)
        with pytest.raises(DataLoss, match="damaged"):
            service.resolve("other:1")
        # Loading again repairs both.
        await service.load(chunks(docker_archive(image, other)), lab.messages.append)
        assert len(service.layer_directories(service.resolve("app:1").chain_ids)) == 2
        assert service.resolve("other:1").id == other.id

    lab.run(work)


def test_a_damaged_image_can_be_removed(lab: Lab) -> None:
    image = app("app:1")
    lab.load(docker_archive(image))
    path = lab.root / "content/blobs/sha256" / image.id[7:]
    path.chmod(0o600)
    path.write_bytes(b"{}")

    async def work(service: ImageService) -> None:
        with pytest.raises(DataLoss):
            service.resolve("app:1")
        records = await service.remove("app:1")
        assert {"Deleted": image.id} in records

    lab.run(work)
    assert lab.files() == set()
