"""Go's quoted strings: writing (`%q`, `%#U`) and reading (`strconv.Unquote`)."""

from __future__ import annotations

_SHORT = {
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
    "\\": "\\\\",
}  # fmt: skip
_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\",
}  # fmt: skip
_WIDTHS = {"x": 2, "u": 4, "U": 8}
INVALID = "invalid syntax"


def quote(text: str, mark: str = '"', ascii_only: bool = False) -> str:
    """`text` between `mark`s, escaped as Go's %q (or %+q when `ascii_only`)."""
    if text.isascii() and text.isprintable() and mark not in text and "\\" not in text:
        return mark + text + mark
    return mark + "".join(_escape(char, mark, ascii_only) for char in text) + mark


def _escape(char: str, mark: str, ascii_only: bool) -> str:
    if char == mark:
        return "\\" + char
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8 (surrogateescape)
        return f"\\x{code - 0xDC00:02x}"
    if is_printable(char) and (code < 0x80 or not ascii_only):
        return char
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def is_printable(char: str) -> bool:
    """Go's IsPrint: letters, marks, numbers, punctuation, symbols and the ASCII space."""
    return char.isprintable()


def code_point(char: str) -> str:
    """`%#U`: `U+0040 '@'`."""
    name = f"U+{ord(char):04X}"
    return f"{name} '{char}'" if is_printable(char) else name


def unquote(text: str) -> str:
    """The string that a Go literal in "", `` or '' stands for. Raises: ValueError."""
    mark, body = text[:1], text[1:-1]
    if mark == "`":
        return body.replace("\r", "")
    parts: list[str | bytes] = []
    at = 0
    while at < len(body):
        if body[at] != "\\":
            parts.append(body[at])
            at += 1
            continue
        piece, at = _unescape(body, at + 1, mark)
        parts.append(piece)
    value = _join_bytes(parts)
    if mark == "'" and not value:
        raise ValueError(INVALID)
    if mark == "'" and len(value) != 1:
        raise ValueError(f"malformed character constant: {text}")
    return value


def _unescape(body: str, at: int, mark: str) -> tuple[str | bytes, int]:
    char = body[at : at + 1]
    if char in _ESCAPES and char:
        return _ESCAPES[char], at + 1
    if char == mark:
        return char, at + 1
    if char in _WIDTHS and char:
        width = _WIDTHS[char]
        code = _digits(body[at + 1 : at + 1 + width], width, 16)
        at += 1 + width
        if width == 2:
            return bytes([code]), at
        if code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise ValueError(INVALID)
        return chr(code), at
    code = _digits(body[at : at + 3], 3, 8)
    if code > 255:
        raise ValueError(INVALID)
    return bytes([code]), at + 3


def _digits(text: str, width: int, base: int) -> int:
    if len(text) != width or not all(char in "0123456789abcdefABCDEF" for char in text):
        raise ValueError(INVALID)
    try:
        return int(text, base)
    except ValueError:
        raise ValueError(INVALID) from None


def _join_bytes(parts: list[str | bytes]) -> str:
    if not any(isinstance(part, bytes) for part in parts):
        return "".join(parts)  # type: ignore[arg-type]
    data = b"".join(part if isinstance(part, bytes) else part.encode() for part in parts)
    return data.decode(errors="surrogateescape")
