"""What a registry keeps: garbage collection, retention, kill -9, other registries' content."""

import asyncio
import json
import os
import random
import threading
from pathlib import Path

import pytest

from harness.hub import MANIFEST, Hub, Peer, image, path_of, serving, sha256
from teu.distribution.collect import KEEP_ALL, Collected, Retention, collect
from teu.distribution.registry import Registry


def collected(root: Path, retention: Retention = KEEP_ALL, grace_s: float = 0) -> Collected:
    """A run over a registry that nobody serves."""
    registry = Registry(root)
    try:
        return asyncio.run(collect(registry, retention, grace_s))
    finally:
        registry.close()


class TestCollection:
    def test_what_no_tag_leads_to_goes(self, tmp_path: Path) -> None:
        with serving(tmp_path / "root") as hub:
            kept = hub.push_image("app", "1", b"kept layer")
            gone = hub.push_image("app", "2", b"gone layer")
            signature = image(
                (hub.push_blob("app", b"{}"), 2),
                subject={"mediaType": MANIFEST, "digest": gone, "size": 1},
            )
            hub.put_manifest("app", sha256(signature), signature)
            hub.push_blob("empty", b"never referred to")
            hub.ask("DELETE", "/v2/app/manifests/2")
            hub.stop()
        done = collected(tmp_path / "root")
        assert (done.manifests, done.freed_bytes > 0) == (2, True)
        with serving(tmp_path / "root") as hub:
            assert hub.ask("GET", f"/v2/app/manifests/{kept}").status == 200
            assert hub.ask("GET", f"/v2/app/blobs/{sha256(b'kept layer')}").body == b"kept layer"
            assert sha256(b"gone layer") not in hub.files()
            assert sha256(signature) not in hub.files()
            assert hub.ask("GET", "/v2/_catalog").json == {"repositories": ["app"]}

    def test_an_index_keeps_what_it_lists(self, tmp_path: Path) -> None:
        with serving(tmp_path / "root") as hub:
            child = hub.push_image("app", "amd64")
            entry = {"mediaType": MANIFEST, "digest": child, "size": 1}
            index = {"schemaVersion": 2, "manifests": [entry]}
            kind = "application/vnd.oci.image.index.v1+json"
            hub.put_manifest("app", "latest", json.dumps(index).encode(), kind)
            hub.ask("DELETE", "/v2/app/manifests/amd64")
            hub.stop()
        assert collected(tmp_path / "root").manifests == 0
        with serving(tmp_path / "root") as hub:
            assert hub.ask("GET", f"/v2/app/manifests/{child}").status == 200
            hub.ask("DELETE", "/v2/app/manifests/latest")
            hub.stop()
        assert collected(tmp_path / "root").manifests == 2

    def test_a_push_under_way_loses_nothing(self, tmp_path: Path) -> None:
        with serving(tmp_path / "root", collect_every=0.01) as hub:
            for number in range(20):
                hub.push_image("app", f"v{number}", os.urandom(1000))
            for number in range(20):
                row = hub.ask("GET", f"/v2/app/manifests/v{number}").json
                for part in (row["config"], *row["layers"]):
                    got = hub.ask("GET", f"/v2/app/blobs/{part['digest']}")
                    assert sha256(got.body) == part["digest"]

    def test_uploads_expire(self, tmp_path: Path) -> None:
        registry = Registry(tmp_path / "root")
        upload = registry.uploads.begin("app")
        upload.write(b"x")
        assert registry.uploads.expire(60) == 0
        assert registry.uploads.expire(-1) == 1
        assert list((tmp_path / "root/uploads").iterdir()) == []
        registry.close()

    @pytest.mark.parametrize(
        ("retention", "left"),
        [
            (Retention(), ["a", "b", "c", "v1"]),
            (Retention(keep_last=2), ["c", "v1"]),
            (Retention(keep_last=1, keep_matching=("v*", "a")), ["a", "v1"]),
            (Retention(keep_days=1), ["c", "v1"]),
            (Retention(keep_last=1, keep_days=3), ["b", "c", "v1"]),
        ],
    )
    def test_retention(self, retention: Retention, left: list[str]) -> None:
        day = 86400 * 10**9
        now = 100 * day
        ages = {"a": 5.0, "b": 2.0, "c": 0.5, "v1": 0.1}
        tags = [(name, "", now - int(age * day)) for name, age in ages.items()]
        gone = retention.expired(tags, now)
        assert sorted(set(ages) - set(gone)) == left


class TestKilled:
    def test_at_any_moment_of_pushes(self, tmp_path: Path) -> None:
        """What was acknowledged is there and whole; what is served is whole."""
        choose = random.Random(7)
        acknowledged: dict[str, str] = {}
        hub = Hub(tmp_path / "root")
        try:
            for life in range(6):
                pushers = [
                    threading.Thread(
                        target=_push_until_cut, args=(hub, f"{life}-{n}", acknowledged)
                    )
                    for n in range(4)
                ]
                for pusher in pushers:
                    pusher.start()
                threading.Event().wait(choose.uniform(0.05, 0.4))
                hub.kill()
                for pusher in pushers:
                    pusher.join()
                hub.start()
                _verify(hub, acknowledged)
            assert len(acknowledged) > 10
        finally:
            hub.kill()
        collected(tmp_path / "root")
        left = set((tmp_path / "root/ingest").iterdir())
        assert left == set()

    def test_an_upload_goes_on_after_it(self, tmp_path: Path) -> None:
        data = os.urandom(300_000)
        with serving(tmp_path / "root") as hub:
            place = path_of(hub.ask("POST", "/v2/app/blobs/uploads/").headers["location"])
            hub.ask("PATCH", place, data[:200_000])
            hub.kill()
            hub.start()
            assert hub.ask("GET", place).headers["range"] == "0-199999"
            done = hub.ask("PUT", f"{place}?digest={sha256(data)}", data[200_000:])
            assert done.status == 201
            assert hub.ask("GET", f"/v2/app/blobs/{sha256(data)}").body == data


def _push_until_cut(hub: Hub, prefix: str, acknowledged: dict[str, str]) -> None:
    peer = Peer(hub.address)
    number = 0
    try:
        while True:
            tag = f"{prefix}-{number}"
            acknowledged[tag] = peer.push_image("app", tag, os.urandom(20_000))
            number += 1
    except (OSError, AssertionError, ValueError):
        pass  # the server is gone


def _verify(hub: Hub, acknowledged: dict[str, str]) -> None:
    tags = hub.ask("GET", "/v2/app/tags/list").json.get("tags", [])
    assert set(acknowledged) <= set(tags)
    for tag in tags:
        manifest = hub.ask("GET", f"/v2/app/manifests/{tag}")
        assert sha256(manifest.body) == acknowledged.get(tag, sha256(manifest.body))
        for part in (manifest.json["config"], *manifest.json["layers"]):
            got = hub.ask("GET", f"/v2/app/blobs/{part['digest']}")
            assert sha256(got.body) == part["digest"]


class TestPullThrough:
    def test_fetched_once_and_kept(self, tmp_path: Path) -> None:
        with serving(tmp_path / "origin") as origin:
            digest = origin.push_image("team/app", "1", b"far layer")
            options = {"proxy": origin.address, "insecure_proxy": True}
            with serving(tmp_path / "cache", **options) as cache:
                got = cache.ask("GET", "/v2/team/app/manifests/1")
                assert (got.status, got.headers["docker-content-digest"]) == (200, digest)
                origin.kill()
                assert cache.ask("GET", "/v2/team/app/manifests/1").status == 200
                layer = cache.ask("GET", f"/v2/team/app/blobs/{sha256(b'far layer')}")
                assert layer.body == b"far layer"
                missing = cache.ask("GET", "/v2/team/app/manifests/2")
                assert (missing.status, missing.code) == (503, "UNAVAILABLE")

    def test_what_is_nowhere(self, tmp_path: Path) -> None:
        with serving(tmp_path / "origin") as origin:
            options = {"proxy": origin.address, "insecure_proxy": True}
            with serving(tmp_path / "cache", **options) as cache:
                assert cache.ask("GET", "/v2/no/app/manifests/1").status == 404
