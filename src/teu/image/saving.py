"""`save`: images as one tar that is an OCI layout and a docker-archive at once.

    blobs/sha256/HEX   layers (plain tar), configs, manifests
    index.json, oci-layout            for OCI tools
    manifest.json, repositories       for Docker's own

The layers are made again from their trees and skeletons, and checked against their digests while
they are written. Source: OCI image-layout.md; moby image/tarexport/save.go (since 25).
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct, field

from teu.content.blobs import BlobStore, digest_of
from teu.errors import DataLoss
from teu.image.catalog import Catalog
from teu.image.layers import LayerFiles
from teu.model.image import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Image,
    Index,
    Manifest,
)
from teu.model.reference import InvalidReference, Reference
from teu.store.images import LayerRow
from teu.sys.pack import END
from teu.sys.tarheader import BLOCK, DIRECTORY, Entry, build, padded

_BLOBS = "blobs/sha256/"
_NAME_ANNOTATION = "io.containerd.image.name"
_TAG_ANNOTATION = "org.opencontainers.image.ref.name"


class SavedImage(Struct):
    """An image and the names it is saved under (none when asked for by id)."""

    image: Image
    names: list[Reference] = field(default_factory=list)


def choose_images(catalog: Catalog, refs: Iterable[str]) -> list[SavedImage]:
    """What to save: a name without a tag means all tags of that repository.

    Raises: NoSuchImage, InvalidReference.
    """
    chosen: dict[str, SavedImage] = {}
    for ref in refs:
        for image, name in _matching(catalog, ref):
            saved = chosen.setdefault(image.id, SavedImage(image))
            if name is not None and name not in saved.names:
                saved.names.append(name)
    return list(chosen.values())


def _matching(catalog: Catalog, ref: str) -> list[tuple[Image, Reference | None]]:
    try:
        name = Reference.parse(ref)
    except InvalidReference:
        return [(catalog.resolve(ref), None)]
    if not name.tag and not name.digest:
        found: list[tuple[Image, Reference | None]] = [
            (image, tag) for image, tag in catalog.tags() if tag.name == name.name
        ]
        if found:
            return found
    image = catalog.resolve(ref)
    by_name = catalog.named(name) == image.id
    return [(image, name if by_name and not name.digest else None)]


class Saver:
    """Makes the archive; file work, for a thread. Give it rows, not the catalog, to read."""

    def __init__(
        self, blobs: BlobStore, layers: LayerFiles, images: list[SavedImage], catalog: Catalog
    ) -> None:
        self._blobs = blobs
        self._layers = layers
        self._images = images
        self._rows = {saved.image.id: _rows(catalog, saved.image) for saved in images}
        self._written: set[str] = set()
        self._descriptors: list[Descriptor] = []
        self._docker: list[dict[str, Any]] = []

    def pieces(self) -> Iterator[bytes]:
        """Raises: DataLoss when a layer or config is missing or damaged."""
        for name in ("blobs/", _BLOBS):
            yield build(_directory(name))
        for saved in self._images:
            yield from self._image(saved)
        index = Index(2, self._descriptors, OCI_INDEX)
        yield from self._file("index.json", msgspec.json.encode(index))
        yield from self._file("manifest.json", json.dumps(self._docker).encode())
        yield from self._file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        if repositories := self._repositories():
            yield from self._file("repositories", json.dumps(repositories).encode())
        yield END

    def _image(self, saved: SavedImage) -> Iterator[bytes]:
        config = self._blobs.read(saved.image.id)
        layers = []
        for row in self._rows[saved.image.id]:
            size = self._layers.archive_bytes(row)
            layers.append(Descriptor(OCI_LAYER, row.diff_id, size))
            if self._is_new(row.diff_id):
                yield build(_regular(_BLOBS + _hex(row.diff_id), size))
                yield from self._layers.archive(row)
                yield bytes(-size % BLOCK)
        manifest = msgspec.json.encode(
            Manifest(2, Descriptor(OCI_CONFIG, saved.image.id, len(config)), layers, OCI_MANIFEST)
        )
        digest = digest_of(manifest)
        for blob_digest, data in ((saved.image.id, config), (digest, manifest)):
            if self._is_new(blob_digest):
                yield from self._file(_BLOBS + _hex(blob_digest), data)
        self._describe(saved, layers, Descriptor(OCI_MANIFEST, digest, len(manifest)))

    def _describe(
        self, saved: SavedImage, layers: list[Descriptor], descriptor: Descriptor
    ) -> None:
        descriptor.platform = saved.image.config.platform
        if not saved.names:
            self._descriptors.append(descriptor)
        for name in saved.names:
            annotations = {_NAME_ANNOTATION: str(name), _TAG_ANNOTATION: name.tag}
            self._descriptors.append(msgspec.structs.replace(descriptor, annotations=annotations))
        self._docker.append(
            {
                "Config": _BLOBS + _hex(saved.image.id),
                "RepoTags": [name.familiar for name in saved.names] or None,
                "Layers": [_BLOBS + _hex(layer.digest) for layer in layers],
                "LayerSources": {layer.digest: msgspec.to_builtins(layer) for layer in layers},
            }
        )

    def _repositories(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for saved in self._images:
            rows = self._rows[saved.image.id]
            for name in saved.names:
                top = _hex(rows[-1].diff_id) if rows else ""
                found.setdefault(name.familiar_name, {})[name.tag] = top
        return found

    def _is_new(self, digest: str) -> bool:
        if digest in self._written:
            return False
        self._written.add(digest)
        return True

    def _file(self, name: str, data: bytes) -> Iterator[bytes]:
        yield build(_regular(name, len(data))) + padded(data)


def _rows(catalog: Catalog, image: Image) -> list[LayerRow]:
    rows = []
    for chain_id in image.chain_ids:
        row = catalog.layer(chain_id)
        if row is None:
            raise DataLoss(
                f"layer {chain_id} of {image.id} is missing: pull or load the image again"
            )
        rows.append(row)
    return rows


def _regular(name: str, size_bytes: int) -> Entry:
    entry = Entry(name.encode())
    entry.mode = 0o644
    entry.size_bytes = size_bytes
    return entry


def _directory(name: str) -> Entry:
    entry = Entry(name.encode(), DIRECTORY)
    entry.mode = 0o755
    return entry


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
