"""`$NAME`, `${NAME}`, `${NAME:-default}` and the other forms, in all values of a file.

Source: Compose Specification, "Interpolation".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from teu.compose.errors import ComposeError
from teu.compose.source import Map, Override, Seq

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]")
Warn = Callable[[str], None]


def interpolate(document: Map, environment: Mapping[str, str], warn: Warn) -> Map:
    """The document with all variables in values replaced. Raises: ComposeError."""
    found: Map = _walk(document, environment, "", warn)
    return found


def _walk(value: Any, environment: Mapping[str, str], path: str, warn: Warn) -> Any:
    if isinstance(value, Map):
        result = Map(value.file, value.line)
        result.lines = value.lines
        for key, item in value.items():
            where = f"{path}.{key}" if path else key
            result[key] = _walk(item, environment, where, warn)
        return result
    if isinstance(value, Seq):
        sequence = Seq(value.file, value.line)
        sequence.extend(_walk(item, environment, f"{path}.[]", warn) for item in value)
        return sequence
    if isinstance(value, Override):
        return Override(_walk(value.value, environment, path, warn))
    if isinstance(value, str) and "$" in value:
        return substitute(value, environment, path, warn)
    return value


def substitute(text: str, environment: Mapping[str, str], where: str, warn: Warn) -> str:
    """`text` with its variables replaced; `$$` is a dollar. Raises: ComposeError."""
    result, rest = _expand(text, environment, where, warn, nested=False)
    assert not rest
    return result


def _expand(
    text: str, environment: Mapping[str, str], where: str, warn: Warn, *, nested: bool
) -> tuple[str, str]:
    """(expanded, what follows the `}` that ends a nested text)."""
    result: list[str] = []
    while text:
        before, dollar, after = text.partition("$")
        if nested and "}" in before:
            inner, _, outer = before.partition("}")
            return "".join([*result, inner]), outer + dollar + after
        result.append(before)
        if not dollar:
            break
        if after.startswith("$"):
            result.append("$")
            text = after[1:]
        elif after.startswith("{"):
            value, text = _braces(after[1:], environment, where, warn)
            result.append(value)
        elif match := _NAME.match(after):
            result.append(_plain(match[0], environment, warn))
            text = after[match.end() :]
        else:
            raise _invalid(where)
    if nested:
        raise _invalid(where)
    return "".join(result), ""


def _braces(text: str, environment: Mapping[str, str], where: str, warn: Warn) -> tuple[str, str]:
    match = _NAME.match(text)
    if not match:
        raise _invalid(where)
    name, rest = match[0], text[match.end() :]
    if rest.startswith("}"):
        return _plain(name, environment, warn), rest[1:]
    operator = _OPERATOR.match(rest)
    if not operator:
        raise _invalid(where)
    value = environment.get(name)
    missing = value is None or (operator[0].startswith(":") and value == "")
    used = missing != operator[0].endswith("+")
    # A word that is not used is read only to find its end: nothing in it can be missing.
    names, tell = (environment, warn) if used else (_Everything(), _nothing)
    word, rest = _expand(rest[operator.end() :], names, where, tell, nested=True)
    if operator[0].endswith("?"):
        if missing:
            text = f"required variable {name} is missing a value"
            raise ComposeError(f"error while interpolating {where}: {text}: {word}")
        return value or "", rest
    if operator[0].endswith("+"):
        return ("" if missing else word), rest
    return (word if missing else value or ""), rest


def _plain(name: str, environment: Mapping[str, str], warn: Warn) -> str:
    if name not in environment:
        warn(f'The "{name}" variable is not set. Defaulting to a blank string.')
    return environment.get(name, "")


class _Everything(dict[str, str]):
    def get(self, *_: object) -> str:
        return "x"

    def __contains__(self, _: object) -> bool:
        return True


def _nothing(_: str) -> None:
    pass


def _invalid(where: str) -> ComposeError:
    return ComposeError(
        f"invalid interpolation format for {where}.\nYou may need to escape any $ with another $."
    )
