"""From `-v`, `--mount`, `--volumes-from` and an image's VOLUMEs to mount points.

Order of precedence for one destination, as Docker's: `--mount` and `-v` (a clash between them is an
error), then `--volumes-from`, then the image's VOLUME. Volumes are created here, at create time;
missing bind sources of `-v` are made at start.
"""

import os
import posixpath
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from teu.container.containers import Containers
from teu.container.mountpoints import clean_target, from_mount, parse_bind
from teu.errors import InvalidParameter, NotFound
from teu.image.service import ImageService
from teu.model.config import ContainerConfig, HostConfig
from teu.model.container import MountPoint
from teu.volume.service import VolumeService

Hold = Callable[[str], None]


class MountResolver:
    """Turns what was asked into mount points, creating the volumes they need."""

    def __init__(
        self, volumes: VolumeService, containers: Containers, images: ImageService
    ) -> None:
        self._volumes = volumes
        self._containers = containers
        self._images = images

    def plan(self, config: ContainerConfig, host: HostConfig) -> list[MountPoint]:
        """All mount points, by destination; nothing is made yet.

        Raises: InvalidParameter with Docker's text; NoSuchContainer for `--volumes-from`.
        """
        points: dict[str, MountPoint] = {}
        for text in host.volumes_from or []:
            for point in self._inherited(text):
                points[point.destination] = point
        taken = {posixpath.normpath(path) for path in host.tmpfs or {}}
        for point in [*map(parse_bind, host.binds or []), *map(from_mount, host.mounts or [])]:
            if point.destination in taken:
                raise InvalidParameter(f"Duplicate mount point: {point.destination}")
            taken.add(point.destination)
            points[point.destination] = point
        for destination in config.volumes or {}:
            target = clean_target(destination, f"invalid volume specification: '{destination}'")
            if target not in points and target not in taken:
                points[target] = MountPoint(type="volume", source="", destination=target)
        return sorted(points.values(), key=lambda p: p.destination)

    async def provide(
        self, points: list[MountPoint], default_driver: str, hold: Hold, made: list[str]
    ) -> None:
        """Makes the volumes, finds the images. Names of new volumes are added to `made` at once.

        Raises: what the drivers raise, InvalidParameter for an image that is not there.
        """
        for point in points:
            if point.type == "volume":
                await self._provide_volume(point, default_driver, hold, made)
            elif point.type == "image":
                self._provide_image(point)

    async def _provide_volume(
        self, point: MountPoint, default_driver: str, hold: Hold, made: list[str]
    ) -> None:
        known = self._volumes.find(point.name) if point.name else None
        driver = point.driver or ("" if known else default_driver)
        record, is_new = await self._volumes.ensure(
            point.name, driver=driver, options=point.driver_options, labels=point.labels
        )
        hold(record.name)
        if is_new:
            made.append(record.name)
        point.anonymous = point.anonymous or not point.name
        point.name, point.driver = record.name, record.driver
        point.source = self._volumes.mountpoint(record)
        point.rw = point.rw and not record.read_only

    def _provide_image(self, point: MountPoint) -> None:
        try:
            image = self._images.runnable(point.source)
        except NotFound as error:
            raise InvalidParameter(
                f'invalid mount config for type "image": {error.message}; pull it first'
            ) from error
        point.image_id, point.layers = image.id, list(image.chain_ids)

    def _inherited(self, text: str) -> list[MountPoint]:
        ref, _, mode = text.partition(":")
        if not ref or mode not in ("", "ro", "rw", "z", "Z"):
            raise InvalidParameter(f"invalid mode: {mode}")
        source = self._containers.get(ref).record
        return [
            replace(
                point,
                rw=point.rw and mode != "ro",
                options=list(point.options),
                labels={},
                driver_options={},
            )
            for point in source.mounts
            if point.type in ("bind", "volume")
        ]


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
