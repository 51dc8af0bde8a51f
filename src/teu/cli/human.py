"""Durations, texts and names as Docker's tables show them.

Source: docker/go-units `HumanDuration`; docker/cli `formatter`; compared with Docker 28.2.
"""

from __future__ import annotations

import time

ID_LENGTH = 12
_MINUTE, _HOUR = 60, 3600


def duration(seconds: float) -> str:
    """`7200` -> `2 hours`."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < _MINUTE:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if whole < _HOUR:
        minutes = whole // _MINUTE
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = int(seconds / _HOUR + 0.5)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 730:
        return f"{days // 30} months"
    return f"{int(seconds / _HOUR) // 24 // 365} years"


def ago(instant_s: float) -> str:
    """`3 minutes ago` for a time in seconds since the epoch."""
    return duration(time.time() - instant_s) + " ago"


def local_time(instant_s: int) -> str:
    """As Go prints a local time: `2024-05-01 12:00:00 +0200 CEST`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(instant_s))


def short_id(identifier: str) -> str:
    """The first twelve digits, without the name of the hash."""
    if ":" in identifier:
        identifier = identifier.partition(":")[2]
    return identifier[:ID_LENGTH]


def text_width(text: str) -> int:
    """Columns that `text` takes on a terminal: East Asian wide characters take two."""
    if text.isascii():
        return len(text)
    from unicodedata import east_asian_width

    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def ellipsis(text: str, width: int) -> str:
    """`text` cut to `width` columns, the last one being `…` when something was cut off."""
    if text_width(text) <= width:
        return text
    used = 0
    for index, char in enumerate(text):
        used += text_width(char)
        if used > width - 1:
            return text[:index] + "…"
    return text


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """A sort key by which `web10` comes after `web9`."""
    parts: list[tuple[int, int, str]] = []
    at = 0
    while at < len(text):
        end = at
        is_number = "0" <= text[at] <= "9"
        while end < len(text) and ("0" <= text[end] <= "9") == is_number:
            end += 1
        piece = text[at:end]
        parts.append((0, int(piece), piece) if is_number else (1, 0, piece))
        at = end
    return parts


def labels_text(labels: dict[str, str] | None) -> str:
    """`a=1,b=2`, sorted."""
    return ",".join(sorted(f"{name}={value}" for name, value in (labels or {}).items()))


def yes_no(value: object) -> str:
    return "true" if value else "false"
