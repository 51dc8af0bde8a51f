"""Differences from Docker 20.10 that are right, and flags that no line needs, with the reasons."""

import re
import shlex
from collections.abc import Iterable
from typing import Any

from parity.commands import Command

_AGE = "Docker 20.10 does not know it yet"
_NEWER = "Docker's texts have changed since 20.10"
_CHANCE = "Docker's order is chance"
_HOST = "the machine: the peer's runtime cannot do it here"
_PATH = "our message says more"

# (regular expression on the line, reason): lines whose whole answer may differ.
KNOWN: list[tuple[str, str]] = [
    (r"--annotation |--mac-address|--tree|--platform linux|--gw-priority|--ipv4", _AGE),
    (r"start-interval", _AGE),
    (r"--detach-keys nosuch|volume prune .*-a|volume (update|create --type|create --group)", _AGE),
    (r"network create (--ipv6|--scope|--config|--ingress|--ipam)|checkpoint", _AGE),
    (r"--restart nosuch|--log-driver nosuch|--runtime nosuch|--ip 192\.0\.2\.1|--isolation nosuch",
     _NEWER),
    (r"--dns 192.0.2.1", "20.10 writes the search list first"),
    (r"--privileged|--cpu-rt-period", _HOST),
    (r"range \.Mounts", _CHANCE),
    (r"--volume-driver nosuch", "20.10's 404 makes the client pull the image first"),
    (r"--storage-opt|--pull|load .*text|load -q|nosuchimage|pull nosuch|/nosuch/image", _PATH),
    (r"made:one", "without network, each says it its own way"),
    (r"/etc/passwd$", "crun does not name the file"),
    (r"exec .*(nosuchcommand|/nosuch)", "127, as `run` has it, since Docker 25"),
    (r"^exec --privileged", _HOST),
    (r"^inspect -f .*ExitCode.* cc$", "API 1.41 ignores the signal of a stop"),
    (r"^diff ", "the order of siblings"),
    (r"^cp .* -$", "our archives have times to the nanosecond"),
    (r"^cp (text|folder) cc:/(nosuch|d/f)", "the client reports its own broken upload, or not"),
    (r"^rm cc$|^rm -l|^rename dd b/d|^ps -f health", _NEWER),
    (r"^attach .*kk$", "the container may have ended already"),
    (r"^stats --no-stream cc$", "how much memory a process has"),
    (r"-P|NetworkSettings\.Ports", "20.10 also publishes on the host's IPv6 addresses"),
]  # fmt: skip

# 20.10's words and runc's, as they are said today: (pattern, replacement) on both sides.
REWORDED = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"failed to create (shim task|task for container): ", ""),
        (r"runc create failed: ", ""),
        (r": unknown\b", ""),
        (r"(?<=from daemon: )[A-Z](?=[a-z])", lambda match: match[0].lower()),
        (r"no such image: (\S+): No such image", "no such image"),
    )
]


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

_TWINS = {
    ("container", "create"): ("container", "run"),
    ("container", "run"): ("container", "create"),
}  # the same flags in the same code


def reason_of(line: str, expected: Any, said: Any) -> str:
    """Why a difference is right; empty when it is not."""
    if _today(expected) == _today(said):
        return _NEWER
    for pattern, reason in KNOWN:
        if re.search(pattern, line):
            return reason
    return ""


def _today(said: Any) -> tuple[int, str, str]:
    out, err = said.out, said.err
    for pattern, replacement in REWORDED:
        out, err = pattern.sub(replacement, out), pattern.sub(replacement, err)
    return said.code, out, err


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
        if name in _TWINS:
            flags = flags | used.get(_TWINS[name], set())
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
