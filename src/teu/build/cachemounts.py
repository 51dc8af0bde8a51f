"""Directories that `RUN --mount=type=cache` keeps between builds.

    DATA_ROOT/build/mounts/NN     one each; a record of kind `mount` in the build cache names it

`shared`: all steps use it at once. `locked`: one step after the other. `private`: a step that finds
it in use gets another one. A directory without a record is void and goes at the next start.
"""

import asyncio
import os
import secrets
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from teu.build.cache import BuildCache, key_of
from teu.build.steps import Mount
from teu.clock import now_ns
from teu.model.build import CacheRecord
from teu.sys.syscalls import os_errors

KIND = "mount"
_MAX_PRIVATE = 64


class CacheMounts:
    """One per daemon. Loop's thread."""

    def __init__(self, root: Path, cache: BuildCache) -> None:
        self._root = root
        self._cache = cache
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: Counter[str] = Counter()

    def start(self) -> None:
        """Removes directories that no record names. The cache is loaded by now."""
        self._root.mkdir(mode=0o711, exist_ok=True)
        known = {record.value for record in self._cache.all() if record.kind == KIND}
        for path in self._root.iterdir():
            if path.name not in known:
                shutil.rmtree(path, ignore_errors=True)

    def path(self, record: CacheRecord) -> Path:
        return self._root / record.value

    @asynccontextmanager
    async def used(self, mount: Mount, fill: Callable[[Path], None]) -> AsyncIterator[Path]:
        """The directory for one step. `fill` is called in a thread with a new, empty one.

        Raises: SystemFailure.
        """
        cache_id = mount.id or mount.target
        lock = self._locks.setdefault(cache_id, asyncio.Lock())
        if mount.sharing == "locked":
            async with lock, self._directory(cache_id, 0, mount, fill) as path:
                yield path
            return
        number = 0
        if mount.sharing == "private":
            while self._users[_key(cache_id, number)] and number < _MAX_PRIVATE:
                number += 1
        async with self._directory(cache_id, number, mount, fill) as path:
            yield path

    @asynccontextmanager
    async def _directory(
        self, cache_id: str, number: int, mount: Mount, fill: Callable[[Path], None]
    ) -> AsyncIterator[Path]:
        key = _key(cache_id, number)
        self._users[key] += 1
        try:
            with self._cache.pinning() as pin:
                pin(key)
                record = self._cache.find(key)
                if record is None or not self.path(record).is_dir():
                    record = await self._made(key, cache_id, mount, fill)
                yield self.path(record)
                record.size_bytes = await asyncio.to_thread(tree_bytes, self.path(record))
        finally:
            self._users[key] -= 1

    async def _made(
        self, key: str, cache_id: str, mount: Mount, fill: Callable[[Path], None]
    ) -> CacheRecord:
        path = self._root / secrets.token_hex(8)
        with os_errors("cannot make a cache mount"):
            path.mkdir()
            await asyncio.to_thread(fill, path)
            os.chown(path, mount.uid or 0, mount.gid or 0)
            path.chmod(0o755 if mount.mode is None else mount.mode)
        record = self._cache.peek(key)
        if record is not None and self.path(record).is_dir():  # somebody else was faster
            shutil.rmtree(path, ignore_errors=True)
            return record
        record = CacheRecord(
            key=key, kind=KIND, name=f"cache mount {cache_id}", slot=cache_id, value=path.name,
            created_ns=now_ns(),
        )  # fmt: skip
        self._cache.add(record)
        return record


def _key(cache_id: str, number: int) -> str:
    return key_of(KIND, {"id": cache_id, "number": str(number)})


def tree_bytes(root: Path) -> int:
    """What the files below a directory hold; 0 where it cannot be read."""
    total = 0
    for _, _, files, fd in os.fwalk(root, follow_symlinks=False, onerror=lambda _: None):
        for name in files:
            try:
                total += os.stat(name, dir_fd=fd, follow_symlinks=False).st_size
            except OSError:
                continue
    return total
