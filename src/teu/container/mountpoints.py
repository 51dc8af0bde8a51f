"""`-v` and `--mount` as mount points: what the words mean, and Docker's texts for those that mean
nothing. Nothing is looked up or made here, but that a bind source must exist."""

import os
import posixpath
import re
from collections.abc import Callable
from typing import Final

from teu.errors import InvalidParameter
from teu.model.config import Mount
from teu.model.container import MountPoint
from teu.runtime.mountspec import tmpfs_words_of_mount
from teu.sys.userns import IdRange

AUTO: Final = "auto"  # an id map: the source's owner is shown as the container's user
_PROPAGATION: Final = frozenset({"shared", "slave", "private", "rshared", "rslave", "rprivate"})
_CONSISTENCY: Final = frozenset({"consistent", "cached", "delegated", "default"})
# Words of a mode; of each group there may be one.
_GROUPS: Final = (
    frozenset({"ro", "rw", "rro"}), _PROPAGATION, frozenset({"z", "Z"}), frozenset({"nocopy"}),
    _CONSISTENCY, frozenset({"U"}), frozenset({"idmap"}),
)  # fmt: skip
_ID_MAP: Final = re.compile(
    r"(?:uids=(?P<uids>\d+-\d+-\d+(?:#\d+-\d+-\d+)*))?;?"
    r"(?:gids=(?P<gids>\d+-\d+-\d+(?:#\d+-\d+-\d+)*))?"
)
_MAX_ID: Final = 2**32 - 2


# --- -v --------------------------------------------------------------------------------------


def parse_bind(text: str) -> MountPoint:
    """`/host:/ctr[:mode]`, `volume:/ctr[:mode]`, or `/ctr`: an anonymous volume.

    Raises: InvalidParameter with Docker's text.
    """
    invalid = f"invalid volume specification: '{text}'"
    parts = text.split(":")
    if not parts[0] or len(parts) > 3 or (len(parts) == 2 and _is_mode(parts[1])):
        raise InvalidParameter(invalid)
    source, target = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    mode = parts[2] if len(parts) == 3 else ""
    if not _is_mode(mode):
        raise InvalidParameter(f"invalid mode: {mode}")
    kind = "bind" if source.startswith("/") else "volume"
    context = f'{invalid}: invalid mount config for type "{kind}"'
    words = {word.partition("=")[0] for word in mode.split(",")}
    if kind == "volume" and words & _PROPAGATION:
        raise InvalidParameter(f"{context}: field BindOptions must not be specified")
    if kind == "bind" and "nocopy" in words:
        raise InvalidParameter(f"{context}: field VolumeOptions must not be specified")
    propagation = next(iter(words & _PROPAGATION), "rprivate" if kind == "bind" else "")
    return MountPoint(
        type=kind,
        source=posixpath.normpath(source) if kind == "bind" else "",
        name="" if kind == "bind" else source,
        destination=clean_target(target, context),
        mode=mode,
        rw=not words & {"ro", "rro"},
        propagation=propagation,
        options=["rbind", propagation or "rprivate", *(["rro"] if "rro" in words else [])],
        nocopy="nocopy" in words,
        create_source=kind == "bind",
        chown="U" in words,
        id_map=_id_map_of(mode),
    )


def _is_mode(mode: str) -> bool:
    if not mode:
        return True
    words = [word.partition("=")[0] for word in mode.split(",")]
    known = all(any(word in group for group in _GROUPS) for word in words)
    return known and all(sum(word in group for word in words) < 2 for group in _GROUPS)


def _id_map_of(mode: str) -> str:
    for word in mode.split(","):
        name, equals, value = word.partition("=")
        if name == "idmap" and equals:
            parse_id_map(value)
            return value
        if name == "idmap":
            return AUTO
    return ""


def checked_id_map(text: str) -> str:
    """Raises: InvalidParameter."""
    if text not in ("", AUTO):
        parse_id_map(text)
    return text


def parse_id_map(text: str) -> tuple[list[IdRange], list[IdRange]]:
    """`uids=ON_DISK-SHOWN-COUNT[#…];gids=…`: (uids, gids); one alone is for both.

    Raises: InvalidParameter.
    """
    match = _ID_MAP.fullmatch(text)
    if not match or not (match["uids"] or match["gids"]):
        raise InvalidParameter(
            f"invalid idmap: {text}: write idmap, or idmap=uids=ON_DISK-SHOWN-COUNT;"
            "gids=ON_DISK-SHOWN-COUNT (several ranges with # between them)"
        )
    uids = _ranges(match["uids"] or match["gids"])
    return uids, _ranges(match["gids"] or match["uids"])


def _ranges(text: str) -> list[IdRange]:
    found = [IdRange(*map(int, part.split("-"))) for part in text.split("#")]
    for r in found:
        if not r.count or max(r.on_disk, r.shown) + r.count - 1 > _MAX_ID:
            raise InvalidParameter(f"invalid idmap: {text}: a range is empty or leaves 32 bits")
    return found


# --- --mount ---------------------------------------------------------------------------------


def from_mount(mount: Mount) -> MountPoint:
    """One `--mount`. Raises: InvalidParameter with Docker's text."""
    context = f'invalid mount config for type "{mount.type}"'
    make = _MAKERS.get(mount.type)
    if not mount.target:
        raise InvalidParameter(f"{context}: field Target must not be empty")
    target = clean_target(mount.target, context)
    if make is None:
        raise InvalidParameter(f"{context}: mount type unknown")
    if mount.consistency and mount.consistency not in _CONSISTENCY:
        raise InvalidParameter(f"{context}: invalid consistency mode: {mount.consistency}")
    if mount.type in ("tmpfs", "image") and (mount.chown or mount.id_map):
        raise InvalidParameter(f"{context}: field Chown or IdMap must not be specified")
    return make(mount, target, context)


def _bind_mount(mount: Mount, target: str, context: str) -> MountPoint:
    options = mount.bind_options
    if not mount.source:
        raise InvalidParameter(f"{context}: field Source must not be empty")
    propagation = (options.propagation if options else "") or "rprivate"
    if propagation not in _PROPAGATION:
        raise InvalidParameter(f"{context}: invalid propagation mode: {propagation}")
    _refuse_foreign(mount, context, "volume_options")
    if not mount.source.startswith("/"):
        raise InvalidParameter(
            f"{context}: invalid mount path: '{mount.source}' mount path must be absolute"
        )
    create = bool(options and options.create_mountpoint)
    if not create and not os.path.exists(mount.source):
        raise InvalidParameter(f"{context}: bind source path does not exist: {mount.source}")
    words = ["bind" if options and options.non_recursive else "rbind", propagation]
    if mount.read_only and options and options.read_only_force_recursive:
        words.append("rro")
    if mount.read_only and options and options.read_only_non_recursive:
        words.append("ro")
    return MountPoint(
        type="bind",
        source=posixpath.normpath(mount.source),
        destination=target,
        rw=not mount.read_only,
        propagation=propagation,
        options=words,
        create_source=create,
        chown=mount.chown,
        id_map=checked_id_map(mount.id_map),
    )


def _volume_mount(mount: Mount, target: str, context: str) -> MountPoint:
    options = mount.volume_options
    _refuse_foreign(mount, context, "bind_options")
    subpath = options.subpath if options else ""
    if subpath and not mount.source:
        raise InvalidParameter(f"{context}: must not set Subpath when using anonymous volumes")
    _check_subpath(subpath, context, "volume")
    if mount.read_only and not mount.source:
        raise InvalidParameter(
            f"{context}: must not set ReadOnly mode when using anonymous volumes"
        )
    driver = options.driver_config if options else None
    return MountPoint(
        type="volume",
        source="",
        name=mount.source,
        driver=driver.name if driver else "",
        driver_options=dict((driver.options if driver else None) or {}),
        destination=target,
        rw=not mount.read_only,
        options=["rbind", "rprivate"],
        nocopy=bool(options and options.no_copy),
        subpath=subpath,
        labels=dict((options.labels if options else None) or {}),
        chown=mount.chown,
        id_map=checked_id_map(mount.id_map),
    )


def _tmpfs_mount(mount: Mount, target: str, context: str) -> MountPoint:
    _refuse_foreign(mount, context, "bind_options")
    if mount.source:
        raise InvalidParameter(f"{context}: field Source must not be specified")
    options: list[str] = []
    if mount.tmpfs_options:
        if mount.tmpfs_options.size_bytes < 0:
            raise InvalidParameter(f"{context}: invalid size")
        options = tmpfs_words_of_mount(mount.tmpfs_options)
    return MountPoint(
        type="tmpfs", source="", destination=target, rw=not mount.read_only, options=options
    )


def _image_mount(mount: Mount, target: str, context: str) -> MountPoint:
    _refuse_foreign(mount, context, "bind_options", "volume_options", "tmpfs_options")
    if not mount.source:
        raise InvalidParameter(f"{context}: field Source must not be empty")
    subpath = mount.image_options.subpath if mount.image_options else ""
    _check_subpath(subpath, context, "image")
    return MountPoint(
        type="image",
        source=mount.source,
        destination=target,
        rw=False,
        options=["rbind", "rprivate"],
        subpath=subpath,
    )


_MAKERS: Final[dict[str, Callable[[Mount, str, str], MountPoint]]] = {
    "bind": _bind_mount, "volume": _volume_mount, "tmpfs": _tmpfs_mount, "image": _image_mount
}  # fmt: skip
_FIELDS: Final = {
    "bind_options": "BindOptions", "volume_options": "VolumeOptions",
    "tmpfs_options": "TmpfsOptions",
}  # fmt: skip


def _refuse_foreign(mount: Mount, context: str, *fields: str) -> None:
    for field in fields:
        if getattr(mount, field) is not None:
            raise InvalidParameter(f"{context}: field {_FIELDS[field]} must not be specified")


def _check_subpath(subpath: str, context: str, what: str) -> None:
    if subpath.startswith("/") or posixpath.normpath(subpath).split("/")[0] == "..":
        raise InvalidParameter(f"{context}: subpath must be a relative path within the {what}")


def clean_target(path: str, context: str) -> str:
    """A normalised absolute path that is not `/`. Raises: InvalidParameter."""
    if posixpath.normpath(path).lstrip("/") == "":
        raise InvalidParameter(f"{context}: invalid specification: destination can't be '/'")
    if not path.startswith("/"):
        raise InvalidParameter(
            f"{context}: invalid mount path: '{path}' mount path must be absolute"
        )
    return posixpath.normpath("/" + path.lstrip("/"))
