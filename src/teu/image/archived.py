"""What an archive means: its images and artifacts, found through its metadata, checked.

`index.json` of an OCI layout may hold more than Docker's `manifest.json` can say (several
platforms under one name, artifacts); the latter is used where both say the same, because its
names are the ones that Docker shows. Source: moby image/tarexport; OCI image-layout.md.
"""

from collections.abc import Iterator

import msgspec
from msgspec import Struct, field

from teu.content.blobs import WrongDigest, check_digest, digest_of
from teu.errors import NotFound
from teu.image.load import METADATA_LIMIT_BYTES, ArchiveContents
from teu.image.platform import best
from teu.model.image import (
    Descriptor,
    ImageConfig,
    Index,
    InvalidImage,
    Manifest,
    Platform,
    artifact_config,
    artifact_type,
    parse_config,
    parse_manifest,
)
from teu.model.reference import InvalidReference, Reference
from teu.sys.tarheader import InvalidArchive

_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_MAX_INDEX_DEPTH = 4
_UNKNOWN = "unknown"  # the platform of attestations


class ArchivedImage(Struct, kw_only=True):
    """One image (or artifact) of an archive. `layers` are names of its staged layers, base first;
    `blobs` those of an artifact's contents, by digest. `index_data`: the index it is one of."""

    config: ImageConfig
    data: bytes  # whose digest is the id: the config, or an artifact's manifest
    layers: list[str]
    names: list[Reference]
    manifest_data: bytes = b""
    index_data: bytes = b""
    artifact_type: str = ""
    blobs: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return digest_of(self.data)


class _DockerManifest(Struct):
    """One element of manifest.json."""

    Config: str
    RepoTags: list[str] | None = None
    Layers: list[str] | None = None


def archived_images(contents: ArchiveContents, platform: Platform | None) -> list[ArchivedImage]:
    """All of them, or those for one platform.

    Raises: InvalidArchive, InvalidImage, InvalidReference, WrongDigest; NotFound when there is
    none for the platform.
    """
    meaning = _Meaning(contents)
    if meaning.is_richer_as_oci():
        images = list(meaning.oci_images())
    elif "manifest.json" in contents.metadata:
        images = meaning.docker_images()
    elif "index.json" in contents.metadata:
        images = list(meaning.oci_images())
    else:
        raise InvalidArchive(
            "the archive has neither manifest.json nor index.json, so it is not an image archive: "
            "a root file system becomes an image with `teu import`"
        )
    return _of_platform(images, platform) if platform else images


def _of_platform(images: list[ArchivedImage], platform: Platform) -> list[ArchivedImage]:
    """The best of each name."""
    groups: dict[object, list[ArchivedImage]] = {}
    for image in images:
        groups.setdefault(digest_of(image.index_data) if image.index_data else image.id, []).append(
            image
        )
    found = []
    for group in groups.values():
        chosen = best([image.config.platform for image in group], platform)
        if chosen is not None:
            found.append(group[chosen])
    if not found:
        offered = ", ".join(sorted({str(image.config.platform) for image in images}))
        raise NotFound(
            f"the archive has no image for the specified platform ({platform}): it has {offered}"
        )
    return found


class _Meaning:
    def __init__(self, contents: ArchiveContents) -> None:
        self._contents = contents

    def is_richer_as_oci(self) -> bool:
        """Whether the index has what manifest.json has not: several platforms, artifacts, or
        images that a tool added which knows only OCI's files."""
        if "index.json" not in self._contents.metadata:
            return False
        told = self._docker_ids()
        for descriptor in self._index().manifests:
            manifest = self._manifest(descriptor)
            if isinstance(manifest, Index):
                return True
            if manifest and (artifact_type(manifest) or manifest.config.digest not in told):
                return True
        return False

    def _docker_ids(self) -> set[str]:
        if "manifest.json" not in self._contents.metadata:
            return set()
        return {digest_of(self._file(item.Config)) for item in self._docker_manifest()}

    # --- docker-archive -----------------------------------------------------------------

    def docker_images(self) -> list[ArchivedImage]:
        return [self._docker_image(item) for item in self._docker_manifest()]

    def _docker_manifest(self) -> list[_DockerManifest]:
        data = self._contents.metadata["manifest.json"]
        try:
            return msgspec.json.decode(data, type=list[_DockerManifest])
        except msgspec.DecodeError as error:
            raise InvalidImage(f"manifest.json of the archive cannot be read: {error}") from error

    def _docker_image(self, item: _DockerManifest) -> ArchivedImage:
        data = self._file(item.Config)
        names = []
        for tag in item.RepoTags or []:
            try:
                names.append(Reference.parse(tag).with_default_tag())
            except InvalidReference as error:
                raise InvalidReference(f"invalid tag {tag!r}: {error}") from error
        return self._image(data, item.Layers or [], names)

    # --- OCI layout ---------------------------------------------------------------------

    def oci_images(self) -> Iterator[ArchivedImage]:
        for descriptor in self._index().manifests:
            manifest = self._manifest(descriptor)
            names = _annotated_names(descriptor)
            if manifest is None:
                raise _not_there(_blob_path(descriptor.digest))
            data = self._blob(descriptor.digest)
            if isinstance(manifest, Manifest):
                yield self._oci_image(manifest, data, names)
                continue
            members = list(self._members(manifest))
            if not members:
                raise InvalidArchive(
                    f"the archive has none of the images that index {descriptor.digest} names"
                )
            for member, member_data in members:
                image = self._oci_image(member, member_data, names)
                image.index_data = data
                yield image

    def _index(self) -> Index:
        index = parse_manifest(self._contents.metadata["index.json"])
        if not isinstance(index, Index):
            raise InvalidImage("index.json of the archive is not an index")
        return index

    def _members(self, index: Index, depth: int = 0) -> Iterator[tuple[Manifest, bytes]]:
        """The manifests of an index that are in the archive whole; one platform may be saved
        without the others."""
        if depth >= _MAX_INDEX_DEPTH:
            raise InvalidImage(f"indexes are nested deeper than {_MAX_INDEX_DEPTH}")
        for descriptor in index.manifests:
            manifest = self._manifest(descriptor)
            if manifest is None or (descriptor.platform and descriptor.platform.os == _UNKNOWN):
                continue
            if isinstance(manifest, Index):
                yield from self._members(manifest, depth + 1)
            elif all(self._has(part.digest) for part in [manifest.config, *manifest.layers]):
                yield manifest, self._blob(descriptor.digest)

    def _manifest(self, descriptor: Descriptor) -> Manifest | Index | None:
        """None when it is not in the archive."""
        if not self._has(descriptor.digest):
            return None
        return parse_manifest(self._blob(descriptor.digest), descriptor.media_type)

    def _oci_image(self, manifest: Manifest, data: bytes, names: list[Reference]) -> ArchivedImage:
        if kind := artifact_type(manifest):
            return self._artifact(manifest, data, names, kind)
        config = self._blob(manifest.config.digest)
        paths = []
        for layer in manifest.layers:
            if layer.urls and not self._has(layer.digest):
                raise InvalidArchive(
                    f"layer {layer.digest} is not in the archive: it is a foreign layer, which its "
                    f"maker wants to be fetched from {layer.urls[0]}"
                )
            paths.append(_blob_path(layer.digest))
        image = self._image(config, paths, names)
        image.manifest_data = data
        return image

    def _artifact(
        self, manifest: Manifest, data: bytes, names: list[Reference], kind: str
    ) -> ArchivedImage:
        blobs = {}
        for part in [manifest.config, *manifest.layers]:
            if not self._has(part.digest):
                raise _not_there(_blob_path(part.digest))
            blobs[part.digest] = self._contents.resolved(_blob_path(part.digest))
        return ArchivedImage(
            config=artifact_config(data),
            data=data,
            layers=[],
            names=names,
            artifact_type=kind,
            blobs=blobs,
        )

    # --- both ---------------------------------------------------------------------------

    def _image(self, data: bytes, paths: list[str], names: list[Reference]) -> ArchivedImage:
        config = parse_config(data)
        diff_ids = config.rootfs.diff_ids
        keys = [self._layer_key(path) for path in paths]
        if len(diff_ids) != len(keys):
            raise InvalidImage(
                f"the image's config has {len(diff_ids)} layers, its manifest {len(keys)}"
            )
        for key, diff_id in zip(keys, diff_ids, strict=True):
            actual = self._contents.layers[key].diff_id
            if actual != diff_id:
                raise WrongDigest(diff_id, actual, f"layer {key} of the archive")
        return ArchivedImage(config=config, data=data, layers=keys, names=names)

    def _layer_key(self, path: str) -> str:
        name = self._contents.resolved(path)
        if name not in self._contents.layers:
            raise InvalidArchive(f"the archive's manifest names layer {path}, which is not in it")
        return name

    def _has(self, digest: str) -> bool:
        name = self._contents.resolved(_blob_path(digest))
        known = self._contents
        return name in known.metadata or name in known.layers or name in known.spooled

    def _blob(self, digest: str) -> bytes:
        return self._file(_blob_path(digest))

    def _file(self, path: str) -> bytes:
        """Raises: InvalidArchive when it is not there, or too big to be metadata."""
        name = self._contents.resolved(path)
        data = self._contents.metadata.get(name)
        if data is not None:
            return data
        spooled = self._contents.spooled.get(name)
        if spooled is None or spooled.stat().st_size > METADATA_LIMIT_BYTES:
            raise _not_there(path)
        return spooled.read_bytes()


def _not_there(path: str) -> InvalidArchive:
    return InvalidArchive(f"the archive's manifest names {path}, which is not in it")


def _blob_path(digest: str) -> str:
    """Raises: InvalidParameter for a digest that could not be checked."""
    check_digest(digest)
    return "blobs/" + digest.replace(":", "/", 1)


def _annotated_names(descriptor: Descriptor) -> list[Reference]:
    """The names in a descriptor's annotations; a bare tag, as some tools write, is no name."""
    annotations = descriptor.annotations or {}
    for key in _NAME_ANNOTATIONS:
        value = annotations.get(key, "")
        if key == _NAME_ANNOTATIONS[0] or "/" in value or ":" in value:
            try:
                return [Reference.parse(value).with_default_tag()] if value else []
            except InvalidReference:
                continue
    return []
