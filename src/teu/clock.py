"""Time as the API writes it: UTC, RFC 3339, nine digits of nanoseconds.

Instants are plain `int` nanoseconds since the epoch (`*_ns`), so they compare, sort and store
without conversion. Zero means "never", which the API writes as year one.
"""

import re
import time
from datetime import UTC, datetime

ZERO = "0001-01-01T00:00:00Z"
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9})\d*)?)?)?"
    r"(Z|z|[+-]\d\d:\d\d)?"
)


def now_ns() -> int:
    """Nanoseconds since the epoch."""
    return time.time_ns()


def format_ns(instant_ns: int) -> str:
    """`1700000000123456789` -> `2023-11-14T22:13:20.123456789Z`; 0 -> year one."""
    if not instant_ns:
        return ZERO
    seconds, nanos = divmod(instant_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"


def parse_rfc3339(text: str) -> int:
    """The instant in nanoseconds. A missing zone is UTC, a missing time midnight.

    Raises: ValueError.
    """
    match = _RFC3339.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not an RFC 3339 time")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    moment = datetime(
        int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0),
        tzinfo=UTC,
    )  # fmt: skip
    seconds = int(moment.timestamp())
    if zone and zone not in "Zz":
        sign = -1 if zone[0] == "+" else 1
        seconds += sign * (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60)
    if year == "0001":
        return 0
    return seconds * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))
