"""`.dockerignore`: which paths of a context are left out.

Patterns are matched against the whole path, segment by segment; the last one that matches decides,
`!` takes back in. A pattern that matches a directory leaves out everything below it, unless a
later `!` names something there. Source: Dockerfile reference, ".dockerignore file"; Go's
`filepath.Match` for one segment, `**` for any number of them.
"""

from __future__ import annotations

import posixpath
import re


class BadPattern(ValueError):
    """A pattern that cannot be read."""

    def __init__(self, pattern: str) -> None:
        super().__init__(f"syntax error in pattern: {pattern!r}")
        self.pattern = pattern


def read_patterns(text: str) -> list[str]:
    """The patterns of a file: without comments, blanks, and what `filepath.Clean` takes away."""
    found = []
    for line in text.removeprefix("\ufeff").splitlines():
        pattern = line.strip()
        if line.startswith("#") or not pattern:
            continue
        inverted = pattern.startswith("!")
        body = pattern[1:].strip() if inverted else pattern
        if body:
            body = posixpath.normpath(body)
            if len(body) > 1:
                body = body.lstrip("/")
        found.append("!" + body if inverted else body)
    return found


class IgnoreList:
    """See the module's text. Raises: BadPattern."""

    def __init__(self, patterns: list[str]) -> None:
        self._rules: list[tuple[re.Pattern[str], bool]] = []
        self.has_exceptions = False
        for pattern in patterns:
            inverted = pattern.startswith("!")
            body = pattern.removeprefix("!").strip()
            if not body:
                if inverted:
                    raise BadPattern(pattern)
                continue
            body = posixpath.normpath(body).lstrip("/") or "."
            self._rules.append((re.compile(_expression(body), re.DOTALL), inverted))
            self.has_exceptions = self.has_exceptions or inverted

    def __bool__(self) -> bool:
        return bool(self._rules)

    def ignores(self, path: str) -> bool:
        """Whether `path` (relative, `/` between segments) is left out."""
        parents = _parents(path)
        ignored = False
        for expression, inverted in self._rules:
            if ignored == (not inverted):
                continue
            if any(expression.fullmatch(one) for one in parents):
                ignored = not inverted
        return ignored

    def ignores_all_below(self, path: str) -> bool:
        """Whether a walk need not enter the directory `path`: it and all below is left out."""
        return self.ignores(path) and not self.has_exceptions


def _parents(path: str) -> list[str]:
    """The path itself, then each directory above it."""
    found = [path]
    while "/" in path:
        path = path.rpartition("/")[0]
        found.append(path)
    return found


def _expression(pattern: str) -> str:
    """A regular expression for one pattern."""
    out: list[str] = []
    position = 0
    while position < len(pattern):
        letter = pattern[position]
        position += 1
        if letter == "*" and pattern.startswith("*", position):
            position += 1
            if pattern.startswith("/", position):
                position += 1
            out.append(".*" if position >= len(pattern) else "(.*/)?")
        elif letter == "*":
            out.append("[^/]*")
        elif letter == "?":
            out.append("[^/]")
        elif letter == "\\":
            if position >= len(pattern):
                raise BadPattern(pattern)
            out.append(re.escape(pattern[position]))
            position += 1
        elif letter == "[":
            group, position = _class(pattern, position)
            out.append(group)
        else:
            out.append(re.escape(letter))
    return "".join(out)


def _class(pattern: str, position: int) -> tuple[str, int]:
    """A character class, whose `[` is taken already."""
    start = position
    out = "["
    if pattern.startswith("^", position):
        out, position = "[^/", position + 1
    first = True
    while position < len(pattern) and (pattern[position] != "]" or first):
        letter = pattern[position]
        if letter == "\\":
            position += 1
            letter = pattern[position : position + 1]
            if not letter:
                raise BadPattern(pattern)
            out += re.escape(letter)
        else:
            out += letter if letter == "-" and not first else re.escape(letter)
        first = False
        position += 1
    if position >= len(pattern) or position == start:
        raise BadPattern(pattern)
    try:
        re.compile(out + "]")
    except re.error:
        raise BadPattern(pattern) from None
    return out + "]", position + 1


def segment_expression(pattern: str) -> str:
    """A regular expression for one segment of a path (`*` and `**` are the same in it).

    Raises: BadPattern.
    """
    return _expression(re.sub(r"\*\*+", "*", pattern))
