"""The part of MessagePack that fluentd's forward protocol needs.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md; Fluentd Forward Protocol v1,
"EventTime".
"""

import struct
from typing import Any


def pack(value: Any) -> bytes:
    """Strings (`bytes` are taken as UTF-8), whole numbers from 0, lists, dicts, EventTime."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return _head(len(value), 0xA0, 31, (0xD9, 0xDA, 0xDB)) + value
    if isinstance(value, int):
        return _head(value, 0x00, 127, (0xCC, 0xCD, 0xCE))
    if isinstance(value, list):
        return _head(len(value), 0x90, 15, (0, 0xDC, 0xDD)) + b"".join(map(pack, value))
    if isinstance(value, dict):
        items = b"".join(pack(key) + pack(item) for key, item in value.items())
        return _head(len(value), 0x80, 15, (0, 0xDE, 0xDF)) + items
    if isinstance(value, EventTime):
        return struct.pack(">BBLL", 0xD7, 0, value.seconds, value.nanos)
    raise TypeError(type(value).__name__)


class EventTime:
    """An instant with nanoseconds."""

    __slots__ = ("nanos", "seconds")

    def __init__(self, instant_ns: int) -> None:
        self.seconds, self.nanos = divmod(instant_ns, 1_000_000_000)


def _head(count: int, short: int, short_limit: int, codes: tuple[int, int, int]) -> bytes:
    """`short`: the code with a count of at most `short_limit` inside; `codes`: those followed by
    a count of 1, 2, 4 bytes (0: there is none of that size)."""
    if count <= short_limit:
        return bytes((short | count,))
    for code, size, form in zip(codes, (1, 2, 4), (">BB", ">BH", ">BL"), strict=True):
        if code and count < 1 << (8 * size):
            return struct.pack(form, code, count)
    raise ValueError(f"{count} is too large for MessagePack here")
