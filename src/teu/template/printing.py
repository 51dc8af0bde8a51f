"""Values as Go's fmt package prints them with %v, and `print`, `println`.

Source: Go's fmt documentation; compared with Docker 28.2.
"""

from __future__ import annotations

from teu.template.values import NO_VALUE, NilPointer, Record, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


NON_FINITE = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}


def text_of(value: Any) -> str:
    """What `{{value}}` prints."""
    if isinstance(value, str):
        return value
    if value is None or value is NO_VALUE:
        return "<no value>"
    if isinstance(value, Struct):
        return render_struct(value)  # a template follows one pointer, so no & here
    return render(value)


def render(value: Any) -> str:
    """%v at top level."""
    if isinstance(value, Struct) and value.pointer:
        return "&" + render_struct(value)
    return _inner(value)


def _inner(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or value is NO_VALUE or isinstance(value, NilPointer):
        return "<nil>"
    if isinstance(value, float):
        return format_float(value)
    if isinstance(value, Struct):
        return ("&" if value.pointer else "") + render_struct(value)
    return collection(value, _inner)


def collection(value: Any, inner: Callable[[Any], str]) -> str:
    """A list or a map, its parts written by `inner`; anything else through str()."""
    if isinstance(value, list):
        return "[" + " ".join(map(inner, value)) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{inner(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, Record):
        return "{}"
    return str(value)


def render_struct(value: Struct) -> str:
    texts = [
        _inner(value.get(part)) if isinstance(part, str) else render_struct(value.seen_as(part))
        for part in value.shape.parts
    ]
    return "{" + " ".join(texts) + "}"


def decimal_digits(value: float) -> tuple[str, int]:
    """Shortest digits of |value| and the position of the decimal point among them."""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    if fraction == "0":
        fraction = ""
    digits = whole + fraction
    point = len(whole) + int(exponent or 0)
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    return (stripped.rstrip("0") or "0", point if stripped.rstrip("0") else 1)


def format_float(value: float) -> str:
    """%v and %g: the shortest digits that read back the same."""
    if str(value) in NON_FINITE:
        return NON_FINITE[str(value)]
    sign = "-" if str(value).startswith("-") else ""
    digits, point = decimal_digits(value)
    exponent = point - 1
    if exponent < -4 or exponent >= 6:
        return sign + exponent_form(digits, exponent)
    return sign + plain_form(digits, point)


def plain_form(digits: str, point: int) -> str:
    if point <= 0:
        return "0." + "0" * -point + digits
    if point >= len(digits):
        return digits + "0" * (point - len(digits))
    return digits[:point] + "." + digits[point:]


def exponent_form(digits: str, exponent: int) -> str:
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def sprint(arguments: Sequence[Any]) -> str:
    """Go's Sprint: a space between two neighbours of which neither is a string."""
    parts: list[str] = []
    for index, value in enumerate(arguments):
        if index and not isinstance(value, str) and not isinstance(arguments[index - 1], str):
            parts.append(" ")
        parts.append(render(value))
    return "".join(parts)


def sprintln(arguments: Sequence[Any]) -> str:
    return " ".join(map(render, arguments)) + "\n"
