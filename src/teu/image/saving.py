"""`save`: images as one tar that is an OCI layout and a docker-archive at once.

    blobs/sha256/HEX   layers (plain tar), configs, manifests
    index.json, oci-layout            for OCI tools
    manifest.json, repositories       for Docker's own

The layers are made again from their trees and skeletons, and checked against their digests while
they are written. Source: OCI image-layout.md; moby image/tarexport/save.go (since 25).
"""

import hashlib
import json
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct, field

from teu.content.blobs import BlobStore, digest_of
from teu.errors import DataLoss
from teu.image.catalog import Catalog
from teu.image.layers import LayerFiles
from teu.image.variants import variant_for
from teu.model.image import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Image,
    Index,
    Manifest,
    Platform,
    parse_manifest,
)
from teu.model.reference import InvalidReference, Reference
from teu.store.images import LayerRow
from teu.sys.pack import END
from teu.sys.tarheader import BLOCK, DIRECTORY, Entry, build, padded

_NAME_ANNOTATION = "io.containerd.image.name"
_TAG_ANNOTATION = "org.opencontainers.image.ref.name"


class SavedImage(Struct):
    """An image in one or more platforms (this machine's first), and the names it is saved under
    (none when asked for by id)."""

    variants: list[Image]
    names: list[Reference] = field(default_factory=list)


def choose_images(
    catalog: Catalog, refs: Iterable[str], platform: Platform | None
) -> list[SavedImage]:
    """What to save: a name without a tag means all tags of that repository.

    Raises: NoSuchImage, NoSuchVariant, InvalidReference.
    """
    chosen: dict[tuple[str, ...], SavedImage] = {}
    for ref in refs:
        for text, name in _matching(catalog, ref):
            variants = catalog.variants(text)
            if platform is not None:
                variants = [variant_for(variants, platform, ref)]
            key = tuple(image.id for image in variants)
            saved = chosen.setdefault(key, SavedImage(variants))
            if name is not None and name not in saved.names:
                saved.names.append(name)
    return list(chosen.values())


def _matching(catalog: Catalog, ref: str) -> list[tuple[str, Reference | None]]:
    """What a user's text means: (name or id, the name to save it under)."""
    try:
        name = Reference.parse(ref)
    except InvalidReference:
        return [(ref, None)]
    if not name.tag and not name.digest:
        found: list[tuple[str, Reference | None]] = [
            (str(tag), tag) for _, tag in catalog.tags() if tag.name == name.name
        ]
        if found:
            return found
    by_name = catalog.named(name) is not None
    return [(ref, name if by_name and not name.digest else None)]


class Saver:
    """Makes the archive; file work, for a thread. Give it rows, not the catalog, to read."""

    def __init__(
        self, blobs: BlobStore, layers: LayerFiles, images: list[SavedImage], catalog: Catalog
    ) -> None:
        self._blobs = blobs
        self._layers = layers
        self._images = images
        self._rows = {
            image.id: _rows(catalog, image) for saved in images for image in saved.variants
        }
        self._contents = {
            image.id: catalog.blobs_of(image.id)
            for saved in images
            for image in saved.variants
            if image.record.artifact_type
        }
        self._written: set[str] = set()
        self._descriptors: list[Descriptor] = []
        self._docker: list[dict[str, Any]] = []

    def pieces(self) -> Iterator[bytes]:
        """Raises: DataLoss when a layer or config is missing or damaged."""
        for name in ("blobs/", *(f"blobs/{algorithm}/" for algorithm in self._algorithms())):
            yield build(_directory(name))
        for saved in self._images:
            found = []
            for image in saved.variants:
                found.append((yield from self._variant(image, saved)))
            yield from self._described(saved, found)
        index = Index(2, self._descriptors, OCI_INDEX)
        yield from self._file("index.json", msgspec.json.encode(index))
        yield from self._file("manifest.json", json.dumps(self._docker).encode())
        yield from self._file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        if repositories := self._repositories():
            yield from self._file("repositories", json.dumps(repositories).encode())
        yield END

    def _variant(self, image: Image, saved: SavedImage) -> Generator[bytes, None, Descriptor]:
        if image.record.artifact_type:
            return (yield from self._artifact(image))
        config = self._blobs.read(image.id)
        layers = []
        for row in self._rows[image.id]:
            size = self._layers.archive_bytes(row)
            layers.append(Descriptor(OCI_LAYER, row.diff_id, size))
            if self._is_new(row.diff_id):
                yield build(_regular(_blob_path(row.diff_id), size))
                yield from self._layers.archive(row)
                yield bytes(-size % BLOCK)
        yield from self._blob(image.id, config)
        described = Descriptor(OCI_CONFIG, image.id, len(config))
        manifest = msgspec.json.encode(
            Manifest(2, described, layers, OCI_MANIFEST, image.record.annotations or None)
        )
        digest = digest_of(manifest)
        yield from self._blob(digest, manifest)
        self._docker.append(
            {
                "Config": _blob_path(image.id),
                "RepoTags": _tags(saved) if image is saved.variants[0] else None,
                "Layers": [_blob_path(layer.digest) for layer in layers],
                "LayerSources": {layer.digest: msgspec.to_builtins(layer) for layer in layers},
            }
        )
        platform = image.config.platform
        return Descriptor(OCI_MANIFEST, digest, len(manifest), platform=platform)

    def _artifact(self, image: Image) -> Generator[bytes, None, Descriptor]:
        """All its blobs as they came."""
        for digest in self._contents[image.id]:
            if self._is_new(digest):
                size = self._blobs.size_bytes(digest)
                yield build(_regular(_blob_path(digest), size))
                yield from self._checked(digest, size)
                yield bytes(-size % BLOCK)
        data = self._blobs.read(image.id)
        media_type = parse_manifest(data).media_type or OCI_MANIFEST
        return Descriptor(media_type, image.id, len(data), artifact_type=image.record.artifact_type)

    def _algorithms(self) -> list[str]:
        """Of all digests in the archive; sha256 always."""
        used = {digest.partition(":")[0] for found in self._contents.values() for digest in found}
        return sorted({"sha256", *used})

    def _checked(self, digest: str, size_bytes: int) -> Iterator[bytes]:
        algorithm = digest.partition(":")[0]
        actual = hashlib.new(algorithm)
        done = 0
        for piece in self._blobs.chunks(digest):
            actual.update(piece)
            done += len(piece)
            yield piece
        if f"{algorithm}:{actual.hexdigest()}" != digest or done != size_bytes:
            raise DataLoss(f"blob {digest} is damaged: pull or load its artifact again")

    def _described(self, saved: SavedImage, found: list[Descriptor]) -> Iterator[bytes]:
        """The entries of index.json: one for each name; several platforms are an index."""
        descriptor = found[0]
        if len(found) > 1:
            data = msgspec.json.encode(Index(2, found, OCI_INDEX))
            descriptor = Descriptor(OCI_INDEX, digest_of(data), len(data))
            yield from self._blob(descriptor.digest, data)
        if not saved.names:
            self._descriptors.append(descriptor)
        for name in saved.names:
            annotations = {_NAME_ANNOTATION: str(name), _TAG_ANNOTATION: name.tag}
            self._descriptors.append(msgspec.structs.replace(descriptor, annotations=annotations))

    def _repositories(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for saved in self._images:
            rows = self._rows[saved.variants[0].id]
            for name in saved.names:
                top = _hex(rows[-1].diff_id) if rows else ""
                found.setdefault(name.familiar_name, {})[name.tag] = top
        return found

    def _blob(self, digest: str, data: bytes) -> Iterator[bytes]:
        if self._is_new(digest):
            yield from self._file(_blob_path(digest), data)

    def _is_new(self, digest: str) -> bool:
        if digest in self._written:
            return False
        self._written.add(digest)
        return True

    def _file(self, name: str, data: bytes) -> Iterator[bytes]:
        yield build(_regular(name, len(data))) + padded(data)


def _tags(saved: SavedImage) -> list[str] | None:
    return [name.with_default_tag().familiar for name in saved.names] or None


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


def _blob_path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
