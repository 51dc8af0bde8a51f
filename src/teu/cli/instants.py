"""`--since` and `--until`: ages and times of day as the seconds that the API takes.

Source: moby `api/types/time`; compared with Docker 28.2.
"""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta, timezone

from teu.cli.grammar import Options, quote
from teu.cli.session import Failure
from teu.cli.values import duration

_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9})\d*)?)?)?)?"
    r"(Z|[+-]\d\d:?\d\d)?"
)
_SECONDS = re.compile(r"\d+(\.\d+)?")


def from_option(options: Options, name: str) -> str | None:
    """The instant that the flag `name` gives, None when it is not used. Raises: Failure."""
    text = options.text(name)
    if not text:
        return None
    try:
        return api_instant(text)
    except ValueError as error:
        raise Failure(f'invalid value for "{name}": {error}') from error


def api_instant(text: str) -> str:
    """`10m`, `2013-01-02T13:23:37Z`, `2013-01-02` (local time), `1136073600.5` -> seconds.

    Raises: ValueError.
    """
    try:
        return str(int(time.time() - duration(text) / 1e9))
    except ValueError:
        pass
    match = _TIME.fullmatch(text)
    if match:
        return _seconds(match)
    if _SECONDS.fullmatch(text):
        return text
    raise ValueError(f"failed to parse value as time or duration: {quote(text)}")


def _seconds(match: re.Match[str]) -> str:
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    moment = datetime(
        int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0)
    )
    if zone:
        moment = moment.replace(tzinfo=_zone(zone))
    nanos = (fraction or "").ljust(9, "0")
    return f"{int(moment.timestamp())}.{nanos}"


def _zone(text: str) -> timezone:
    if text == "Z":
        return timezone.utc  # noqa: UP017 - `datetime.UTC` is an alias that costs an import
    digits = text[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset)
