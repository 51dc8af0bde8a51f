"""Logical lines as instructions: flags, arguments, JSON form, and what each keyword accepts.

Nothing is substituted here: variables are known only when a stage is planned. Source: Dockerfile
reference; error texts are Docker's, since people search for them.
"""

import difflib
import json
from collections.abc import Callable, Iterable

from msgspec import Struct, field

from teu.dockerfile.errors import DockerfileError, Span
from teu.dockerfile.lines import Heredoc, Line

_FLAGS: dict[str, frozenset[str]] = {
    "FROM": frozenset(("platform",)),
    "RUN": frozenset(("mount", "network", "security")),
    "COPY": frozenset(("from", "chown", "chmod", "link", "parents", "exclude")),
    "ADD": frozenset(("chown", "chmod", "link", "checksum", "keep-git-dir", "unpack", "exclude")),
    "HEALTHCHECK": frozenset(("interval", "timeout", "start-period", "start-interval", "retries")),
}
_BOOLEAN = frozenset(("link", "parents", "keep-git-dir", "unpack"))
_REPEATED = frozenset(("mount", "exclude"))
_NOT_AS_TRIGGER = frozenset(("ONBUILD", "FROM", "MAINTAINER"))


class Instruction(Struct, frozen=True):
    """`args`: words, or one text for the shell form; `is_json`: they came as a JSON array.
    `pairs`: NAME=VALUE arguments, None for an ARG without a default. `text` is for people."""

    keyword: str
    span: Span
    text: str
    rest: str = ""
    args: tuple[str, ...] = ()
    is_json: bool = False
    pairs: tuple[tuple[str, str | None], ...] = ()
    flags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    heredocs: tuple[Heredoc, ...] = ()
    triggered: bool = False  # from an ONBUILD of the base image

    def flag(self, name: str, default: str = "") -> str:
        """The last value."""
        values = self.flags.get(name)
        return values[-1] if values else default

    def is_set(self, name: str) -> bool:
        """A boolean flag."""
        return self.flag(name, "false") == "true"


def parse_instruction(line: Line, escape: str = "\\") -> Instruction:
    """Raises: DockerfileError with the line."""
    keyword = line.keyword.upper()
    parse = _PARSERS.get(keyword)
    if parse is None:
        raise DockerfileError(_unknown(line.keyword), line.span)
    try:
        flags, rest = _flags(keyword, line.rest, escape)
        found = parse(keyword, rest, escape)
    except DockerfileError as error:
        raise DockerfileError(error.problem, error.span or line.span) from None
    return Instruction(
        keyword=keyword,
        span=line.span,
        text=f"{keyword} {line.rest}".strip(),
        rest=rest,
        flags=flags,
        heredocs=line.heredocs,
        args=tuple(found.args),
        is_json=found.is_json,
        pairs=tuple(found.pairs),
    )


class _Found(Struct):
    args: list[str] = field(default_factory=list)
    is_json: bool = False
    pairs: list[tuple[str, str | None]] = field(default_factory=list)


def _unknown(keyword: str) -> str:
    close = difflib.get_close_matches(keyword.upper(), _PARSERS, n=1, cutoff=0.6)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown instruction: {keyword}{hint}"


# --- flags ------------------------------------------------------------------------------


def _flags(keyword: str, rest: str, escape: str) -> tuple[dict[str, tuple[str, ...]], str]:
    known = _FLAGS.get(keyword)
    if known is None:
        return {}, rest
    found: dict[str, tuple[str, ...]] = {}
    while rest.startswith("--"):
        word, rest = _first_word(rest, escape)
        if word == "--":
            break
        name, given, value = word[2:].partition("=")
        if name not in known:
            raise DockerfileError(_unknown_flag(name, known))
        value = _flag_value(name, bool(given), _unquoted(value))
        if name in found and name not in _REPEATED:
            raise DockerfileError(f"duplicate flag specified: {name}")
        found[name] = (*found.get(name, ()), value)
    return found, rest


def _unknown_flag(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown flag: --{name}{hint}"


def _flag_value(name: str, given: bool, value: str) -> str:
    if name in _BOOLEAN:
        if not given:
            return "true"
        if value.lower() not in ("true", "false"):
            raise DockerfileError(f"expecting boolean value for flag {name}, not: {value}")
        return value.lower()
    if not given:
        raise DockerfileError(f"missing a value on flag: {name}")
    return value


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value


def _first_word(text: str, escape: str) -> tuple[str, str]:
    words = raw_words(text, escape, limit=1)
    return words[0], text[len(words[0]) :].lstrip()


def raw_words(text: str, escape: str = "\\", limit: int = 0) -> list[str]:
    """Splits at blanks outside of quotes; quotes and escapes stay."""
    words: list[str] = []
    word = ""
    quote = ""
    skip = False
    for letter in text:
        if skip:
            word, skip = word + letter, False
        elif letter == escape and quote != "'":
            word, skip = word + letter, True
        elif quote:
            word += letter
            quote = "" if letter == quote else quote
        elif letter in " \t":
            if word:
                words.append(word)
                word = ""
                if len(words) == limit:
                    return words
        else:
            quote = letter if letter in "'\"" else ""
            word += letter
    return [*words, word] if word else words


# --- arguments --------------------------------------------------------------------------


def _json(text: str) -> list[str] | None:
    """The strings of a JSON array; None for anything else."""
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise DockerfileError("only string type is allowed in JSON format arrays")
    return found


def _command(keyword: str, rest: str, escape: str) -> _Found:
    words = _json(rest)
    if words is not None:
        if not words and keyword == "RUN":
            raise DockerfileError("RUN requires at least one argument")
        return _Found(args=words, is_json=True)
    if not rest and keyword == "RUN":
        raise DockerfileError("RUN requires at least one argument")
    return _Found(args=[rest] if rest else [])


def _words(keyword: str, rest: str, escape: str) -> _Found:
    words = _json(rest)
    found = _Found(args=raw_words(rest, escape) if words is None else words)
    found.is_json = words is not None
    if not found.args:
        raise DockerfileError(f"{keyword} requires at least one argument")
    return found


def _files(keyword: str, rest: str, escape: str) -> _Found:
    found = _words(keyword, rest, escape) if rest else _Found()
    if len(found.args) == 1:
        raise DockerfileError(
            f"{keyword} requires at least two arguments, but only one was provided. "
            "Destination could not be determined"
        )
    if not found.args:
        raise DockerfileError(f"{keyword} requires at least two arguments")
    return found


def _one(keyword: str, rest: str, escape: str) -> _Found:
    if not rest:
        raise DockerfileError(f"{keyword} requires exactly one argument")
    if keyword in ("USER", "STOPSIGNAL") and len(raw_words(rest, escape)) != 1:
        raise DockerfileError(f"{keyword} requires exactly one argument")
    return _Found(args=[rest])


def _from(keyword: str, rest: str, escape: str) -> _Found:
    words = raw_words(rest, escape)
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise DockerfileError("FROM requires either one or three arguments")
    return _Found(args=[words[0], *words[2:]])


def _pairs(keyword: str, rest: str, escape: str) -> _Found:
    words = raw_words(rest, escape)
    if not words:
        raise DockerfileError(f"{keyword} requires at least one argument")
    if "=" not in words[0]:
        value = rest[len(words[0]) :].strip()
        if not value:
            raise DockerfileError(f"{keyword} must have two arguments")
        return _Found(pairs=[(words[0], value)])
    found = _Found()
    for word in words:
        name, given, value = word.partition("=")
        if not given:
            raise DockerfileError(
                f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value'
            )
        if not name:
            raise DockerfileError(f"{keyword} names can not be blank")
        found.pairs.append((name, value))
    return found


def _arg(keyword: str, rest: str, escape: str) -> _Found:
    found = _Found()
    for word in raw_words(rest, escape):
        name, given, value = word.partition("=")
        if not name:
            raise DockerfileError("ARG names can not be blank")
        found.pairs.append((name, value if given else None))
    if not found.pairs:
        raise DockerfileError("ARG requires at least one argument")
    return found


def _shell(keyword: str, rest: str, escape: str) -> _Found:
    words = _json(rest)
    if words is None:
        raise DockerfileError("SHELL requires the arguments to be in JSON form")
    if not words:
        raise DockerfileError("SHELL requires at least one argument")
    return _Found(args=words, is_json=True)


def _healthcheck(keyword: str, rest: str, escape: str) -> _Found:
    kind, _, command = rest.partition(" ")
    command = command.strip()
    if kind.upper() == "NONE":
        if command:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments")
        return _Found(args=["NONE"])
    if not kind:
        raise DockerfileError("HEALTHCHECK requires at least one argument")
    if kind.upper() != "CMD":
        raise DockerfileError(f'unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    words = _json(command)
    if not command or words == []:
        raise DockerfileError("missing command after HEALTHCHECK CMD")
    if words is not None:
        return _Found(args=["CMD", *words], is_json=True)
    return _Found(args=["CMD-SHELL", command])


def _on_build(keyword: str, rest: str, escape: str) -> _Found:
    word = rest.partition(" ")[0].upper()
    if not word:
        raise DockerfileError("ONBUILD requires at least one argument")
    if word == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in _NOT_AS_TRIGGER:
        raise DockerfileError(f"{word} isn't allowed as an ONBUILD trigger")
    if word not in _PARSERS:
        raise DockerfileError(_unknown(word))
    return _Found(args=[rest])


_PARSERS: dict[str, Callable[[str, str, str], _Found]] = {
    "ADD": _files,
    "ARG": _arg,
    "CMD": _command,
    "COPY": _files,
    "ENTRYPOINT": _command,
    "ENV": _pairs,
    "EXPOSE": _words,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _pairs,
    "MAINTAINER": _one,
    "ONBUILD": _on_build,
    "RUN": _command,
    "SHELL": _shell,
    "STOPSIGNAL": _one,
    "USER": _one,
    "VOLUME": _words,
    "WORKDIR": _one,
}
KEYWORDS = tuple(_PARSERS)
