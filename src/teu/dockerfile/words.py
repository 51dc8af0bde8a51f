"""Quotes and variables in the words of an instruction.

`expand` gives one word with quotes removed and variables substituted; `expand_words` splits at
blanks that no quote protects, also those that come from an unquoted variable. Source: Dockerfile
reference, "Environment replacement"; POSIX shell command language, 2.6.2, for the patterns.
"""

import re
from collections.abc import Mapping
from functools import cache

from teu.dockerfile.errors import DockerfileError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]|[@*#]")
_MODIFIERS = ("##", "%%", "//", ":-", ":+", ":?", "#", "%", "/", "-", "+", "?")


class Expander:
    """Substitutes from `variables`; `used` and `missing` collect the names that were asked for."""

    def __init__(self, variables: Mapping[str, str], escape: str = "\\") -> None:
        self._variables = variables
        self._escape = escape
        self.used: set[str] = set()
        self.missing: set[str] = set()

    def expand(self, text: str) -> str:
        """Raises: DockerfileError."""
        return _Scan(self, text, self._escape).run()[0]

    def expand_words(self, text: str) -> list[str]:
        """Raises: DockerfileError."""
        return _Scan(self, text, self._escape).run()[1]

    def expand_raw(self, text: str) -> str:
        """Variables only: quotes stay, as in a heredoc. Raises: DockerfileError."""
        return _Scan(self, text, self._escape, raw=True).run()[0]

    def look_up(self, name: str) -> str | None:
        self.used.add(name)
        value = self._variables.get(name)
        if value is None:
            self.missing.add(name)
        return value


class _Scan:
    def __init__(self, owner: Expander, text: str, escape: str, raw: bool = False) -> None:
        self._owner = owner
        self._text = text
        self._escape = escape
        self._raw = raw
        self._position = 0
        self._words: list[str] = []
        self._word: list[str] = []
        self._in_word = False

    def run(self) -> tuple[str, list[str]]:
        result = self._until("")
        if self._in_word:
            self._words.append("".join(self._word))
        return result, self._words

    def _peek(self) -> str:
        return self._text[self._position : self._position + 1]

    def _take(self) -> str:
        letter = self._peek()
        self._position += 1
        return letter

    def _until(self, stop: str) -> str:
        """Everything up to an unquoted `stop` (which is not taken), or to the end."""
        out: list[str] = []
        while letter := self._peek():
            if letter == stop:
                break
            out.append(self._piece(letter))
        return "".join(out)

    def _piece(self, letter: str) -> str:
        if letter == "'" and not self._raw:
            return self._add(self._single(), quoted=True)
        if letter == '"' and not self._raw:
            return self._add(self._double(), quoted=True)
        if letter == "$":
            return self._add(self._dollar(), from_variable=True)
        self._position += 1
        if letter == self._escape:
            return self._add(self._escaped(), quoted=True)
        return self._add(letter)

    def _escaped(self) -> str:
        following = self._take()
        if not following:
            return self._escape if self._raw else ""
        if self._raw:
            return following if following in ("$", self._escape) else self._escape + following
        return following

    def _add(self, text: str, *, quoted: bool = False, from_variable: bool = False) -> str:
        if quoted:
            self._word.append(text)
            self._in_word = True
        elif from_variable:
            self._split(text)
        elif text in (" ", "\t"):
            self._end_word()
        else:
            self._word.append(text)
            self._in_word = True
        return text

    def _split(self, text: str) -> None:
        for number, part in enumerate(re.split(r"[ \t\n]+", text)):
            if number:
                self._end_word()
            if part:
                self._word.append(part)
                self._in_word = True

    def _end_word(self) -> None:
        if self._in_word:
            self._words.append("".join(self._word))
        self._word, self._in_word = [], False

    def _single(self) -> str:
        end = self._text.find("'", self._position + 1)
        if end < 0:
            raise DockerfileError(
                "unexpected end of statement while looking for matching single-quote"
            )
        inner = self._text[self._position + 1 : end]
        self._position = end + 1
        return inner

    def _double(self) -> str:
        self._position += 1
        out: list[str] = []
        while letter := self._peek():
            if letter == '"':
                self._position += 1
                return "".join(out)
            if letter == "$":
                out.append(self._dollar())
                continue
            self._position += 1
            if letter == self._escape:
                following = self._take()
                if not following:
                    break
                if following not in ('"', "$", self._escape):
                    out.append(letter)
                out.append(following)
            else:
                out.append(letter)
        raise DockerfileError("unexpected end of statement while looking for matching double-quote")

    def _dollar(self) -> str:
        self._position += 1
        if self._peek() == "{":
            self._position += 1
            return self._braced()
        match = _NAME.match(self._text, self._position)
        if match is None:
            return "$"
        self._position = match.end()
        return self._owner.look_up(match[0]) or ""

    def _braced(self) -> str:
        match = _NAME.match(self._text, self._position)
        if match is None:
            raise DockerfileError(f"syntax error: bad substitution in {self._text!r}")
        self._position = match.end()
        name = match[0]
        if self._peek() == "}":
            self._position += 1
            return self._owner.look_up(name) or ""
        modifier = next((m for m in _MODIFIERS if self._text.startswith(m, self._position)), None)
        if modifier is None:
            raise DockerfileError(f"unsupported modifier ({self._peek()}) in substitution")
        self._position += len(modifier)
        argument = self._argument("/" if modifier in ("/", "//") else "")
        replacement = ""
        if modifier in ("/", "//"):
            replacement = self._argument("") if self._peek() == "/" and self._skip() else ""
        if self._take() != "}":
            raise DockerfileError("syntax error: missing '}' in substitution")
        return self._modified(name, modifier, argument, replacement)

    def _skip(self) -> bool:
        self._position += 1
        return True

    def _argument(self, stop: str) -> str:
        """The word behind a modifier: expanded by itself, up to `stop` or the closing brace."""
        inner = _Scan(self._owner, self._text, self._escape, self._raw)
        inner._position = self._position
        out: list[str] = []
        while letter := inner._peek():
            if letter in ("}", stop):
                break
            if letter == self._escape and stop and inner._text[inner._position + 1 :][:1] == "/":
                inner._position += 2
                out.append("/")
                continue
            out.append(inner._piece(letter))
        self._position = inner._position
        return "".join(out)

    def _modified(self, name: str, modifier: str, argument: str, replacement: str) -> str:
        value = self._owner.look_up(name)
        is_set = value is not None and (value != "" or not modifier.startswith(":"))
        text = value or ""
        match modifier.removeprefix(":"):
            case "-":
                return text if is_set else argument
            case "+":
                return argument if is_set else ""
            case "?":
                if not is_set:
                    raise DockerfileError(f"{name}: {argument or 'is not allowed to be unset'}")
                return text
            case "#" | "##":
                return _without_prefix(text, argument, longest=modifier == "##")
            case "%" | "%%":
                return _without_suffix(text, argument, longest=modifier == "%%")
        pattern = re.compile(_pattern(argument, greedy=True), re.DOTALL)
        if not argument:
            return text
        return pattern.sub(lambda _: replacement, text, count=0 if modifier == "//" else 1)


def _without_prefix(text: str, pattern: str, *, longest: bool) -> str:
    expression = re.compile(_pattern(pattern, greedy=longest), re.DOTALL)
    match = expression.match(text)
    return text[match.end() :] if match else text


def _without_suffix(text: str, pattern: str, *, longest: bool) -> str:
    expression = re.compile(_pattern(pattern, greedy=True) + r"\Z", re.DOTALL)
    starts = range(len(text) + 1) if longest else range(len(text), -1, -1)
    for start in starts:
        if expression.match(text, start):
            return text[:start]
    return text


@cache
def _pattern(pattern: str, *, greedy: bool) -> str:
    """A shell pattern as a regular expression: `*`, `?`, and `\\` before a literal character."""
    out: list[str] = []
    letters = iter(pattern)
    for letter in letters:
        if letter == "*":
            out.append(".*" if greedy else ".*?")
        elif letter == "?":
            out.append(".")
        elif letter == "\\":
            out.append(re.escape(next(letters, "\\")))
        else:
            out.append(re.escape(letter))
    return "".join(out)
