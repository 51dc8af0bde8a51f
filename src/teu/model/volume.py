"""A volume as it is stored."""

from msgspec import Struct, field


class VolumeRecord(Struct, kw_only=True):
    """`removing` is the intent to delete: replayed at the next start if a crash came between."""

    name: str
    driver: str = "local"
    created_ns: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    anonymous: bool = False
    removing: bool = False
