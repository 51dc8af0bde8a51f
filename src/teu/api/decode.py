"""JSON bodies as Go's decoder reads them, which is what Docker's clients were written against.

Names match whatever their case (`HostIP` is `HostIp`), `null` and unknown names are as if absent,
numbers fit 64 bits, and bytes that are no UTF-8 become U+FFFD. Types are checked strictly.
Source: Go's encoding/json, "Unmarshal".
"""

import types
from collections.abc import Callable
from typing import Any, Final, TypeVar, Union, get_args, get_origin

import msgspec

from teu.errors import InvalidParameter

T = TypeVar("T")
Fit = Callable[[Any], Any]
INT64: Final = range(-(2**63), 2**63)
DEPTH_LIMIT: Final = 64
_known: Final[dict[Any, Fit]] = {}


def decode(data: bytes, kind: type[T]) -> T:
    """Raises: InvalidParameter naming the field, or what is no JSON."""
    try:
        value = msgspec.json.decode(data)
    except UnicodeDecodeError:
        return decode(data.decode(errors="replace").encode(), kind)
    except msgspec.DecodeError as error:
        raise InvalidParameter(f"invalid JSON: {error}") from None
    except RecursionError:
        raise InvalidParameter("invalid JSON: it is nested too deeply") from None
    try:
        _check(value, DEPTH_LIMIT)
        return msgspec.convert({} if value is None else _fitting(kind)(value), kind)
    except msgspec.ValidationError as error:
        raise InvalidParameter(f"invalid request body: {error}") from None


def _check(value: Any, depth: int) -> None:
    """Raises: InvalidParameter for numbers beyond 64 bits and for absurd depths."""
    if isinstance(value, int):
        if value not in INT64:
            raise InvalidParameter(f"invalid request body: the number {value:.6e} is out of range")
    elif isinstance(value, dict | list):
        if not depth:
            raise InvalidParameter("invalid JSON: it is nested too deeply")
        for item in value.values() if isinstance(value, dict) else value:
            _check(item, depth - 1)


def _fitting(kind: Any) -> Fit:
    """What gives a decoded value the names that `kind` has; other values stay as they are."""
    if kind not in _known:
        _known[kind] = _new_fitting(kind)
    return _known[kind]


def _new_fitting(kind: Any) -> Fit:
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        structured = [arg for arg in args if _fitting(arg) is not _as_is]
        return _fitting(structured[0]) if structured else _as_is
    if origin is list and _fitting(args[0]) is not _as_is:
        return _list_fitting(_fitting(args[0]))
    if origin is dict and _fitting(args[1]) is not _as_is:
        return _dict_fitting(_fitting(args[1]))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct_fitting(kind)
    return _as_is


def _as_is(value: Any) -> Any:
    return value


def _list_fitting(inner: Fit) -> Fit:
    return lambda value: list(map(inner, value)) if isinstance(value, list) else value


def _dict_fitting(inner: Fit) -> Fit:
    return lambda value: (
        {name: inner(item) for name, item in value.items()} if isinstance(value, dict) else value
    )


def _struct_fitting(kind: type[msgspec.Struct]) -> Fit:
    fields = {field.encode_name: _fitting(field.type) for field in msgspec.structs.fields(kind)}
    by_case = {name.lower(): name for name in fields}

    def fit(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        found: dict[str, Any] = {}
        for given, item in value.items():
            name = given if given in fields else by_case.get(given.lower())
            if name is not None and item is not None:
                found[name] = fields[name](item)
        return found

    return fit
