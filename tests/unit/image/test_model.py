"""Manifests, configs, platforms."""

import json

import pytest

from teu.errors import InvalidParameter
from teu.image.platform import NoMatchingPlatform, choose, matches, parse_platform
from teu.model.image import (
    Descriptor,
    Index,
    InvalidImage,
    Manifest,
    Platform,
    chain_ids,
    created_ns,
    parse_config,
    parse_manifest,
)

DIGEST = "sha256:" + "a" * 64


def test_chain_ids_are_the_specification_s() -> None:
    # Two layers of debian:12 and their ChainID as `docker image inspect`/layerdb show them.
    first, second = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    chain = chain_ids([first, second])
    assert chain[0] == first
    assert (
        chain[1]
        == "sha256:" + __import__("hashlib").sha256(f"{first} {second}".encode()).hexdigest()
    )
    assert chain_ids([]) == []


def test_config_keeps_what_matters_and_takes_nulls() -> None:
    config = parse_config(
        json.dumps(
            {
                "architecture": "arm64",
                "os": "linux",
                "variant": "v8",
                "created": "2024-01-02T03:04:05.5Z",
                "config": {"Env": None, "Entrypoint": ["/x"], "Hostname": None, "Unknown": 1},
                "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
                "history": [{"created_by": "x", "empty_layer": True}],
            }
        ).encode()
    )
    assert config.config.entrypoint == ["/x"]
    assert config.config.env is None
    assert config.rootfs.diff_ids == [DIGEST]
    assert config.history[0].empty_layer
    assert str(config.platform) == "linux/arm64/v8"
    assert created_ns(config) == 1_704_164_645_500_000_000


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"rootfs": {"diff_ids": 3}}', b"\xff"])
def test_bad_config(data: bytes) -> None:
    with pytest.raises(InvalidImage, match="config cannot be read"):
        parse_config(data)


def test_manifest_kinds() -> None:
    descriptor = {"mediaType": "x", "digest": DIGEST, "size": 3}
    manifest = {"schemaVersion": 2, "config": descriptor, "layers": [descriptor]}
    assert isinstance(parse_manifest(json.dumps(manifest).encode()), Manifest)
    index = {"schemaVersion": 2, "manifests": [descriptor | {"platform": {"os": "linux"}}]}
    parsed = parse_manifest(json.dumps(index).encode())
    assert isinstance(parsed, Index)
    assert parsed.manifests[0].platform == Platform(os="linux")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"schemaVersion": 1, "fsLayers": []}', "schema 1"),
        (b'{"schemaVersion": 2}', "cannot be read"),
        (b"<html>", "cannot be read"),
        (b"[]", "not a JSON object"),
        (b'{"schemaVersion":2,"config":{"digest":1},"layers":[]}', "cannot be read"),
    ],
)
def test_bad_manifest(data: bytes, message: str) -> None:
    with pytest.raises(InvalidImage, match=message):
        parse_manifest(data)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("arm64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
    ],
)
def test_platform_names(text: str, shown: str) -> None:
    assert str(parse_platform(text)) == shown


@pytest.mark.parametrize("text", ["a/b/c/d", "linux/", "linux/am d64", "/"])
def test_bad_platform(text: str) -> None:
    with pytest.raises(InvalidParameter, match="unknown operating system or architecture"):
        parse_platform(text)


def _entry(platform: Platform | None, name: str) -> Descriptor:
    return Descriptor("m", name, 1, platform=platform)


def test_choice_of_the_best_manifest() -> None:
    entries = [
        _entry(Platform("386", "linux"), "386"),
        _entry(Platform("amd64", "windows"), "windows"),
        _entry(Platform("amd64", "linux"), "amd64"),
        _entry(Platform("arm", "linux", variant="v5"), "v5"),
        _entry(Platform("arm", "linux", variant="v7"), "v7"),
        _entry(Platform("unknown", "unknown"), "attestation"),
    ]
    assert choose(entries, Platform("amd64", "linux"), "x").digest == "amd64"
    assert choose(entries[:1], Platform("amd64", "linux"), "x").digest == "386"
    assert choose(entries, Platform("arm", "linux", variant="v6"), "x").digest == "v5"
    assert choose(entries, Platform("arm", "linux", variant="v7"), "x").digest == "v7"
    with pytest.raises(NoMatchingPlatform) as caught:
        choose(entries, Platform("s390x", "linux"), "busybox:latest")
    assert "no matching manifest for linux/s390x in the manifest list entries" in str(caught.value)
    assert "unknown" not in str(caught.value)
    assert not matches(Platform("arm64", "linux"), Platform("amd64", "linux"))
