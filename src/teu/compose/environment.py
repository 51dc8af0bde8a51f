"""Files of variables: `.env` and `env_file`.

Source: docs.docker.com "Set environment variables", "Env file syntax".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from teu.compose.errors import ComposeError
from teu.compose.interpolate import substitute

_NAME = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*(=|:\s|$)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$$"}
_UNQUOTED_END = re.compile(r"\s+#.*$")


def parse_env(
    text: str, file: str, known: Mapping[str, str], warn: Callable[[str], None]
) -> dict[str, str | None]:
    """NAME -> value; None: the name alone, its value comes from the caller's environment.

    Values may use `known` and the names before them. Raises: ComposeError with file and line.
    """
    found: dict[str, str | None] = {}
    lines = text.removeprefix("﻿").replace("\r\n", "\n").split("\n")
    number = 0
    while number < len(lines):
        start = number + 1
        line = lines[number].lstrip()
        number += 1
        if not line or line.startswith("#"):
            continue
        match = _NAME.match(line)
        if not match:
            raise ComposeError(
                f"{file}:{start}: unexpected {line.split('=')[0][:40]!r}: not a name"
            )
        name, sign = match[1], match[2]
        if not sign:
            found[name] = None
            continue
        rest = line[match.end() :].lstrip()
        if rest[:1] in ("'", '"'):
            while _end_of_quotes(rest) < 0:
                if number == len(lines):
                    raise ComposeError(f"{file}:{start}: unterminated quoted value of {name}")
                rest += "\n" + lines[number]
                number += 1
            raw = rest[1 : _end_of_quotes(rest)]
            if rest[0] == "'":
                found[name] = raw
                continue
            raw = re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), raw, flags=re.DOTALL)
        else:
            raw = _UNQUOTED_END.sub("", rest).strip()
            raw = "" if raw.startswith("#") else raw
        names = {**{key: value or "" for key, value in found.items()}, **known}
        found[name] = substitute(raw, names, f"{file}:{start}: {name}", warn)
    return found


def _end_of_quotes(text: str) -> int:
    """Where the quote that `text` begins with ends; -1: not yet."""
    position = 1
    while position < len(text):
        if text[position] == "\\" and text[0] == '"':
            position += 1
        elif text[position] == text[0]:
            return position
        position += 1
    return -1
