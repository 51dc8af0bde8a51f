"""Go's Sprintf: verbs, flags, width, precision, explicit indexes, and its error marks.

Source: Go's fmt documentation; compared with Docker 28.2.
"""

from __future__ import annotations

from teu.template.printing import (
    NON_FINITE,
    collection,
    decimal_digits,
    exponent_form,
    format_float,
    plain_form,
    render,
)
from teu.template.quoting import code_point, quote
from teu.template.values import NO_VALUE, Duration, NilPointer, Struct, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_LIMIT = 1_000_000
_BASES = {"b": "b", "o": "o", "O": "o", "x": "x", "X": "X", "d": "d"}
_PREFIXES = {"b": "0b", "o": "0", "O": "0o", "x": "0x", "X": "0X"}


class _Spec:
    """One verb with its flags."""

    __slots__ = ("flags", "precision", "verb", "width")

    def __init__(self) -> None:
        self.flags = ""
        self.width: int | None = None
        self.precision: int | None = None
        self.verb = ""

    def pad(self, text: str, zero: bool = False) -> str:
        width = self.width or 0
        if len(text) >= width:
            return text
        if "-" in self.flags:
            return text.ljust(width)
        if "0" in self.flags and zero:
            sign = text[:1] if text[:1] in ("+", "-", " ") else ""
            return sign + text[len(sign) :].rjust(width - len(sign), "0")
        return text.rjust(width, "0" if "0" in self.flags else " ")


class _Printer:
    def __init__(self, form: str, arguments: Sequence[Any]) -> None:
        self._form = form
        self._arguments = arguments
        self._at = 0
        self._used = 0
        self._reordered = False
        self._good_index = True

    def run(self) -> str:
        parts: list[str] = []
        form = self._form
        while self._at < len(form):
            percent = form.find("%", self._at)
            if percent < 0:
                parts.append(form[self._at :])
                break
            parts.append(form[self._at : percent])
            self._at = percent + 1
            parts.append(self._verb())
        if not self._reordered and self._used < len(self._arguments):
            extra = ", ".join(_typed(value) for value in self._arguments[self._used :])
            parts.append(f"%!(EXTRA {extra})")
        return "".join(parts)

    def _verb(self) -> str:
        spec = _Spec()
        self._good_index = True
        notes = ""
        while self._char() and self._char() in "#0+- ":
            spec.flags += self._take()
        had_index = self._index() and self._char() != "*"
        spec.width, note = self._number(had_index)
        notes += note and "%!(BADWIDTH)"
        if spec.width is not None and spec.width < 0:
            spec.flags += "-"
            spec.width = -spec.width
        if "-" in spec.flags:
            spec.flags = spec.flags.replace("0", "")
        if self._char() == ".":
            self._take()
            self._good_index = self._good_index and not had_index
            had_index = self._index() and self._char() != "*"
            spec.precision, note = self._number(had_index)
            if spec.precision is None and not note:
                spec.precision = 0
            if spec.precision is not None and spec.precision < 0:
                spec.precision, note = None, "bad"
            notes += note and "%!(BADPREC)"
        self._index()
        spec.verb = self._take()
        return notes + self._apply(spec)

    def _char(self) -> str:
        return self._form[self._at : self._at + 1]

    def _take(self) -> str:
        char = self._char()
        self._at += 1
        return char

    def _index(self) -> bool:
        """Takes an explicit argument index like `[2]`."""
        if self._char() != "[":
            return False
        self._reordered = True
        end = self._form.find("]", self._at)
        text = self._form[self._at + 1 : end] if end > 0 else ""
        self._at = end + 1 if end > 0 else self._at + 1
        if text.isdigit() and 1 <= int(text) <= len(self._arguments):
            self._used = int(text) - 1
            return True
        self._good_index = False
        return False

    def _number(self, had_index: bool) -> tuple[int | None, str]:
        """A width or precision: digits, or `*` for the next argument. Also "bad" when unusable."""
        if self._char() == "*":
            self._take()
            value = self._arguments[self._used] if self._used < len(self._arguments) else None
            self._used += 1
            if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LIMIT:
                return value, ""
            return None, "bad"
        start = self._at
        while self._char() and self._char() in "0123456789":
            self._at += 1
        text = self._form[start : self._at]
        if not text:
            return None, ""
        if had_index:
            self._good_index = False
        return (int(text), "") if len(text) < 7 else (None, "")

    def _apply(self, spec: _Spec) -> str:
        if not spec.verb:
            return "%!(NOVERB)"
        if spec.verb == "%":
            return "%"
        if not self._good_index:
            return f"%!{spec.verb}(BADINDEX)"
        if self._used >= len(self._arguments):
            return f"%!{spec.verb}(MISSING)"
        value = self._arguments[self._used]
        self._used += 1
        return _format(spec, value)


def sprintf(form: str, arguments: Sequence[Any]) -> str:
    """The formatted text. Wrong use shows as Go's marks in it, such as `%!d(string=x)`."""
    return _Printer(form, arguments).run()


def _typed(value: Any) -> str:
    if value is None or value is NO_VALUE:
        return "<nil>"
    return f"{type_name(value)}={render(value)}"


def _format(spec: _Spec, value: Any, inside: bool = False) -> str:
    """inside: `value` is a part of a list, map or struct."""
    verb = spec.verb
    if value is None or value is NO_VALUE:
        return spec.pad("<nil>") if verb in "vT" or inside else f"%!{verb}(<nil>)"
    if verb == "T":
        return spec.pad(type_name(value))
    if verb == "v" and "#" in spec.flags:
        return spec.pad(_go_syntax(value))
    if isinstance(value, NilPointer) and verb != "v":
        return f"%!{verb}({value.type}=<nil>)"
    for kinds, formatter in _FORMATTERS:
        if isinstance(value, kinds):
            return formatter(spec, value)
    return spec.pad(render(value))


def _bad(spec: _Spec, value: Any) -> str:
    """The mark of a verb that does not fit; the flags still count for the value inside."""
    verb, flags = spec.verb, spec.flags
    number = isinstance(value, int | float) and not isinstance(value, bool)
    spec.verb = "v" if not number else "d" if isinstance(value, int) else "g"
    spec.flags = flags.replace("#", "")
    text = _format(spec, value)
    spec.verb, spec.flags = verb, flags
    return f"%!{verb}({type_name(value)}={text})"


def _format_parts(spec: _Spec, value: Any) -> str:
    if isinstance(value, Struct):
        named = spec.verb == "v" and "+" in spec.flags
        parts = [(name, _format(spec, value.get(name), True)) for name in value.shape.fields]
        inner = " ".join(f"{name}:{text}" if named else text for name, text in parts)
        return ("&" if value.pointer else "") + "{" + inner + "}"
    if isinstance(value, dict):
        pairs = (f"{_format(spec, key)}:{_format(spec, value[key], True)}" for key in sorted(value))
        return "map[" + " ".join(pairs) + "]"
    return collection(value, lambda item: _format(spec, item, True))


def _format_text(spec: _Spec, value: str) -> str:
    verb = spec.verb
    if verb in "xX":
        return spec.pad(_hex(spec, value))
    if verb not in "svq":
        return _bad(spec, value)
    if spec.precision is not None:
        value = value[: spec.precision]
    if verb == "q":
        if "#" in spec.flags and "`" not in value and "\n" not in value:
            return spec.pad(f"`{value}`")
        return spec.pad(quote(value, ascii_only="+" in spec.flags))
    return spec.pad(value)


def _hex(spec: _Spec, value: str) -> str:
    data = value.encode(errors="surrogateescape")
    if spec.precision is not None:
        data = data[: spec.precision]
    prefix = "0" + spec.verb if "#" in spec.flags and data else ""
    separator = " " if " " in spec.flags else ""
    digits = [format(byte, "02" + spec.verb) for byte in data]
    if separator:
        return separator.join(prefix + pair for pair in digits)
    return prefix + "".join(digits)


def _format_int(spec: _Spec, value: int) -> str:
    verb = "d" if spec.verb == "v" else spec.verb
    if verb in "cqU":
        return _format_rune(spec, value)
    if verb not in _BASES:
        return _bad(spec, value)
    digits = format(abs(value), _BASES[verb])
    if spec.precision is not None:
        if spec.precision == 0 and value == 0:
            return " " * (spec.width or 0)
        digits = digits.rjust(spec.precision, "0")
    plus = "+" in spec.flags and spec.verb != "v"
    sign = "-" if value < 0 else "+" if plus else " " if " " in spec.flags else ""
    if "0" in spec.flags and spec.width is not None and spec.precision is None:
        digits = digits.rjust(spec.width - len(sign), "0")
    prefixed = verb == "O" or ("#" in spec.flags and verb != "d")
    if prefixed and not (verb == "o" and digits.startswith("0")):
        digits = _PREFIXES[verb] + digits
    text = sign + digits
    if spec.precision is not None:
        spec.flags = spec.flags.replace("0", "")
    return spec.pad(text, zero=True)


def _format_rune(spec: _Spec, value: int) -> str:
    char = chr(value) if 0 <= value <= 0x10FFFF else "\N{REPLACEMENT CHARACTER}"
    if spec.verb == "c":
        return spec.pad(char)
    if spec.verb == "q":
        return spec.pad(quote(char, "'", "+" in spec.flags))
    return spec.pad(code_point(char) if "#" in spec.flags else f"U+{value:04X}")


def _format_float(spec: _Spec, value: float) -> str:
    verb = spec.verb
    if verb not in "veEfFgGbxX":
        return _bad(spec, value)
    text = _float_text(spec, value)
    if verb in "EGX":
        text = text.upper().replace("+INF", "+Inf").replace("NAN", "NaN")
    plus = "+" in spec.flags and verb != "v"
    sign = "+" if plus else " " if " " in spec.flags else ""
    if text[0] not in "+-":
        text = sign + text
    return spec.pad(text, zero=text[-1] not in "fN")


def _float_text(spec: _Spec, value: float) -> str:
    verb, precision = spec.verb.lower(), spec.precision
    if str(value) in NON_FINITE:
        return NON_FINITE[str(value)]
    if verb in "vg":
        if precision is None:
            return format_float(value)
        return _general(value, precision or 1)
    if verb in "bx":
        return _binary_exponent(value, verb)
    return format(value, f".{6 if precision is None else precision}{verb}")


def _binary_exponent(value: float, verb: str) -> str:
    """%b: `4503599627370496p-52`; %x: `0x1.8p+00`."""
    sign = "-" if str(value).startswith("-") else ""
    mantissa, _, exponent = value.hex().lstrip("-").partition("p")
    whole, _, fraction = mantissa.removeprefix("0x").partition(".")
    if verb == "b":
        return f"{sign}{int(whole + fraction, 16)}p{int(exponent) - 4 * len(fraction):+d}"
    fraction = fraction.rstrip("0")
    return f"{sign}0x{whole}{'.' if fraction else ''}{fraction}p{int(exponent):+03d}"


def _general(value: float, precision: int) -> str:
    """%.Ng: N significant digits, trailing zeros removed."""
    rounded = float(format(value, f".{precision}g"))
    digits, point = decimal_digits(rounded)
    exponent = point - 1
    sign = "-" if value < 0 else ""
    if exponent < -4 or exponent >= precision:
        return sign + exponent_form(digits, exponent)
    return sign + plain_form(digits, point)


def _format_bool(spec: _Spec, value: bool) -> str:
    return spec.pad(render(value)) if spec.verb in "tv" else _bad(spec, value)


def _format_duration(spec: _Spec, value: Duration) -> str:
    return spec.pad(str(value)) if spec.verb in "sv" else _format_int(spec, value)


# The first kind that fits counts: bool and Duration are ints too.
_FORMATTERS: tuple[tuple[Any, Callable[[_Spec, Any], str]], ...] = (
    ((list, dict, Struct), _format_parts),
    (bool, _format_bool),
    (str, _format_text),
    (Duration, _format_duration),
    (int, _format_int),
    (float, _format_float),
)


def _go_syntax(value: Any) -> str:
    """%#v."""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, list):
        return type_name(value) + "{" + ", ".join(map(_go_syntax, value)) + "}"
    if isinstance(value, dict):
        pairs = (f"{quote(key)}:{_go_syntax(value[key])}" for key in sorted(value))
        return type_name(value) + "{" + ", ".join(pairs) + "}"
    if isinstance(value, Struct):
        pairs = (f"{name}:{_go_syntax(value.get(name))}" for name in value.shape.fields)
        return ("&" if value.pointer else "") + value.shape.name + "{" + ", ".join(pairs) + "}"
    if isinstance(value, NilPointer):
        return f"({value.type})(nil)"
    if value is None:
        return f"{type_name(value)}(nil)"
    return render(value)
