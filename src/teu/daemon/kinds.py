"""How the values of options are read: from a flag's text, and from the configuration file's JSON.

Both ways end in the same checked value, so a rule is written once. Every function here raises
ValueError with the reason only; the caller adds which flag or which key of which file it was.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from teu.daemon import values
from teu.units import parse_size

# Go's strconv.ParseBool, which dockerd's flags are read with
_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}

Value = Any  # typed by the option's field; `load.py` builds the struct from it
Gather = Literal["last", "list", "map"]


@dataclass(frozen=True)
class Kind:
    """One way to write a value.

    `word` is what help shows. `gather`: what a repeated flag does: the last wins, a list grows,
    a map grows (`from_flag` and `from_json` then return the pieces).
    """

    word: str
    from_flag: Callable[[str], Value]
    from_json: Callable[[Value], Value]
    gather: Gather = "last"


def plain(word: str, check: Callable[[str], Value]) -> Kind:
    """A text, checked and perhaps converted the same way from both sources."""
    return Kind(word, check, lambda value: check(values.as_text(value)))


def listed(word: str, check: Callable[[str], Value]) -> Kind:
    """A flag that may be repeated; a JSON list of texts."""

    def from_json(value: Value) -> tuple[Value, ...]:
        if not isinstance(value, list):
            raise ValueError(f"expected a list of texts, not {values.shown(value)}")
        return tuple(check(values.as_text(item)) for item in value)

    return Kind(word, lambda text: (check(text),), from_json, "list")


def _bool_flag(text: str) -> bool:
    if text not in _TRUE | _FALSE:
        raise ValueError(f'parsing "{text}": expected true or false')
    return text in _TRUE


def _bool_json(value: Value) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false (without quotes), not {values.shown(value)}")
    return value


def number(low: int, high: int, what: str) -> Kind:
    """A whole number from `low` to `high`."""

    def check(value: int) -> int:
        if not low <= value <= high:
            raise ValueError(f"invalid {what}: {value} (expected {low} to {high})")
        return value

    def from_flag(text: str) -> int:
        try:
            return check(int(text))
        except ValueError as error:
            if str(error).startswith("invalid literal"):
                raise ValueError(f'parsing "{text}": expected a whole number') from None
            raise

    def from_json(value: Value) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"expected a whole number (without quotes), not {values.shown(value)}")
        return check(value)

    return Kind("int", from_flag, from_json)


def choice(*words: str, hint: str = "") -> Kind:
    """One of a few words."""
    shown = hint or " or ".join(f'"{word}"' for word in words if word)

    def check(text: str) -> str:
        if text not in words:
            raise ValueError(f'"{text}" is not one of them: use {shown}')
        return text

    return plain("string", check)


def _size_json(value: Value) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return _size(str(value))
    return _size(values.as_text(value))


def _size(text: str) -> int:
    size = parse_size(text)
    if size <= 0:
        raise ValueError(f"{text} is not a size above zero")
    return size


def pairs(word: str) -> Kind:
    """`--flag key=value`, repeated; a JSON object of texts."""

    def from_flag(text: str) -> dict[str, str]:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise ValueError(f"{text} must be written key=value")
        return {key: value}

    def from_json(value: Value) -> dict[str, str]:
        return {key: values.as_text(item) for key, item in values.as_object(value).items()}

    return Kind(word, from_flag, from_json, "map")


BOOL = Kind("", _bool_flag, _bool_json)
TEXT = plain("string", str)
PATH = plain("string", values.absolute_path)
COUNT = number(1, 1000, "number")
SECONDS = number(0, 1_000_000, "number of seconds")
MTU = number(0, 65535, "default MTU")
OOM_SCORE = number(-1000, 1000, "oom_score_adj")
SIZE = Kind("bytes", _size, _size_json)
IPV4 = plain("ip", values.ipv4)
IPS = listed("list", values.ip_address)
NETWORK = plain("string", values.subnet)
INTERFACE = plain("string", values.bridge_address)
NETWORK6 = plain("string", values.subnet6)
INTERFACE6 = plain("string", values.bridge_address6)
BRIDGE = plain("string", values.bridge)
TEXTS = listed("list", str)
LABELS = listed("list", values.label)
DOMAINS = listed("list", values.search_domain)
MIRRORS = listed("list", values.mirror)
INSECURE = listed("list", values.insecure_registry)
HOSTS = listed("list", values.parse_host)
MAP = pairs("map")
ULIMIT = Kind("ulimit", values.ulimit_flag, values.ulimit_json, "map")
POOLS = Kind("pool-options", values.pool_flag, values.pool_json, "list")
RUNTIME = Kind("runtime", values.runtime_flag, values.runtime_json, "map")
SECCOMP = plain("string", values.seccomp)
BUILDER = Kind("map", values.builder_json, values.builder_json)
LOG_LEVEL = plain("string", values.log_level)
ANY = Kind("string", str, lambda value: value)  # of options that are not used: any shape goes
