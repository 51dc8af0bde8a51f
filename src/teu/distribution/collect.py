"""Garbage collection and retention, while everything is served.

What a push has brought is kept for GRACE_S before anybody must refer to it, so a push under way
loses nothing. Rows go first, in transactions of the loop's thread; then the files that no row
names and no lease protects. A crash in between leaves files that the next run removes.
"""

import asyncio
import fnmatch
import logging
import time

from msgspec import Struct

from teu import clock
from teu.distribution.registry import Registry

GRACE_S = 3600.0
log = logging.getLogger(__name__)


class Retention(Struct, frozen=True):
    """Which tags stay. `keep_last`: the newest of each repository (0: all). `keep_days`: younger
    ones (0: any age). `keep_matching`: patterns of tags that always stay."""

    keep_last: int = 0
    keep_days: float = 0
    keep_matching: tuple[str, ...] = ()

    def expired(self, tags: list[tuple[str, str, int]], now_ns: int) -> list[str]:
        """Of one repository's (name, digest, when) those that go."""
        if not self.keep_last and not self.keep_days:
            return []
        newest_first = sorted(tags, key=lambda tag: tag[2], reverse=True)
        oldest_ns = now_ns - int(self.keep_days * 86400e9)
        return [
            name
            for place, (name, _, at_ns) in enumerate(newest_first)
            if not (self.keep_last and place < self.keep_last)
            and not (self.keep_days and at_ns >= oldest_ns)
            and not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.keep_matching)
        ]


KEEP_ALL = Retention()


class Collected(Struct):
    tags: int = 0
    manifests: int = 0
    blobs: int = 0
    freed_bytes: int = 0


async def collect(
    registry: Registry, retention: Retention = KEEP_ALL, grace_s: float = GRACE_S
) -> Collected:
    """One run. Untagged manifests go unless an index lists them or they tell about another one."""
    done = Collected()
    before_ns = clock.now_ns() - int(grace_s * 1e9)
    registry.uploads.expire()
    for repository in registry.store.repositories():
        for tag in retention.expired(registry.store.tag_rows(repository), clock.now_ns()):
            done.tags += registry.store.delete_tag(repository, tag)
        done.manifests += _drop_strays(registry, repository, before_ns)
        await asyncio.sleep(0)  # others are served in between
    done.blobs = registry.store.unlink_unneeded(before_ns)
    registry.store.forget_empty(before_ns)
    unused = [
        d for d in registry.blobs.unused(registry.store.used()) if _is_old(registry, d, grace_s)
    ]
    done.freed_bytes = registry.blobs.remove(unused)
    log.info(
        "collected: %d tags, %d manifests, %d blobs, %d bytes", *(done.tags, done.manifests),
        *(done.blobs, done.freed_bytes),
    )  # fmt: skip
    return done


def _drop_strays(registry: Registry, repository: str, before_ns: int) -> int:
    """One level after the other: what an index listed is stray only without the index."""
    dropped = 0
    while strays := registry.store.stray_manifests(repository, before_ns):
        for digest in strays:
            dropped += registry.store.delete_manifest(repository, digest)
    return dropped


def _is_old(registry: Registry, digest: str, grace_s: float) -> bool:
    """A file is younger than its row: between adopting it and linking it there is a moment."""
    return registry.blobs.path(digest).stat().st_mtime < time.time() - grace_s
