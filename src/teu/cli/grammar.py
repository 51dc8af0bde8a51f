"""Docker's command line grammar, driven by tables: flag rows, command rows, one parser.

The rules are those of Go's pflag as Docker sets it up: short clusters (`-it`, `-p80:80`,
`-eA=b`), `--flag=v`, `--flag v`, `--bool=false`, `--`. Commands that run something else stop at
their first argument (`interspersed=False`). The same rows feed the parser, the help text and
shell completion. Imports nothing: every command pays for this module at start.

Source: spf13/pflag `flag.go`; docker/cli `cli/required.go`; texts compared with Docker 28.2.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from teu.cli.session import Session

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
# Kinds that collect one entry per use. What they accept is checked by `values.py`.
_PLAIN_KINDS = frozenset(("string", "list", "map"))
LIST_KINDS = frozenset(("list", "map", "mount", "network", "ulimit", "filter", "gpu-request"))


class UsageError(Exception):
    """The command line is wrong. `str()` is the first line that the user reads."""


class HelpRequested(Exception):
    """`--help` was found. `deprecated` when it was asked for as `-h`."""

    def __init__(self, deprecated: bool = False) -> None:
        super().__init__()
        self.deprecated = deprecated


class Flag:
    """One row of a flag table.

    kind: "bool", "string", "int", "uint", "uint16", "duration", "bytes", "decimal", or one of
    LIST_KINDS; also what help shows as the value's name unless `metavar` says otherwise.
    check: name of a value check in `values.CHECKS`. missing: known to Docker, refused by name.
    no_value: what a bare `--flag` means for kinds other than bool. hidden: not in help.
    alias_of: another spelling of that flag; its values are stored there. since: first API
    version that knows it: with an older daemon it is refused, not silently lost.
    """

    __slots__ = (
        "alias_of", "check", "default", "help", "hidden", "kind", "metavar", "missing", "name",
        "no_value", "short", "since",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - a table row; all but the first four are keywords
        self,
        name: str,
        short: str = "",
        kind: str = "bool",
        help: str = "",
        *,
        default: Any = None,
        check: str = "",
        metavar: str = "",
        missing: bool = False,
        no_value: str = "",
        hidden: bool = False,
        alias_of: str = "",
        since: str = "",
    ) -> None:
        self.name = name
        self.short = short
        self.kind = kind
        self.help = help
        self.default = default
        self.check = check
        self.metavar = metavar
        self.missing = missing
        self.no_value = "true" if kind == "bool" else no_value
        self.hidden = hidden or bool(alias_of)
        self.alias_of = alias_of
        self.since = since

    @property
    def label(self) -> str:
        """The flag as error texts name it: `-m, --memory` or `--name`."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Command:
    """One command: flags, arguments, and the function that does it.

    args: least and most number of arguments; most None is "any number".
    run: gets the session, the parsed options and the arguments; returns the exit status.
    """

    __slots__ = ("args", "flags", "interspersed", "long", "run", "usage")

    def __init__(
        self,
        run: Callable[[Session, Options, list[str]], int],
        usage: str,
        *,
        args: tuple[int, int | None] = (0, 0),
        flags: Sequence[Flag] = (),
        interspersed: bool = True,
        long: str = "",
    ) -> None:
        self.run = run
        self.usage = usage
        self.args = args
        self.flags = flags
        self.interspersed = interspersed
        self.long = long

    def usage_line(self, path: str) -> str:
        """The command as typed (`teu cp`) with what may follow it."""
        return f"{path} {self.usage}".rstrip().replace("{program}", path.partition(" ")[0])


class Options:
    """Parsed flags. An absent flag reads as its row's default, or its kind's zero value."""

    __slots__ = ("_flags", "_values")

    def __init__(self, flags: Iterable[Flag]) -> None:
        self._flags = {flag.name: flag for flag in flags}
        self._values: dict[str, Any] = {}

    def changed(self, name: str) -> bool:
        """True when the flag was given on the command line, with whatever value."""
        return name in self._values

    def given(self) -> list[str]:
        """Names of the flags on the command line, in order of their first use."""
        return list(self._values)

    def flag(self, name: str) -> bool:
        return bool(self.value(name))

    def text(self, name: str) -> str:
        return str(self.value(name) or "")

    def number(self, name: str) -> int:
        return int(self.value(name) or 0)

    def texts(self, name: str) -> list[str]:
        """All values of a repeatable flag, in order."""
        return list(self.value(name) or ())

    def value(self, name: str) -> Any:
        """The raw value. Raises: KeyError when the command has no such flag."""
        if name in self._values:
            return self._values[name]
        return self._flags[name].default

    def set(self, flag: Flag, text: str) -> None:
        """Stores one use of `flag`. Raises: UsageError with pflag's text."""
        if flag.missing:
            raise UsageError(f"flag --{flag.name} is not implemented yet")
        try:
            value = convert(flag, text)
        except ValueError as error:
            problem = f'invalid argument {quote(text)} for "{flag.label}" flag: {error}'
            raise UsageError(problem) from error
        name = flag.alias_of or flag.name
        if flag.kind in LIST_KINDS:
            self._values.setdefault(name, []).append(value)
        else:
            self._values[name] = value

    def newer_than(self, version: str) -> list[tuple[str, str]]:
        """Given flags that an API of `version` does not know: (name, first version with it)."""
        wanted = [int(part) for part in version.split(".")]
        return [
            (name, since)
            for name in self._values
            if (since := self._flags[name].since)
            and [int(part) for part in since.split(".")] > wanted
        ]


def convert(flag: Flag, text: str) -> Any:
    """The typed value of one use. Raises: ValueError with Go's or Docker's text."""
    if flag.kind == "bool":
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        raise ValueError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")
    if flag.kind in _PLAIN_KINDS and not flag.check:
        return text
    from teu.cli.values import check

    return check(flag.check or flag.kind, text)


def quote(text: str) -> str:
    """`text` in double quotes, escaped as Go's %q does for the common cases."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\t", "\\t") + '"'


class Parser:
    """Reads the flags of one command out of its words."""

    def __init__(self, flags: Sequence[Flag], *, interspersed: bool = True) -> None:
        self._long = {flag.name: flag for flag in flags}
        self._short = {flag.short: flag for flag in flags if flag.short}
        self._interspersed = interspersed
        self.options = Options(flags)

    def parse(self, words: Sequence[str]) -> list[str]:
        """Fills `options`; returns the arguments. Raises: UsageError, HelpRequested."""
        rest = list(words)
        arguments: list[str] = []
        while rest:
            word = rest.pop(0)
            if word == "--":
                return arguments + rest
            if len(word) < 2 or word[0] != "-":
                arguments.append(word)
                if not self._interspersed:
                    return arguments + rest
            elif word[1] == "-":
                self._take_long(word, rest)
            else:
                self._take_cluster(word[1:], rest)
        return arguments

    def _take_long(self, word: str, rest: list[str]) -> None:
        name, equals, value = word[2:].partition("=")
        if not name or name[0] == "-":
            raise UsageError(f"bad flag syntax: {word}")
        flag = self._long.get(name)
        if flag is None:
            if name == "help":
                self._take_help(equals, value)
                return
            raise UsageError(f"unknown flag: --{name}")
        if not equals:
            if flag.no_value:
                value = flag.no_value
            elif rest:
                value = rest.pop(0)
            else:
                raise UsageError(f"flag needs an argument: {word}")
        self.options.set(flag, value)

    def _take_help(self, equals: str, value: str) -> None:
        wanted = True
        if equals:
            wanted = convert(Flag("help", kind="bool"), value)
        if wanted:
            raise HelpRequested

    def _take_cluster(self, cluster: str, rest: list[str]) -> None:
        while cluster:
            letter, more = cluster[0], cluster[1:]
            flag = self._short.get(letter)
            if flag is None:
                if letter == "h":
                    raise HelpRequested(deprecated=True)
                raise UsageError(f"unknown shorthand flag: '{letter}' in -{cluster}")
            if len(more) > 1 and more[0] == "=":
                value, more = more[1:], ""
            elif flag.no_value:
                value = flag.no_value
            elif more:
                value, more = more, ""
            elif rest:
                value = rest.pop(0)
            else:
                raise UsageError(f"flag needs an argument: '{letter}' in -{cluster}")
            self.options.set(flag, value)
            cluster = more


def arity_problem(path: str, command: Command, count: int) -> str:
    """What is wrong with `count` arguments, in Docker's words; "" when nothing is.

    path: the command as it was typed, with the program's name: `teu container ls`.
    """
    least, most = command.args
    if count >= least and (most is None or count <= most):
        return ""
    verb = "Run"
    if most is None:
        verb = "See"
        words = f"requires at least {_arguments(least)}"
    elif most == 0:
        words = "accepts no arguments"
    elif least == most:
        words = f"requires {_arguments(least)}"
    elif least == 0:
        words = f"requires at most {_arguments(most)}"
    else:
        words = f"requires at least {least} and at most {_arguments(most)}"
    hint = f"{verb} '{path} --help' for more information"
    return f"'{path}' {words}\n\nUsage:  {command.usage_line(path)}\n\n{hint}"


def _arguments(count: int) -> str:
    return f"{count} argument" if count == 1 else f"{count} arguments"
