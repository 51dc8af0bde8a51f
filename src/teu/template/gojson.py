"""JSON as Go's encoder writes it, and laying out JSON text without touching its tokens."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ESCAPES = {
    '"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f",
    "\u2028": "\\u2028", "\u2029": "\\u2029",
}  # fmt: skip
_HTML_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
_HTML = frozenset(_HTML_ESCAPES)


def quote(text: str, html: bool = False) -> str:
    """A JSON string. html: also `<`, `>` and `&` are escaped, as Go does unless told not to."""
    if html and not _HTML.isdisjoint(text):
        return '"' + "".join(_HTML_ESCAPES.get(char) or _escape(char) for char in text) + '"'
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_escape, text)) + '"'


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char < " ":
        return f"\\u{ord(char):04x}"
    return "\\ufffd" if "\udc80" <= char <= "\udcff" else char


def encode(value: Any, html: bool = False) -> str:
    """Compact JSON; maps keep their order. Floats and times are written as Go writes them."""
    if isinstance(value, str):
        from teu.template.values import Number

        return str(value) if isinstance(value, Number) else quote(value, html)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        pairs = (f"{quote(name, html)}:{encode(item, html)}" for name, item in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(encode(item, html) for item in value) + "]"
    return quote(value.text)


def _number(value: float) -> str:
    from teu.template.printing import decimal_digits, exponent_form, plain_form

    digits, point = decimal_digits(value)
    sign = "-" if str(value).startswith("-") else ""
    if value and not 1e-6 <= abs(value) < 1e21:
        return sign + exponent_form(digits, point - 1).replace("e-0", "e-")
    return sign + plain_form(digits, point)


def indent(data: str, step: str = "    ") -> str:
    """`data` (valid JSON) with line breaks; every token keeps its spelling."""
    return _Layout(step).run(data)


def compact(data: str) -> str:
    """`data` (valid JSON) without the space between its tokens."""
    parts = []
    for text, quoted in _segments(data):
        parts.append(text if quoted else "".join(text.split()))
    return "".join(parts)


def _segments(data: str) -> list[tuple[str, bool]]:
    """`data` cut into strings (with their quotes) and what stands between them."""
    pieces: list[tuple[str, bool]] = []
    at = 0
    while True:
        start = data.find('"', at)
        if start < 0:
            pieces.append((data[at:], False))
            return pieces
        pieces.append((data[at:start], False))
        end = data.find('"', start + 1)
        while end > 0 and _is_escaped(data, end):
            end = data.find('"', end + 1)
        if end < 0:
            raise ValueError("unterminated string")
        pieces.append((data[start : end + 1], True))
        at = end + 1


def _is_escaped(data: str, at: int) -> bool:
    slashes = 0
    while data[at - 1 - slashes] == "\\":
        slashes += 1
    return slashes % 2 == 1


class _Layout:
    def __init__(self, step: str) -> None:
        self._step = step
        self._depth = 0
        self._parts: list[str] = []
        self._opened = False

    def run(self, data: str) -> str:
        for text, quoted in _segments(data):
            if quoted:
                self._begin()
                self._parts.append(text)
            else:
                for char in text:
                    self._take(char)
        return "".join(self._parts)

    def _begin(self) -> None:
        """A value starts: after an opening bracket it goes on a line of its own."""
        if self._opened:
            self._opened = False
            self._break()

    def _break(self) -> None:
        self._parts.append("\n" + self._step * self._depth)

    def _take(self, char: str) -> None:
        if char in " \t\r\n":
            return
        if char in "{[":
            self._begin()
            self._parts.append(char)
            self._depth += 1
            self._opened = True
        elif char in "}]":
            self._depth -= 1
            if not self._opened:
                self._break()
            self._opened = False
            self._parts.append(char)
        elif char == ",":
            self._parts.append(char)
            self._break()
        elif char == ":":
            self._parts.append(": ")
        else:
            self._begin()
            self._parts.append(char)
