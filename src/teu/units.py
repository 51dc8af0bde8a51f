"""Sizes and durations as people write them.

Sizes: `512m`, `1.5GiB`, `64 kb`: powers of 1024 whatever the spelling, as Docker reads memory
sizes. Durations: Go's syntax (`1h2m3.5s`, `300ms`). Source: docker/go-units `RAMInBytes`,
`HumanSize`; Go `time.ParseDuration`.
"""

# `re` is imported where it is needed: tables show sizes, and must not pay 5 ms for it at start.
_SIZE = r"(-?\d+(?:\.\d+)?)\s*([kmgtp]?)(i?b)?"
_DURATION = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


def parse_size(text: str) -> int:
    """Bytes. Raises: ValueError with Docker's text."""
    import re

    match = re.fullmatch(_SIZE, text.strip(), re.IGNORECASE)
    if not match or (match[3] and match[3].lower() == "ib" and not match[2]):
        raise ValueError(f"invalid size: '{text}'")
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def parse_duration(text: str) -> float:
    """Seconds. Raises: ValueError with Go's text."""
    import re

    body = text[1:] if text[:1] in ("-", "+") else text
    if body == "0":
        return 0.0
    if not body or re.sub(_DURATION, "", body):
        raise ValueError(f'time: invalid duration "{text}"')
    total = sum(float(number) * _SECONDS[unit] for number, unit in re.findall(_DURATION, body))
    return -total if text[0] == "-" else total


def human_size(size_bytes: float, digits: int = 3) -> str:
    """`1234567` -> `1.23MB`: powers of 1000, `digits` significant digits, as Docker's tables."""
    return _scaled(size_bytes, 1000.0, ("B", "kB", "MB", "GB", "TB", "PB", "EB"), digits)


def human_size_binary(size_bytes: float) -> str:
    """`1258291` -> `1.2MiB`: powers of 1024, four significant digits, as `docker stats`."""
    return _scaled(size_bytes, 1024.0, ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"), 4)


def _scaled(value: float, base: float, names: tuple[str, ...], digits: int) -> str:
    index = 0
    while value >= base and index < len(names) - 1:
        value /= base
        index += 1
    return f"{value:.{digits}g}{names[index]}"


def human_duration(seconds: float) -> str:
    """`About a minute`, `3 hours`, as Docker's tables. Source: go-units `HumanDuration`."""
    whole = int(seconds)
    minutes, hours = whole // 60, round(whole / 3600)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit, size, name in ((336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if hours < limit:
            return f"{hours // size} {name}"
    return f"{hours // 8760} years"
