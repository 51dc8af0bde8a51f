"""Small archives and image stores for the image tests."""

import asyncio
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from teu.image.service import ImageService
from teu.registry.client import RegistryClient
from teu.registry.config import RegistryConfig
from teu.store.db import Database

T = TypeVar("T")
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


def member(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), 0o644, 1_700_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def directory(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **fields})


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE, linkname=target, **fields)


def tar_of(*members: tuple[tarfile.TarInfo, bytes], format_: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Archived:
    """One image for a docker-archive; `layers` are tars as they lie in the archive."""

    layers: list[bytes]
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    plain_layers: list[bytes] | None = None  # where `layers` are compressed
    platform: str = "linux/amd64"

    @property
    def config_data(self) -> bytes:
        system, architecture, *variant = self.platform.split("/")
        document = {
            "architecture": architecture,
            "os": system,
            **({"variant": variant[0]} if variant else {}),
            "created": "2024-01-02T03:04:05.678901234Z",
            "config": {"Cmd": ["sh"], **self.config},
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
            "history": [{"created_by": f"step {n}"} for n in range(len(self.layers))],
        }
        return json.dumps(document).encode()

    @property
    def diff_ids(self) -> list[str]:
        return [digest(layer) for layer in self.plain_layers or self.layers]

    @property
    def id(self) -> str:
        return digest(self.config_data)


def docker_archive(*images: Archived) -> bytes:
    """What an old `docker save` writes: manifest.json last."""
    members = []
    manifest = []
    for image in images:
        names = []
        for layer in image.layers:
            name = f"{digest(layer)[7:]}/layer.tar"
            if all(info.name != name for info, _ in members):
                members.append(member(name, layer))
            names.append(name)
        config = f"{image.id[7:]}.json"
        members.append(member(config, image.config_data))
        manifest.append({"Config": config, "RepoTags": image.tags or None, "Layers": names})
    members.append(member("manifest.json", json.dumps(manifest).encode()))
    return tar_of(*members)


def oci_layout(image: Archived, name: str = "", media_type: str = "") -> bytes:
    """An OCI layout with one image."""
    manifest = _manifest(image, media_type)
    entry = descriptor(OCI_MANIFEST, manifest)
    if name:
        entry["annotations"] = {"io.containerd.image.name": name}
    return layout_of([entry], [image.config_data, manifest, *image.layers])


def oci_index_layout(name: str, *images: Archived, absent: Sequence[Archived] = ()) -> bytes:
    """An OCI layout with one image in several platforms; of those that are `absent` the index
    only speaks."""
    entries, blobs = [], []
    for image in (*images, *absent):
        manifest = _manifest(image)
        system, architecture, *_ = image.platform.split("/")
        platform = {"os": system, "architecture": architecture}
        entries.append(descriptor(OCI_MANIFEST, manifest) | {"platform": platform})
        if image not in absent:
            blobs += [image.config_data, manifest, *image.layers]
    attestation = descriptor(OCI_MANIFEST, b"{}") | {
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": entries[0]["digest"],
        },
    }
    index = json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*entries, attestation]}
    ).encode()
    entry = descriptor(OCI_INDEX, index)
    entry["annotations"] = {"io.containerd.image.name": name}
    return layout_of([entry], [index, *blobs])


def artifact(kind: str, *contents: tuple[str, bytes]) -> tuple[bytes, list[bytes]]:
    """An artifact's manifest, and all blobs it names: (media type, data) each."""
    empty = b"{}"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": kind,
            "config": descriptor("application/vnd.oci.empty.v1+json", empty),
            "layers": [descriptor(media_type, data) for media_type, data in contents],
            "annotations": {"org.opencontainers.image.created": "2024-05-06T07:08:09Z"},
        }
    ).encode()
    return manifest, [empty, *(data for _, data in contents)]


def layout_of(
    entries: list[dict[str, Any]], blobs: Sequence[bytes], algorithm: str = "sha256"
) -> bytes:
    """An OCI layout with these entries in its index."""
    return tar_of(
        member("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        member("index.json", json.dumps({"schemaVersion": 2, "manifests": entries}).encode()),
        *(
            member(f"blobs/{algorithm}/{hashlib.new(algorithm, blob).hexdigest()}", blob)
            for blob in {digest(blob): blob for blob in blobs}.values()
        ),
    )


def _manifest(image: Archived, media_type: str = "") -> bytes:
    layer_type = media_type or "application/vnd.oci.image.layer.v1.tar"
    return json.dumps(
        {
            "schemaVersion": 2,
            "config": descriptor("application/vnd.oci.image.config.v1+json", image.config_data),
            "layers": [descriptor(layer_type, layer) for layer in image.layers],
        }
    ).encode()


def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


async def chunks(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@dataclass
class Users:
    """Containers, as the image side sees them."""

    containers: dict[str, list[tuple[str, bool]]] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)
    mounted: dict[str, str] = field(default_factory=dict)

    def containers_using(self, image_id: str) -> list[tuple[str, bool]]:
        return self.containers.get(image_id, [])

    def layers_in_use(self) -> list[str]:
        return self.layers

    def layers_mounted(self) -> dict[str, str]:
        return self.mounted


class Lab:
    """An image service on a directory of its own; `run` gives it to a coroutine function."""

    def __init__(self, root: Path, config: RegistryConfig | None = None) -> None:
        self.root = root
        self.config = config or RegistryConfig(backoff_s=0.01, stall_timeout_s=2)
        self.users = Users()
        self.messages: list[dict[str, Any]] = []

    def run(self, work: Callable[[ImageService], Awaitable[T]]) -> T:
        """Starts a daemon's worth of image service, runs `work`, stops it."""

        async def whole() -> T:
            db = Database(self.root / "teu.db")
            registry = RegistryClient(self.config)
            service = ImageService(db, self.root, registry, self.users)
            await service.start()
            service.collect()
            try:
                return await work(service)
            finally:
                await service.close()
                db.close()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the daemon does
            return runner.run(whole())

    def load(self, data: bytes, size: int = 1000, platform: str = "") -> list[str]:
        """Ids of the images in an archive."""

        async def work(service: ImageService) -> list[str]:
            images = await service.load(chunks(data, size), self.messages.append, platform)
            return [image.id for image in images]

        return self.run(work)

    def save(self, *refs: str, platform: str = "") -> bytes:
        """The archive of these images."""

        async def work(service: ImageService) -> bytes:
            return b"".join([piece async for piece in service.save(refs, platform)])

        return self.run(work)

    @property
    def text(self) -> str:
        """What a person would read."""
        return "".join(
            str(m.get("stream") or f"{m.get('id', '')}: {m.get('status', '')}\n")
            for m in self.messages
        )

    def files(self) -> set[str]:
        """What is in the store's directories."""
        found = set(self._below("layers"))
        return found | set(self._below("content/ingest")) | set(self._below("content/blobs/sha256"))

    def _below(self, name: str) -> Iterator[str]:
        for path in (self.root / name).iterdir():
            yield f"{name}/{path.name}"


@contextmanager
def unchanged(lab: Lab) -> Iterator[None]:
    """The body leaves no file behind and takes none away."""
    before = lab.files() if (lab.root / "layers").exists() else set()
    yield
    assert lab.files() == before
