"""The images in memory: what `run`, `images` and `inspect` read without any I/O.

One snapshot of all rows and configs, replaced piece by piece as the store changes. Loop's thread.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec

from teu.content.blobs import BlobStore
from teu.errors import DataLoss, EngineError, NotFound
from teu.ids import is_hex
from teu.image.layers import LayerFiles
from teu.image.names import Names
from teu.image.platform import host_platform, matches
from teu.model.image import (
    Image,
    ImageConfig,
    ImageRecord,
    artifact_config,
    created_ns,
    parse_config,
)
from teu.model.reference import InvalidReference, Reference
from teu.store.images import ImageStore, LayerRow, Named

_ID_PREFIX = "sha256:"
log = logging.getLogger(__name__)


class NoSuchImage(NotFound):
    """Docker's text; `reference` in familiar form."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"No such image: {reference}")
        self.reference = reference


class Catalog:
    """See the module's text."""

    def __init__(self, store: ImageStore, blobs: BlobStore, layers: LayerFiles) -> None:
        self._store = store
        self._blobs = blobs
        self._files = layers
        self._images: dict[str, Image] = {}
        self._names = Names({})
        self._layers: dict[str, LayerRow] = {}
        self._lost_layers: set[str] = set()
        self._broken: dict[str, str] = {}

    def load(self) -> None:
        """Reads everything. An image whose config is gone is kept aside and reported."""
        self._layers = {row.chain_id: row for row in self._store.layers()}
        self._lost_layers = self._files.missing(self._layers.values())
        self._names = Names(self._store.references())
        self._broken = {image_id: "its record cannot be read" for image_id in self._store.broken()}
        for record in self._store.images():
            self._take(record)
        for name, meaning in self._names.all():
            if len(meaning.image_ids) > 1:
                found = [self._images[i] for i in meaning.image_ids if i in self._images]
                lost = [i for i in meaning.image_ids if i not in self._images]
                self._names.mean(name, Named((*_in_order(found), *lost), meaning.index_digest))
        self._refresh(set(self._images))
        for image_id, reason in self._broken.items():
            log.error("image %s is damaged and cannot be used: %s", image_id, reason)

    def _take(self, record: ImageRecord) -> None:
        try:
            config = self._config(record)
        except EngineError as error:
            self._broken[record.id] = str(error)
            return
        self._broken.pop(record.id, None)
        self._images[record.id] = _image(record, config, self._names)

    def reload(self) -> None:
        """Looks again at what was broken: some of it may have been repaired."""
        for record in self._store.images():
            if record.id in self._broken:
                self._take(record)

    def _config(self, record: ImageRecord) -> ImageConfig:
        data = self._blobs.read(record.id)
        return artifact_config(data) if record.artifact_type else parse_config(data)

    # --- looking up ---------------------------------------------------------------------

    def all(self) -> list[Image]:
        return list(self._images.values())

    def find(self, image_id: str) -> Image | None:
        return self._images.get(image_id)

    def get(self, image_id: str) -> Image:
        """Raises: NoSuchImage; DataLoss for a damaged one."""
        image = self._images.get(image_id)
        if image is None:
            if image_id in self._broken:
                raise DataLoss(
                    f"image {image_id} is damaged: {self._broken[image_id]}; remove it and pull "
                    "or load it again"
                )
            raise NoSuchImage(image_id)
        return image

    def resolve(self, ref: str) -> Image:
        """By name, name@digest, id, or a prefix of an id that only one image has.

        Raises: NoSuchImage, InvalidReference, DataLoss.
        """
        image_id = self._names.first(ref) or self.find_id(ref)
        if image_id is None:
            raise NoSuchImage(_familiar(ref))
        return self.get(image_id)

    def find_id(self, ref: str) -> str | None:
        """The id that `ref` means. Raises: InvalidReference."""
        hexadecimal = ref.removeprefix(_ID_PREFIX)
        if len(hexadecimal) == 64 and is_hex(hexadecimal):
            full = _ID_PREFIX + hexadecimal
            return full if full in self._images or full in self._broken else None
        try:
            named = stored_name(Reference.parse(ref))
        except InvalidReference:
            named = ""
            if not is_hex(hexadecimal):
                raise
        return self._names.first(named) or self._by_prefix(hexadecimal)

    def broken_id(self, ref: str) -> str | None:
        """The id of a damaged image that `ref` means."""
        if not self._broken:
            return None
        image_id = self.find_id(ref)
        return image_id if image_id in self._broken else None

    def named(self, name: Reference) -> str | None:
        """The id a reference means first, by name only."""
        return self._names.first(stored_name(name))

    def variants(self, ref: str) -> list[Image]:
        """All images that a name means, this machine's platform first; one for an id.

        Raises: NoSuchImage, InvalidReference, DataLoss.
        """
        image = self.resolve(ref)
        meaning = self._meaning(ref)
        if meaning is None or image.id not in meaning.image_ids:
            return [image]
        return [self._images[i] for i in meaning.image_ids if i in self._images]

    def companions(self, image: Image) -> list[Image]:
        """The other platforms of the names that mean this image first."""
        found: dict[str, None] = {}
        for name in self._names.led_by(image.id):
            meaning = self._names.get(name)
            found.update(dict.fromkeys(meaning.image_ids[1:] if meaning else ()))
        return [self._images[image_id] for image_id in found if image_id in self._images]

    def index_of(self, ref: str) -> str:
        """The digest of the index that a name, or an image's first name, came from; else ""."""
        meaning = self._meaning(ref)
        if meaning is None:
            names = self._names.led_by(self.resolve(ref).id)
            meaning = self._names.get(names[0]) if names else None
        return meaning.index_digest if meaning else ""

    def _meaning(self, ref: str) -> Named | None:
        try:
            return self._names.get(stored_name(Reference.parse(ref)))
        except InvalidReference:
            return None

    def tags(self) -> list[tuple[Image, Reference]]:
        """All tags, sorted by name, with the image each means first."""
        return [
            (self._images[meaning.image_ids[0]], reference)
            for name, meaning in self._names.all()
            if meaning.image_ids[0] in self._images
            and not (reference := Reference.parse(name)).digest
        ]

    def _by_prefix(self, prefix: str) -> str | None:
        if not is_hex(prefix):
            return None
        full = _ID_PREFIX + prefix
        found = [image_id for image_id in self._images if image_id.startswith(full)]
        return found[0] if len(found) == 1 else None

    def names_of(self, image_id: str) -> list[str]:
        """Full names of an image, sorted; also those that mean another platform's first."""
        return self._names.of(image_id)

    def names_led_by(self, image_id: str) -> list[str]:
        """Full names that mean this image first."""
        return self._names.led_by(image_id)

    # --- layers -------------------------------------------------------------------------

    def layer(self, chain_id: str) -> LayerRow | None:
        """None for a layer that is not there, or whose directory is lost."""
        row = self._layers.get(chain_id)
        return None if row is None or chain_id in self._lost_layers else row

    def layer_with(self, diff_id: str) -> LayerRow | None:
        """Any layer with this content, wherever it is stacked."""
        for row in self._layers.values():
            if row.diff_id == diff_id and row.chain_id not in self._lost_layers:
                return row
        return None

    def layers(self) -> dict[str, LayerRow]:
        return self._layers

    def directories(self, chain_ids: list[str]) -> list[Path]:
        """Top first. Raises: DataLoss when one is missing."""
        found = []
        for chain_id in reversed(chain_ids):
            row = self.layer(chain_id)
            if row is None:
                raise DataLoss(
                    f"layer {chain_id} is missing from the store: pull or load its image again"
                )
            found.append(self._files.path(row.directory))
        return found

    def used_layers(self) -> set[str]:
        """Chain ids of all images' layers."""
        return {chain_id for record in self._store.images() for chain_id in record.chain_ids}

    def blobs_of(self, image_id: str) -> list[str]:
        """Digests of the config and the manifests that are kept with an image."""
        return self._store.blobs_of(image_id)

    def blob_owners(self) -> dict[str, list[str]]:
        """The images that keep each blob."""
        return self._store.blob_owners()

    def used_blobs(self) -> set[str]:
        return self._store.used_blobs()

    def records(self) -> list[ImageRecord]:
        """All that can be read, of damaged images too."""
        return self._store.images()

    def broken(self) -> dict[str, str]:
        """Damaged images, and why."""
        return dict(self._broken)

    def check_database(self) -> list[str]:
        """What is wrong with the database's file (for a thread)."""
        return self._store.check()

    def strays(self) -> list[str]:
        """Names that mean images which are not there."""
        return self._store.strays()

    @property
    def is_incomplete(self) -> bool:
        """Whether there is a record that cannot be read, so that nobody knows what it needs."""
        return bool(self._store.broken())

    # --- changes, each with its rows ----------------------------------------------------

    def add_layer(self, row: LayerRow) -> None:
        """A registered layer; takes the place of one whose directory was lost."""
        self._store.add_layer(row)
        self._layers[row.chain_id] = row
        self._lost_layers.discard(row.chain_id)

    def add(
        self,
        record: ImageRecord,
        config: ImageConfig,
        *,
        names: Iterable[Reference],
        blobs: Iterable[str],
        index_digest: str = "",
    ) -> Image:
        """Stores an image, or more names for one that is there. Everything must be durable.

        Names that meant images of the same index go on meaning those too.
        """
        known = self._images.get(record.id)
        if known is not None:
            record = msgspec.structs.replace(
                known.record,
                manifest_digest=record.manifest_digest or known.record.manifest_digest,
                tagged_ns=record.tagged_ns,
                annotations=record.annotations or known.record.annotations,
            )
        image = _image(record, config, self._names)
        meanings = {
            name: self._joined(name, image, index_digest) for name in map(stored_name, names)
        }
        self._store.add(record, names=meanings, blobs=blobs)
        self._broken.pop(record.id, None)
        self._images[record.id] = image
        self._set(meanings)
        return self._images[record.id]

    def _joined(self, name: str, image: Image, index_digest: str) -> Named:
        before = self._names.get(name)
        if not index_digest or before is None or before.index_digest != index_digest:
            return Named((image.id,), index_digest)
        others = [
            other
            for image_id in before.image_ids
            if (other := self._images.get(image_id)) is not None
            and other.config.platform != image.config.platform
        ]
        return Named(_in_order([image, *others]), index_digest)

    def tag(self, image: Image, name: Reference, at_ns: int, like: str = "") -> None:
        """`name` means this image; with `like`, all that this text means."""
        meaning = (self._meaning(like) if like else None) or Named((image.id,))
        full = stored_name(name)
        record = msgspec.structs.replace(image.record, tagged_ns=at_ns)
        self._store.name({full: meaning}, [record])
        self._images[image.id] = _image(record, image.config, self._names)
        self._set({full: meaning})

    def untag(self, names: Iterable[str]) -> None:
        """By full names."""
        names = list(names)
        self._store.unname(names)
        self._refresh(self._names.drop(names))

    def part(self, image_id: str, names: Iterable[str]) -> None:
        """Names mean an image no longer; they go where it was the last."""
        left = self._names.without(image_id)
        left = {name: left[name] for name in names}
        self._store.name({name: meaning for name, meaning in left.items() if meaning})
        self._set({name: meaning for name, meaning in left.items() if meaning})
        self.untag([name for name, meaning in left.items() if meaning is None])

    def remove(self, image_id: str) -> None:
        self._store.remove(image_id)
        self._images.pop(image_id, None)
        self._broken.pop(image_id, None)
        left = self._names.without(image_id)
        self._refresh(self._names.drop(left))
        self._set({name: meaning for name, meaning in left.items() if meaning})

    def remove_layers(self, chain_ids: list[str]) -> None:
        self._store.remove_layers(chain_ids)
        for chain_id in chain_ids:
            self._layers.pop(chain_id, None)
            self._lost_layers.discard(chain_id)

    def _set(self, meanings: dict[str, Named]) -> None:
        for name, meaning in meanings.items():
            self._refresh(self._names.mean(name, meaning))

    def _refresh(self, image_ids: set[str]) -> None:
        for image_id in image_ids & self._images.keys():
            image = self._images[image_id]
            self._images[image_id] = _image(image.record, image.config, self._names)


def stored_name(name: Reference) -> str:
    """How a reference is kept: a digest makes the tag meaningless, nothing means `latest`."""
    if name.digest:
        return str(name.with_digest(name.digest))
    return str(name.with_default_tag())


def _familiar(ref: str) -> str:
    try:
        return Reference.parse(ref).with_default_tag().familiar
    except InvalidReference:
        return ref


def _in_order(images: Iterable[Image]) -> tuple[str, ...]:
    """This machine's platform first, then the latest."""
    host = host_platform()

    def rank(image: Image) -> tuple[bool, bool, int]:
        have = image.config.platform
        is_native = have.architecture == host.architecture
        return not matches(host, have), not is_native, -image.record.stored_ns

    return tuple(image.id for image in sorted(images, key=rank))


def _image(record: ImageRecord, config: ImageConfig, names: Names) -> Image:
    leading, every = names.led_by(record.id), names.of(record.id)
    references = [Reference.parse(name) for name in leading or every]
    return Image(
        id=record.id,
        config=config,
        chain_ids=record.chain_ids,
        repo_tags=sorted(r.familiar for r in references if not r.digest),
        repo_digests=sorted(r.familiar for r in references if r.digest),
        size_bytes=record.size_bytes,
        created_ns=created_ns(config),
        record=record,
        is_variant=bool(every) and not leading,
    )
