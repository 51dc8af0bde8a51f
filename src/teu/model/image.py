"""Images as data: what registries and archives say (manifest, index), what an image says of
itself (config), and what the store keeps.

Source: OCI image-spec 1.1 (`manifest.md`, `image-index.md`, `config.md`); Docker image manifest
version 2, schema 2.
"""

import hashlib
from typing import Any

import msgspec
from msgspec import Struct, field

from teu.clock import parse_rfc3339
from teu.errors import InvalidParameter
from teu.model.config import ContainerConfig

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
CONFIG_TYPES = (OCI_CONFIG, DOCKER_CONFIG)
UNTYPED_CONFIGS = ("application/octet-stream", "text/plain")  # old tools' images
CREATED_ANNOTATION = "org.opencontainers.image.created"


class InvalidImage(InvalidParameter):
    """A manifest, index or config that is not what its media type says."""


class Platform(Struct, omit_defaults=True, frozen=True):
    architecture: str = ""
    os: str = ""
    os_version: str = field(default="", name="os.version")
    variant: str = ""

    def __str__(self) -> str:
        parts = [self.os, self.architecture, self.variant]
        return "/".join(part for part in parts if part)


class Descriptor(Struct, omit_defaults=True, rename="camel"):
    """Points at content: its type, digest and exact size in bytes."""

    media_type: str
    digest: str
    size: int
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    artifact_type: str = ""


class Manifest(Struct, rename="camel", omit_defaults=True):
    """One image (or artifact): its config and its layers, base first."""

    schema_version: int
    config: Descriptor
    layers: list[Descriptor]
    media_type: str = ""
    annotations: dict[str, str] | None = None
    artifact_type: str = ""


class Index(Struct, rename="camel", omit_defaults=True):
    """Several manifests, mostly one for each platform."""

    schema_version: int
    manifests: list[Descriptor]
    media_type: str = ""
    annotations: dict[str, str] | None = None


class HistoryEntry(Struct, omit_defaults=True):
    """How a layer was made. `empty_layer`: the step changed the config only."""

    created: str | None = None
    author: str = ""
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False


class RootFs(Struct):
    type: str = "layers"
    diff_ids: list[str] = field(default_factory=list)


class ImageConfig(Struct):
    """An image's config, as far as the engine acts on it; the blob itself is kept byte for byte."""

    architecture: str = ""
    os: str = ""
    os_version: str = field(default="", name="os.version")
    variant: str = ""
    created: str = ""
    author: str = ""
    comment: str = ""
    container: str = ""
    docker_version: str = ""
    parent: str = ""
    config: ContainerConfig = field(default_factory=ContainerConfig)
    container_config: ContainerConfig = field(default_factory=ContainerConfig)
    rootfs: RootFs = field(default_factory=RootFs)
    history: list[HistoryEntry] = field(default_factory=list)

    @property
    def platform(self) -> Platform:
        return Platform(self.architecture, self.os or "linux", self.os_version, self.variant)


class ImageRecord(Struct, kw_only=True):
    """One row of the `image` table. Instants are epoch nanoseconds, 0 for never."""

    id: str  # digest of the config; of the manifest for an artifact
    chain_ids: list[str]  # base first
    size_bytes: int
    manifest_digest: str = ""  # of the manifest it was pulled with
    parent_id: str = ""  # the image a commit or build started from
    stored_ns: int = 0
    tagged_ns: int = 0
    artifact_type: str = ""  # not an image: something else that registries and archives carry
    annotations: dict[str, str] = field(default_factory=dict)  # for its manifest


class Image(Struct, kw_only=True, frozen=True):
    """An image in the store. `repo_tags` and `repo_digests` are in familiar form, sorted.

    `is_variant`: its names mean another image first, the one for this machine's platform.
    """

    id: str
    config: ImageConfig
    chain_ids: list[str]
    repo_tags: list[str]
    repo_digests: list[str]
    size_bytes: int
    created_ns: int
    record: ImageRecord
    is_variant: bool = False

    @property
    def short_id(self) -> str:
        return self.id.removeprefix("sha256:")[:12]


def parse_config(data: bytes) -> ImageConfig:
    """Raises: InvalidImage."""
    try:
        return msgspec.convert(_without_nulls(msgspec.json.decode(data)), ImageConfig)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidImage(f"the image's config cannot be read: {error}") from error


def artifact_config(manifest_data: bytes) -> ImageConfig:
    """What there is to say of an artifact, from its manifest. Raises: InvalidImage."""
    manifest = parse_manifest(manifest_data)
    annotations = manifest.annotations or {}
    return ImageConfig(created=annotations.get(CREATED_ANNOTATION, ""))


def artifact_type(manifest: Manifest) -> str:
    """What kind of thing that is no image a manifest describes; "" for an image.

    Signatures and attestations have an image's config, but their layers are no file systems.
    Source: OCI image-spec manifest.md, "Guidelines for Artifact Usage".
    """
    if manifest.artifact_type or manifest.config.media_type not in CONFIG_TYPES + UNTYPED_CONFIGS:
        return manifest.artifact_type or manifest.config.media_type
    kinds = (layer.media_type for layer in manifest.layers)
    return next((kind for kind in kinds if "tar" not in kind and kind not in UNTYPED_CONFIGS), "")


def created_ns(config: ImageConfig) -> int:
    """When the image was made; 0 where the config does not say."""
    try:
        return parse_rfc3339(config.created)
    except ValueError:
        return 0


def parse_manifest(data: bytes, media_type: str = "") -> Manifest | Index:
    """Decides by the document itself, then by the given media type.

    Raises: InvalidImage, also for schema 1, which is refused.
    """
    try:
        document = msgspec.json.decode(data)
        if not isinstance(document, dict):
            raise InvalidImage("the manifest is not a JSON object")
        kind = str(document.get("mediaType") or media_type)
        if document.get("schemaVersion") == 1 or kind in (DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED):
            raise InvalidImage(
                "the image has a schema 1 manifest, a format that was withdrawn and is not "
                "checked by digest: push it again with a current tool"
            )
        if "manifests" in document and "layers" not in document:
            return msgspec.convert(_without_nulls(document), Index)
        return msgspec.convert(_without_nulls(document), Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidImage(f"the manifest cannot be read: {error}") from error


def _without_nulls(value: Any) -> Any:
    """`null` and absent are the same."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def chain_ids(diff_ids: list[str]) -> list[str]:
    """The id of each prefix of a stack of layers. Source: OCI image-spec config.md, "ChainID"."""
    chain: list[str] = []
    for diff_id in diff_ids:
        if chain:
            text = f"{chain[-1]} {diff_id}".encode()
            chain.append(f"sha256:{hashlib.sha256(text).hexdigest()}")
        else:
            chain.append(diff_id)
    return chain
