"""What a value may be, and its one long form: a reader for each kind of value.

A reader gets a value and its Place and returns the long form, or raises the place's error with
what would be right. `table` reads a mapping with known keys; a wrong key is told with the nearest
right one. Times are Go's durations as text, sizes bytes.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from teu.compose.errors import Place
from teu.compose.source import Map, Override, Reset, Seq

Reader = Callable[[Any, Place], Any]
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?"
                       r"(?:(\d+(?:\.\d+)?)ms)?(?:(\d+(?:\.\d+)?)us)?")  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def kept(reader: Reader) -> Reader:
    """Lets `!reset` and `!override` through, for the merge."""

    def read(value: Any, place: Place) -> Any:
        if isinstance(value, Reset):
            return value
        if isinstance(value, Override):
            return Override(None if value.value is None else reader(value.value, place))
        return reader(value, place)

    return read


# Scalars.


def string(value: Any, place: Place) -> str:
    if isinstance(value, str):
        return value
    raise place.error("must be a string")


def text(value: Any, place: Place) -> str:
    """A string, or a scalar that is written like one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise place.error("must be a string")


def boolean(value: Any, place: Place) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "yes", "y", "on", "1"):
        return True
    if isinstance(value, str) and value.lower() in ("false", "no", "n", "off", "0"):
        return False
    raise place.error("must be a boolean")


def integer(value: Any, place: Place) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value.strip()):
        return int(value)
    raise place.error("must be an integer")


def number(value: Any, place: Place) -> float | int:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    try:
        return float(string(value, place))
    except ValueError:
        raise place.error("must be a number") from None


def size(value: Any, place: Place) -> int:
    """`64m`, `1.5gb`, 1024. -1 (no limit) stays."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if value == "-1":
        return -1
    match = _SIZE.fullmatch(str(value).strip())
    if not match:
        raise place.error(f"must be a size like 64m, not {value!r}")
    return int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])


def duration(value: Any, place: Place) -> str:
    """`90s` -> `1m30s`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0:
        return "0s"
    match = _DURATION.fullmatch(str(value))
    if not match or not any(match.groups()):
        raise place.error(f"must be a duration like 1m30s, not {value!r}")
    return shown_seconds(seconds(str(value)))


def seconds(text_: str) -> float:
    """Of a checked duration."""
    match = _DURATION.fullmatch(text_)
    assert match
    parts = [float(part or 0) for part in match.groups()]
    return sum(part * unit for part, unit in zip(parts, (3600, 60, 1, 1e-3, 1e-6), strict=True))


def shown_seconds(amount: float) -> str:
    if 0 < amount < 1:
        return f"{amount * 1000:g}ms"
    hours, rest = divmod(amount, 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours:g}h{minutes:g}m{rest:g}s"
    return f"{minutes:g}m{rest:g}s" if minutes else f"{rest:g}s"


def one_of(*words: str) -> Reader:
    def read(value: Any, place: Place) -> str:
        if value not in words:
            raise place.error(f"must be one of {', '.join(words)}, not {value!r}")
        return str(value)

    return read


def anything(value: Any, _: Place) -> Any:
    return value


_text_or_mark = kept(text)

# Sequences and mappings.


def sequence(item: Reader, *, unique: bool = False) -> Reader:
    def read(value: Any, place: Place) -> list[Any]:
        if not isinstance(value, list):
            raise place.error("must be a list")
        found: list[Any] = Seq(place.file, place.line)
        for position, entry in enumerate(value):
            read_one = item(entry, _item_place(place, value, position))
            if unique and read_one in found:
                continue
            found.append(read_one)
        return found

    return read


def one_or_more(item: Reader) -> Reader:
    """A list, or its only item alone."""
    several = sequence(item, unique=True)

    def read(value: Any, place: Place) -> list[Any]:
        return list(several(value if isinstance(value, list) else [value], place))

    return read


def mapping(item: Reader) -> Reader:
    """Any keys."""

    def read(value: Any, place: Place) -> Map:
        source = _a_map(value, place)
        found = Map(source.file, source.line)
        found.lines = source.lines
        for key, entry in source.items():
            found[key] = item(entry, source.place(place.path, key))
        return found

    return read


def pairs(value: Any, place: Place) -> dict[str, str | None]:
    """`{A: 1, B: }` or `[A=1, B]`: None is a name without a value."""
    if isinstance(value, list):
        found: dict[str, str | None] = {}
        for position, entry in enumerate(value):
            name, equals, word = text(entry, _item_place(place, value, position)).partition("=")
            found[name] = word if equals else None
        return found
    source = _a_map(value, place)
    return {
        key: None if entry is None else _text_or_mark(entry, source.place(place.path, key))
        for key, entry in source.items()
    }


def labels(value: Any, place: Place) -> dict[str, str]:
    return {name: "" if word is None else word for name, word in pairs(value, place).items()}


def command(value: Any, place: Place) -> list[str] | None:
    """Words; a string is split as a shell does."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise place.error(f"cannot be split into words: {error}") from error
    found: list[str] = sequence(text)(value, place)
    return found


def table(readers: Mapping[str, Reader], *, short: Reader | None = None) -> Reader:
    """A mapping with these keys and `x-` ones; `short`: how another form becomes a mapping."""

    def read(value: Any, place: Place) -> Map:
        if short and not isinstance(value, dict):
            value = as_map(short(value, place), place)
        source = _a_map(value, place)
        found = Map(source.file, source.line)
        found.lines = source.lines
        for key, entry in source.items():
            here = source.place(place.path, key)
            if key.startswith("x-"):
                found[key] = entry
            elif key not in readers:
                raise here.error(f"is not known here{_nearest(key, readers)}")
            elif entry is None and readers[key] is not command:
                continue  # an empty key says nothing
            else:
                found[key] = kept(readers[key])(entry, here)
        return found

    return read


def as_map(content: Mapping[str, Any], place: Place) -> Map:
    found = Map(place.file, place.line)
    found.update(content)
    return found


def _a_map(value: Any, place: Place) -> Map:
    if isinstance(value, Map):
        return value
    if isinstance(value, dict):
        return as_map(value, place)
    raise place.error("must be a mapping")


def _item_place(place: Place, value: list[Any], position: int) -> Place:
    item = value[position]
    line = item.line if isinstance(item, (Map, Seq)) else getattr(value, "line", place.line)
    return Place(place.file, line, f"{place.path}[{position}]")


def _nearest(key: str, readers: Mapping[str, Reader]) -> str:
    near = difflib.get_close_matches(key, readers, 1, 0.6)
    return f'; did you mean "{near[0]}"?' if near else ""
