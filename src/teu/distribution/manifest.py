"""What a registry needs to know of a manifest or index: what it refers to, and about whom it tells.

Source: OCI image-spec 1.1 (manifest, index), Docker image manifest version 2 schema 2.
"""

import msgspec
from msgspec import Struct, field

from teu.distribution import grammar
from teu.distribution.errors import Refusal

LIMIT_BYTES = 4 << 20
BLOB, MANIFEST = "blob", "manifest"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_INDEX_TYPES = {INDEX_TYPE, "application/vnd.docker.distribution.manifest.list.v2+json"}
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"
_FOREIGN = ("rootfs.foreign", "nondistributable")  # layers that stay with their owner


class Descriptor(Struct):
    digest: str
    size: int = 0
    media_type: str = field(default="", name="mediaType")
    urls: list[str] | None = None


class Platform(Struct):
    os: str = ""
    architecture: str = ""
    variant: str = ""


class Child(Descriptor):
    platform: Platform | None = None


class Manifest(Struct):
    """A manifest (`config`, `layers`; of an artifact `blobs`) or an index (`manifests`)."""

    schema_version: int = field(default=0, name="schemaVersion")
    media_type: str = field(default="", name="mediaType")
    artifact_type: str = field(default="", name="artifactType")
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    blobs: list[Descriptor] | None = None
    manifests: list[Child] | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None

    @property
    def kind_of_artifact(self) -> str:
        """As referrers are listed: its artifact type, else the type of its config."""
        return self.artifact_type or (self.config.media_type if self.config else "")

    def needs(self) -> list[tuple[str, str]]:
        """(digest, BLOB or MANIFEST) of everything that must be there before it."""
        own = [*(self.layers or ()), *(self.blobs or ())]
        blobs = [part for part in own if not _is_foreign(part)]
        if self.config:
            blobs.insert(0, self.config)
        children = [(child.digest, MANIFEST) for child in self.manifests or ()]
        return [(part.digest, BLOB) for part in blobs] + children


_decoder = msgspec.json.Decoder(Manifest)


def parse(data: bytes, content_type: str) -> tuple[Manifest, str]:
    """The manifest and its media type. Raises: Refusal MANIFEST_INVALID."""
    if content_type.startswith(_SCHEMA_1):
        raise _invalid("manifests of schema version 1 are obsolete: push schema 2 or OCI")
    try:
        found = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise _invalid(str(error)) from error
    if found.schema_version != 2:
        raise _invalid(f"schemaVersion is {found.schema_version}, not 2")
    media_type = found.media_type or content_type.partition(";")[0].strip()
    if content_type and found.media_type and found.media_type != content_type.partition(";")[0]:
        raise _invalid(f"mediaType {found.media_type} differs from the Content-Type {content_type}")
    is_index = media_type in _INDEX_TYPES
    if is_index == (found.manifests is None):
        raise _invalid(f"the fields do not fit its media type {media_type or '(none)'}")
    if not is_index and found.config is None and found.blobs is None:
        raise _invalid("a manifest needs a config")
    for digest, _ in found.needs():
        grammar.check_digest(digest)
    if found.subject:
        grammar.check_digest(found.subject.digest)
    return found, media_type


def _is_foreign(part: Descriptor) -> bool:
    return bool(part.urls) or any(word in part.media_type for word in _FOREIGN)


def _invalid(reason: str) -> Refusal:
    return Refusal("MANIFEST_INVALID", "manifest invalid", {"reason": reason})
