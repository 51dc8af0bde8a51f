"""Help texts, made from the same rows that drive the parser."""

from __future__ import annotations

import os
import sys

from teu.cli.commands import GROUPS, TABLE, Row, find
from teu.cli.grammar import Command, Flag
from teu.cli.main import GLOBAL_FLAGS, load
from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ABOUT = "A container engine with Docker's API and commands"
# What most people need first, in the order in which they need it.
COMMON = (
    "run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "search", "version",
    "info",
)  # fmt: skip
_METAVARS = {"uint16": "int", "uint": "int", "decimal": "number", "gpu-request": "gpus"}
_NARROWEST, _WIDEST = 60, 110


def help_text(program: str, path: list[str]) -> str:
    """Help of a command, a group, or (empty path) the program. Raises: Failure when unknown."""
    if not path:
        return _program_help(program)
    row, typed, rest = find(path)
    if row is not None:
        command = load(row)
        if command is None:
            raise Failure(f"{program}: '{program} {typed}' is not implemented yet")
        return _command_help(program, typed, row, command)
    if not typed or any(not word.startswith("-") for word in rest):
        raise Failure(f"unknown help topic: {' '.join(path)}")
    return _group_help(program, typed)


def existing_rows() -> list[Row]:
    """The commands that teu has, without hidden ones."""
    return [row for row in TABLE if row[3] and row[4]]


def existing_groups() -> list[tuple[str, str]]:
    """The management commands under which there is something."""
    used = {row[0].partition(" ")[0] for row in existing_rows() if " " in row[0]}
    return [(name, summary) for name, summary in GROUPS if name in used]


def short_names(row: Row) -> list[str]:
    """How the command is called at top level."""
    return [row[1]] if row[1] else [row[0]] if " " not in row[0] else []


def _program_help(program: str) -> str:
    short = {name: row[4] for row in existing_rows() for name in short_names(row)}
    lines = [f"Usage:  {program} [OPTIONS] COMMAND", "", ABOUT]
    lines += _section("Common Commands", [(n, short.pop(n)) for n in COMMON if n in short])
    lines += _section("Management Commands", existing_groups())
    lines += _section("Commands", sorted(short.items()))
    lines += ["", "Global Options:", *_flag_lines(GLOBAL_FLAGS, 24)]
    lines += ["", f"Run '{program} COMMAND --help' for more information on a command."]
    return "\n".join(lines) + "\n"


def _section(title: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    return ["", f"{title}:", *(f"  {name:<12}{summary}" for name, summary in rows)]


def _group_help(program: str, group: str) -> str:
    prefix = group + " "
    rows = [(r[0].removeprefix(prefix), r[4]) for r in existing_rows() if r[0].startswith(prefix)]
    lines = [f"Usage:  {program} {group} COMMAND", "", dict(GROUPS)[group]]
    lines += _section("Commands", rows)
    more = f"Run '{program} {group} COMMAND --help' for more information on a command."
    return "\n".join([*lines, "", more]) + "\n"


def _command_help(program: str, typed: str, row: Row, command: Command) -> str:
    lines = [f"Usage:  {command.usage_line(f'{program} {typed}')}", "", command.long or row[4]]
    names = spellings(row)
    if len(names) > 1:
        lines += ["", "Aliases:", "  " + ", ".join(f"{program} {name}" for name in names)]
    sections = grouped(row[0], command.flags)
    usages = [flag_usage(flag)[0] for _, flags in sections for flag in flags]
    for title, flags in sections:
        lines += ["", f"{title}:", *_flag_lines(flags, max(map(len, usages)))]
    return "\n".join(lines) + "\n"


def spellings(row: Row) -> list[str]:
    """Every way to call the command."""
    path, short, aliases, _, _ = row
    return [path, *aliases, *([short] if short else [])]


def grouped(path: str, flags: Sequence[Flag]) -> list[tuple[str, list[Flag]]]:
    """The flags to show under their titles; most commands have but one, `Options`."""
    shown = [flag for flag in flags if not (flag.hidden or flag.missing)]
    shown = [flag for flag in shown if flag.help != "Windows only"]
    if not shown:
        return []
    from teu.cli.help_groups import FLAG_GROUPS

    by_name = {flag.name: flag for flag in shown}
    sections = []
    for title, names in FLAG_GROUPS.get(path, ()):
        members = [by_name.pop(name) for name in names if name in by_name]
        if members:
            sections.append((title, members))
    if by_name:
        sections.append(("More options" if sections else "Options", list(by_name.values())))
    return sections


def flag_usage(flag: Flag) -> tuple[str, str]:
    """`-m, --memory bytes` and what it does.

    A word in backquotes in the row's help names the value, as in Go's flag packages.
    """
    from teu.cli.help_groups import VALUE_NAMES

    text = flag.help
    metavar = flag.metavar or VALUE_NAMES.get(flag.name) or _METAVARS.get(flag.kind, flag.kind)
    if "`" in text:
        before, metavar, after = text.split("`", 2)
        text = before + metavar + after
    if flag.kind == "bool":
        metavar = ""
    if default := _default_text(flag):
        text += f" (default {default})"
    short = f"-{flag.short}, " if flag.short else "    "
    return f"{short}--{flag.name} {metavar}".rstrip(), text


def _default_text(flag: Flag) -> str:
    if flag.default in (None, False, 0, "", -1) or "default" in flag.help:
        return ""
    if flag.kind == "bool":
        return "true"
    return f'"{flag.default}"' if isinstance(flag.default, str) else str(flag.default)


def _flag_lines(flags: Sequence[Flag], widest: int) -> list[str]:
    """Usage and help in two columns. widest: of the usages in all sections."""
    column = widest + 5
    lines = []
    for left, text in map(flag_usage, flags):
        pieces = _wrap(text, _terminal_width() - column)
        lines.append(f"  {left:<{column - 2}}{pieces[0]}".rstrip())
        lines += [" " * column + piece for piece in pieces[1:]]
    return lines


def _wrap(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        candidate = f"{lines[-1]} {word}" if lines[-1] else word
        if len(candidate) <= max(width, 20) or not lines[-1]:
            lines[-1] = candidate
        else:
            lines.append(word)
    return lines


def _terminal_width() -> int:
    try:
        width = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        width = 80
    return min(max(width, _NARROWEST), _WIDEST)
