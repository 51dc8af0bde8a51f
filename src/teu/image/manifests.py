"""An image's manifests as the API lists them (`images --tree`, `inspect`): the platforms that are
here, and those that its index names besides.

Source: API 1.51 ImageManifestSummary, OCIDescriptor; BuildKit's attestation storage (annotations).
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from teu.content.blobs import BlobStore
from teu.errors import EngineError
from teu.image.catalog import Catalog
from teu.image.removal import ImageUsers
from teu.model.image import (
    OCI_MANIFEST,
    Descriptor,
    Image,
    Index,
    Platform,
    parse_manifest,
)

_REFERENCE_TYPE = "vnd.docker.reference.type"
_REFERENCE_DIGEST = "vnd.docker.reference.digest"
_ATTESTATION = "attestation-manifest"


class Manifests:
    """See the module's text. Reads small blobs."""

    def __init__(self, catalog: Catalog, blobs: BlobStore, users: ImageUsers) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._users = users

    def descriptor(self, image: Image) -> dict[str, Any] | None:
        """Of the index, or the manifest, that an image came with; None for one made here."""
        digest = self._catalog.index_of(image.id) or image.record.manifest_digest
        described = self._described(digest) if digest else None
        return _shape(described) if described else None

    def of(self, image: Image) -> list[dict[str, Any]]:
        """All platforms, this image first; then what its index has that is not here."""
        here = [image, *self._catalog.companions(image)]
        rows = [self._row(variant) for variant in here]
        known = {variant.record.manifest_digest for variant in here}
        index = self._index(image)
        rows += [_absent(entry) for entry in index if entry.digest not in known]
        return rows

    def _index(self, image: Image) -> list[Descriptor]:
        digest = self._catalog.index_of(image.id)
        try:
            found = parse_manifest(self._blobs.read(digest)) if digest else None
        except EngineError:
            return []
        return found.manifests if isinstance(found, Index) else []

    def _described(self, digest: str) -> Descriptor | None:
        try:
            data = self._blobs.read(digest)
            media_type = parse_manifest(data).media_type
        except EngineError:
            return None
        return Descriptor(media_type or OCI_MANIFEST, digest, len(data))

    def _row(self, image: Image) -> dict[str, Any]:
        digest = image.record.manifest_digest or image.id
        described = self._described(digest) or Descriptor(OCI_MANIFEST, digest, 0)
        described.platform = image.config.platform
        content = sum(self._sizes(image))
        unpacked = 0 if image.record.artifact_type else image.size_bytes
        row = {
            "ID": digest,
            "Descriptor": _shape(described),
            "Available": True,
            "Size": {"Content": content, "Total": content + unpacked},
            "Kind": "unknown" if image.record.artifact_type else "image",
        }
        if not image.record.artifact_type:
            users = self._users.containers_using(image.id)
            row["ImageData"] = _image_data(image.config.platform, [i for i, _ in users], unpacked)
        return row

    def _sizes(self, image: Image) -> Iterator[int]:
        for digest in self._catalog.blobs_of(image.id):
            try:
                yield self._blobs.size_bytes(digest)
            except EngineError:
                continue


def _absent(entry: Descriptor) -> dict[str, Any]:
    """A manifest of the index whose content is not here."""
    annotations = entry.annotations or {}
    row: dict[str, Any] = {
        "ID": entry.digest,
        "Descriptor": _shape(entry),
        "Available": False,
        "Size": {"Content": 0, "Total": 0},
        "Kind": "image",
    }
    if annotations.get(_REFERENCE_TYPE) == _ATTESTATION:
        row["Kind"] = "attestation"
        row["AttestationData"] = {"For": annotations.get(_REFERENCE_DIGEST, "")}
    else:
        row["ImageData"] = _image_data(entry.platform or Platform(), [], 0)
    return row


def _image_data(platform: Platform, containers: list[str], unpacked: int) -> dict[str, Any]:
    return {
        "Platform": msgspec.to_builtins(platform),
        "Containers": containers,
        "Size": {"Unpacked": unpacked},
    }


def _shape(descriptor: Descriptor) -> dict[str, Any]:
    shape: dict[str, Any] = msgspec.to_builtins(descriptor)
    return shape
