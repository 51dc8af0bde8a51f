"""The mounts of one RUN step, ready for the runtime.

    RUN/mnt/N       what is shown at mount N: a bind of the source's very inode, an overlay for a
                    source whose changes are thrown away, or a secret's file
    RUN             is a tmpfs itself when there is a secret, so that it never reaches a disk

Sources are resolved inside their trees (beneath.py) and bound by descriptor, so a symlink that
is swapped in later changes nothing. What the runtime makes in the root file system to mount
something there is taken away again by `clean`.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from teu.build.steps import PIPES_DIRECTORY, Mount
from teu.build.workspace import Place
from teu.errors import InvalidParameter, SystemFailure
from teu.model.container import MountPoint
from teu.sys import beneath, mounts

_AGENT_VARIABLE = "SSH_AUTH_SOCK"


class MountSource(Struct, kw_only=True):
    """A mount and what it shows: a tree on the host, a secret's bytes, or an agent's socket; none
    of them where an optional one is missing."""

    mount: Mount
    tree: Path | None = None
    secret: bytes | None = None
    agent: Path | None = None


class MountPoints:
    """Use from a thread; `make`, then `clean` once the command has ended."""

    def __init__(
        self, place: Place, sources: Sequence[MountSource], scripts: Mapping[str, str]
    ) -> None:
        self._place = place
        self._sources = sources
        self._scripts = scripts
        self._stubs: list[tuple[str, int]] = []  # path of what is missing, its parent's mtime
        self.points: list[MountPoint] = []
        self.env: list[str] = []

    def make(self, rootfs: Path) -> None:
        """Raises: InvalidParameter (a source that is not there), SystemFailure."""
        place = self._place
        try:
            place.run.mkdir(mode=0o700, parents=True)
            if any(source.secret is not None for source in self._sources):
                mounts.tmpfs(place.run, mode=0o700)
            (place.run / "mnt").mkdir(mode=0o711)
            for number, source in enumerate(self._sources):
                self._one(number, source)
            for number, (name, content) in enumerate(self._scripts.items()):
                self._script(place.run / "mnt" / f"script-{number}", name, content)
            root_fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY)
            try:
                for point in self.points:
                    self._note_missing(root_fd, point.destination)
            finally:
                os.close(root_fd)
        except OSError as error:
            raise SystemFailure(f"cannot prepare the mounts of a step: {error}") from error

    def clean(self, rootfs: Path) -> None:
        """Removes mount points that were made for the mounts, where they are still empty."""
        root_fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY)
        try:
            for path, mtime_ns in reversed(self._stubs):
                with suppress(OSError):
                    _remove_stub(root_fd, os.fsencode(path), mtime_ns)
        finally:
            os.close(root_fd)

    # --- one mount ------------------------------------------------------------------------

    def _one(self, number: int, source: MountSource) -> None:
        mount = source.mount
        shown = self._place.run / "mnt" / str(number)
        match mount.type:
            case "tmpfs":
                size = [f"size={mount.size_bytes}"] if mount.size_bytes else []
                self._point("tmpfs", "", mount, options=["exec", "suid", "dev", *size])
            case "secret":
                self._secret(shown, source)
            case "ssh":
                self._agent(source)
            case _:
                self._tree(number, shown, source)

    def _point(
        self, kind: str, source: str, mount: Mount, *, options: list[str], rw: bool = True
    ) -> None:
        self.points.append(
            MountPoint(type=kind, source=source, destination=mount.target, rw=rw, options=options)
        )

    def _secret(self, shown: Path, source: MountSource) -> None:
        mount = source.mount
        if source.secret is None:
            return
        if mount.env:
            value = source.secret.decode(errors="surrogateescape")
            self.env.append(f"{mount.env}={value}")
            if not mount.target:
                return
        fd = os.open(shown, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, source.secret)
            os.fchown(fd, mount.uid or 0, mount.gid or 0)
            os.fchmod(fd, 0o400 if mount.mode is None else mount.mode)
        finally:
            os.close(fd)
        self._point("bind", str(shown), mount, options=["rbind", "ro"], rw=False)

    def _script(self, shown: Path, name: str, content: str) -> None:
        shown.write_text(content)
        shown.chmod(0o755)
        target = f"{PIPES_DIRECTORY}/{name}"
        mount = Mount(type="bind", target=target)
        self._point("bind", str(shown), mount, options=["rbind", "ro"], rw=False)

    def _agent(self, source: MountSource) -> None:
        mount = source.mount
        if source.agent is None:
            return
        self._point("bind", str(source.agent), mount, options=["bind"])
        self.env.append(f"{_AGENT_VARIABLE}={mount.target}")

    def _tree(self, number: int, shown: Path, source: MountSource) -> None:
        mount = source.mount
        assert source.tree is not None
        try:
            fd = beneath.open_in_root(source.tree, mount.source, os.O_PATH)
        except OSError as error:
            raise InvalidParameter(
                f"cannot mount {mount.source or '/'} at {mount.target}: {error.strerror}"
            ) from error
        try:
            is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
            if is_directory:
                shown.mkdir()
            else:
                shown.touch()
            bound = Path(f"/proc/self/fd/{fd}")
            discards = mount.type == "bind" and not mount.read_only
            if discards and is_directory:
                self._overlay(number, bound, shown)
            else:
                mounts.bind(bound, shown)
        finally:
            os.close(fd)
        read_only = mount.read_only or (mount.type == "bind" and not is_directory)
        words = ["rbind", "ro"] if read_only else ["rbind"]
        self._point("bind", str(shown), mount, options=words, rw=not read_only)

    def _overlay(self, number: int, source: Path, shown: Path) -> None:
        """Writes go to a directory of the step's and are thrown away with it."""
        scratch = self._place.home / f"discard-{number}"
        for name in ("upper", "work", "lower"):
            (scratch / name).mkdir(parents=True)
        mounts.bind(source, scratch / "lower")
        try:
            mounts.mount_overlay([scratch / "lower"], scratch / "upper", scratch / "work", shown)
        finally:
            mounts.unmount(scratch / "lower", lazy=True)

    # --- what is made for a mount ---------------------------------------------------------

    def _note_missing(self, root_fd: int, target: str) -> None:
        parts = [part for part in target.split("/") if part]
        if parts[0] in ("dev", "proc", "sys"):
            return  # in a file system of the runtime's
        mtime_ns = 0
        for count in range(1, len(parts) + 1):
            path = "/".join(parts[:count])
            try:
                fd = beneath.open_beneath(root_fd, os.fsencode(path), os.O_PATH)
            except OSError:
                self._stubs.append((path, mtime_ns))
                mtime_ns = 0
                continue
            mtime_ns = os.fstat(fd).st_mtime_ns
            os.close(fd)


def _remove_stub(root_fd: int, path: bytes, mtime_ns: int) -> None:
    directory, _, leaf = path.rpartition(b"/")
    parent_fd = beneath.open_beneath(root_fd, directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = os.stat(leaf, dir_fd=parent_fd, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            os.rmdir(leaf, dir_fd=parent_fd)
        elif stat.S_ISREG(found.st_mode) and not found.st_size:
            os.unlink(leaf, dir_fd=parent_fd)
        else:
            return
        if mtime_ns:
            os.utime(parent_fd, ns=(mtime_ns, mtime_ns))
    finally:
        os.close(parent_fd)
