"""Reading an image archive: docker-archive or OCI layout, in one pass over the stream.

Layers are unpacked as they come by, before the archive has said (at its end, mostly) which image
they belong to; nothing is spooled to the disk. Afterwards the metadata says which staged layer is
which, and digests decide whether that is true.

Source: moby image/tarexport (manifest.json); OCI image-layout.md.
"""

import posixpath
from collections.abc import Callable

import msgspec
from msgspec import Struct, field

from teu.content.blobs import WrongDigest, digest_of
from teu.image.layers import LayerFiles, StagedLayer
from teu.image.platform import choose
from teu.model.image import (
    INDEX_TYPES,
    Descriptor,
    ImageConfig,
    Index,
    InvalidImage,
    Manifest,
    Platform,
    parse_config,
    parse_manifest,
)
from teu.model.reference import InvalidReference, Reference
from teu.sys.archivepath import clean_path
from teu.sys.codec import CHUNK_BYTES, Hashed, Peeked, Source, decoded, detect
from teu.sys.tarheader import HARD_LINK, REGULAR, SYMLINK, Entry, InvalidArchive
from teu.sys.tarstream import TarStream

_METADATA_LIMIT_BYTES = 8 << 20
_ALL_METADATA_LIMIT_BYTES = 64 << 20
_USTAR_MAGIC = slice(257, 262)
_BLOB_PREFIX = "blobs/sha256/"
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
LayerSeen = Callable[[str, int, int], None]


class ArchivedImage(Struct, kw_only=True):
    """One image of an archive. `layers` are keys of the archive's staged layers, base first."""

    config: ImageConfig
    config_data: bytes
    layers: list[str]
    names: list[Reference]
    manifest_data: bytes = b""

    @property
    def id(self) -> str:
        return digest_of(self.config_data)


class ImageArchive(Struct):
    """What was read: images, and staged layers by their name in the archive."""

    images: list[ArchivedImage] = field(default_factory=list)
    layers: dict[str, StagedLayer] = field(default_factory=dict)


class _DockerManifest(Struct):
    """One element of manifest.json."""

    Config: str
    RepoTags: list[str] | None = None
    Layers: list[str] | None = None


def read_archive(
    source: Source, layers: LayerFiles, on_layer: LayerSeen, platform: Platform
) -> ImageArchive:
    """Reads it all (in a thread); the caller settles or discards the staged layers.

    Raises: InvalidArchive, InvalidImage, DamagedStream, WrongDigest, SystemFailure; then nothing
    is left of it.
    """
    reader = _Reader(layers, on_layer)
    try:
        reader.read(decoded(source)[0])
        return ImageArchive(reader.images(platform), reader.layers)
    except BaseException:
        for layer in reader.layers.values():
            layers.discard(layer)
        raise


class _Reader:
    def __init__(self, layers: LayerFiles, on_layer: LayerSeen) -> None:
        self._files = layers
        self._on_layer = on_layer
        self._metadata: dict[str, bytes] = {}
        self._metadata_bytes = 0
        self._aliases: dict[str, str] = {}
        self.layers: dict[str, StagedLayer] = {}

    # --- pass over the stream -----------------------------------------------------------

    def read(self, source: Source) -> None:
        stream = TarStream(source)
        while entry := stream.next():
            name = _text(clean_path(entry.name))
            if entry.kind == REGULAR:
                self._file(name, entry, stream)
            elif entry.kind == SYMLINK:
                target = posixpath.join(posixpath.dirname(name), _text(entry.link))
                self._aliases[name] = posixpath.normpath(target).lstrip("/")
            elif entry.kind == HARD_LINK:
                self._aliases[name] = _text(clean_path(entry.link))

    def _file(self, name: str, entry: Entry, stream: TarStream) -> None:
        hashed = Hashed(_Payload(stream, lambda done: self._on_layer(name, done, entry.size_bytes)))
        peeked = Peeked(hashed, min(512, entry.payload_bytes))
        if name in self.layers or name in self._metadata:
            raise InvalidArchive(f"{name} is in the archive twice")
        if _looks_like_layer(name, peeked.head):
            self.layers[name] = self._files.stage(peeked)
        elif entry.payload_bytes <= _METADATA_LIMIT_BYTES:
            self._keep(name, peeked)
        while hashed.read(CHUNK_BYTES):
            pass
        if name.startswith(_BLOB_PREFIX):
            expected = "sha256:" + name.removeprefix(_BLOB_PREFIX)
            if hashed.digest != expected:
                raise WrongDigest(expected, hashed.digest, f"blob {name} of the archive")

    def _keep(self, name: str, source: Source) -> None:
        parts = []
        while part := source.read(CHUNK_BYTES):
            parts.append(part)
            self._metadata_bytes += len(part)
            if self._metadata_bytes > _ALL_METADATA_LIMIT_BYTES:
                raise InvalidArchive("the archive has more metadata than any image needs")
        self._metadata[name] = b"".join(parts)

    # --- what it meant ------------------------------------------------------------------

    def images(self, platform: Platform) -> list[ArchivedImage]:
        if "manifest.json" in self._metadata:
            return [self._docker_image(item) for item in self._docker_manifest()]
        if "index.json" in self._metadata:
            return self._oci_images(platform)
        raise InvalidArchive(
            "the archive has neither manifest.json nor index.json, so it is not an image archive: "
            "a root file system becomes an image with `teu import`"
        )

    def _docker_manifest(self) -> list[_DockerManifest]:
        try:
            return msgspec.json.decode(self._metadata["manifest.json"], type=list[_DockerManifest])
        except msgspec.DecodeError as error:
            raise InvalidImage(f"manifest.json of the archive cannot be read: {error}") from error

    def _docker_image(self, item: _DockerManifest) -> ArchivedImage:
        data = self._blob(item.Config)
        names = []
        for tag in item.RepoTags or []:
            try:
                names.append(Reference.parse(tag).with_default_tag())
            except InvalidReference as error:
                raise InvalidReference(f"invalid tag {tag!r}: {error}") from error
        keys = [self._layer_key(path) for path in item.Layers or []]
        return self._checked(data, keys, names)

    def _oci_images(self, platform: Platform) -> list[ArchivedImage]:
        index = parse_manifest(self._metadata["index.json"])
        if not isinstance(index, Index):
            raise InvalidImage("index.json of the archive is not an index")
        found = []
        for descriptor in index.manifests:
            data = self._blob_by_digest(descriptor.digest)
            manifest = parse_manifest(data, descriptor.media_type)
            if isinstance(manifest, Index):
                chosen = choose(manifest.manifests, platform, "the archive")
                data = self._blob_by_digest(chosen.digest)
                manifest = parse_manifest(data, chosen.media_type)
            if not isinstance(manifest, Manifest):
                raise InvalidImage(f"an index in an index ({', '.join(INDEX_TYPES)})")
            found.append(self._oci_image(manifest, data, descriptor))
        return found

    def _oci_image(self, manifest: Manifest, data: bytes, descriptor: Descriptor) -> ArchivedImage:
        config = self._blob_by_digest(manifest.config.digest)
        keys = [self._layer_key(_blob_path(layer.digest)) for layer in manifest.layers]
        image = self._checked(config, keys, _annotated_names(descriptor))
        image.manifest_data = data
        return image

    def _checked(self, data: bytes, keys: list[str], names: list[Reference]) -> ArchivedImage:
        config = parse_config(data)
        diff_ids = config.rootfs.diff_ids
        if len(diff_ids) != len(keys):
            raise InvalidImage(
                f"the image's config has {len(diff_ids)} layers, its manifest {len(keys)}"
            )
        for key, diff_id in zip(keys, diff_ids, strict=True):
            if self.layers[key].diff_id != diff_id:
                raise WrongDigest(diff_id, self.layers[key].diff_id, f"layer {key} of the archive")
        return ArchivedImage(config=config, config_data=data, layers=keys, names=names)

    def _blob(self, path: str) -> bytes:
        name = self._resolved(path, self._metadata)
        if name is None:
            raise InvalidArchive(f"the archive's manifest names {path}, which is not in it")
        return self._metadata[name]

    def _blob_by_digest(self, digest: str) -> bytes:
        return self._blob(_blob_path(digest))

    def _layer_key(self, path: str) -> str:
        name = self._resolved(path, self.layers)
        if name is None:
            raise InvalidArchive(f"the archive's manifest names layer {path}, which is not in it")
        return name

    def _resolved(self, path: str, known: dict[str, bytes] | dict[str, StagedLayer]) -> str | None:
        name = posixpath.normpath(path).lstrip("/")
        for _ in range(8):
            if name in known:
                return name
            if name not in self._aliases:
                return None
            name = self._aliases[name]
        return None


class _Payload:
    """A member's payload as a source; tells how far it is."""

    def __init__(self, stream: TarStream, on_progress: Callable[[int], None]) -> None:
        self._pieces = stream.payload()
        self._on_progress = on_progress
        self._done = 0

    def read(self, size: int = -1) -> bytes:
        piece = bytes(next(self._pieces, b""))
        self._done += len(piece)
        self._on_progress(self._done)
        return piece


def _looks_like_layer(name: str, head: bytes) -> bool:
    if name.endswith("layer.tar") or detect(head):
        return True
    return head[_USTAR_MAGIC] == b"ustar" or (len(head) >= 512 and not any(head))


def _blob_path(digest: str) -> str:
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


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
