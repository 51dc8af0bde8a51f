"""Help texts, made from the same rows that drive the parser."""

from __future__ import annotations

from collections.abc import Sequence

from teu.cli.commands import GROUPS, TABLE, find
from teu.cli.grammar import Command, Flag
from teu.cli.main import GLOBAL_FLAGS, load
from teu.cli.session import Failure

_METAVARS = {"bool": "", "uint16": "uint16", "int64": "int"}


def help_text(program: str, path: list[str]) -> str:
    """Help of a command, a group, or (empty path) the program. Raises: Failure when unknown."""
    if not path:
        return _program_help(program)
    row, typed, _ = find(path)
    if row is not None:
        command = load(row)
        if command is None:
            raise Failure(f"{program}: '{program} {typed}' is not implemented yet")
        return _command_help(f"{program} {typed}", row[4], command)
    if not typed:
        raise Failure(f"unknown help topic: {' '.join(path)}")
    lines = [f"Usage:  {program} {typed} COMMAND", "", dict(GROUPS)[typed], "", "Commands:"]
    prefix = typed + " "
    rows = [(row[0].removeprefix(prefix), row[4]) for row in TABLE if row[0].startswith(prefix)]
    lines += [f"  {name:<12}{summary}" for name, summary in rows]
    return "\n".join(lines) + "\n"


def _program_help(program: str) -> str:
    lines = [f"Usage:  {program} [OPTIONS] COMMAND", "", "Commands:"]
    lines += [f"  {row[1] or row[0]:<12}{row[4]}" for row in TABLE if row[1] or " " not in row[0]]
    lines += ["", "Management Commands:"]
    lines += [f"  {name:<12}{summary}" for name, summary in GROUPS]
    return "\n".join([*lines, "", "Global Options:", *_flag_lines(GLOBAL_FLAGS)]) + "\n"


def _command_help(path: str, summary: str, command: Command) -> str:
    lines = [f"Usage:  {command.usage_line(path)}", "", command.long or summary]
    if command.flags:
        lines += ["", "Options:", *_flag_lines(command.flags)]
    return "\n".join(lines) + "\n"


def _flag_lines(flags: Sequence[Flag]) -> list[str]:
    rows = []
    for flag in flags:
        short = f"-{flag.short}, " if flag.short else "    "
        metavar = flag.metavar or _METAVARS.get(flag.kind, flag.kind)
        rows.append((f"  {short}--{flag.name} {metavar}".rstrip(), flag.help))
    width = max(len(left) for left, _ in rows) + 3
    return [f"{left:<{width}}{text}" for left, text in rows]
