"""The build cache: what a step with these inputs made before.

A key is the digest of everything that decides a step's result: the layers below by their content,
the command, its environment, the digests of the files it takes. Equal inputs find the same
result in every build, whatever their Dockerfiles say besides.

Records live in memory; `flush` writes them once their layers are durable. A crash forgets what was
not flushed, never more.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import msgspec

from teu.clock import now_ns
from teu.model.build import CacheRecord
from teu.model.image import chain_ids
from teu.store.builds import BuildStore

LAYER_KINDS = frozenset(("exec", "files", "directory"))


def key_of(kind: str, parts: dict[str, str]) -> str:
    """The key of named parts."""
    text = msgspec.json.encode([kind, sorted(parts.items())])
    return hashlib.sha256(text).hexdigest()


def digest_text(value: object) -> str:
    """A short digest of anything that JSON can say, for parts of keys."""
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:32]


class BuildCache:
    """One per daemon. Loop's thread."""

    def __init__(self, store: BuildStore) -> None:
        self._store = store
        self._records: dict[str, CacheRecord] = {}
        self._unflushed: set[str] = set()
        self._pins: Counter[str] = Counter()

    def load(self, is_there: Callable[[list[str]], bool]) -> None:
        """Reads all records; forgets those whose layers are gone."""
        lost = []
        for record in self._store.load():
            if record.kind in LAYER_KINDS and not is_there(record.diff_ids):
                lost.append(record.key)
            else:
                self._records[record.key] = record
        self._store.remove(lost)

    # --- looking up -----------------------------------------------------------------------

    def find(self, key: str) -> CacheRecord | None:
        """Counts as a use."""
        record = self._records.get(key)
        if record is not None:
            record.used_ns = now_ns()
            record.uses += 1
            self._unflushed.add(key)
        return record

    def peek(self, key: str) -> CacheRecord | None:
        return self._records.get(key)

    def all(self) -> list[CacheRecord]:
        return list(self._records.values())

    def last_of(self, slot: str) -> CacheRecord | None:
        """The newest result of a step, whatever its inputs were."""
        found = [record for record in self._records.values() if record.slot == slot]
        return max(found, key=lambda record: record.used_ns, default=None)

    def layers_in_use(self) -> set[str]:
        """Chain ids of everything that a record stands for."""
        stacks = {tuple(record.diff_ids) for record in self._records.values()}
        return {chain_id for stack in stacks for chain_id in chain_ids(list(stack))}

    def is_pinned(self, key: str) -> bool:
        """Whether a build that runs relies on the record."""
        return self._pins[key] > 0

    # --- changing -------------------------------------------------------------------------

    def add(self, record: CacheRecord) -> None:
        """Replaces a record of the same key."""
        record.used_ns = record.used_ns or now_ns()
        self._records[record.key] = record
        self._unflushed.add(record.key)

    @contextmanager
    def pinning(self) -> Iterator[Callable[[str], None]]:
        """Keeps records from `remove` while a build runs; call what it gives with their keys."""
        held: Counter[str] = Counter()

        def pin(key: str) -> None:
            held[key] += 1
            self._pins[key] += 1

        try:
            yield pin
        finally:
            self._pins -= held

    def unflushed_stacks(self) -> list[list[str]]:
        """The stacks of layers that must be durable before `flush`."""
        found = [self._records[key] for key in self._unflushed if key in self._records]
        return [record.diff_ids for record in found if record.diff_ids]

    def flush(self) -> None:
        """Writes what was added or used. The layers are durable by now."""
        keys, self._unflushed = self._unflushed, set()
        self._store.put(self._records[key] for key in keys if key in self._records)

    def remove(self, keys: Iterable[str]) -> list[CacheRecord]:
        """Forgets records that no build relies on; those that went."""
        gone = [
            self._records.pop(key)
            for key in keys
            if key in self._records and not self.is_pinned(key)
        ]
        self._store.remove(record.key for record in gone)
        return gone
