"""Go's number literals in templates: decimal, 0x, 0o, 0b, `_`, floats, hex floats, runes."""

from __future__ import annotations

from teu.template.quoting import quote, unquote

_INT_LIMIT = 1 << 63


def read_number(text: str) -> tuple[int | float, bool]:
    """The value, and True when it is an integer that does not fit 64 bits signed.

    Raises: ValueError with Go's text.
    """
    if text[0] == "'":
        return ord(unquote(text)), False
    value = _read_int(text)
    if value is not None and -_INT_LIMIT <= value < 2 * _INT_LIMIT:
        return value, value >= _INT_LIMIT
    number = _read_float(text)
    if not any(char in text for char in ".eEpP") and not _is_hex(text):
        raise ValueError(f"integer overflow: {quote(text)}")
    if value is not None:
        raise ValueError(f"integer overflow: {quote(text)}")
    return number, False


def _is_hex(text: str) -> bool:
    return text.lstrip("+-")[:2].lower() == "0x"


def _read_int(text: str) -> int | None:
    body = text.lstrip("+-")
    if body[:1] == "0" and body[1:].replace("_", "").isdigit():
        body = "0o" + body[1:].lstrip("_")
    sign = -1 if text[0] == "-" else 1
    try:
        return sign * int(body, 0)
    except ValueError:
        return None


def _read_float(text: str) -> float:
    try:
        if _is_hex(text):
            if "p" not in text.lower():
                raise ValueError
            return float.fromhex(text.replace("_", ""))
        if "_" in text:
            raise ValueError
        value = float(text)
    except (ValueError, OverflowError):
        raise ValueError(f"illegal number syntax: {quote(text)}") from None
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"illegal number syntax: {quote(text)}")
    return value
