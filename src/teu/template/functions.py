"""The functions that a template may call: Go's own and Docker's.

Source: Go's text/template documentation, docker/cli `templates`; compared with Docker 28.2.
"""

from __future__ import annotations

from teu.template.printing import sprint, sprintln, text_of
from teu.template.values import (
    ANY,
    NO_VALUE,
    Map,
    Member,
    Method,
    NilPointer,
    Record,
    Shown,
    Slice,
    Struct,
    truth,
    type_name,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class FunctionError(Exception):
    """A function refused its arguments."""


_BAD_TYPES = "incompatible types for comparison"


def _index(item: Any, *indices: Any) -> Any:
    if item is None:
        raise FunctionError("index of untyped nil")
    for index in indices:
        if isinstance(item, NilPointer):
            raise FunctionError("index of nil pointer")
        if isinstance(item, dict):
            item = _map_item(item, index)
        elif isinstance(item, list):
            item = item[_position(index, len(item))]
        elif isinstance(item, str):
            data = item.encode(errors="surrogateescape")
            item = data[_position(index, len(data))]
        else:
            raise FunctionError(f"can't index item of type {type_name(item)}")
    return item


def _map_item(item: dict[str, Any], index: Any) -> Any:
    if index is None:
        raise FunctionError("value is nil; should be of type string")
    key = item.key if isinstance(item, Map) else "string"
    if not isinstance(index, str) or key != "string":
        raise FunctionError(f"value has type {type_name(index)}; should be {key}")
    if index in item:
        return item[index]
    return zero_of(item.element) if isinstance(item, Map) else None


def zero_of(kind: str) -> Any:
    """The zero value of a plain Go type."""
    if kind == "string":
        return ""
    if kind == "bool":
        return False
    if kind.startswith("[]"):
        return Slice((), kind[2:], True)
    if kind.startswith("*"):
        return NilPointer(kind)
    if kind.startswith(("int", "uint")) and kind != ANY:
        return 0
    return None


def _position(index: Any, length: int) -> int:
    if index is None:
        raise FunctionError("cannot index slice/array with nil")
    if isinstance(index, bool) or not isinstance(index, int):
        raise FunctionError(f"cannot index slice/array with type {type_name(index)}")
    if not 0 <= index < length:
        raise FunctionError(f"index out of range: {index}")
    return index


def _slice(item: Any, *indices: Any) -> Any:
    if item is None:
        raise FunctionError("slice of untyped nil")
    if len(indices) > 3:
        raise FunctionError(f"too many slice indexes: {len(indices)}")
    if not isinstance(item, str | list):
        raise FunctionError(f"can't slice item of type {type_name(item)}")
    if isinstance(item, str) and len(indices) == 3:
        raise FunctionError("cannot 3-index slice a string")
    data = item.encode(errors="surrogateescape") if isinstance(item, str) else item
    bounds = [0, len(data)]
    for place, index in enumerate(indices[:2]):
        bounds[place] = _position(index, len(data) + 1)
    if len(indices) == 3 and _position(indices[2], len(data) + 1) < bounds[1]:
        raise FunctionError(f"invalid slice index: {bounds[1]} > {indices[2]}")
    if bounds[0] > bounds[1]:
        raise FunctionError(f"invalid slice index: {bounds[0]} > {bounds[1]}")
    part = data[bounds[0] : bounds[1]]
    if isinstance(part, bytes):
        return part.decode(errors="surrogateescape")
    return Slice(part, item.element) if isinstance(item, Slice) else part


def _length(item: Any) -> int:
    if item is None:
        raise FunctionError("len of nil pointer")
    if isinstance(item, NilPointer):
        raise FunctionError("len of nil pointer")
    if isinstance(item, str):
        return len(item.encode(errors="surrogateescape"))
    if isinstance(item, list | dict):
        return len(item)
    raise FunctionError(f"len of type {type_name(item)}")


def _kind(value: Any) -> str:
    """Values of different kinds cannot be compared."""
    for kinds, name in ((bool, "bool"), (int, "int"), (float, "float"), (str, "string")):
        if isinstance(value, kinds):
            return name
    return "nil" if value is None or isinstance(value, NilPointer) else "other"


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise FunctionError("missing argument for comparison")
    kind = _kind(first)
    for other in others:
        if kind != _kind(other):
            if first is not None and other is not None:
                raise FunctionError(_BAD_TYPES)
        elif kind == "other":
            _check_comparable(first)
            _check_comparable(other)
            if first is other:
                return True
        elif kind == "nil" or first == other:
            return True
    return False


def _check_comparable(value: Any) -> None:
    if isinstance(value, list | dict):
        raise FunctionError(f"non-comparable type {text_of(value)}: {type_name(value)}")


def _less(first: Any, second: Any) -> bool:
    kind = _kind(first)
    if kind in ("other", "nil") or _kind(second) in ("other", "nil"):
        raise FunctionError("invalid type for comparison")
    if kind != _kind(second):
        raise FunctionError(_BAD_TYPES)
    if kind == "bool":
        raise FunctionError("invalid type for comparison")
    return bool(first < second)


def _less_equal(first: Any, second: Any) -> bool:
    return _less(first, second) or _equal(first, second)


def _plain(arguments: tuple[Any, ...]) -> str:
    """The arguments as `print` would join them, for the escaping functions."""
    if len(arguments) == 1 and isinstance(arguments[0], str):
        return arguments[0]
    odd = (Struct, type(None), type(NO_VALUE))
    return sprint([text_of(value) if isinstance(value, odd) else value for value in arguments])


def _html(*arguments: Any) -> str:
    text = _plain(arguments).replace("\0", "\N{REPLACEMENT CHARACTER}")
    for char, name in (
        ("&", "&amp;"),
        ('"', "&#34;"),
        ("'", "&#39;"),
        ("<", "&lt;"),
        (">", "&gt;"),
    ):
        text = text.replace(char, name)
    return text


def _js(*arguments: Any) -> str:
    return "".join(map(_js_char, _plain(arguments)))


def _js_char(char: str) -> str:
    if char in "\\'\"":
        return "\\" + char
    if char in "<>&=" or char < " ":
        return f"\\u{ord(char):04X}"
    return char if char.isprintable() else f"\\u{ord(char):04X}"


def _urlquery(*arguments: Any) -> str:
    keep = "-_.~"
    data = _plain(arguments).encode(errors="surrogateescape")
    return "".join(
        chr(b)
        if b < 128 and (chr(b).isalnum() or chr(b) in keep)
        else "+"
        if b == 32
        else f"%{b:02X}"
        for b in data
    )


def _printf(form: str, *arguments: Any) -> str:
    from teu.template.printf import sprintf

    return sprintf(form, arguments)


def _json(value: Any) -> str:
    from teu.template.gojson import encode

    # Rows of tables go through an encoder of their own in Docker, which escapes HTML.
    first = value[0] if isinstance(value, list) and value else value
    return encode(json_ready(value), html=isinstance(first, Record))


def json_ready(value: Any) -> Any:
    """`value` as plain dicts and lists, in the order and with the omissions of Go's encoder."""
    if isinstance(value, Struct):
        pairs = ((member, value.get(name)) for name, member in value.shape.fields.items())
        return {
            member.json_name: json_ready(item)
            for member, item in pairs
            if member.json_name != "-" and not (member.omit and _is_empty(member, item))
        }
    if isinstance(value, Record):
        return {name: json_ready(item) for name, item in value.as_dict().items()}
    if isinstance(value, NilPointer) or value is NO_VALUE:
        return None
    if isinstance(value, Shown):
        return value.data
    if isinstance(value, Slice | Map) and value.is_nil:
        return None
    if isinstance(value, dict):
        return {name: json_ready(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [json_ready(item) for item in value]
    return value


def _is_empty(member: Member, value: Any) -> bool:
    """What omitempty leaves out; of an interface only nil."""
    return value is None if member.type == ANY else not truth(value)


def _join(items: Any, separator: str) -> str:
    return separator.join(items)


def _split(text: str, separator: str) -> Slice:
    return Slice(text.split(separator) if separator else list(text), "string")


def _title(text: str) -> str:
    previous = " "
    parts = []
    for char in text:
        word = (
            previous == "_" or previous.isalnum() or (previous > "\x7f" and not previous.isspace())
        )
        parts.append(char if word else _one(char, char.title()))
        previous = char
    return "".join(parts)


def _one(char: str, changed: str) -> str:
    """Go maps letter by letter: ß has no capital of one letter, so it stays."""
    return changed if len(changed) == 1 else char


def _pad(text: str, before: int, after: int) -> str:
    if before < 0 or after < 0:
        raise FunctionError("strings: negative Repeat count")
    return " " * before + text + " " * after if text else text


def _truncate(text: str, length: int) -> str:
    data = text.encode(errors="surrogateescape")
    if length < 0:
        raise FunctionError(f"runtime error: slice bounds out of range [:{length}]")
    return text if len(data) < length else data[:length].decode(errors="surrogateescape")


def _special(*arguments: Any) -> Any:
    raise AssertionError("the evaluator handles `and`, `or` and `call` itself")


_TEXT = "string"
FUNCTIONS: dict[str, Method] = {
    "and": Method(_special, (ANY, ANY), True),
    "or": Method(_special, (ANY, ANY), True),
    "not": Method(lambda value: not truth(value), (ANY,)),
    "call": Method(_special, (ANY, ANY), True),
    "index": Method(_index, (ANY, ANY), True),
    "slice": Method(_slice, (ANY, ANY), True),
    "len": Method(_length, (ANY,)),
    "eq": Method(_equal, (ANY, ANY), True),
    "ne": Method(lambda a, b: not _equal(a, b), (ANY, ANY)),
    "lt": Method(_less, (ANY, ANY)),
    "le": Method(_less_equal, (ANY, ANY)),
    "gt": Method(lambda a, b: not _less_equal(a, b), (ANY, ANY)),
    "ge": Method(lambda a, b: not _less(a, b), (ANY, ANY)),
    "html": Method(_html, (ANY,), True),
    "js": Method(_js, (ANY,), True),
    "urlquery": Method(_urlquery, (ANY,), True),
    "print": Method(lambda *values: sprint(values), (ANY,), True),
    "println": Method(lambda *values: sprintln(values), (ANY,), True),
    "printf": Method(_printf, (_TEXT, ANY), True),
    "json": Method(_json, (ANY,)),
    "split": Method(_split, (_TEXT, _TEXT)),
    "join": Method(_join, ("[]string", _TEXT)),
    "title": Method(_title, (_TEXT,)),
    "lower": Method(lambda text: "".join(_one(char, char.lower()) for char in text), (_TEXT,)),
    "upper": Method(lambda text: "".join(_one(char, char.upper()) for char in text), (_TEXT,)),
    "pad": Method(_pad, (_TEXT, "int", "int")),
    "truncate": Method(_truncate, (_TEXT, "int")),
}

# The head of a table keeps its titles whatever a column does to its values.
HEADER_FUNCTIONS: dict[str, Method] = FUNCTIONS | {
    "json": Method(lambda text: text, (_TEXT,)),
    "split": Method(lambda text, _: text, (_TEXT, _TEXT)),
    "join": Method(lambda text, _: text, (_TEXT, _TEXT)),
    "title": Method(lambda text: text, (_TEXT,)),
    "lower": Method(lambda text: text, (_TEXT,)),
    "upper": Method(lambda text: text, (_TEXT,)),
    "truncate": Method(lambda text, _: text, (_TEXT, "int")),
}
