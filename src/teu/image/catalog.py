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
from teu.model.image import Image, ImageConfig, ImageRecord, created_ns, parse_config
from teu.model.reference import InvalidReference, Reference
from teu.store.images import ImageStore, LayerRow

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
        self._names: dict[str, str] = {}
        self._layers: dict[str, LayerRow] = {}
        self._lost_layers: set[str] = set()
        self._broken: dict[str, str] = {}

    def load(self) -> None:
        """Reads everything. An image whose config is gone is kept aside and reported."""
        self._layers = {row.chain_id: row for row in self._store.layers()}
        self._lost_layers = self._files.missing(self._layers.values())
        self._names = self._store.references()
        self._broken = {image_id: "its record cannot be read" for image_id in self._store.broken()}
        names = self._names_by_image()
        for record in self._store.images():
            try:
                config = parse_config(self._blobs.read(record.id))
            except EngineError as error:
                self._broken[record.id] = str(error)
                continue
            self._images[record.id] = _image(record, config, names.get(record.id, []))
        for image_id, reason in self._broken.items():
            log.error("image %s is damaged and cannot be used: %s", image_id, reason)

    def _names_by_image(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, image_id in self._names.items():
            found.setdefault(image_id, []).append(name)
        return found

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
        image_id = self._names.get(ref) or self.find_id(ref)
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
        return self._names.get(named) or self._by_prefix(hexadecimal)

    def broken_id(self, ref: str) -> str | None:
        """The id of a damaged image that `ref` means."""
        if not self._broken:
            return None
        image_id = self.find_id(ref)
        return image_id if image_id in self._broken else None

    def named(self, name: Reference) -> str | None:
        """The id a reference means, by name only."""
        return self._names.get(stored_name(name))

    def tags(self) -> list[tuple[Image, Reference]]:
        """All tags, sorted by name."""
        return [
            (self._images[image_id], reference)
            for name, image_id in sorted(self._names.items())
            if image_id in self._images and not (reference := Reference.parse(name)).digest
        ]

    def _by_prefix(self, prefix: str) -> str | None:
        if not is_hex(prefix):
            return None
        full = _ID_PREFIX + prefix
        found = [image_id for image_id in self._images if image_id.startswith(full)]
        return found[0] if len(found) == 1 else None

    def names_of(self, image_id: str) -> list[str]:
        """Full names of an image, sorted."""
        return sorted(name for name, owner in self._names.items() if owner == image_id)

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

    def used_blobs(self) -> set[str]:
        return self._store.used_blobs()

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
    ) -> Image:
        """Stores an image, or more names for one that is there. Everything must be durable."""
        known = self._images.get(record.id)
        if known is not None:
            record = msgspec.structs.replace(
                known.record,
                manifest_digest=record.manifest_digest or known.record.manifest_digest,
                tagged_ns=record.tagged_ns,
            )
        full_names = [stored_name(name) for name in names]
        moved = {self._names[name] for name in full_names if name in self._names}
        self._store.add(record, names=full_names, blobs=blobs)
        self._broken.pop(record.id, None)
        for name in full_names:
            self._names[name] = record.id
        self._images[record.id] = _image(record, config, self.names_of(record.id))
        self._refresh(moved)
        return self._images[record.id]

    def tag(self, image: Image, name: Reference, at_ns: int) -> None:
        full = stored_name(name)
        record = msgspec.structs.replace(image.record, tagged_ns=at_ns)
        before = self._names.get(full)
        self._store.name(record, full)
        self._names[full] = image.id
        self._images[image.id] = _image(record, image.config, self.names_of(image.id))
        if before:
            self._refresh({before})

    def untag(self, names: Iterable[str]) -> None:
        """By full names."""
        names = list(names)
        self._store.unname(names)
        self._refresh({owner for name in names if (owner := self._names.pop(name, None))})

    def remove(self, image_id: str) -> None:
        self._store.remove(image_id)
        self._images.pop(image_id, None)
        self._broken.pop(image_id, None)
        for name in self.names_of(image_id):
            del self._names[name]

    def remove_layers(self, chain_ids: list[str]) -> None:
        self._store.remove_layers(chain_ids)
        for chain_id in chain_ids:
            self._layers.pop(chain_id, None)
            self._lost_layers.discard(chain_id)

    def _refresh(self, image_ids: set[str]) -> None:
        for image_id in image_ids & self._images.keys():
            image = self._images[image_id]
            self._images[image_id] = _image(image.record, image.config, self.names_of(image_id))


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


def _image(record: ImageRecord, config: ImageConfig, names: list[str]) -> Image:
    references = [Reference.parse(name) for name in names]
    return Image(
        id=record.id,
        config=config,
        chain_ids=record.chain_ids,
        repo_tags=sorted(r.familiar for r in references if not r.digest),
        repo_digests=sorted(r.familiar for r in references if r.digest),
        size_bytes=record.size_bytes,
        created_ns=created_ns(config),
        record=record,
    )
