"""Docker's commands and their flags, as its client describes them."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

SWARM = frozenset(["config", "node", "secret", "service", "stack", "swarm"])
OTHERS = frozenset(["plugin", "trust", "checkpoint", "buildx", "compose", "scout", "manifest"])
_COMMAND = re.compile(r"^  ([a-z-]+)\*? {2,}\S")
_FLAG = re.compile(r"^ {2,6}(?:(-[A-Za-z]), )?(--[a-z0-9-]+)")


@dataclass(frozen=True)
class Command:
    """`words`: ("container", "run"). `flags`: their long forms."""

    words: tuple[str, ...]
    flags: tuple[str, ...]
    short: tuple[tuple[str, str], ...]  # (short, long)


def all_commands(docker: str) -> list[Command]:
    """Every command outside of swarm and plugins, found by asking for help."""
    return list(_below(docker, ()))


def _below(docker: str, words: tuple[str, ...]) -> Iterator[Command]:
    told = subprocess.run(
        [docker, *words, "--help"], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    sections = re.split(r"^(\S.*):$", told, flags=re.MULTILINE)
    names = [
        match[1]
        for title, body in zip(sections[1::2], sections[2::2], strict=True)
        if "Commands" in title
        for line in body.splitlines()
        if (match := _COMMAND.match(line))
    ]
    if words and not names:
        found = [match for line in told.splitlines() if (match := _FLAG.match(line))]
        yield Command(
            words,
            tuple(match[2] for match in found if match[2] != "--help"),
            tuple((match[1], match[2]) for match in found if match[1]),
        )
    for name in names:
        if name not in SWARM | OTHERS and len(words) < 2:
            yield from _below(docker, (*words, name))
