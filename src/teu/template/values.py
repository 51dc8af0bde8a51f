"""Go values as Python objects, with what a template needs to know of their types.

    Go                        Python
    invalid reflect.Value     NO_VALUE (a missing map key)
    nil interface             None
    bool, ints, floats        bool, int, float
    string                    str (bytes that are not UTF-8: surrogateescape)
    json.Number               Number
    slice, map                list, dict: of interface {} as JSON gives them; Slice, Map when typed
    nil pointer               NilPointer
    struct, pointer to one    Struct; methods only: Record
    time.Time                 Time

A type is written as in Go: `[]string`, `map[string]*network.EndpointSettings`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

ANY = "interface {}"


class _NoValue:
    __slots__ = ()

    def __bool__(self) -> bool:
        return False


NO_VALUE = _NoValue()


class Number(str):
    """A JSON number that keeps its spelling."""

    __slots__ = ()


class NilPointer:
    """A nil pointer; type: with its star. shape: of the struct that it could point to."""

    __slots__ = ("shape", "type")

    def __init__(self, type: str, shape: Shape | None = None) -> None:
        self.type = type
        self.shape = shape

    def __bool__(self) -> bool:
        return False


class Duration(int):
    """A time.Duration in nanoseconds: prints as `1m30s`, is a number in JSON."""

    def __str__(self) -> str:
        total = abs(int(self))
        sign = "-" if self < 0 else ""
        if total < 1_000_000_000:
            for unit, size in (("ms", 1_000_000), ("µs", 1000), ("ns", 1)):
                if total >= size:
                    return f"{sign}{_decimal(total, size)}{unit}"
            return "0s"
        minutes, seconds = divmod(total, 60_000_000_000)
        hours, minutes = divmod(minutes, 60)
        text = f"{_decimal(seconds, 1_000_000_000)}s"
        if hours or minutes:
            text = f"{minutes}m{text}"
        return sign + (f"{hours}h{text}" if hours else text)


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = str(rest).rjust(len(str(unit)) - 1, "0").rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)


class Slice(list["Any"]):
    """A typed slice. is_nil: prints alike, but is `null` in JSON."""

    __slots__ = ("element", "is_nil")

    def __init__(self, items: Iterable[Any], element: str, is_nil: bool = False) -> None:
        super().__init__(items)
        self.element = element
        self.is_nil = is_nil


class Map(dict["str", "Any"]):
    """A typed map with string keys; `key` names their type."""

    __slots__ = ("element", "is_nil", "key")

    def __init__(
        self, items: Mapping[str, Any], key: str, element: str, is_nil: bool = False
    ) -> None:
        super().__init__(items)
        self.key = key
        self.element = element
        self.is_nil = is_nil


class Method:
    """A function or method: parameter types (the last one repeats when variadic) and what to do."""

    __slots__ = ("call", "parameters", "variadic")

    def __init__(
        self, call: Callable[..., Any], parameters: tuple[str, ...] = (), variadic: bool = False
    ) -> None:
        self.call = call
        self.parameters = parameters
        self.variadic = variadic


class Record:
    """A struct that is used only through its methods: one row of a table.

    type: Go's name of it, for error texts. methods: by name, each called with `row`.
    """

    __slots__ = ("methods", "row", "type")

    def __init__(self, type: str, methods: Mapping[str, Callable[..., Any]], row: Any) -> None:
        self.type = type
        self.methods = methods
        self.row = row

    def method(self, name: str) -> Method | None:
        if name not in self.methods:
            return None
        function = self.methods[name]
        parameters = ("string",) * (function.__code__.co_argcount - 1)
        return Method(lambda *arguments: function(self.row, *arguments), parameters)

    def as_dict(self) -> dict[str, Any]:
        """What `json` shows: the result of every method without parameters, by name."""
        plain = {name: f for name, f in self.methods.items() if f.__code__.co_argcount == 1}
        return {name: plain[name](self.row) for name in sorted(plain)}


class Shown:
    """A value with a text of its own (Go's Stringer); `data` is what `json` shows."""

    __slots__ = ("data", "text")

    def __init__(self, text: str, data: Any) -> None:
        self.text = text
        self.data = data

    def __str__(self) -> str:
        return self.text


class Header(dict["str", "str"]):
    """Column titles by field; stands in for a row when the head of a table is made."""

    __slots__ = ()

    @staticmethod
    def label(name: str) -> str:
        """The title of a `Label "some.name"` column."""
        return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


class Time:
    """A time.Time from its RFC 3339 text. Compared and encoded as text, printed as Go prints."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text or "0001-01-01T00:00:00Z"

    def __str__(self) -> str:
        day, _, rest = self.text.partition("T")
        clock = rest[:8]
        tail = rest[8:]
        digits = len(tail) - len(tail[1:].lstrip("0123456789")) if tail[:1] == "." else 0
        fraction = tail[:digits].rstrip("0").rstrip(".")
        zone = tail[digits:]
        offset = "+0000 UTC" if zone in ("Z", "") else zone.replace(":", "")
        if offset != "+0000 UTC":
            offset = f"{offset} {offset}"
        return f"{day} {clock}{fraction} {offset}"


class Struct:
    """A Go struct seen through a shape. data: the JSON object. pointer: reached by pointer."""

    __slots__ = ("data", "pointer", "shape")

    def __init__(self, shape: Shape, data: Mapping[str, Any], pointer: bool = False) -> None:
        self.shape = shape
        self.data = data
        self.pointer = pointer

    def has(self, name: str) -> bool:
        return name in self.shape.fields

    def get(self, name: str) -> Any:
        """The field's value, its zero value when the JSON lacks it. Raises: KeyError."""
        field = self.shape.fields[name]
        value = self.data.get(field.json_name)
        return self.shape.book.convert(field.type, value)

    def seen_as(self, shape: Shape) -> Struct:
        """The included struct of that shape (it has no JSON object of its own)."""
        return Struct(shape, self.data)


class Member:
    """One field of a shape. omit: left out of JSON when it is zero."""

    __slots__ = ("json_name", "omit", "type")

    def __init__(self, json_name: str, type: str, omit: bool) -> None:
        self.json_name = json_name
        self.type = type
        self.omit = omit


class Shape:
    """A struct type: its name in Go, and its fields in order.

    fields: also those of included types. parts: field names, and included types as wholes.
    """

    __slots__ = ("book", "fields", "name", "parts")

    def __init__(self, book: Book, name: str) -> None:
        self.book = book
        self.name = name
        self.fields: dict[str, Member] = {}
        self.parts: list[str | Shape] = []


class Book:
    """A set of struct types.

    texts: by type name, lines of `Field type` with, where it applies, `=JsonName` behind the
    field's name and a trailing `?` for omitempty; `...name` includes another type's fields.
    named: other named types by name, with the type that they are made of.
    """

    def __init__(self, texts: Mapping[str, str], named: Mapping[str, str]) -> None:
        self._texts = texts
        self._named = named
        self._shapes: dict[str, Shape] = {}

    def shape(self, name: str) -> Shape:
        """Raises: KeyError."""
        if name not in self._shapes:
            self._shapes[name] = self._read(name)
        return self._shapes[name]

    def _read(self, name: str) -> Shape:
        shape = Shape(self, name)
        for line in self._texts[name].split("\n"):
            words = line.split()
            if not words:
                continue
            if words[0].startswith("..."):
                included = self.shape(words[0][3:])
                shape.fields.update(included.fields)
                shape.parts.append(included)
                continue
            go_name, _, json_name = words[0].partition("=")
            kind = words[1].replace("any", ANY)
            shape.fields[go_name] = Member(json_name or go_name, kind.rstrip("?"), kind[-1] == "?")
            shape.parts.append(go_name)
        return shape

    def convert(self, kind: str, raw: Any) -> Any:
        """JSON as a value of the Go type `kind`; None gives the zero value."""
        kind = self._named.get(kind, kind)
        if kind == "string":
            return "" if raw is None else raw if isinstance(raw, str) else str(raw)
        if kind == "bool":
            return bool(raw)
        if kind == ANY:
            return plain_any(raw)
        if kind.startswith("[]"):
            element = kind[2:]
            found = raw if isinstance(raw, list) else []
            return Slice([self.convert(element, item) for item in found], element, raw is None)
        if kind[0] == "[":
            length, _, element = kind[1:].partition("]")
            found = list(raw) if isinstance(raw, list) else []
            found += [None] * (int(length) - len(found))
            return Slice([self.convert(element, item) for item in found], element)
        if kind.startswith("map["):
            key, _, element = kind[4:].partition("]")
            items = raw if isinstance(raw, dict) else {}
            converted = {name: self.convert(element, item) for name, item in items.items()}
            return Map(converted, key, element, raw is None)
        return self._convert_rest(kind, raw)

    def _convert_rest(self, kind: str, raw: Any) -> Any:
        if kind.startswith("*"):
            if raw is None:
                pointed = kind[1:]
                return NilPointer(kind, self.shape(pointed) if pointed in self._texts else None)
            value = self.convert(kind[1:], raw)
            if isinstance(value, Struct):
                value.pointer = True
            return value
        if kind.startswith("float"):
            return float(raw or 0)
        if kind in _INTEGERS:
            return _INTEGERS[kind](raw or 0)
        if kind == "time.Time":
            return Time(raw or "")
        if kind == "time.Duration":
            return Duration(raw or 0)
        return Struct(self.shape(kind), raw if isinstance(raw, dict) else {})


_INTEGERS: dict[str, type[int]] = {
    name: type(name, (int,), {"__slots__": ()})
    for name in ("int64", "int32", "uint", "uint8", "uint16", "uint32", "uint64")
} | {"int": int}


def plain_any(raw: Any) -> Any:
    """JSON as Go decodes it into interface {}: every number is a float64."""
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, int):
        return float(raw)
    if isinstance(raw, list):
        return [plain_any(item) for item in raw]
    if isinstance(raw, dict):
        return {name: plain_any(item) for name, item in raw.items()}
    return raw


def type_name(value: Any) -> str:
    """Go's name of the value's type."""
    if value is None or value is NO_VALUE:
        return ANY
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Number):
        return "json.Number"
    if isinstance(value, Map):
        return f"map[{value.key}]{value.element}"
    if isinstance(value, Slice):
        return "[]" + value.element
    if isinstance(value, NilPointer | Record):
        return value.type
    if isinstance(value, Struct):
        return ("*" if value.pointer else "") + value.shape.name
    return _PLAIN_NAMES.get(type(value), type(value).__name__)


_PLAIN_NAMES: dict[type, str] = {
    str: "string",
    int: "int",
    float: "float64",
    list: "[]interface {}",
    dict: "map[string]interface {}",
    Header: "formatter.SubHeaderContext",
    Time: "time.Time",
}


def truth(value: Any) -> bool:
    """Go's idea of true: not the zero value; every struct is true."""
    if isinstance(value, Struct | Record | Time | Shown):
        return True
    return bool(value)
