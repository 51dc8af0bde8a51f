"""Registries with TLS: the system's authorities, a `certs.d` folder, a client's certificate."""

import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from harness.fakeregistry import FakeRegistry
from harness.imagelab import Archived, Lab, member, tar_of
from teu.errors import EngineError
from teu.image.service import ImageService
from teu.model.registry import RegistryUnreachable
from teu.registry.config import RegistryConfig

APP = Archived([tar_of(member("a", b"x"))])


@asynccontextmanager
async def serving_tls(
    registry: FakeRegistry, host: str, pair: Path, *, ask_client: bool = False
) -> AsyncIterator[str]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair / "cert", pair / "key")
    if ask_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(pair / "cert")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", registry.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, host, 0, ssl_context=context).start()
    assert runner.addresses
    try:
        yield f"{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def certs_d(root: Path, name: str, pair: Path, *, client: bool = False) -> None:
    directory = root / name
    directory.mkdir(parents=True)
    shutil.copy(pair / "cert", directory / "ca.crt")
    if client:
        shutil.copy(pair / "cert", directory / "client.cert")
        shutil.copy(pair / "key", directory / "client.key")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    (tmp_path / "store").mkdir()
    certs = (tmp_path / "certs.d",)
    return Lab(tmp_path / "store", RegistryConfig(certs_directories=certs, backoff_s=0.01))


def test_an_unknown_authority_is_refused(lab: Lab, host: str, pair: Path) -> None:
    fake = FakeRegistry()
    fake.put(APP, "x:latest")

    async def work(service: ImageService) -> None:
        async with serving_tls(fake, host, pair) as address:
            with pytest.raises(RegistryUnreachable) as caught:
                await service.pull(f"{address}/x", progress=lab.messages.append)
            assert "tls: failed to verify certificate" in str(caught.value)
            assert "certs.d" in str(caught.value)
            assert fake.requests.total() == 0

    lab.run(work)


@pytest.mark.parametrize("insecure", [False, True])
def test_certs_d(lab: Lab, host: str, pair: Path, tmp_path: Path, insecure: bool) -> None:
    fake = FakeRegistry()
    fake.put(APP, "x:latest")

    async def work(service: ImageService) -> None:
        async with serving_tls(fake, host, pair) as address:
            if insecure:
                lab.config.insecure.append(host)
            else:
                certs_d(tmp_path / "certs.d", address, pair)
            image = await service.pull(f"{address}/x", progress=lab.messages.append)
            assert image.id == APP.id

    lab.run(work)


def test_a_client_s_certificate(lab: Lab, host: str, pair: Path, tmp_path: Path) -> None:
    fake = FakeRegistry()
    fake.put(APP, "x:latest")

    async def work(service: ImageService) -> None:
        async with serving_tls(fake, host, pair, ask_client=True) as address:
            certs_d(tmp_path / "certs.d", address, pair, client=True)
            image = await service.pull(f"{address}/x", progress=lab.messages.append)
            assert image.id == APP.id
            broken = tmp_path / "certs.d" / address / "client.key"
            broken.write_text("rubbish")

    lab.run(work)
    lab.root.joinpath("teu.db").unlink()

    async def again(service: ImageService) -> None:
        async with serving_tls(fake, host, pair, ask_client=True) as address:
            name = next((tmp_path / "certs.d").iterdir())
            name.rename(tmp_path / "certs.d" / address)
            with pytest.raises(EngineError, match="cannot use the certificates in"):
                await service.pull(f"{address}/x", progress=lab.messages.append)

    lab.run(again)


def test_plain_http_needs_permission(lab: Lab, host: str) -> None:
    fake = FakeRegistry()
    fake.put(APP, "x:latest")

    async def work(service: ImageService) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", fake.serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, host, 0).start()
        address = f"{host}:{runner.addresses[0][1]}"
        try:
            with pytest.raises(RegistryUnreachable, match="server gave HTTP response to HTTPS"):
                await service.pull(f"{address}/x", progress=lab.messages.append)
            lab.config.insecure.append(address)
            assert (await service.pull(f"{address}/x", progress=lab.messages.append)).id == APP.id
        finally:
            await runner.cleanup()

    lab.run(work)
