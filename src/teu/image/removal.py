"""`rmi` and `image prune`: names go first; an image goes when no name and no container needs it.

Source: moby daemon/images/image_delete.go, image_prune.go (order of steps, conflict texts).
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from msgspec import Struct, field

from teu.errors import Conflict, InvalidParameter
from teu.ids import short
from teu.image.catalog import Catalog
from teu.image.filters import Filters, check_names, flag, tests
from teu.image.variants import variant_of
from teu.model.image import Image, Platform
from teu.model.reference import InvalidReference, Reference

_ID_PREFIX = "sha256:"
_PRUNE_FILTERS = ("dangling", "label", "label!", "until")


class ImageUsers(Protocol):
    """What containers need of images; `container/` knows."""

    def containers_using(self, image_id: str) -> list[tuple[str, bool]]:
        """(container id, running) of the containers made from an image."""
        ...

    def layers_in_use(self) -> Iterable[str]:
        """Chain ids of the layers below all containers, whatever became of their images."""
        ...

    def layers_mounted(self) -> dict[str, str]:
        """Chain ids of the layers below running containers; the id of one such container each."""
        ...


class ImageInUse(Conflict):
    """Docker's text; `hard`: not even force helps; `used`: by a container."""

    def __init__(self, image_id: str, reason: str, *, hard: bool, used: bool) -> None:
        how = "cannot be forced" if hard else "must be forced"
        super().__init__(f"conflict: unable to delete {short(image_id)} ({how}) - {reason}")
        self.used = used


class ReferenceInUse(Conflict):
    """The last name of an image that a container uses."""

    def __init__(self, reference: str, container_id: str, image_id: str) -> None:
        super().__init__(
            f'conflict: unable to remove repository reference "{reference}" (must force) - '
            f"container {short(container_id)} is using its referenced image {short(image_id)}"
        )


class DigestTag(InvalidParameter):
    """Digests are computed, not given."""

    def __init__(self, target: str) -> None:
        super().__init__(f"refusing to create a tag with a digest reference: {target}")


class Removed(Struct):
    """What went: Docker's list; the images' chains, whose layers may go now; and what to tell:
    (action, image)."""

    records: list[dict[str, str]] = field(default_factory=list)
    chain_ids: list[str] = field(default_factory=list)
    events: list[tuple[str, Image]] = field(default_factory=list)


class Remover:
    """Decides and changes the catalog; layers' and blobs' files are `Stock.collect`'s. Nothing
    here awaits, so what was checked stays true."""

    def __init__(self, catalog: Catalog, users: ImageUsers) -> None:
        self._catalog = catalog
        self._users = users

    def remove(self, ref: str, *, force: bool, prune: bool) -> Removed:
        """Raises: NoSuchImage, InvalidReference, ReferenceInUse, ImageInUse."""
        if (broken := self._catalog.broken_id(ref)) is not None:
            return self._remove_broken(broken)
        image = self._catalog.resolve(ref)
        removed = Removed()
        others = self._catalog.variants(ref)[1:] or self._catalog.companions(image)
        if self._is_id(image, ref):
            self._untag_all(image, removed, force=force)
            self._delete(image, removed, force=force, prune=prune, quiet=False)
        elif self._untag(image, ref, removed, force=force):
            self._delete(image, removed, force=force, prune=prune, quiet=True)
        for other in others:  # the other platforms go with the name
            if not self._catalog.names_of(other.id):
                self._delete(other, removed, force=force, prune=prune, quiet=True)
        return removed

    def remove_platforms(self, ref: str, platforms: Sequence[Platform], *, force: bool) -> Removed:
        """Takes single platforms out of what a name means; with the last one the name goes.

        Raises: NoSuchImage, InvalidReference, NoSuchVariant, ImageInUse.
        """
        variants = self._catalog.variants(ref)
        chosen = [variant_of(variants, platform, ref) for platform in platforms]
        if {image.id for image in chosen} == {image.id for image in variants}:
            return self.remove(ref, force=force, prune=True)
        removed = Removed()
        for image in chosen:
            self._check(image, force=force, by_name=False)
            self._part(image, ref, removed)
            if not self._catalog.names_of(image.id):
                self._delete(image, removed, force=force, prune=True, quiet=True)
        return removed

    def _part(self, image: Image, ref: str, removed: Removed) -> None:
        """A platform leaves a name, and with it the digests of the name's repository."""
        try:
            repository = Reference.parse(ref).name
        except InvalidReference:  # an id
            repository = ""
        names = [
            name
            for name in self._catalog.names_of(image.id)
            if not repository or Reference.parse(name).name == repository
        ]
        self._catalog.part(image.id, names)
        shown = f" ({image.config.platform})"
        removed.records += [{"Untagged": Reference.parse(name).familiar + shown} for name in names]

    @staticmethod
    def _is_id(image: Image, ref: str) -> bool:
        return image.id.startswith(ref) or image.id.removeprefix(_ID_PREFIX).startswith(ref)

    def _remove_broken(self, image_id: str) -> Removed:
        """A damaged image: nothing can run from it, so only its names and record go."""
        removed = Removed()
        names = self._catalog.names_of(image_id)
        self._catalog.untag(names)
        removed.records += [{"Untagged": Reference.parse(name).familiar} for name in names]
        self._catalog.remove(image_id)
        removed.records.append({"Deleted": image_id})
        return removed

    def _untag(self, image: Image, ref: str, removed: Removed, *, force: bool) -> bool:
        """Removes one name; True when no other is left."""
        names = self._names(image)
        users = self._users.containers_using(image.id)
        if not force and users and _is_single(names):
            raise ReferenceInUse(ref, users[0][0], image.id)
        name = Reference.parse(ref).with_default_tag()
        if name.digest:
            name = name.with_digest(name.digest)
        self._forget(image, [str(name)], removed)
        left = [other for other in names if other != name]
        same = [other for other in left if other.name == name.name]
        if not name.digest and all(other.digest for other in same):
            self._forget(image, [str(other) for other in same], removed)
            left = [other for other in left if other not in same]
        return not left

    def _untag_all(self, image: Image, removed: Removed, *, force: bool) -> None:
        names = self._names(image)
        if _is_single(names):
            self._check(image, force=force, by_name=False)
            self._forget(image, [str(name) for name in names], removed)

    def _delete(
        self, image: Image, removed: Removed, *, force: bool, prune: bool, quiet: bool
    ) -> None:
        try:
            self._check(image, force=force, by_name=True)
        except ImageInUse as conflict:
            if quiet and (self._names(image) or self._has_children(image) or conflict.used):
                return
            raise
        parent = self._catalog.find(image.record.parent_id)
        self._forget(image, [str(name) for name in self._names(image)], removed)
        self._catalog.remove(image.id)
        removed.records.append({"Deleted": image.id})
        removed.events.append(("delete", image))
        removed.chain_ids += reversed(image.chain_ids)
        if prune and parent is not None and not self._names(parent):
            self._delete(parent, removed, force=False, prune=True, quiet=True)

    def _check(self, image: Image, *, force: bool, by_name: bool) -> None:
        """Raises: ImageInUse for the first of Docker's reasons that applies."""
        if self._has_children(image):
            raise ImageInUse(image.id, "image has dependent child images", hard=True, used=False)
        users = self._users.containers_using(image.id)
        for container_id, running in users:
            if running:
                reason = f"image is being used by running container {short(container_id)}"
                raise ImageInUse(image.id, reason, hard=True, used=True)
        if force:
            return
        if by_name and self._names(image):
            reason = "image is referenced in multiple repositories"
            raise ImageInUse(image.id, reason, hard=False, used=False)
        if users:
            reason = f"image is being used by stopped container {short(users[0][0])}"
            raise ImageInUse(image.id, reason, hard=False, used=True)

    def _has_children(self, image: Image) -> bool:
        return any(other.record.parent_id == image.id for other in self._catalog.all())

    def _forget(self, image: Image, names: list[str], removed: Removed) -> None:
        self._catalog.untag(names)
        removed.records += [{"Untagged": Reference.parse(name).familiar} for name in names]
        removed.events += [("untag", image) for _ in names]

    def _names(self, image: Image) -> list[Reference]:
        """The names that go with this image: where it is but another platform, they stay."""
        return [Reference.parse(name) for name in self._catalog.names_led_by(image.id)]

    # --- prune --------------------------------------------------------------------------

    def prune(self, filters: Filters) -> Removed:
        """Images that no container uses: the untagged ones, or (dangling=false) all.

        Raises: InvalidParameter.
        """
        check_names(filters, _PRUNE_FILTERS)
        dangling_only = flag(filters, "dangling") is not False
        passes = tests(filters, self._catalog)
        removed = Removed()
        for image in self._catalog.all():
            if image.is_variant or not all(test(image) for test in passes):
                continue  # a variant goes with the image that leads its name
            if dangling_only and image.repo_tags:
                continue
            family = [image, *self._catalog.companions(image)]
            if any(self._users.containers_using(member.id) for member in family):
                continue
            try:
                self._delete_unused(image, removed)
            except ImageInUse:
                continue
        return removed

    def _delete_unused(self, image: Image, removed: Removed) -> None:
        if self._catalog.find(image.id) is None:
            return  # went with a child
        self._check(image, force=True, by_name=False)
        others = self._catalog.companions(image)
        self._delete(image, removed, force=True, prune=True, quiet=False)
        for other in others:
            if not self._catalog.names_of(other.id):
                self._delete(other, removed, force=True, prune=True, quiet=True)


def _is_single(names: list[Reference]) -> bool:
    """At most one tag, and every digest in that tag's repository."""
    if len(names) <= 1:
        return True
    tags = [name for name in names if not name.digest]
    if len(tags) > 1:
        return False
    return len({name.name for name in names}) == 1
