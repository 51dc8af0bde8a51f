"""The filters of `images` and `image prune`.

Source: API 1.51 ImageList, ImagePrune; Go's path.Match (the patterns of `reference`).
"""

import re
from collections.abc import Callable, Mapping, Sequence

from teu.clock import now_ns, parse_rfc3339
from teu.errors import InvalidParameter
from teu.image.catalog import Catalog
from teu.model.image import Image
from teu.model.reference import Reference
from teu.units import parse_duration

Filters = Mapping[str, Sequence[str]]
Test = Callable[[Image], bool]
_TRUE = ("1", "true", "t", "TRUE", "True", "T")
_FALSE = ("0", "false", "f", "FALSE", "False", "F")
_SECOND_NS = 1_000_000_000
_EPOCH = re.compile(r"(-?\d+)(?:\.(\d{1,9}))?")


def check_names(filters: Filters, known: Sequence[str]) -> None:
    """Raises: InvalidParameter for a filter that is not served."""
    for name in filters:
        if name not in known:
            raise InvalidParameter(f"invalid filter '{name}'")


def flag(filters: Filters, name: str) -> bool | None:
    """None when not given. Raises: InvalidParameter."""
    values = list(filters.get(name) or ())
    if not values:
        return None
    if all(value in _TRUE for value in values):
        return True
    if all(value in _FALSE for value in values):
        return False
    raise InvalidParameter(f"invalid filter '{name}=[{' '.join(values)}]'")


def instant(text: str) -> int:
    """Epoch nanoseconds: a Unix time, a date, or a duration before now.

    Raises: InvalidParameter.
    """
    if match := _EPOCH.fullmatch(text):
        return int(match[1]) * _SECOND_NS + int((match[2] or "0").ljust(9, "0"))
    try:
        return now_ns() - int(parse_duration(text) * _SECOND_NS)
    except ValueError:
        pass
    try:
        return parse_rfc3339(text)
    except ValueError as error:
        raise InvalidParameter(f'failed to parse value as time or duration: "{text}"') from error


def tests(filters: Filters, catalog: Catalog) -> list[Test]:
    """What an image must pass, apart from its names. Raises: InvalidParameter, NoSuchImage."""
    found: list[Test] = []
    for text in filters.get("label") or ():
        found.append(_label_test(text))
    for text in filters.get("label!") or ():
        unwanted = _label_test(text)
        found.append(lambda image, unwanted=unwanted: not unwanted(image))  # type: ignore[misc]
    for text in filters.get("until") or ():
        limit = instant(text)
        found.append(lambda image, limit=limit: image.created_ns <= limit)  # type: ignore[misc]
    for text in filters.get("before") or ():
        other = catalog.resolve(text).created_ns
        found.append(lambda image, other=other: image.created_ns < other)  # type: ignore[misc]
    for text in filters.get("since") or ():
        other = catalog.resolve(text).created_ns
        found.append(lambda image, other=other: image.created_ns > other)  # type: ignore[misc]
    return found


def _label_test(text: str) -> Test:
    name, equals, value = text.partition("=")

    def test(image: Image) -> bool:
        labels = image.config.config.labels or {}
        return name in labels and (not equals or labels[name] == value)

    return test


def reference_patterns(filters: Filters) -> list[re.Pattern[str]]:
    return [re.compile(_go_pattern(text)) for text in filters.get("reference") or ()]


def matches_reference(name: str, patterns: Sequence[re.Pattern[str]]) -> bool:
    """Whether a familiar name fits any pattern, with or without its tag."""
    bare = Reference.parse(name).familiar_name
    return any(p.fullmatch(name) or p.fullmatch(bare) for p in patterns)


def _go_pattern(text: str) -> str:
    """Go's path.Match as a regular expression: `*` and `?` stop at a slash.

    Raises: InvalidParameter.
    """
    out = []
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            end = text.find("]", position + 1)
            if end < 0:
                raise InvalidParameter(
                    f"invalid filter 'reference={text}': syntax error in pattern"
                )
            body = text[position:end].replace("\\", "\\\\")
            out.append(f"[{body}]")
            position = end + 1
        elif char == "\\" and position < len(text):
            out.append(re.escape(text[position]))
            position += 1
        else:
            out.append(re.escape(char))
    return "".join(out)
