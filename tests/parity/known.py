"""Differences from Docker 20.10 that are right, and flags that no line needs, with the reasons."""

import re
import shlex
from collections.abc import Iterable
from typing import Any

from parity.commands import Command

# (regular expression on the line, reason)
KNOWN: list[tuple[str, str]] = []

NOT_RUN = {
    "build": "the builder has its own tests",
    "builder": "the builder has its own tests",
}
SHORT_FORMS = {
    "ps": "container ls", "images": "image ls", "rmi": "image rm", "history": "image history",
    "import": "image import", "load": "image load", "save": "image save", "tag": "image tag",
    "pull": "image pull", "push": "image push", "events": "system events", "info": "system info",
    "image remove": "image rm",
}  # fmt: skip
_CONTAINER = """
    attach commit cp create diff exec export kill logs pause port rename restart rm run start stats
    stop top unpause update wait
"""
CONTAINER = frozenset(_CONTAINER.split())


def reason_of(setup: str, line: str, expected: Any, said: Any) -> str:
    """Why a difference is right; empty when it is not."""
    for pattern, reason in KNOWN:
        if re.search(pattern, line):
            return reason
    return ""


def uncovered(commands: Iterable[Command], lines: Iterable[str]) -> list[str]:
    """`COMMAND --flag` of what no line uses."""
    used: dict[tuple[str, ...], set[str]] = {}
    for line in lines:
        words = shlex.split(line.removeprefix("- "))
        name = canonical(words)
        flags = used.setdefault(name, set())
        for word in words:
            if word.startswith("--"):
                flags.add(word.partition("=")[0])
            elif re.fullmatch(r"-[A-Za-z]+", word):
                flags.update(f"-{letter}" for letter in word[1:])
    missing = []
    for command in commands:
        name = canonical(command.words)
        if name[0] in NOT_RUN or name == ("image", "build"):
            continue
        flags = used.get(name)
        if flags is None:
            missing.append(" ".join(name))
            continue
        shorts = dict((long, short) for short, long in command.short)
        if name == ("container", "create"):  # the same flags
            flags = flags | used.get(("container", "run"), set())
        missing += [
            f"{' '.join(name)} {flag}"
            for flag in command.flags
            if flag not in flags and shorts.get(flag) not in flags
        ]
    return sorted(set(missing))


def canonical(words: Iterable[str]) -> tuple[str, ...]:
    """The long form of a command's name."""
    words = list(words)
    if words[0] in CONTAINER:
        return ("container", words[0])
    pair = " ".join(words[:2])
    if words[0] in SHORT_FORMS:
        return tuple(SHORT_FORMS[words[0]].split())
    if pair in SHORT_FORMS:
        return tuple(SHORT_FORMS[pair].split())
    grouped = ("container", "image", "volume", "network", "system", "context", "builder")
    return tuple(words[:2]) if words[0] in grouped else (words[0],)
