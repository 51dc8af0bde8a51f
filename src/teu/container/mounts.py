"""From `-v`, `--mount`, `--volumes-from` and an image's VOLUMEs to mount points.

Order of precedence for one destination, as Docker's: `--mount` and `-v` (a clash between them is an
error), then `--volumes-from`, then the image's VOLUME. Volumes are created here, at create time;
missing bind sources of `-v` are made at start.
"""

import os
import posixpath
from pathlib import Path

from teu.container.containers import Containers
from teu.errors import InvalidParameter
from teu.model.config import ContainerConfig, HostConfig, Mount
from teu.model.container import MountPoint
from teu.volume.service import VolumeService

_PROPAGATION = frozenset({"shared", "slave", "private", "rshared", "rslave", "rprivate"})
_FLAGS = frozenset({"ro", "rw", "rro", "z", "Z", "nocopy"})
_CONSISTENCY = frozenset({"consistent", "cached", "delegated", "default", ""})


class MountResolver:
    """Turns what was asked into mount points, creating the volumes they need."""

    def __init__(self, volumes: VolumeService, containers: Containers) -> None:
        self._volumes = volumes
        self._containers = containers

    def resolve(
        self, config: ContainerConfig, host: HostConfig, image_volumes: list[str]
    ) -> list[MountPoint]:
        """All mount points, by destination.

        Raises: InvalidParameter with Docker's text; NoSuchContainer for `--volumes-from`.
        """
        points: dict[str, MountPoint] = {}
        for text in host.volumes_from or []:
            for point in self._inherited(text):
                points[point.destination] = point
        asked: dict[str, MountPoint] = {}
        plans = [parse_bind(text) for text in host.binds or []]
        plans += [from_mount(mount) for mount in host.mounts or []]
        for point in plans:
            if point.destination in asked or point.destination in _tmpfs_targets(host):
                raise InvalidParameter(f"Duplicate mount point: {point.destination}")
            asked[point.destination] = point
        points.update(asked)
        for destination in [*(config.volumes or {}), *image_volumes]:
            target = clean_target(destination, f"invalid volume specification: '{destination}'")
            if target not in points and target not in _tmpfs_targets(host):
                points[target] = MountPoint(
                    type="volume", source="", destination=target, anonymous=True
                )
        for point in points.values():
            if point.type == "volume":
                self._provide(point, host.volume_driver)
        return sorted(points.values(), key=lambda p: p.destination)

    def _provide(self, point: MountPoint, driver: str) -> None:
        labels = point.labels if point.labels else None
        record = self._volumes.create(
            point.name, driver=point.driver or driver or "local", labels=labels
        )
        # By what is asked here: a volume that got its name by itself is kept if it is named now.
        point.anonymous = point.anonymous or not point.name
        point.name, point.driver = record.name, record.driver
        point.source = str(self._volumes.data_directory(record.name))

    def _inherited(self, text: str) -> list[MountPoint]:
        ref, _, mode = text.partition(":")
        if mode not in ("", "ro", "rw", "z", "Z"):
            raise InvalidParameter(f"invalid mode for volumes-from: {mode}")
        source = self._containers.get(ref).record
        result: list[MountPoint] = []
        for point in source.mounts:
            if point.type not in ("bind", "volume"):
                continue
            rw = point.rw and mode != "ro"
            result.append(
                MountPoint(
                    type=point.type,
                    source=point.source,
                    destination=point.destination,
                    name=point.name,
                    driver=point.driver,
                    rw=rw,
                    propagation=point.propagation,
                    options=list(point.options),
                    subpath=point.subpath,
                )
            )
        return result


def _tmpfs_targets(host: HostConfig) -> set[str]:
    return {posixpath.normpath(path) for path in host.tmpfs or {}}


def clean_target(path: str, context: str) -> str:
    """A normalised absolute path that is not `/`. Raises: InvalidParameter."""
    if not path.startswith("/"):
        raise InvalidParameter(
            f"{context}: invalid mount path: '{path}' mount path must be absolute"
        )
    target = posixpath.normpath("/" + path.lstrip("/"))
    if target == "/":
        raise InvalidParameter(f"{context}: invalid specification: destination can't be '/'")
    return target


def parse_bind(text: str) -> MountPoint:
    """`/host:/ctr[:mode]` or `volume:/ctr[:mode]` (or `/ctr`: an anonymous volume)."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts[:2]) or (len(parts) == 3 and not parts[2]):
        raise InvalidParameter(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return MountPoint(
            type="volume",
            source="",
            destination=clean_target(parts[0], f"invalid volume specification: '{text}'"),
            anonymous=True,
        )
    source, destination = parts[0], parts[1]
    mode = parts[2] if len(parts) == 3 else ""
    kind = "bind" if source.startswith("/") else "volume"
    context = f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\""
    target = clean_target(destination, context)
    words = _mode_words(mode, kind)
    rw = not words & {"ro", "rro"}
    propagation = next(iter(words & _PROPAGATION), "rprivate" if kind == "bind" else "")
    return MountPoint(
        type=kind,
        source=posixpath.normpath(source) if kind == "bind" else "",
        name="" if kind == "bind" else source,
        destination=target,
        mode=mode,
        rw=rw,
        propagation=propagation,
        options=["rbind", propagation or "rprivate", *(["rro"] if "rro" in words else [])],
        nocopy="nocopy" in words,
        create_source=kind == "bind",
    )


def _mode_words(mode: str, kind: str) -> set[str]:
    words = set(mode.split(",")) if mode else set()
    if unknown := words - _FLAGS - _PROPAGATION - _CONSISTENCY:
        raise InvalidParameter(f"invalid mode: {','.join(sorted(unknown))}")
    foreign = words & _PROPAGATION if kind == "volume" else words & {"nocopy"}
    if foreign:
        raise InvalidParameter(f"invalid mode: {mode}")
    if len(words & _PROPAGATION) > 1 or {"ro", "rw"} <= words:
        raise InvalidParameter(f"invalid mode: {mode}")
    return words


def from_mount(mount: Mount) -> MountPoint:
    """One `--mount`. Raises: InvalidParameter with Docker's text."""
    context = f'invalid mount config for type "{mount.type}"'
    if not mount.target:
        raise InvalidParameter(f"{context}: field Target must not be empty")
    target = clean_target(mount.target, context)
    if mount.consistency not in _CONSISTENCY:
        raise InvalidParameter(f"{context}: invalid consistency mode: {mount.consistency}")
    match mount.type:
        case "bind":
            return _bind_mount(mount, target, context)
        case "volume":
            return _volume_mount(mount, target, context)
        case "tmpfs":
            return _tmpfs_mount(mount, target, context)
        case "image":
            raise InvalidParameter(f"{context}: image mounts are not supported yet")
    raise InvalidParameter(f"{context}: mount type unknown")


def _bind_mount(mount: Mount, target: str, context: str) -> MountPoint:
    options = mount.bind_options
    if mount.volume_options or mount.tmpfs_options:
        raise InvalidParameter(f"{context}: field VolumeOptions must not be specified")
    if not mount.source:
        raise InvalidParameter(f"{context}: field Source must not be empty")
    if not mount.source.startswith("/"):
        raise InvalidParameter(
            f"{context}: invalid mount path: '{mount.source}' mount path must be absolute"
        )
    create = bool(options and options.create_mountpoint)
    if not create and not os.path.lexists(mount.source):
        raise InvalidParameter(f"{context}: bind source path does not exist: {mount.source}")
    propagation = (options.propagation if options else "") or "rprivate"
    if propagation not in _PROPAGATION:
        raise InvalidParameter(f"{context}: invalid propagation mode: {propagation}")
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
    )


def _volume_mount(mount: Mount, target: str, context: str) -> MountPoint:
    options = mount.volume_options
    if mount.bind_options or mount.tmpfs_options:
        raise InvalidParameter(f"{context}: field BindOptions must not be specified")
    if options and options.subpath and (os.path.isabs(options.subpath) or not mount.source):
        raise InvalidParameter(f"{context}: subpath must be a relative path of a named volume")
    driver = options.driver_config if options else None
    if driver and driver.options:
        raise InvalidParameter(f"{context}: volume driver options are not supported yet")
    return MountPoint(
        type="volume",
        source="",
        name=mount.source,
        driver=driver.name if driver else "",
        destination=target,
        rw=not mount.read_only,
        options=["rbind", "rprivate"],
        anonymous=not mount.source,
        nocopy=bool(options and options.no_copy),
        subpath=options.subpath if options else "",
        labels=dict((options.labels if options else None) or {}),
    )


def _tmpfs_mount(mount: Mount, target: str, context: str) -> MountPoint:
    if mount.source:
        raise InvalidParameter(f"{context}: field Source must not be specified")
    options: list[str] = []
    if mount.tmpfs_options:
        if mount.tmpfs_options.size_bytes < 0:
            raise InvalidParameter(f"{context}: invalid size")
        if mount.tmpfs_options.size_bytes:
            options.append(f"size={mount.tmpfs_options.size_bytes}")
        if mount.tmpfs_options.mode:
            options.append(f"mode={mount.tmpfs_options.mode:o}")
    return MountPoint(
        type="tmpfs", source="", destination=target, rw=not mount.read_only, options=options
    )


def make_sources(points: list[MountPoint]) -> None:
    """Makes the missing bind sources of `-v`; checks that the others are there.

    Raises: InvalidParameter with Docker's text.
    """
    for point in points:
        if point.type != "bind":
            continue
        if os.path.lexists(point.source):
            if not point.rw and not os.path.isdir(point.source) and "ro" not in point.options:
                point.options.append("ro")  # "recursive" makes runtimes take it for a directory
            continue
        if not point.create_source:
            raise InvalidParameter(
                f'invalid mount config for type "bind": bind source path does not exist: '
                f"{point.source}"
            )
        try:
            Path(point.source).mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidParameter(
                f"error while creating mount source path '{point.source}': {error}"
            ) from error
