"""The mounts of a container, in the order in which the runtime makes them.

First the kernel's own file systems, then what was asked for (shortest destination first, so that
a mount inside another one comes after it), then `/etc/hosts` and its like. An asked mount replaces
the default one at the same place; one at `/dev` replaces all below `/dev`.

Words of `MountPoint.options`: `bind` instead of the default `rbind`; `ro` read-only for this mount
alone, `rro` for all below too (the default for `rw=False` where the kernel can); a propagation.
Those of a tmpfs are mount(8)'s, on top of Docker's `noexec,nosuid,nodev`.
"""

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from teu.errors import InvalidParameter
from teu.model.config import HostConfig, TmpfsOptions
from teu.model.container import ContainerRecord, MountPoint
from teu.runtime import namespaces

OciMount = dict[str, Any]
PROPAGATIONS: Final = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
SHM: Final = "/dev/shm"
_STAY_WRITABLE: Final = frozenset(("/proc", "/dev", "/dev/pts", "/dev/mqueue", SHM))
_TMPFS_DEFAULTS: Final = ("noexec", "nosuid", "nodev", "rprivate")
# Each pair of words excludes each other; the later one wins.
_OPPOSITES: Final = {
    **{word: f"no{word}" for word in ("exec", "suid", "dev", "atime", "diratime", "relatime")},
    **{f"no{word}": word for word in ("exec", "suid", "dev", "atime", "diratime", "relatime")},
    "ro": "rw",
    "rw": "ro",
}
_TMPFS_FLAGS: Final = frozenset((*_OPPOSITES, *PROPAGATIONS, "sync", "async", "strictatime"))
_TMPFS_KEYS: Final = frozenset(
    ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge")
)


class Prepared(Struct, frozen=True):
    """What to mount for an asked mount: the path, and the words that its own mount on the host has
    (`ro`, `nosuid`, …): some runtimes bind without them, and what the host may not write the
    container could."""

    source: str
    words: tuple[str, ...] = ()


class Sources(Struct, kw_only=True, frozen=True):
    """Host paths that the caller prepared. `etc_files`: destination -> source. `shm`: a tmpfs
    shared between containers, for `--ipc shareable` and `container:X`. `shm_bytes`: for those who
    do not say. `prepared`: by destination; without it the mount's own source is taken."""

    etc_files: Mapping[str, Path] = {}
    prepared: Mapping[str, Prepared] = {}
    shm: Path | None = None
    init: Path | None = None
    recursive_read_only: bool = True
    shm_bytes: int = 64 << 20


def build(
    record: ContainerRecord, sources: Sources, *, init_inside: str, writable_cgroups: bool
) -> list[OciMount]:
    """The OCI `mounts`. Raises: InvalidParameter for words a tmpfs does not know."""
    host = record.host
    asked = _asked(record, sources)
    taken = {mount["destination"] for mount in asked}
    found = [mount for mount in _defaults(host, sources) if not _replaced(mount, taken)]
    if host.privileged:
        _clear_read_only(found, "/sys")
    if writable_cgroups:
        _clear_read_only(found, "/sys/fs/cgroup")
    if sources.init is not None:
        found.append(_bind(str(sources.init), init_inside, "bind", "ro"))
    found += sorted(asked, key=lambda mount: _depth(mount["destination"]))
    found += _etc_files(sources.etc_files, taken, read_only=host.readonly_rootfs)
    if host.readonly_rootfs:
        _protect(found, taken)
    return found


def _defaults(host: HostConfig, sources: Sources) -> list[OciMount]:
    found: list[OciMount] = [
        _mount("proc", "/proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("tmpfs", "/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            "devpts",
            "/dev/pts",
            "devpts",
            *("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        _mount("sysfs", "/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
        _mount("cgroup", "/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev"),
        _mount("mqueue", "/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
    ]
    if host.ipc_mode == namespaces.HOST:
        found.append(_bind(SHM, SHM, "rbind", "rprivate"))
    elif sources.shm is not None:
        found.append(_bind(str(sources.shm), SHM, "rbind", "rprivate"))
    elif host.ipc_mode != namespaces.NONE:
        size = f"size={host.shm_size or sources.shm_bytes}"
        found.append(_mount("tmpfs", SHM, "shm", "nosuid", "noexec", "nodev", "mode=1777", size))
    return found


def _asked(record: ContainerRecord, sources: Sources) -> list[OciMount]:
    found = {mount.destination: _from_point(mount, sources) for mount in record.mounts}
    for destination, options in (record.host.tmpfs or {}).items():
        clean = posixpath.normpath(destination)
        found.setdefault(clean, _tmpfs(clean, options.split(",") if options else []))
    return list(found.values())


def _from_point(point: MountPoint, sources: Sources) -> OciMount:
    recursive_read_only = sources.recursive_read_only
    if point.type == "tmpfs":
        return _tmpfs(point.destination, [*point.options, *([] if point.rw else ["ro"])])
    words = list(dict.fromkeys(point.options))
    if "bind" not in words and "rbind" not in words:
        words.insert(0, "rbind")
    if "rro" in words and not recursive_read_only:
        raise InvalidParameter(
            f"mount {point.destination} cannot be read-only recursively: this needs Linux 5.12, "
            "and crun 1.4 or runc 1.1"
        )
    if not point.rw and not {"ro", "rro"} & set(words):
        words.append("rro" if recursive_read_only and "rbind" in words else "ro")
    if not PROPAGATIONS & set(words):
        words.append(point.propagation or "rprivate")
    if "bind" in words:
        # A recursive propagation makes some runtimes bind recursively, too.
        words = [word[1:] if word in PROPAGATIONS and word[0] == "r" else word for word in words]
    prepared = sources.prepared.get(point.destination) or Prepared(point.source)
    words += [word for word in prepared.words if word not in words]
    return _bind(prepared.source, point.destination, *words)


def _tmpfs(destination: str, asked: Sequence[str]) -> OciMount:
    return _mount("tmpfs", destination, "tmpfs", *tmpfs_words([*_TMPFS_DEFAULTS, *asked]))


def tmpfs_words(asked: Iterable[str]) -> list[str]:
    """Words of `--tmpfs` with contradictions resolved: the last one of a kind wins.

    Raises: InvalidParameter with Docker's text for an unknown word.
    """
    found: dict[str, str] = {}
    for word in asked:
        name, given, value = word.partition("=")
        if given:
            if name not in _TMPFS_KEYS or not value:
                raise InvalidParameter(f'invalid tmpfs option ["{name}" "{value}"]')
        elif name == "defaults" or not name:
            continue
        elif name not in _TMPFS_FLAGS:
            raise InvalidParameter(f'invalid tmpfs option ["{word}"]')
        found.pop(_OPPOSITES.get(name, ""), None)
        if name in PROPAGATIONS:
            found = {other: text for other, text in found.items() if other not in PROPAGATIONS}
        found.pop(name, None)
        found[name] = word
    return list(found.values())


def tmpfs_words_of_mount(options: TmpfsOptions | None) -> list[str]:
    """`--mount type=tmpfs,tmpfs-size=…,tmpfs-mode=…` as words."""
    if options is None:
        return []
    words = [f"{pair[0]}={pair[1]}" if len(pair) > 1 else pair[0] for pair in options.options or ()]
    if options.mode:
        words.append(f"mode={options.mode:o}")
    if options.size_bytes:
        words.append(f"size={options.size_bytes}")
    return words


def _etc_files(files: Mapping[str, Path], taken: set[str], *, read_only: bool) -> list[OciMount]:
    words = ["rbind", *(["ro"] if read_only else []), "rprivate"]
    return [
        _bind(str(source), destination, *words)
        for destination, source in files.items()
        if destination not in taken
    ]


def _protect(mounts: list[OciMount], taken: set[str]) -> None:
    """A read-only root: what Docker itself mounts is read-only too, what was asked for is not."""
    for mount in mounts:
        destination, options = mount["destination"], mount["options"]
        if destination not in _STAY_WRITABLE and destination not in taken and "ro" not in options:
            options.append("ro")


def _replaced(mount: OciMount, taken: set[str]) -> bool:
    destination: str = mount["destination"]
    return destination in taken or ("/dev" in taken and destination.startswith("/dev/"))


def _clear_read_only(mounts: Sequence[OciMount], destination: str) -> None:
    for mount in mounts:
        if mount["destination"] == destination:
            mount["options"] = [word for word in mount["options"] if word != "ro"]


def _depth(destination: str) -> int:
    return destination.rstrip("/").count("/")


def _mount(fstype: str, destination: str, source: str, *options: str) -> OciMount:
    return {
        "destination": destination,
        "type": fstype,
        "source": source,
        "options": list(options),
    }


def _bind(source: str, destination: str, *options: str) -> OciMount:
    return _mount("bind", destination, source, *options)
