"""Registries that want our credentials, our time or our memory, and give nothing for it."""

import asyncio
import base64
import gzip
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from harness.fakeregistry import FakeRegistry, error, serving
from harness.imagelab import Archived, Lab, digest, directory, member, tar_of
from teu.errors import EngineError, Forbidden, SystemFailure, Unauthorized, Unavailable
from teu.image.service import ImageService
from teu.model.reference import Reference
from teu.registry.client import RegistryClient
from teu.registry.config import RegistryConfig

APP = Archived([tar_of(directory("bin"), member("bin/sh", b"#!shell", mode=0o755))])
LAYER = gzip.compress(APP.layers[0], mtime=0)
LOGIN = {"username": "me", "password": "secret"}
SECRET = base64.b64encode(b"me:secret").decode()


def plain(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path, RegistryConfig(backoff_s=0.001, stall_timeout_s=0.3, max_attempts=2))


@pytest.fixture
def fake() -> FakeRegistry:
    registry = FakeRegistry()
    registry.put(APP, "x:latest", how=plain)
    return registry


class Witness(FakeRegistry):
    """Writes down which Authorization it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str] = []

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.shown.append(request.headers.get("Authorization", ""))
        return await super().serve(request)


def pull(lab: Lab, fake: FakeRegistry, name: str = "x", **options: Any) -> Any:
    async def work(service: ImageService) -> Any:
        async with serving(fake) as address, asyncio.timeout(20):
            return await service.pull(f"{address}/{name}", progress=lab.messages.append, **options)

    return lab.run(work)


def with_witness(
    lab: Lab, fake: FakeRegistry, answer: Callable[[str], Callable[..., Awaitable[Any]]], where: str
) -> tuple[Witness, Any]:
    """Pulls with a login; `answer(address of another host)` answers for `where`."""
    witness = Witness()
    witness.put(APP, "x:latest", how=plain)

    async def work(service: ImageService) -> Any:
        async with serving(fake) as address, serving(witness) as elsewhere, asyncio.timeout(20):
            fake.on(where, answer(elsewhere))
            try:
                pulled = await service.pull(
                    f"{address}/x", progress=lab.messages.append, auth=LOGIN
                )
                return pulled.id
            except EngineError as failure:
                return failure

    return witness, lab.run(work)


# --- credentials ------------------------------------------------------------------------------


def redirect_to(status: int) -> Callable[[str], Callable[..., Awaitable[Any]]]:
    def at(elsewhere: str) -> Callable[..., Awaitable[Any]]:
        async def redirect(request: web.Request) -> web.Response:
            location = f"http://{elsewhere}{request.path}"
            return web.Response(status=status, headers={"Location": location})

        return redirect

    return at


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("tokens", [False, True], ids=["basic", "token"])
def test_a_redirect_to_another_host_takes_no_credentials_along(
    lab: Lab, fake: FakeRegistry, status: int, tokens: bool
) -> None:
    fake.user, fake.tokens = ("me", "secret"), tokens
    witness, outcome = with_witness(lab, fake, redirect_to(status), "/blobs/")
    assert outcome == APP.id
    assert witness.shown
    assert set(witness.shown) == {""}


def test_a_host_behind_a_redirect_may_not_ask_for_them(lab: Lab, fake: FakeRegistry) -> None:
    fake.user = ("me", "secret")
    witness = Witness()
    witness.user = ("me", "secret")

    async def work(service: ImageService) -> None:
        async with serving(fake) as address, serving(witness) as elsewhere:
            fake.on("/blobs/", redirect_to(307)(elsewhere))
            with pytest.raises(Unauthorized):
                await service.pull(f"{address}/x", progress=lab.messages.append, auth=LOGIN)

    lab.run(work)
    assert set(witness.shown) == {""}


def test_mirrors_are_told_no_credentials(lab: Lab, fake: FakeRegistry) -> None:
    mirror = Witness()
    mirror.user = ("me", "secret")
    fake.user = ("me", "secret")

    async def work(service: ImageService) -> None:
        async with serving(fake) as address, serving(mirror) as elsewhere:
            lab.config.mirrors[address] = [f"http://{elsewhere}"]
            await service.pull(f"{address}/x", progress=lab.messages.append, auth=LOGIN)

    lab.run(work)
    assert mirror.shown
    assert set(mirror.shown) == {""}


@pytest.mark.parametrize("realm", ["ftp://127.0.0.1/token", "/token", "", "file:///etc/passwd"])
def test_token_servers_that_are_none(lab: Lab, fake: FakeRegistry, realm: str) -> None:
    async def challenge(request: web.Request) -> web.Response:
        return error(401, "UNAUTHORIZED", "", f'Bearer realm="{realm}",service="x"')

    fake.on("/v2/", challenge)
    with pytest.raises(Forbidden, match="credentials are not sent there"):
        pull(lab, fake, auth=LOGIN)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<html>", "is not a token"),
        (b'{"token": ""}', "gave no token"),
        (b'{"token": 5}', "is not a token"),
        (b'{"token": "' + b"x" * (2 << 20) + b'"}', "is not a token"),
    ],
)
def test_tokens_that_are_none(lab: Lab, fake: FakeRegistry, body: bytes, text: str) -> None:
    fake.tokens = True

    async def token(request: web.Request) -> web.Response:
        return web.Response(body=body)

    fake.on("/token", token)
    with pytest.raises(Unauthorized, match=text):
        pull(lab, fake)


def test_a_token_in_many_small_pieces(lab: Lab, fake: FakeRegistry) -> None:
    fake.tokens = True

    async def token(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for byte in b'{"token": "good"}':
            await response.write(bytes([byte]))
        return response

    fake.on("/token", token)
    assert pull(lab, fake).id == APP.id


# --- redirects --------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["/manifests/", "/blobs/"])
def test_redirects_in_a_circle(lab: Lab, fake: FakeRegistry, where: str) -> None:
    async def circle(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": str(request.rel_url)})

    fake.on(where, circle)
    with pytest.raises(SystemFailure, match="stopped after 5 redirects"):
        pull(lab, fake)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://x/", "http://", "http://[x"])
def test_redirects_to_nowhere(lab: Lab, fake: FakeRegistry, location: str) -> None:
    async def nowhere(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": location})

    fake.on("/blobs/", nowhere)
    with pytest.raises(SystemFailure, match="redirects to nowhere"):
        pull(lab, fake)


def test_a_redirect_within_the_registry(lab: Lab, fake: FakeRegistry) -> None:
    fake.user = ("me", "secret")
    seen: list[str] = []

    async def other_path(request: web.Request) -> web.Response | None:
        if "moved" in request.query:
            seen.append(request.headers.get("Authorization", ""))
            return None
        return web.Response(status=307, headers={"Location": f"{request.path}?moved=1"})

    fake.on("/blobs/", other_path)
    assert pull(lab, fake, auth=LOGIN).id == APP.id
    assert set(seen) == {f"Basic {SECRET}"}


# --- time -------------------------------------------------------------------------------------


def drip(body: bytes, pause_s: float) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A byte at a time, each just before the stall time-out."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        for byte in body:
            await response.write(bytes([byte]))
            await asyncio.sleep(pause_s)
        return response

    return answer


@pytest.mark.parametrize("where", ["manifest", "config", "layer"])
def test_slow_drips_are_no_progress(lab: Lab, fake: FakeRegistry, where: str) -> None:
    path = {"manifest": "/manifests/", "config": APP.id, "layer": digest(LAYER)}[where]
    fake.on(path, drip(bytes(4000), 0.1))
    with pytest.raises(Unavailable, match=r"sent \d+ bytes in|stopped answering"):
        pull(lab, fake)
    assert all(name.endswith(".part") for name in lab.files())


def test_a_head_that_never_ends(lab: Lab) -> None:
    """Header lines for ever, one at a time."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        try:
            for number in range(10_000):
                writer.write(f"X-{number}: y\r\n".encode())
                await writer.drain()
                await asyncio.sleep(0.1)
        except ConnectionError:
            return
        finally:
            writer.close()

    @asynccontextmanager
    async def talking() -> Any:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def work(service: ImageService) -> None:
        lab.config.connect_timeout_s = 0.2
        async with talking() as port, asyncio.timeout(10):
            with pytest.raises(Unavailable):
                await service.pull(f"127.0.0.1:{port}/x", progress=lab.messages.append)

    lab.run(work)


@pytest.mark.parametrize("when", ["3600", formatdate(4_000_000_000, usegmt=True)])
@pytest.mark.parametrize("where", ["/manifests/", "/blobs/"])
def test_a_wait_that_is_too_long_is_told(
    lab: Lab, fake: FakeRegistry, when: str, where: str
) -> None:
    async def later(request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": when})

    fake.on(where, later)
    with pytest.raises(Unavailable, match=r"too many requests.*asks to come back in \d{4,} s"):
        pull(lab, fake)


@pytest.mark.parametrize("when", ["0", formatdate(1_000_000_000, usegmt=True), "soon"])
def test_busy_blobs(lab: Lab, fake: FakeRegistry, when: str) -> None:
    answers = [web.Response(status=503, headers={"Retry-After": when})]

    async def busy(request: web.Request) -> web.Response | None:
        return answers.pop() if answers else None

    fake.on("/blobs/", busy)
    assert pull(lab, fake).id == APP.id


# --- memory, and lies -------------------------------------------------------------------------


def test_a_manifest_without_end(lab: Lab, fake: FakeRegistry) -> None:
    sent = [0]

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while sent[0] < 1 << 30:
            await response.write(b" " * (1 << 16))
            sent[0] += 1 << 16
        return response

    fake.on("/manifests/", endless)
    with pytest.raises(EngineError, match="more than 4 MiB"):
        pull(lab, fake)
    assert sent[0] < 64 << 20


def test_an_error_page_without_end(lab: Lab, fake: FakeRegistry) -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(status=404, body=b"<html>" + b"x" * (1 << 20))

    fake.on("/blobs/", page)
    with pytest.raises(EngineError) as caught:
        pull(lab, fake)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("length", [-1, 1 << 62])
def test_sizes_that_are_lies(lab: Lab, fake: FakeRegistry, length: int) -> None:
    document = json.loads(fake.manifests["x:latest"][1])
    document["layers"][0]["size"] = length
    fake.put_manifest(document, "application/vnd.docker.distribution.manifest.v2+json", "x:latest")
    with pytest.raises(EngineError):
        pull(lab, fake)
    assert all(name.endswith(".part") for name in lab.files())


@pytest.mark.parametrize(
    "descriptor",
    [
        {"digest": "sha256:../../../../etc/passwd", "size": 5},
        {"digest": "sha512:" + "0" * 128, "size": 5},
        {"digest": "", "size": 5},
        {"digest": 7, "size": 5},
        {"digest": "sha256:" + "0" * 64, "size": "big"},
    ],
)
def test_descriptors_that_are_none(
    lab: Lab, fake: FakeRegistry, descriptor: dict[str, Any]
) -> None:
    document = json.loads(fake.manifests["x:latest"][1])
    for place in ("config", "layer"):
        broken = json.loads(json.dumps(document))
        entry = broken["config"] if place == "config" else broken["layers"][0]
        entry |= descriptor
        fake.put_manifest(
            broken, "application/vnd.docker.distribution.manifest.v2+json", f"x:{place}"
        )
        with pytest.raises(EngineError):
            pull(lab, fake, f"x:{place}")
        assert lab.files() == set()


def test_a_mirror_that_lies_is_passed_over(lab: Lab, fake: FakeRegistry) -> None:
    """Its manifest was good; its layer is not there, is broken off, is another's."""
    mirror = FakeRegistry()
    mirror.put(APP, "x:latest", how=plain)
    asked: list[str] = []

    async def lose(request: web.Request) -> web.Response:
        asked.append(request.query.get("ns", ""))
        return error(404, "BLOB_UNKNOWN")

    mirror.on(digest(LAYER), lose)

    async def work(service: ImageService) -> None:
        async with serving(fake) as address, serving(mirror) as elsewhere:
            lab.config.mirrors[address] = [f"http://{elsewhere}"]
            image = await service.pull(f"{address}/x", progress=lab.messages.append)
            assert image.id == APP.id
            assert asked == [address]

    lab.run(work)


@pytest.mark.parametrize("cut", [True, False], ids=["cut", "short"])
def test_a_mirror_that_breaks_off_is_passed_over(lab: Lab, fake: FakeRegistry, cut: bool) -> None:
    mirror = FakeRegistry()
    mirror.put(APP, "x:latest", how=plain)

    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(LAYER) if cut else 20
        await response.prepare(request)
        await response.write(LAYER[:20])
        if cut and request.transport:
            request.transport.abort()
        return response

    mirror.on(digest(LAYER), half)

    async def work(service: ImageService) -> None:
        async with serving(fake) as address, serving(mirror) as elsewhere:
            lab.config.mirrors[address] = [f"http://{elsewhere}"]
            await service.pull(f"{address}/x", progress=lab.messages.append)

    lab.run(work)
    assert fake.ranges == [f"bytes=20-{len(LAYER) - 1}"]


# --- tag lists --------------------------------------------------------------------------------


def tags_of(fake: FakeRegistry) -> list[str]:
    async def work() -> list[str]:
        client = RegistryClient(RegistryConfig(backoff_s=0.001, stall_timeout_s=0.3))
        async with serving(fake) as address, asyncio.timeout(10):
            try:
                return await client.tags(Reference.parse(f"{address}/x"))
            finally:
                await client.close()

    return asyncio.run(work())


def test_tags_over_several_pages() -> None:
    fake = FakeRegistry()
    pages = {"": (["a", "b"], "b"), "b": (["c"], "c"), "c": (["d"], "")}

    async def page(request: web.Request) -> web.Response:
        tags, last = pages[request.query.get("last", "")]
        link = f'</v2/x/tags/list?last={last}&n=2>; rel="next"'
        return web.json_response(
            {"name": "x", "tags": tags}, headers={"Link": link} if last else {}
        )

    fake.on("/tags/list", page)
    assert tags_of(fake) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("tags", [["a"], None])
def test_tags_that_never_end(tags: list[str] | None) -> None:
    """A page that leads to itself, a repository without tags."""
    fake = FakeRegistry()

    async def page(request: web.Request) -> web.Response:
        link = '</v2/x/tags/list?last=a>; rel="next"'
        return web.json_response({"tags": tags}, headers={"Link": link})

    fake.on("/tags/list", page)
    assert tags_of(fake) == (tags or [])


def test_tags_that_go_on_elsewhere() -> None:
    fake = FakeRegistry()

    async def page(request: web.Request) -> web.Response:
        headers = {"Link": '<http://127.0.0.1:1/v2/x/tags/list>; rel="next"'}
        return web.json_response({"tags": ["a"]}, headers=headers)

    fake.on("/tags/list", page)
    with pytest.raises(SystemFailure, match="goes on at another host"):
        tags_of(fake)


def test_tags_that_are_none() -> None:
    fake = FakeRegistry()

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<html>")

    fake.on("/tags/list", page)
    with pytest.raises(SystemFailure, match="no list of tags"):
        tags_of(fake)
