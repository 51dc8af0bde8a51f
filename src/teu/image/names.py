"""Which images a name means, in memory. Loop's thread.

Mostly one; of an index several platforms may be here, and then the name means all of them: the
one that runs on this machine first.
"""

from collections.abc import Iterable

from teu.store.images import Named


class Names:
    """Names by image, and images by name."""

    def __init__(self, names: dict[str, Named]) -> None:
        self._meanings = names
        self._of: dict[str, set[str]] = {}
        for name, meaning in names.items():
            self._link(name, meaning)

    def get(self, name: str) -> Named | None:
        """By full name."""
        return self._meanings.get(name)

    def first(self, name: str) -> str | None:
        """The image that a name means where nobody asks for a platform."""
        meaning = self._meanings.get(name)
        return meaning.image_ids[0] if meaning else None

    def all(self) -> list[tuple[str, Named]]:
        """Sorted by name."""
        return sorted(self._meanings.items())

    def of(self, image_id: str) -> list[str]:
        """All names of an image, sorted."""
        return sorted(self._of.get(image_id, ()))

    def led_by(self, image_id: str) -> list[str]:
        """The names that mean this image first, sorted."""
        return [name for name in self.of(image_id) if self.first(name) == image_id]

    def mean(self, name: str, meaning: Named) -> set[str]:
        """Changes a meaning; the images it concerns, before or after."""
        concerned = self.drop([name])
        self._meanings[name] = meaning
        self._link(name, meaning)
        return concerned.union(meaning.image_ids)

    def drop(self, names: Iterable[str]) -> set[str]:
        """Forgets names; the images that had them."""
        concerned: set[str] = set()
        for name in names:
            meaning = self._meanings.pop(name, None)
            for image_id in meaning.image_ids if meaning else ():
                self._of[image_id].discard(name)
                if not self._of[image_id]:
                    del self._of[image_id]
                concerned.add(image_id)
        return concerned

    def without(self, image_id: str) -> dict[str, Named | None]:
        """What the image's names would mean without it; None for nothing."""
        found: dict[str, Named | None] = {}
        for name in self.of(image_id):
            meaning = self._meanings[name]
            left = tuple(other for other in meaning.image_ids if other != image_id)
            found[name] = Named(left, meaning.index_digest) if left else None
        return found

    def _link(self, name: str, meaning: Named) -> None:
        for image_id in meaning.image_ids:
            self._of.setdefault(image_id, set()).add(name)
