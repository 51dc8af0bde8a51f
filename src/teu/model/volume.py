"""A volume as it is stored."""

from msgspec import Struct, field

LOCAL = "local"


class VolumeRecord(Struct, kw_only=True):
    """`creating` and `removing` are intents: the next start undoes the first, finishes the second.

    `directory`: its place below the volumes' root ("": that of its name; a renamed volume has the
    old one for a moment). `project_id`: of its quota. `read_only`: a snapshot, never mounted
    otherwise. `mountpoint`: what a plugin said last.
    """

    name: str
    driver: str = LOCAL
    created_ns: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    anonymous: bool = False
    creating: bool = False
    removing: bool = False
    directory: str = ""
    project_id: int = 0
    read_only: bool = False
    mountpoint: str = ""
