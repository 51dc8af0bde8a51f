"""The registry server against the distribution specification, request by request."""

import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.hub import INDEX, MANIFEST, Hub, image, path_of, serving, sha256
from harness.waiting import until

BLOB = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with serving(tmp_path_factory.mktemp("hub") / "root") as hub:
        yield hub


class TestBlobs:
    def test_pushed_in_one_request(self, hub: Hub) -> None:
        digest = sha256(BLOB)
        done = hub.ask("POST", f"/v2/one/request/blobs/uploads/?digest={digest}", BLOB)
        assert (done.status, done.headers["docker-content-digest"]) == (201, digest)
        got = hub.ask("GET", path_of(done.headers["location"]))
        assert (got.status, got.body) == (200, BLOB)
        assert got.headers["content-type"] == "application/octet-stream"
        assert got.headers["etag"] == f'"{digest}"'
        assert got.headers["docker-distribution-api-version"] == "registry/2.0"

    def test_pushed_in_chunks(self, hub: Hub) -> None:
        begun = hub.ask("POST", "/v2/chunks/blobs/uploads/")
        assert (begun.status, begun.headers["range"]) == (202, "0-0")
        place = path_of(begun.headers["location"])
        first = hub.ask("PATCH", place, BLOB[:1000], content_range="0-999")
        assert (first.status, first.headers["range"]) == (202, "0-999")
        again = hub.ask("PATCH", place, BLOB[:1000], content_range="0-999")
        assert (again.status, again.headers["range"], again.code) == (416, "0-999", "RANGE_INVALID")
        early = hub.ask("PATCH", place, BLOB[2000:], content_range=f"2000-{len(BLOB) - 1}")
        assert early.status == 416
        status = hub.ask("GET", place)
        assert (status.status, status.headers["range"]) == (204, "0-999")
        rest = hub.ask("PATCH", place, BLOB[1000:2000], content_range="1000-1999")
        assert rest.status == 202
        done = hub.ask("PUT", f"{place}?digest={sha256(BLOB)}", BLOB[2000:])
        assert done.status == 201
        assert hub.ask("GET", f"/v2/chunks/blobs/{sha256(BLOB)}").body == BLOB
        assert hub.ask("GET", place).code == "BLOB_UPLOAD_UNKNOWN"

    def test_wrong_content_leaves_nothing(self, hub: Hub) -> None:
        before = hub.files()
        place = path_of(hub.ask("POST", "/v2/wrong/blobs/uploads/").headers["location"])
        refused = hub.ask("PUT", f"{place}?digest={sha256(b'x')}", b"y")
        assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
        assert hub.ask("HEAD", f"/v2/wrong/blobs/{sha256(b'x')}").status == 404
        assert hub.files() == before

    def test_a_chunk_shorter_than_it_says(self, hub: Hub) -> None:
        place = path_of(hub.ask("POST", "/v2/short/blobs/uploads/").headers["location"])
        refused = hub.ask("PATCH", place, b"12345", content_range="0-9")
        assert (refused.status, refused.code) == (400, "SIZE_INVALID")
        assert hub.ask("GET", place).headers["range"] == "0-0"

    def test_cancelled(self, hub: Hub) -> None:
        place = path_of(hub.ask("POST", "/v2/cancel/blobs/uploads/").headers["location"])
        hub.ask("PATCH", place, b"some")
        assert hub.ask("DELETE", place).status == 204
        assert hub.ask("PATCH", place, b"more").code == "BLOB_UPLOAD_UNKNOWN"
        assert not (hub.root / "uploads" / place.rpartition("/")[2]).exists()

    def test_mounted(self, hub: Hub) -> None:
        digest = hub.push_blob("mount/source", b"mount me")
        done = hub.ask("POST", f"/v2/mount/target/blobs/uploads/?mount={digest}&from=mount/source")
        assert (done.status, done.headers["docker-content-digest"]) == (201, digest)
        assert hub.ask("GET", f"/v2/mount/target/blobs/{digest}").body == b"mount me"
        absent = sha256(b"absent")
        begun = hub.ask("POST", f"/v2/mount/target/blobs/uploads/?mount={absent}&from=mount/source")
        assert (begun.status, "location" in begun.headers) == (202, True)

    def test_only_its_repositories_serve_it(self, hub: Hub) -> None:
        digest = hub.push_blob("private/one", b"private")
        assert hub.ask("GET", f"/v2/private/other/blobs/{digest}").code == "BLOB_UNKNOWN"

    def test_sha512(self, hub: Hub) -> None:
        digest = f"sha512:{hashlib.sha512(BLOB).hexdigest()}"
        done = hub.ask("POST", f"/v2/long/blobs/uploads/?digest={digest}", BLOB)
        assert done.status == 201
        assert hub.ask("GET", f"/v2/long/blobs/{digest}").body == BLOB

    @pytest.mark.parametrize(
        ("asked", "expected", "range_"),
        [
            ("bytes=0-9", BLOB[:10], "bytes 0-9/10240"),
            ("bytes=10200-", BLOB[10200:], "bytes 10200-10239/10240"),
            ("bytes=-5", BLOB[-5:], "bytes 10235-10239/10240"),
            ("bytes=10000-99999", BLOB[10000:], "bytes 10000-10239/10240"),
            ("bytes=9-3", BLOB, None),
            ("lines=1-2", BLOB, None),
        ],
    )
    def test_ranges(self, hub: Hub, asked: str, expected: bytes, range_: str | None) -> None:
        digest = hub.push_blob("ranges", BLOB)
        got = hub.ask("GET", f"/v2/ranges/blobs/{digest}", range=asked)
        assert (got.status, got.body) == (206 if range_ else 200, expected)
        assert got.headers.get("content-range") == range_

    def test_a_range_behind_the_end(self, hub: Hub) -> None:
        digest = hub.push_blob("ranges", BLOB)
        got = hub.ask("GET", f"/v2/ranges/blobs/{digest}", range="bytes=10240-")
        assert (got.status, got.code) == (416, "RANGE_INVALID")

    def test_known_content_is_not_sent(self, hub: Hub) -> None:
        digest = hub.push_blob("known", BLOB)
        got = hub.ask("GET", f"/v2/known/blobs/{digest}", if_none_match=f'"{digest}"')
        assert (got.status, got.body) == (304, b"")

    def test_an_empty_blob(self, hub: Hub) -> None:
        digest = hub.push_blob("empty", b"")
        got = hub.ask("GET", f"/v2/empty/blobs/{digest}")
        assert (got.status, got.body, got.headers["content-length"]) == (200, b"", "0")

    def test_deleted(self, hub: Hub) -> None:
        digest = hub.push_blob("delete/blob", b"delete")
        assert hub.ask("DELETE", f"/v2/delete/blob/blobs/{digest}").status == 202
        assert hub.ask("DELETE", f"/v2/delete/blob/blobs/{digest}").code == "BLOB_UNKNOWN"

    def test_a_client_that_goes_away_can_go_on(self, hub: Hub) -> None:
        place = path_of(hub.ask("POST", "/v2/gone/blobs/uploads/").headers["location"])
        host, port = hub.address.split(":")
        with socket.create_connection((host, int(port))) as client:
            head = f"PATCH {place} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BLOB)}\r\n\r\n"
            client.sendall(head.encode() + BLOB[:5000])
        until("what came is kept", lambda: hub.ask("GET", place).headers["range"] == "0-4999")
        done = hub.ask("PUT", f"{place}?digest={sha256(BLOB)}", BLOB[5000:])
        assert done.status == 201


class TestManifests:
    def test_by_tag_and_digest(self, hub: Hub) -> None:
        digest = hub.push_image("app", "1")
        for reference in ("1", digest):
            got = hub.ask("GET", f"/v2/app/manifests/{reference}")
            assert (got.status, got.headers["content-type"]) == (200, MANIFEST)
            assert sha256(got.body) == digest == got.headers["docker-content-digest"]
            head = hub.ask("HEAD", f"/v2/app/manifests/{reference}")
            assert (head.status, head.body) == (200, b"")
            assert head.headers["content-length"] == str(len(got.body))

    def test_missing_blobs_are_named(self, hub: Hub) -> None:
        have = hub.push_blob("missing", b"{}")
        absent = [(sha256(b"a"), 1), (sha256(b"b"), 1)]
        refused = hub.put_manifest("missing", "1", image((have, 2), *absent))
        assert (refused.status, refused.code) == (400, "MANIFEST_BLOB_UNKNOWN")
        assert [error["detail"] for error in refused.json["errors"]] == [d for d, _ in absent]
        assert hub.ask("GET", "/v2/missing/manifests/1").code == "MANIFEST_UNKNOWN"

    def test_an_index_needs_its_manifests(self, hub: Hub) -> None:
        digest = hub.push_image("index", "amd64")
        entry = {"mediaType": MANIFEST, "digest": digest, "size": 1}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
        good = hub.put_manifest("index", "latest", json.dumps(index).encode(), INDEX)
        assert good.status == 201
        entry["digest"] = sha256(b"absent")
        bad = hub.put_manifest("index", "other", json.dumps(index).encode(), INDEX)
        assert bad.code == "MANIFEST_BLOB_UNKNOWN"

    def test_foreign_layers_stay_away(self, hub: Hub) -> None:
        config = hub.push_blob("foreign", b"{}")
        layer = {
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
            "digest": sha256(b"elsewhere"),
            "size": 9,
            "urls": ["https://example.com/layer"],
        }
        put = hub.put_manifest("foreign", "1", image((config, 2), layers=[layer]))
        assert put.status == 201

    @pytest.mark.parametrize(
        ("content", "media_type"),
        [
            (b"", MANIFEST),
            (b"not json", MANIFEST),
            (b"[]", MANIFEST),
            (b'{"schemaVersion": 1}', MANIFEST),
            (b'{"schemaVersion": 2}', MANIFEST),
            (b'{"schemaVersion": 2, "config": {"digest": 5}}', MANIFEST),
            (b'{"schemaVersion": 2, "manifests": []}', MANIFEST),
            (b'{"schemaVersion": 2, "config": {"digest": "sha256:00"}}', INDEX),
            (b'{"schemaVersion": 1}', "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        ],
    )
    def test_what_is_no_manifest(self, hub: Hub, content: bytes, media_type: str) -> None:
        refused = hub.put_manifest("bad", "1", content, media_type)
        assert (refused.status, refused.code) == (400, "MANIFEST_INVALID")

    def test_too_large(self, hub: Hub) -> None:
        refused = hub.put_manifest("large", "1", b" " * (5 << 20))
        assert (refused.status, refused.code) == (413, "MANIFEST_INVALID")

    def test_another_digest(self, hub: Hub) -> None:
        config = hub.push_blob("other", b"{}")
        refused = hub.put_manifest("other", sha256(b"else"), image((config, 2)))
        assert (refused.status, refused.code) == (400, "DIGEST_INVALID")

    def test_deleting_a_tag_keeps_the_manifest(self, hub: Hub) -> None:
        digest = hub.push_image("untag", "1")
        hub.push_image("untag", "2")
        assert hub.ask("DELETE", "/v2/untag/manifests/1").status == 202
        assert hub.ask("GET", "/v2/untag/manifests/1").status == 404
        assert hub.ask("GET", f"/v2/untag/manifests/{digest}").status == 200
        assert hub.ask("DELETE", f"/v2/untag/manifests/{digest}").status == 202
        assert hub.ask("DELETE", f"/v2/untag/manifests/{digest}").code == "MANIFEST_UNKNOWN"

    def test_deleting_a_manifest_takes_its_tags(self, hub: Hub) -> None:
        digest = hub.push_image("wipe", "1")
        assert hub.ask("DELETE", f"/v2/wipe/manifests/{digest}").status == 202
        assert hub.ask("GET", "/v2/wipe/tags/list").json == {"name": "wipe", "tags": []}


class TestReferrers:
    def test_listed_and_filtered(self, hub: Hub) -> None:
        subject = hub.push_image("signed", "1")
        about = {"subject": {"mediaType": MANIFEST, "digest": subject, "size": 1}}
        config = hub.push_blob("signed", b"{}")
        made = {}
        for kind in ("application/x.signature", "application/x.sbom"):
            content = image((config, 2), artifactType=kind, annotations={"kind": kind}, **about)
            put = hub.put_manifest("signed", sha256(content), content)
            assert put.headers["oci-subject"] == subject
            made[kind] = sha256(content)
        got = hub.ask("GET", f"/v2/signed/referrers/{subject}")
        assert (got.status, got.headers["content-type"]) == (200, INDEX)
        assert {m["artifactType"]: m["digest"] for m in got.json["manifests"]} == made
        kind = "application/x.sbom"
        got = hub.ask("GET", f"/v2/signed/referrers/{subject}?artifactType={kind}")
        assert got.headers["oci-filters-applied"] == "artifactType"
        assert [m["digest"] for m in got.json["manifests"]] == [made[kind]]
        assert got.json["manifests"][0]["annotations"] == {"kind": kind}

    def test_none(self, hub: Hub) -> None:
        got = hub.ask("GET", f"/v2/nobody/referrers/{sha256(b'x')}")
        assert (got.status, got.json["manifests"]) == (200, [])
        assert hub.ask("GET", "/v2/nobody/referrers/nodigest").code == "DIGEST_INVALID"

    def test_a_subject_that_comes_later(self, hub: Hub) -> None:
        config = hub.push_blob("later", b"{}")
        about = {"subject": {"mediaType": MANIFEST, "digest": sha256(b"later"), "size": 5}}
        assert hub.put_manifest("later", "early", image((config, 2), **about)).status == 201


class TestListings:
    def test_tags_in_pages(self, hub: Hub) -> None:
        for tag in ("a", "c", "b", "d"):
            hub.push_image("pages", tag)
        first = hub.ask("GET", "/v2/pages/tags/list?n=3")
        assert first.json["tags"] == ["a", "b", "c"]
        assert first.headers["link"] == '</v2/pages/tags/list?last=c&n=3>; rel="next"'
        second = hub.ask("GET", "/v2/pages/tags/list?last=c&n=3")
        assert (second.json["tags"], second.headers.get("link")) == (["d"], None)
        assert hub.ask("GET", "/v2/pages/tags/list?n=0").json["tags"] == []
        for bad in ("-1", "x", "1.5", "9" * 12):
            assert hub.ask("GET", f"/v2/pages/tags/list?n={bad}").status == 400

    def test_catalog_in_pages(self, tmp_path: Path) -> None:
        with serving(tmp_path / "root") as own:
            for name in ("b", "a/x", "c"):
                own.push_image(name, "1")
            first = own.ask("GET", "/v2/_catalog?n=2")
            assert first.json == {"repositories": ["a/x", "b"]}
            assert first.headers["link"] == '</v2/_catalog?last=b&n=2>; rel="next"'
            assert own.ask("GET", "/v2/_catalog?last=b&n=2").json == {"repositories": ["c"]}

    def test_an_unknown_repository(self, hub: Hub) -> None:
        assert hub.ask("GET", "/v2/never/tags/list").code == "NAME_UNKNOWN"


class TestBadInput:
    @pytest.mark.parametrize(
        "path",
        [
            "/v2/UPPER/manifests/1",
            "/v2/a//b/manifests/1",
            "/v2/../../etc/passwd/manifests/1",
            "/v2/%2e%2e/%2e%2e/manifests/1",
            "/v2/a%2F..%2Fb/manifests/1",
            "/v2/a%00b/manifests/1",
            "/v2/" + "a/" * 200 + "manifests/1",
            "/v2/-a/manifests/1",
            "/v2/a./manifests/1",
        ],
    )
    def test_names(self, hub: Hub, path: str) -> None:
        refused = hub.ask("GET", path)
        assert refused.status in (400, 404)
        assert refused.code in ("NAME_INVALID", "UNSUPPORTED")

    @pytest.mark.parametrize(
        "digest",
        ["sha256:short", "md5:" + "0" * 32, "sha256:" + "G" * 64, "sha256:../../x", "x", ""],
    )
    def test_digests(self, hub: Hub, digest: str) -> None:
        assert hub.ask("GET", f"/v2/a/blobs/{digest}").status in (400, 404)
        place = path_of(hub.ask("POST", "/v2/a/blobs/uploads/").headers["location"])
        assert hub.ask("PUT", f"{place}?digest={digest}").code == "DIGEST_INVALID"

    @pytest.mark.parametrize("content_range", ["x", "5", "5-2", "-1-5", "0-99999999999999999999"])
    def test_content_ranges(self, hub: Hub, content_range: str) -> None:
        place = path_of(hub.ask("POST", "/v2/a/blobs/uploads/").headers["location"])
        refused = hub.ask("PATCH", place, b"x", content_range=content_range)
        assert refused.code == "RANGE_INVALID"

    @pytest.mark.parametrize("name", ["none", "..", "%2e%2e%2fregistry.db", "a" * 5000])
    def test_upload_names(self, hub: Hub, name: str) -> None:
        refused = hub.ask("PATCH", f"/v2/a/blobs/uploads/{name}", b"x")
        assert refused.status in (400, 404, 405)
        assert (hub.root / "registry.db").read_bytes()[:6] == b"SQLite"

    def test_an_upload_of_another_repository(self, hub: Hub) -> None:
        place = path_of(hub.ask("POST", "/v2/mine/blobs/uploads/").headers["location"])
        other = place.replace("/mine/", "/yours/")
        assert hub.ask("PATCH", other, b"x").code == "BLOB_UPLOAD_UNKNOWN"

    def test_methods_and_paths(self, hub: Hub) -> None:
        assert hub.ask("POST", "/v2/a/manifests/1", b"").status == 405
        assert hub.ask("DELETE", "/v2/").status == 405
        assert hub.ask("GET", "/v1/_ping").status == 404
        assert hub.ask("GET", "/v2/a/manifests/.bad").code == "TAG_INVALID"

    def test_half_a_request(self, hub: Hub) -> None:
        host, port = hub.address.split(":")
        for part in (
            b"GET /v2/ HT",
            b"PUT /v2/a/manifests/1 HTTP/1.1\r\nContent-Length: 9\r\n\r\n1",
        ):
            with socket.create_connection((host, int(port))) as client:
                client.sendall(part)
        assert hub.ask("GET", "/healthz").json == {"status": "ok"}
