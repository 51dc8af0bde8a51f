"""What can be wrong with a volume, in Docker's words: `OPERATION NAME: REASON`."""

from collections.abc import Sequence

from teu import ids
from teu.errors import Conflict, InvalidParameter, NotFound


class NoSuchVolume(NotFound):
    def __init__(self, name: str) -> None:
        super().__init__(f"get {name}: no such volume")
        self.name = name


class VolumeInUse(Conflict):
    def __init__(self, name: str, users: Sequence[str]) -> None:
        super().__init__(f"remove {name}: volume is in use - [{', '.join(users)}]")
        self.users = list(users)


class VolumeNameTaken(Conflict):
    """The name belongs to a volume of another kind, or to one that must not be touched."""

    def __init__(self, operation: str, name: str, why: str = "") -> None:
        super().__init__(f"{operation} {name}: volume name must be unique" + why)
        self.name = name


class VolumeBeingRemoved(Conflict):
    def __init__(self, operation: str, name: str) -> None:
        super().__init__(f"{operation} {name}: the volume is being removed; try again shortly")


class NoSuchDriver(NotFound):
    def __init__(self, driver: str, *, operation: str = "") -> None:
        prefix = f"{operation}: " if operation else ""
        super().__init__(
            f'{prefix}error looking up volume plugin {driver}: plugin "{driver}" not found'
        )
        self.driver = driver


class BadVolumeName(InvalidParameter):
    def __init__(self, name: str) -> None:
        if len(name) == 1:
            super().__init__(
                f"create {name}: volume name is too short, names should be at least two "
                "alphanumeric characters"
            )
            return
        super().__init__(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            f'"{ids.NAME_PATTERN}" are allowed. If you intended to pass a host directory, use '
            "absolute path"
        )
