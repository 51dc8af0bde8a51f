"""Where steps work, and how what a killed daemon left of them goes away.

    DATA_ROOT/build/steps/ID/{upper,work,rootfs}   a step's root file system; record.json
    DATA_ROOT/build/contexts/ID/                   a context that a client sent
    EXEC_ROOT/builds/ID/                           bundle, shim, mounts of a RUN step

Directories are the journal: they are made before anything is mounted or started, and removed last.
`recover` ends what runs, unmounts and removes all of it: a build does not survive its daemon.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from teu.errors import EngineError, SystemFailure
from teu.image.initlayer import init_layer
from teu.model.container import ContainerRecord
from teu.runtime.service import RuntimeService
from teu.runtime.shim import Shim, ShimService
from teu.sys import mounts, pidfd
from teu.sys.beneath import remove_tree
from teu.sys.syscalls import os_errors

KILL = 9
log = logging.getLogger(__name__)


class Place(Struct, frozen=True):
    """The directories of one step."""

    id: str
    home: Path
    run: Path

    @property
    def upper(self) -> Path:
        return self.home / "upper"

    @property
    def rootfs(self) -> Path:
        return self.home / "rootfs"


class Workspace:
    """File work only; every method may run in a thread, but for `recover`."""

    def __init__(self, data_root: Path, exec_root: Path) -> None:
        self._data_root = data_root
        self.root = data_root / "build"
        self.run_root = exec_root / "builds"
        self._empty = self.root / "empty"

    def prepare(self) -> None:
        """Makes the directories that must be there. Raises: SystemFailure."""
        with os_errors("cannot make the builder's directories"):
            for directory in (self.root / "steps", self.root / "contexts", self.run_root):
                directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._empty.mkdir(mode=0o755, exist_ok=True)

    def open(self, step_id: str) -> Place:
        """Raises: SystemFailure."""
        place = Place(step_id, self.root / "steps" / step_id, self.run_root / step_id)
        with os_errors("cannot make a step's directory"):
            place.home.mkdir(mode=0o711)
            for name, mode in (("upper", 0o755), ("work", 0o700), ("rootfs", 0o755)):
                (place.home / name).mkdir(mode=mode)
        return place

    def mount(self, place: Place, lower: Sequence[Path], *, for_run: bool = False) -> Path:
        """The layers (top first) with the step's own on top. Raises: SystemFailure."""
        stack = [init_layer(self._data_root), *lower] if for_run else list(lower)
        mounts.mount_overlay(stack or [self._empty], place.upper, place.home / "work", place.rootfs)
        return place.rootfs

    def unmount(self, place: Place) -> None:
        """Detaches everything of the step at once (idempotent)."""
        for directory in (place.rootfs, place.run):
            for failure in mounts.unmount_all_under(directory):
                log.warning("build step %s: %s", place.id[:12], failure)

    def close(self, place: Place) -> None:
        """Removes everything of the step (idempotent). Raises: OSError."""
        self.unmount(place)
        for directory in (place.run, place.home):
            remove_directory(directory)

    def new_context(self) -> Path:
        """An empty directory for a client's files. Raises: SystemFailure."""
        path = self.root / "contexts" / secrets.token_hex(8)
        with os_errors("cannot make a context's directory"):
            path.mkdir(mode=0o755)
        return path

    def drop_context(self, path: Path) -> None:
        remove_directory(path)

    def save(self, place: Place, record: ContainerRecord) -> None:
        """What `recover` needs to end the step. Raises: SystemFailure."""
        with os_errors("cannot write a step's record"):
            (place.home / "record.json").write_bytes(msgspec.json.encode(record))

    # --- after a crash --------------------------------------------------------------------

    async def recover(self, runtime: RuntimeService, shims: ShimService) -> None:
        """Ends and removes all steps of an earlier daemon. One that resists is reported, and tried
        again at the next start."""
        self.prepare()
        for directory in sorted((self.root / "steps").iterdir()):
            place = Place(directory.name, directory, self.run_root / directory.name)
            try:
                await self._end(place, runtime, shims)
                await asyncio.to_thread(self.close, place)
            except (EngineError, OSError) as error:
                log.error("build step %s: cannot be cleaned up: %s", place.id[:12], error)
        for left in (*self.run_root.iterdir(), *(self.root / "contexts").iterdir()):
            if not (left / "index").is_file():  # a context that is whole stays
                await asyncio.to_thread(remove_directory, left)

    async def _end(self, place: Place, runtime: RuntimeService, shims: ShimService) -> None:
        record = _read_record(place)
        if record is None:
            return
        if place.run.exists():
            found = await shims.adopt(place.run)
            if isinstance(found, Shim):
                pidfd.send_signal(found.pid, found.pid_started, KILL)
                async with asyncio.timeout(30):
                    await found.wait()
        await runtime.delete(record)


def remove_directory(directory: Path) -> None:
    """Of any depth; missing is fine. Raises: OSError."""
    parent_fd = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(parent_fd, os.fsencode(directory.name))
    finally:
        os.close(parent_fd)


def _read_record(place: Place) -> ContainerRecord | None:
    try:
        data = (place.home / "record.json").read_bytes()
        return msgspec.json.decode(data, type=ContainerRecord)
    except (OSError, msgspec.DecodeError):
        return None


def upper_is_empty(place: Place) -> bool:
    """Whether the step changed nothing. Raises: SystemFailure."""
    try:
        with os.scandir(place.upper) as entries:
            return next(entries, None) is None
    except OSError as error:
        raise SystemFailure(f"cannot read a step's directory: {error}") from error
