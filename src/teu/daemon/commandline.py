"""The command line of the daemon: dockerd's flags in pflag's grammar, and its `--help`.

`--flag value`, `--flag=value`, `-H value`, `-Hvalue`, clusters of short switches (`-Dl debug`);
a switch takes a value only after `=`. There are no arguments.
"""

import difflib
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from teu.daemon.config import DaemonConfig
from teu.daemon.kinds import BOOL, PATH, Kind
from teu.daemon.options import OPTIONS, Option
from teu.errors import InvalidParameter


class BadCommandLine(InvalidParameter):
    """Carries pflag's text and where to read more."""


@dataclass(frozen=True)
class Program:
    """The names and places that depend on how the daemon was called."""

    name: str
    config_file: Path
    socket: str
    pidfile: Path
    certificates: Path


TEUD = Program(
    "teud", Path("/etc/teu/daemon.json"), "/run/teu.sock", Path("/run/teu.pid"), Path("/etc/teu")
)
# Called `dockerd`, it is where scripts for dockerd look; the data root is never Docker's own.
DOCKERD = Program(
    "dockerd",
    Path("/etc/docker/daemon.json"),
    "/var/run/docker.sock",
    Path("/var/run/docker.pid"),
    Path("~/.docker").expanduser(),
)


@dataclass
class CommandLine:
    """What was asked. `values` by option key; `texts` are the words as typed, for messages."""

    values: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    config_file: Path | None = None
    validate: bool = False
    version: bool = False
    help: bool = False


@dataclass(frozen=True)
class _Flag:
    long: str
    short: str
    kind: Kind
    option: Option | None  # None: one of the command line's own


_OWN = (
    _Flag("config-file", "", PATH, None),
    _Flag("validate", "", BOOL, None),
    _Flag("version", "v", BOOL, None),
    _Flag("help", "h", BOOL, None),
)
_FLAGS = (*_OWN, *(_Flag(o.long, o.short, o.kind, o) for o in OPTIONS if o.long))
_LONG = {flag.long: flag for flag in _FLAGS}
_SHORT = {flag.short: flag for flag in _FLAGS if flag.short}


def program_for(argv0: str) -> Program:
    """`…/dockerd` is a launcher for scripts that know only Docker; everything else is teud."""
    return DOCKERD if Path(argv0).name == "dockerd" else TEUD


def parse(words: Sequence[str], program: Program) -> CommandLine:
    """Raises: BadCommandLine with pflag's text."""
    found = CommandLine()
    queue = list(words)
    if queue and queue[-1] == "--":
        queue.pop()
    try:
        while queue:
            word = queue.pop(0)
            if not word.startswith("-") or word in ("-", "--"):
                raise ValueError(f'"{program.name}" accepts no arguments: {word}')
            _take(found, word, queue)
    except ValueError as error:
        raise BadCommandLine(f"{error}\nSee '{program.name} --help'.") from None
    return found


def _take(found: CommandLine, word: str, rest: list[str]) -> None:
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        flag = _known(name)
        _store(found, flag, _value(flag, equals, value, rest, f"--{name}"))
    else:
        _take_cluster(found, word[1:], rest)


def _take_cluster(found: CommandLine, letters: str, rest: list[str]) -> None:
    whole = letters
    while letters:
        flag = _SHORT.get(letters[0])
        if flag is None:
            raise ValueError(f"unknown shorthand flag: '{letters[0]}' in -{whole}")
        letter, letters = letters[0], letters[1:]
        if flag.kind is BOOL and not letters.startswith("="):
            _store(found, flag, "true")
            continue
        value = letters.removeprefix("=")
        _store(found, flag, _value(flag, letters, value, rest, f"'{letter}' in -{whole}"))
        return


def _known(name: str) -> _Flag:
    flag = _LONG.get(name)
    if flag is None:
        near = difflib.get_close_matches(name, _LONG, 1)
        raise ValueError(f"unknown flag: --{name}" + (f" (is it --{near[0]}?)" if near else ""))
    return flag


def _value(flag: _Flag, attached: str, value: str, rest: list[str], shown: str) -> str:
    if attached:
        return value
    if flag.kind is BOOL:
        return "true"
    if not rest:
        raise ValueError(f"flag needs an argument: {shown}")
    return rest.pop(0)


def _store(found: CommandLine, flag: _Flag, text: str) -> None:
    named = f"-{flag.short}, --{flag.long}" if flag.short else f"--{flag.long}"
    if not text:  # as for dockerd, an empty value is no value
        return
    try:
        value = flag.kind.from_flag(text)
    except ValueError as error:
        raise ValueError(f'invalid argument "{text}" for "{named}" flag: {error}') from None
    if flag.option is None:
        place = flag.long.replace("-", "_")
        setattr(found, place, Path(value) if flag.kind is PATH else value)
        return
    key = flag.option.key
    found.texts.setdefault(key, []).append(text)
    found.values[key] = _gathered(found.values.get(key), value, flag.kind)


def _gathered(before: Any, value: Any, kind: Kind) -> Any:
    if before is None or kind.gather == "last":
        return value
    if kind.gather == "list":
        return before + value
    return before | value


def help_text(program: Program) -> str:
    """What `--help` prints: the flags that are used, by name; the others are in the manual."""
    rows = [*_own_rows(program), *_rows(program)]
    rows.sort(key=lambda row: row[0].lstrip("- ,").lower())
    width = max(len(left) for left, _ in rows) + 3
    lines = [
        f"Usage:  {program.name} [OPTIONS]", "", "A self-sufficient runtime for containers.", "",
        "Options:",
    ]  # fmt: skip
    for left, right in rows:
        first, *more = textwrap.wrap(right, 100 - width) or [""]
        lines.append(f"{left:<{width}}{first}")
        lines += [" " * width + line for line in more]
    lines += ["", "dockerd's other flags are accepted without effect, or refused with the reason."]
    return "\n".join(lines) + "\n"


def _own_rows(program: Program) -> Iterable[tuple[str, str]]:
    yield (
        _left("config-file", "", "string"),
        f'Configuration file (default "{program.config_file}")',
    )
    yield _left("validate", "", ""), "Validate daemon configuration and exit"
    yield _left("version", "v", ""), "Print version information and quit"
    yield _left("help", "h", ""), "Print usage"


def _rows(program: Program) -> Iterable[tuple[str, str]]:
    for option in OPTIONS:
        if option.help and option.long:
            shown = _default(option, program)
            right = option.help + (f" (default {shown})" if shown else "")
            yield _left(option.long, option.short, option.kind.word), right


def _left(long: str, short: str, word: str) -> str:
    lead = f"-{short}, " if short else "    "
    return f"  {lead}--{long} {word}".rstrip()


def _default(option: Option, program: Program) -> str:
    own = {
        "pidfile": program.pidfile,
        "hosts": f"unix://{program.socket}",
        "tlscacert": program.certificates / "ca.pem",
        "tlscert": program.certificates / "cert.pem",
        "tlskey": program.certificates / "key.pem",
        "default-shm-size": "64MiB",
        "tls": "",
        "tlsverify": "",
    }
    value = own.get(option.key, getattr(DaemonConfig(), option.target))
    if value in (None, "", False, (), {}, 0):
        return ""
    if value is True:
        return "true"
    return str(value) if isinstance(value, int) else f'"{value}"'
