"""Transcripts: the same command lines on several set-ups, and what differs.

A file below `lines/` holds scenarios, `## NAME`, each a list of command lines without the name of
the program. `{image}` and the like are filled in; ` < FILE` and ` > FILE` are in the scenario's
directory; a line that begins with `- ` is run, but not compared. Each set-up runs a scenario from a
clean engine; of each line exit code, output and errors are compared, with chance masked.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

LINES = Path(__file__).with_name("lines")


@dataclass(frozen=True)
class Scenario:
    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """One command line: its words, and where its input and output are."""

    words: tuple[str, ...]
    compared: bool
    stdin: str = ""
    stdout: str = ""


def scenarios() -> list[Scenario]:
    """All of them, in the order of the files."""
    return [one for path in sorted(LINES.glob("*.txt")) for one in _of_file(path)]


def _of_file(path: Path) -> Iterator[Scenario]:
    for part in re.split(r"^## ", path.read_text(), flags=re.MULTILINE)[1:]:
        name, *lines = part.splitlines()
        kept = [line for line in lines if line.strip() and not line.startswith("#")]
        yield Scenario(name.strip(), tuple(kept))


def parse(text: str, values: Mapping[str, str]) -> Line:
    """A line of a scenario with its places filled in."""
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    compared = not text.startswith("- ")
    words = shlex.split(text.removeprefix("- "))
    files = {"<": "", ">": ""}
    for sign in files:
        if sign in words:
            at = words.index(sign)
            files[sign] = words[at + 1]
            del words[at : at + 2]
    return Line(tuple(words), compared, files["<"], files[">"])


# --- what is left to chance ----------------------------------------------------------------------

_MASKS = [
    (re.compile(pattern, re.MULTILINE), mask)
    for pattern, mask in (
        (r"\x1b\[[0-9;?]*[A-Za-z]", ""),
        (r"sha256:[0-9a-f]{64}", "DIGEST"),
        (r"\b[0-9a-f]{64}\b", "ID"),
        (r"\b(?=[0-9a-f]*\d)[0-9a-f]{12}\b", "ID"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?[+-]\d\d:?\d\d)?( UTC|Z)?", "TIME"),
        (r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) \w+ +\d+ [\d:]+ \w+ \d{4}", "TIME"),
        (r"\b(Less than a|About a|About an|\d+) (second|minute|hour|day|week|month|year)s?( ago)?",
         "AGE"),
        (r"\b10\.14\d\.\d+\.\d+(/\d+)?", "ADDRESS"),
        (r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b", "MAC"),
        (r"/tmp/tt\w+", "ROOT"),
        (r"\b\d+(\.\d+)? ?[kKMGT]i?B\b|\b\d+B\b", "SIZE"),
        (r"\b\d+(\.\d+)?%", "PERCENT"),
        (r"\d+ +(?=sleep)", "PID "),
        (r"127\.0\.0\.1:\d{4,5}", "REGISTRY"),
    )
]  # fmt: skip


def masked(text: str, values: Mapping[str, str]) -> str:
    """Without ids, times, addresses, sizes and the set-up's own places; one blank for many."""
    for name in ("dir", "registry", "host", "net"):
        text = text.replace(values[name], name.upper())
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    lines = [re.sub(r"[ \t]+", " ", line).strip() for line in text.replace("\r", "\n").split("\n")]
    return "\n".join(line for line in lines if line)
