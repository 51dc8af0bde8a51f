"""Something that happened to an object, as `GET /events` tells it."""

from msgspec import Struct, field


class Event(Struct, kw_only=True):
    """`type` is container, image, network, volume or daemon; `attributes` carry name and labels."""

    type: str
    action: str
    actor: str
    attributes: dict[str, str] = field(default_factory=dict)
    at_ns: int = 0
