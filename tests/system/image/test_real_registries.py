"""Debian's docker-registry with passwords and TLS: pull, push, log in, search, list tags."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.imagelab import Archived, Lab, chunks, docker_archive, member, tar_of
from harness.registry import PASSWORD, USER, Registry
from teu.errors import EngineError, Unauthorized
from teu.image.remote import RemoteImages
from teu.image.service import ImageService
from teu.model.registry import RegistryUnreachable
from teu.registry.client import RegistryClient
from teu.registry.config import RegistryConfig

APP = Archived([tar_of(member("a", b"x" * 100_000)), tar_of(member("b", b"y"))])
LOGIN = {"username": USER, "password": PASSWORD}


@pytest.fixture(scope="module", params=["plain", "login", "tls", "tls and login"])
def registry(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    host: str,
    pair: Path,
) -> Iterator[Registry]:
    root = tmp_path_factory.mktemp("registry")
    with_tls, login = "tls" in request.param, "login" in request.param
    with Registry(
        root / "storage",
        root / "scratch",
        read_only=False,
        login=login,
        host=host if with_tls else "127.0.0.1",
        pair=pair if with_tls else None,
    ) as running:
        yield running


@pytest.fixture
def lab(tmp_path: Path, registry: Registry, pair: Path) -> Lab:
    certs = tmp_path / "certs.d"
    (certs / registry.address).mkdir(parents=True)
    if registry.needs_certificate:
        shutil.copy(pair / "cert", certs / registry.address / "ca.crt")
    (tmp_path / "store").mkdir()
    return Lab(tmp_path / "store", RegistryConfig(certs_directories=(certs,), backoff_s=0.01))


def test_push_and_pull(lab: Lab, registry: Registry) -> None:
    name = f"{registry.address}/team/app"

    async def work(service: ImageService) -> None:
        await service.load(chunks(docker_archive(APP), 1 << 16), lab.messages.append)
        service.tag(APP.id, f"{name}:1")
        if registry.needs_login:
            with pytest.raises(Unauthorized, match="no basic auth credentials"):
                await service.push(f"{name}:1", progress=lab.messages.append)
            with pytest.raises(Unauthorized):
                await service.push(
                    f"{name}:1",
                    progress=lab.messages.append,
                    auth={"username": USER, "password": "guess"},
                )
        await service.push(f"{name}:1", progress=lab.messages.append, auth=LOGIN)
        await service.remove(APP.id, force=True)
        image = await service.pull(f"{name}:1", progress=lab.messages.append, auth=LOGIN)
        assert image.id == APP.id
        service.tag(APP.id, f"{registry.address}/other:1")
        lab.messages.clear()
        await service.push(f"{registry.address}/other:1", progress=lab.messages.append, auth=LOGIN)
        assert lab.text.count("Mounted from team/app") == 2
        image = await service.pull_tags(name, progress=lab.messages.append, auth=LOGIN)
        assert f"{name}:1" in image.repo_tags

    lab.run(work)


def test_login(lab: Lab, registry: Registry) -> None:
    async def work(_: ImageService) -> None:
        client = RegistryClient(lab.config)
        try:
            assert await client.login(registry.address, LOGIN) == ""
            if registry.needs_login:
                for wrong in ({"username": USER, "password": "guess"}, {}):
                    with pytest.raises(Unauthorized):
                        await client.login(registry.address, wrong)
        finally:
            await client.close()

    lab.run(work)


def test_tags_search_and_indexes(lab: Lab, registry: Registry) -> None:
    name = f"{registry.address}/lists/app"

    async def work(service: ImageService) -> None:
        await service.load(chunks(docker_archive(APP), 1 << 16), lab.messages.append)
        for tag in ("b", "a", "1.0"):
            service.tag(APP.id, f"{name}:{tag}")
        await service.push(name, progress=lab.messages.append, auth=LOGIN)
        client = RegistryClient(lab.config)
        remote = RemoteImages(client)
        try:
            assert sorted(await remote.tags(name, LOGIN)) == ["1.0", "a", "b"]
            found = await client.search(f"{registry.address}/LISTS", 25, LOGIN)
            assert [item.name for item in found] == [name]
            member_of = await remote.manifest(f"{name}:a", LOGIN)
            raw = _index_of(member_of.descriptor.digest, len(member_of.raw))
            source = f"{name}@{member_of.descriptor.digest}"
            target = f"{registry.address}/elsewhere:all"
            digest = await remote.put_index(target, raw, [source], LOGIN)
            shown = await remote.inspect(target, LOGIN)
            assert shown["Descriptor"]["digest"] == digest
            with pytest.raises(EngineError, match="from a different registry"):
                await remote.put_index(target, raw, [f"localhost:1/x@{digest}"], LOGIN)
        finally:
            await client.close()
        image = await service.pull(target, progress=lab.messages.append, auth=LOGIN)
        assert image.id == APP.id

    lab.run(work)


def _index_of(digest: str, size: int) -> bytes:
    kind = "application/vnd.docker.distribution.manifest"
    return (
        f'{{"schemaVersion":2,"mediaType":"{kind}.list.v2+json","manifests":[{{"mediaType":'
        f'"{kind}.v2+json","digest":"{digest}","size":{size},"platform":{{"os":"linux",'
        f'"architecture":"amd64"}}}}]}}'
    ).encode()


def test_a_certificate_is_checked(tmp_path: Path, registry: Registry) -> None:
    if not registry.needs_certificate:
        pytest.skip("this registry has no certificate")
    lab = Lab(tmp_path, RegistryConfig(certs_directories=(), backoff_s=0.01))

    async def work(service: ImageService) -> None:
        with pytest.raises(RegistryUnreachable, match="failed to verify certificate"):
            await service.pull(f"{registry.address}/team/app:1", progress=lab.messages.append)
        client = RegistryClient(lab.config)
        try:
            with pytest.raises(RegistryUnreachable, match="failed to verify certificate"):
                await client.login(registry.address, LOGIN)
        finally:
            await client.close()

    lab.run(work)
