"""Manual pages from the command tables: `python -m teu.cli.manpage DIRECTORY`."""

from __future__ import annotations

import os
import sys

from teu import __version__
from teu.cli.commands import Row
from teu.cli.grammar import Command, Flag
from teu.cli.help import ABOUT, existing_rows, flag_usage, grouped, spellings
from teu.cli.main import GLOBAL_FLAGS, load


def command_page(row: Row, command: Command) -> str:
    """The page of one command."""
    name = "teu-" + row[0].replace(" ", "-")
    usage = command.usage_line(f"teu {row[0]}").removeprefix("teu ")
    parts = [_head(name, row[4]), ".SH SYNOPSIS", f".B teu\n{_roff(usage)}", ".SH DESCRIPTION"]
    parts.append(_roff(command.long or row[4] + "."))
    names = spellings(row)
    if len(names) > 1:
        also = ", ".join(f"\\fBteu {_roff(other)}\\fR" for other in names[1:])
        parts.append(f".PP\nAlso called {also}.")
    for title, flags in grouped(row[0], command.flags):
        parts += [f".SH {_roff(title.upper())}", *map(_flag, flags)]
    parts.append(".SH SEE ALSO\n.BR teu (1)")
    return "\n".join(parts) + "\n"


def program_page(rows: list[Row]) -> str:
    """The page of the program itself."""
    parts = [_head("teu", ABOUT), ".SH SYNOPSIS\n.B teu\n[OPTIONS] COMMAND", ".SH COMMANDS"]
    for row in rows:
        name = row[0].replace(" ", "-")
        parts.append(f".TP\n.BR teu-{_roff(name)} (1)\n{_roff(row[4])}")
    parts += [".SH OPTIONS", *map(_flag, GLOBAL_FLAGS)]
    parts.append(
        ".SH ENVIRONMENT\n.TP\n.B TEU_HOST, DOCKER_HOST\nAddress of the daemon's socket.\n"
        ".TP\n.B DOCKER_CONTEXT\nContext to use.\n"
        ".TP\n.B DOCKER_CONFIG\nDirectory of the client's files, instead of ~/.docker."
    )
    return "\n".join(parts) + "\n"


def _head(name: str, summary: str) -> str:
    title = f'.TH "{name.upper()}" "1" "" "teu {__version__}" "teu"'
    return f"{title}\n.SH NAME\n{_roff(name)} \\- {_roff(summary)}"


def _flag(flag: Flag) -> str:
    usage, text = flag_usage(flag)
    return f".TP\n\\fB{_roff(usage.strip())}\\fR\n{_roff(text)}"


def _roff(text: str) -> str:
    """Plain text as roff input."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    escaped = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in escaped)
    lines = escaped.split("\n")
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in lines)


def write_pages(directory: str) -> list[str]:
    """Writes all pages; returns their file names. Raises: OSError."""
    os.makedirs(directory, exist_ok=True)
    rows = [row for row in existing_rows() if load(row) is not None]
    pages = {"teu.1": program_page(rows)}
    for row in rows:
        command = load(row)
        assert command is not None
        pages[f"teu-{row[0].replace(' ', '-')}.1"] = command_page(row, command)
    for name, text in pages.items():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(text)
    return sorted(pages)


if __name__ == "__main__":
    write_pages(sys.argv[1])
