"""Checks of flag values, with the texts that Docker and Go's strconv print.

Each check takes the word from the command line and returns what the command works with; a bad
word raises ValueError. No regular expressions: `re` alone would add 5 ms to `run -m 64m`.

Source: docker/cli `opts/`, docker/go-units; texts compared with Docker 28.2.
"""

from __future__ import annotations

import os

from teu.cli.grammar import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_INT_LIMIT = 1 << 63
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_DURATIONS_NS = {
    "ns": 1, "us": 1000, "µs": 1000, "μs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9,
    "h": 3600 * 10**9,
}  # fmt: skip
_DIGITS = frozenset("0123456789")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split()
)
_ULIMITS = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending "
    "stack".split()
)


def check(name: str, text: str) -> Any:
    """The value of `text` under the check `name`. Raises: ValueError."""
    return CHECKS[name](text)


def integer(text: str) -> int:
    """Go's ParseInt with base 0: 10, -1, 0x1f, 0o17, 017, 1_000."""
    value = _whole(text, "ParseInt")
    if not -_INT_LIMIT <= value < _INT_LIMIT:
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return value


def unsigned(text: str, bits: int = 64) -> int:
    """Go's ParseUint with base 0."""
    if text[:1] in ("-", "+"):
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: invalid syntax")
    value = _whole(text, "ParseUint")
    if value >= 1 << bits:
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: value out of range")
    return value


def _whole(text: str, function: str) -> int:
    body = text[1:] if text[:1] in ("-", "+") else text
    try:
        if not body or not body.isascii() or body[0] not in _DIGITS or body.strip() != body:
            raise ValueError
        octal = len(body) > 1 and body[0] == "0" and body[1] in "01234567_"
        value = int("0o" + body[1:], 0) if octal else int(body, 0)
    except ValueError:
        problem = f"strconv.{function}: parsing {quote(text)}: invalid syntax"
        raise ValueError(problem) from None
    return -value if text[0] == "-" else value


def size(text: str) -> int:
    """Bytes: `512m`, `1.5g`, `64 kb`, `10MiB`. Powers of 1024 throughout."""
    end = len(text)
    while end and text[end - 1] not in _DIGITS and text[end - 1] != ".":
        end -= 1
    number, suffix = text[:end], text[end:]
    if not number or number.strip() != number or number.startswith("-") or "_" in number:
        raise ValueError(f"invalid size: '{text}'")
    if suffix.startswith(" "):
        suffix = suffix[1:]
    try:
        value = float(number)
    except ValueError:
        problem = f"strconv.ParseFloat: parsing {quote(number)}: invalid syntax"
        raise ValueError(problem) from None
    unit = suffix.lower()
    if unit in ("", "b"):
        return int(value)
    if unit[0] not in _UNITS or unit[1:] not in ("", "b", "ib"):
        raise ValueError(f"invalid suffix: '{suffix}'")
    factor: int = _UNITS[unit[0]]
    return int(value * factor)


def swap_size(text: str) -> int:
    """As `size`; -1 is unlimited."""
    return -1 if text == "-1" else size(text)


def duration(text: str) -> int:
    """Nanoseconds from Go's duration syntax: `1h2m3.5s`, `300ms`, `0`."""
    body = text[1:] if text[:1] in ("-", "+") else text
    if body == "0":
        return 0
    if not body:
        raise ValueError(f"time: invalid duration {quote(text)}")
    total = 0
    while body:
        number, body = _split(body, _DIGITS | {"."})
        if not number.strip(".") or number.count(".") > 1:
            raise ValueError(f"time: invalid duration {quote(text)}")
        unit = ""
        while body and body[0] not in _DIGITS and body[0] != ".":
            unit, body = unit + body[0], body[1:]
        if not unit:
            raise ValueError(f"time: missing unit in duration {quote(text)}")
        if unit not in _DURATIONS_NS:
            raise ValueError(f"time: unknown unit {quote(unit)} in duration {quote(text)}")
        whole, _, fraction = number.partition(".")
        total += int(whole or "0") * _DURATIONS_NS[unit]
        total += int(fraction or "0") * _DURATIONS_NS[unit] // 10 ** len(fraction)
    return -total if text[0] == "-" else total


def _split(text: str, allowed: frozenset[str]) -> tuple[str, str]:
    end = 0
    while end < len(text) and text[end] in allowed:
        end += 1
    return text[:end], text[end:]


def nano_cpus(text: str) -> int:
    """Billionths of a CPU from `0.5`, `1e-3`, `3/2`."""
    numerator, slash, denominator = text.partition("/")
    try:
        digits, exponent = _decimal(numerator)
        divisor = integer(denominator) if slash else 1
        if divisor <= 0 or text.strip() != text or (slash and exponent < 0):
            raise ValueError
    except ValueError:
        raise ValueError(f"failed to parse {text} as a rational number") from None
    exponent += 9
    value = digits * 10 ** max(exponent, 0)
    divisor *= 10 ** max(-exponent, 0)
    if value % divisor:
        raise ValueError("value is too precise")
    return int(value // divisor)


def _decimal(text: str) -> tuple[int, int]:
    """`text` as an integer and a power of ten, exactly."""
    mantissa, _, power = text.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    exponent = int(power) if power or "e" in text.lower() else 0
    if abs(exponent) > 100:
        raise ValueError
    return int(whole + fraction), exponent - len(fraction)


def ulimit(text: str) -> dict[str, Any]:
    """`nofile=1024:2048` -> {"Name", "Hard", "Soft"}."""
    name, equals, limits = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    parts = limits.split(":")
    if len(parts) > 2:
        raise ValueError(
            f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
        )
    soft = _decimal_integer(parts[0])
    hard = _decimal_integer(parts[1]) if len(parts) == 2 else soft
    if hard != -1:
        too_soft = "ulimit soft limit must be less than or equal to hard limit: "
        if soft == -1:
            raise ValueError(f"{too_soft}soft: -1 (unlimited), hard: {hard}")
        if soft > hard:
            raise ValueError(f"{too_soft}{soft} > {hard}")
    return {"Name": name, "Hard": hard, "Soft": soft}


def _decimal_integer(text: str) -> int:
    body = text[1:] if text[:1] in ("-", "+") else text
    if not body.isascii() or not body.isdigit():
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax")
    return int(text)


def environment(text: str) -> str:
    """`NAME=value`; a bare NAME takes the value it has here (and stays bare if it has none)."""
    name, equals, _ = text.partition("=")
    if not name:
        raise ValueError(f"invalid environment variable: {text}")
    if not equals and name in os.environ:
        return f"{name}={os.environ[name]}"
    return text


def label(text: str) -> str:
    if not text.partition("=")[0].strip():
        raise ValueError(f"invalid label '{text}': empty name")
    return text


def attach_stream(text: str) -> str:
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def ip_address(text: str) -> str:
    """An IPv4 or IPv6 address in its usual spelling."""
    import _socket

    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            return _socket.inet_ntop(family, _socket.inet_pton(family, text.strip()))
        except (OSError, ValueError):
            continue
    raise ValueError(f"IP address is not correctly formatted: {text}")


def extra_host(text: str) -> str:
    """`name:address` or `name=[address]` -> `name:address`; the address keeps its spelling."""
    name, separator, address = text.partition("=")
    if not separator:
        name, separator, address = text.partition(":")
    if not separator or not name or ":" in name:
        raise ValueError(f"bad format for add-host: {quote(text)}")
    if address != "host-gateway":
        if len(address) > 2 and address[0] == "[" and address[-1] == "]":
            address = address[1:-1]
        try:
            ip_address(address)
        except ValueError:
            raise ValueError(f"invalid IP address in add-host: {quote(address)}") from None
    return f"{name}:{address}"


def dns_search(text: str) -> str:
    domain = text.strip()
    if domain == ".":
        return domain
    name = domain.removesuffix(".")
    if len(domain) < 255 and not _LETTERS.isdisjoint(name) and _is_domain(name):
        return name
    raise ValueError(f"{text} is not a valid domain")


def _is_domain(name: str) -> bool:
    allowed = _LETTERS | _DIGITS | {"-"}
    return all(
        part and allowed.issuperset(part) and part[0] != "-" and part[-1] != "-"
        for part in name.split(".")
    )


def link(text: str) -> str:
    if not text:
        raise ValueError("empty string specified for links")
    if text.count(":") > 1:
        raise ValueError(f"bad format for links: {text}")
    return text


def sysctl(text: str) -> str:
    name, equals, _ = text.partition("=")
    allowed = name in _SYSCTLS or name.startswith(("net.", "fs.mqueue."))
    if not equals or not allowed:
        raise ValueError(f"sysctl '{text}' is not allowed")
    return text


def device_rule(text: str) -> str:
    """`c 1:3 rwm`, with `a` or `b` for the type and `*` for a number."""
    kind, _, rest = text.partition(" ")
    numbers, _, access = rest.partition(" ")
    major, colon, minor = numbers.partition(":")
    fits = kind in ("a", "b", "c") and colon and 1 <= len(access) <= 3
    for number in (major, minor):
        fits = fits and (number == "*" or (number.isascii() and number.isdigit()))
    if not fits or not set(access) <= set("rwm"):
        raise ValueError(f"invalid device cgroup format '{text}'")
    return text


def weight_device(text: str) -> dict[str, Any]:
    path, value = _device_and_value(text)
    problem = f"invalid weight for device: {text}"
    if not value.isascii() or not value.isdigit():
        raise ValueError(problem)
    weight = int(value)
    if weight and not 10 <= weight <= 1000:
        raise ValueError(problem)
    return {"Path": path, "Weight": weight}


def rate_bps(text: str) -> dict[str, Any]:
    path, value = _device_and_value(text)
    try:
        return {"Path": path, "Rate": size(value)}
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>"
            "[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        ) from None


def rate_iops(text: str) -> dict[str, Any]:
    path, value = _device_and_value(text)
    if not value.isascii() or not value.isdigit():
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        )
    return {"Path": path, "Rate": int(value)}


def _device_and_value(text: str) -> tuple[str, str]:
    path, colon, value = text.partition(":")
    if not colon:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return path, value


def filter_term(text: str) -> str:
    """`name=value`, the name trimmed and in lower case."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format of filter (expected name=value)")
    return f"{name.strip().lower()}={value.strip()}"


def csv_fields(text: str) -> list[str]:
    """One line of comma-separated values with double quotes, as Go's encoding/csv reads it."""
    if not text.strip("\r\n"):
        raise ValueError("EOF")
    fields: list[str] = []
    position = 0
    while True:
        if text[position : position + 1] == '"':
            field, position = _quoted_field(text, position + 1)
        else:
            end = text.find(",", position)
            end = len(text) if end < 0 else end
            field = text[position:end]
            if (bare := field.find('"')) >= 0:
                column = position + bare + 1
                problem = 'bare " in non-quoted-field'
                raise ValueError(f"parse error on line 1, column {column}: {problem}")
            position = end
        fields.append(field)
        if position >= len(text):
            return fields
        position += 1


def _quoted_field(text: str, start: int) -> tuple[str, int]:
    field, position = "", start
    while True:
        end = text.find('"', position)
        if end < 0:
            column, problem = len(text) + 1, 'extraneous or missing " in quoted-field'
            raise ValueError(f"parse error on line 1, column {column}: {problem}")
        field += text[position:end]
        after = text[end + 1 : end + 2]
        if after == '"':
            field, position = field + '"', end + 2
        elif after in ("", ","):
            return field, end + 1
        else:
            column, problem = end + 1, 'extraneous or missing " in quoted-field'
            raise ValueError(f"parse error on line 1, column {column}: {problem}")


def _mount(text: str) -> dict[str, Any]:
    from teu.cli.mounts import parse_mount

    return parse_mount(text)


def _network(text: str) -> dict[str, Any]:
    from teu.cli.networking import parse_network

    return parse_network(text)


def _gpus(text: str) -> dict[str, Any]:
    from teu.cli.devices import parse_gpus

    return parse_gpus(text)


CHECKS: dict[str, Callable[[str], Any]] = {
    "attach": attach_stream,
    "bytes": size,
    "decimal": nano_cpus,
    "device-rule": device_rule,
    "dns-search": dns_search,
    "duration": duration,
    "env": environment,
    "extra-host": extra_host,
    "filter": filter_term,
    "gpu-request": _gpus,
    "int": integer,
    "ip": ip_address,
    "label": label,
    "link": link,
    "mount": _mount,
    "network": _network,
    "rate-bps": rate_bps,
    "rate-iops": rate_iops,
    "swap": swap_size,
    "sysctl": sysctl,
    "uint": unsigned,
    "uint16": lambda text: unsigned(text, 16),
    "ulimit": ulimit,
    "weight-device": weight_device,
}
