"""The same requests to this registry and to Debian's docker-registry, answer by answer.

Compared: status, error code, the headers that clients read, the shape of the body. Where the two
differ on purpose, `DIFFERENT` says why.
"""

import json
import re
import shutil
from collections.abc import Iterator

import pytest

from harness.hub import LAYER, MANIFEST, Answer, Peer, image, path_of, serving, sha256
from harness.registry import Registry

HEADERS = (
    "content-type", "content-length", "docker-content-digest", "docker-distribution-api-version",
    "etag", "link", "range", "content-range", "accept-ranges", "docker-upload-uuid", "location",
)  # fmt: skip
# Step -> why ours answers differently.
DIFFERENT = {
    "upload unknown": "the reference says that the upload is invalid; it never was there",
    "known already": "the reference leaves out the headers that HTTP wants with a 304",
    "tags": "the reference does not sort",
    "a bad page": "the reference ignores a number that is none",
    "a bad name": "the reference has no such page; the specification has an error code for it",
    "delete a tag": "the reference does not delete tags (405); the OCI specification wants 202",
    "tags in pages": "this version of the reference ignores n and last",
    "referrers": "new in 1.1 of the specification",
    "a manifest of 5 MB": "the reference takes what it should refuse as too large (413)",
    "a chunk out of order": "the reference's answer to a wrong range has no body",
}
LAYER_DATA = b"0123456789" * 200
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

pytestmark = pytest.mark.skipif(
    not shutil.which("docker-registry"), reason="needs docker-registry (Debian package)"
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Peer, Peer]]:
    base = tmp_path_factory.mktemp("parity")
    reference = Registry(base / "storage", base / "scratch", read_only=False)
    with reference, serving(base / "root") as hub:
        yield hub, Peer(reference.address)


def shown(answer: Answer) -> dict[str, object]:
    """What is compared: everything that is random is masked."""
    headers = {name: answer.headers.get(name) for name in HEADERS}
    uuid = r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}"
    for name in ("location", "docker-upload-uuid"):
        if value := headers[name]:
            value = re.sub(r"\?_state=.*", "", path_of(value))
            headers[name] = re.sub(uuid, "UUID", value)
    found: dict[str, object] = {"status": answer.status, **headers}
    if answer.status >= 400 and answer.body.startswith(b"{"):
        found["errors"] = [sorted({*error} - {"detail"}) for error in answer.json["errors"][:1]]
        found["code"] = answer.code
        found["content-length"] = None  # the details' words are each one's own
    else:
        found["body"] = answer.body[:200]
    return found


CONFIG_DATA = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
CONFIG, LAYER_DIGEST = sha256(CONFIG_DATA), sha256(LAYER_DATA)
CONTENT = image((CONFIG, len(CONFIG_DATA)), (LAYER_DIGEST, len(LAYER_DATA)))
DIGEST = sha256(CONTENT)
DOCKER_CONTENT = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": CONFIG,
            "size": len(CONFIG_DATA),
        },
        "layers": [
            {
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "digest": LAYER_DIGEST,
                "size": len(LAYER_DATA),
            }
        ],
    }
).encode()
Steps = Iterator[tuple[str, Answer]]


def life(peer: Peer) -> Steps:
    """One life of a repository; each request is named."""
    yield from nothing_yet(peer)
    yield from blobs(peer)
    yield from manifests(peer)
    yield from listings(peer)
    yield from removals(peer)


def nothing_yet(peer: Peer) -> Steps:
    yield "ping", peer.ask("GET", "/v2/")
    yield "catalog, empty", peer.ask("GET", "/v2/_catalog")
    yield "tags of nothing", peer.ask("GET", "/v2/app/tags/list")
    yield "manifest of nothing", peer.ask("GET", "/v2/app/manifests/1")
    yield "blob of nothing", peer.ask("GET", f"/v2/app/blobs/{LAYER_DIGEST}")
    yield "blob of nothing, HEAD", peer.ask("HEAD", f"/v2/app/blobs/{LAYER_DIGEST}")
    yield "a bad name", peer.ask("GET", "/v2/App/tags/list")
    yield "a bad digest", peer.ask("GET", "/v2/app/blobs/sha256:123")


def put_path(location: str, digest: str) -> str:
    return f"{path_of(location)}{'&' if '?' in location else '?'}digest={digest}"


def blobs(peer: Peer) -> Steps:
    begun = peer.ask("POST", "/v2/app/blobs/uploads/")
    yield "upload begins", begun
    place = path_of(begun.headers["location"])
    sent = peer.ask("PATCH", place, LAYER_DATA[:999], content_range="0-998")
    yield "first chunk", sent
    place = path_of(sent.headers["location"])
    yield "status", peer.ask("GET", place)
    yield "upload ends", peer.ask("PUT", put_path(place, LAYER_DIGEST), LAYER_DATA[999:])
    yield "blob", peer.ask("GET", f"/v2/app/blobs/{LAYER_DIGEST}")
    yield "blob, HEAD", peer.ask("HEAD", f"/v2/app/blobs/{LAYER_DIGEST}")
    yield "a part of it", peer.ask("GET", f"/v2/app/blobs/{LAYER_DIGEST}", range="bytes=10-19")
    yield "upload unknown", peer.ask("GET", "/v2/app/blobs/uploads/none")
    peer.push_blob("app", CONFIG_DATA)
    begun = peer.ask("POST", "/v2/app/blobs/uploads/")
    other = put_path(begun.headers["location"], sha256(b"other"))
    yield "another digest", peer.ask("PUT", other, b"data")
    begun = peer.ask("POST", "/v2/app/blobs/uploads/")
    place = path_of(begun.headers["location"])
    yield "a chunk out of order", peer.ask("PATCH", place, b"123456789", content_range="5-13")
    begun = peer.ask("POST", "/v2/app/blobs/uploads/")
    yield "cancelled", peer.ask("DELETE", path_of(begun.headers["location"]))
    mounted = f"/v2/other/blobs/uploads/?mount={LAYER_DIGEST}&from=app"
    yield "mounted", peer.ask("POST", mounted)


def manifests(peer: Peer) -> Steps:
    yield "manifest", peer.put_manifest("app", "1", CONTENT)
    yield "docker's", peer.put_manifest("app", "2", DOCKER_CONTENT, DOCKER_MANIFEST)
    for name, method in (("read", "GET"), ("read, HEAD", "HEAD")):
        yield name, peer.ask(method, "/v2/app/manifests/1", accept=MANIFEST)
        yield f"{name}, docker's", peer.ask(method, "/v2/app/manifests/2", accept=DOCKER_MANIFEST)
    yield "read by digest", peer.ask("GET", f"/v2/app/manifests/{DIGEST}", accept=MANIFEST)
    known = {"accept": MANIFEST, "if_none_match": f'"{DIGEST}"'}
    yield "known already", peer.ask("GET", "/v2/app/manifests/1", **known)
    yield "garbage as a manifest", peer.put_manifest("app", "3", b"garbage")
    yield "a manifest of 5 MB", peer.put_manifest("app", "3", b" " * (5 << 20))
    absent = {"mediaType": LAYER, "digest": sha256(b"absent"), "size": 1}
    without = image((CONFIG, len(CONFIG_DATA)), layers=[absent])
    yield "without its blob", peer.put_manifest("app", "3", without)
    yield "a tag as digest", peer.put_manifest("app", sha256(b"no"), CONTENT)


def listings(peer: Peer) -> Steps:
    yield "tags", peer.ask("GET", "/v2/app/tags/list")
    yield "tags in pages", peer.ask("GET", "/v2/app/tags/list?n=1")
    yield "catalog", peer.ask("GET", "/v2/_catalog")
    yield "catalog in pages", peer.ask("GET", "/v2/_catalog?n=1")
    yield "a bad page", peer.ask("GET", "/v2/_catalog?n=x")
    yield "referrers", peer.ask("GET", f"/v2/app/referrers/{DIGEST}")


def removals(peer: Peer) -> Steps:
    yield "delete a tag", peer.ask("DELETE", "/v2/app/manifests/2")
    yield "delete", peer.ask("DELETE", f"/v2/app/manifests/{DIGEST}")
    yield "delete again", peer.ask("DELETE", f"/v2/app/manifests/{DIGEST}")
    yield "deleted", peer.ask("GET", "/v2/app/manifests/1", accept=MANIFEST)
    yield "delete a blob", peer.ask("DELETE", f"/v2/app/blobs/{LAYER_DIGEST}")
    yield "deleted blob", peer.ask("GET", f"/v2/app/blobs/{LAYER_DIGEST}")


def test_answers_are_the_same(pair: tuple[Peer, Peer]) -> None:
    ours, theirs = (list(life(peer)) for peer in pair)
    differences = {}
    for (name, our), (_, their) in zip(ours, theirs, strict=True):
        if (a := shown(our)) != (b := shown(their)):
            differences[name] = {
                key: (a.get(key), b.get(key)) for key in {*a, *b} if a.get(key) != b.get(key)
            }
    unexpected = {name: what for name, what in differences.items() if name not in DIFFERENT}
    assert not unexpected, json.dumps(unexpected, indent=1, default=str)
    assert set(DIFFERENT) <= set(differences), "a difference is gone: take it off the list"
