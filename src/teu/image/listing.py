"""The list of images, filtered."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from teu.image import views
from teu.image.catalog import Catalog
from teu.image.filters import (
    Filters,
    check_names,
    flag,
    matches_reference,
    reference_patterns,
    tests,
)
from teu.image.manifests import Manifests
from teu.image.removal import ImageUsers
from teu.model.image import Image

_LIST_FILTERS = ("dangling", "label", "label!", "before", "since", "reference", "until")


class ImageList:
    """Answers from memory, but for manifests. Loop's thread."""

    def __init__(self, catalog: Catalog, manifests: Manifests, users: ImageUsers) -> None:
        self._catalog = catalog
        self._manifests = manifests
        self._users = users

    def rows(
        self,
        filters: Filters,
        *,
        all_: bool = False,
        shared_size: bool = False,
    ) -> list[dict[str, Any]]:
        """Rows for `GET /images/json`, newest first. `shared_size` also counts containers.
        `all_` also has steps on the way to other images, and other platforms of a name.

        Raises: InvalidParameter (unknown filter), NoSuchImage (before, since).
        """
        check_names(filters, _LIST_FILTERS)
        dangling = flag(filters, "dangling")
        passes = tests(filters, self._catalog)
        patterns = reference_patterns(filters)
        images = self._catalog.all()
        parents = {image.record.parent_id for image in images}
        uses = _layer_uses(images) if shared_size else {}
        rows = []
        for image in sorted(images, key=lambda i: i.created_ns, reverse=True):
            if not all_ and (image.is_variant or _is_step(image, parents)):
                continue
            if dangling is not None and dangling != (not image.repo_tags):
                continue
            if not all(test(image) for test in passes):
                continue
            row = self._row(image, uses) if shared_size else views.summary(image)
            if patterns and not _narrow(row, patterns):
                continue
            rows.append(row)
        return rows

    async def add_manifests(self, rows: list[dict[str, Any]]) -> None:
        """Gives rows their `Manifests` and `Descriptor`. Reads small files, so others get their
        turn in between."""
        for row in rows:
            image = self._catalog.find(row["Id"])
            if image is not None:
                row["Manifests"] = self._manifests.of(image)
                row["Descriptor"] = self._manifests.descriptor(image)
            await asyncio.sleep(0)

    def _row(self, image: Image, uses: Mapping[str, int]) -> dict[str, Any]:
        layers = self._catalog.layers()
        shared = (layers.get(chain_id) for chain_id in image.chain_ids if uses[chain_id] > 1)
        return views.summary(
            image,
            shared_bytes=sum(row.size_bytes for row in shared if row is not None),
            containers=len(self._users.containers_using(image.id)),
        )


def _layer_uses(images: Iterable[Image]) -> dict[str, int]:
    uses: dict[str, int] = {}
    for image in images:
        for chain_id in image.chain_ids:
            uses[chain_id] = uses.get(chain_id, 0) + 1
    return uses


def _is_step(image: Image, parents: set[str]) -> bool:
    """Nothing but a step on the way to another image."""
    return image.id in parents and not image.repo_tags and not image.repo_digests


def _narrow(row: dict[str, Any], patterns: Sequence[Any]) -> bool:
    """Leaves only the names that match; False when none does."""
    row["RepoTags"] = [name for name in row["RepoTags"] if matches_reference(name, patterns)]
    row["RepoDigests"] = [name for name in row["RepoDigests"] if matches_reference(name, patterns)]
    return bool(row["RepoTags"] or row["RepoDigests"])
