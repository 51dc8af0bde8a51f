"""Which paths of its context a Dockerfile can read, as far as the text alone tells."""

from collections.abc import Callable

from teu.dockerfile.instructions import Instruction
from teu.dockerfile.lines import is_heredoc
from teu.dockerfile.stages import Dockerfile, Stage, parse_dockerfile

_UNKNOWN = "$"
_WILD = "*?[\\"


def needed_paths(
    data: bytes, name: str, target: str, may_trigger: Callable[[str], bool]
) -> list[str] | None:
    """Directories and files below which everything may be read; None for the whole context.

    `may_trigger`: whether a base image may have ONBUILD instructions, which may read anything.

    Raises: DockerfileError, InvalidParameter (target).
    """
    dockerfile = parse_dockerfile(data, name)
    found: set[str] = set()
    for index in _needed(dockerfile, dockerfile.target_index(target)):
        stage = dockerfile.stages[index]
        is_stage = dockerfile.stage_index(stage.base, before=index) is not None
        if not is_stage and stage.base != "scratch" and may_trigger(stage.base):
            return None
        for path in _paths(stage):
            if not path:
                return None
            found.add(path)
    return sorted(found)


def _needed(dockerfile: Dockerfile, target: int) -> set[int]:
    """Stages that may be needed: where a name is not known yet, all before."""
    wanted, needed = [target], set[int]()
    while wanted:
        index = wanted.pop()
        if index in needed:
            continue
        needed.add(index)
        stage = dockerfile.stages[index]
        references = [stage.base]
        for instruction in stage.instructions:
            references += instruction.flags.get("from", ())
            for mount in instruction.flags.get("mount", ()):
                references += [w[5:] for w in mount.split(",") if w.startswith("from=")]
        for reference in references:
            if _UNKNOWN in reference:
                return set(range(target + 1))
            found = dockerfile.stage_index(reference, before=index)
            wanted += [] if found is None else [found]
    return needed


def _paths(stage: Stage) -> list[str]:
    found: list[str] = []
    for instruction in stage.instructions:
        match instruction.keyword:
            case "COPY" | "ADD":
                found += _copied(instruction)
            case "RUN":
                for mount in instruction.flags.get("mount", ()):
                    found += _mounted(mount)
            case "ONBUILD":
                found.append("")
    return found


def _copied(instruction: Instruction) -> list[str]:
    if instruction.flag("from"):
        return []
    local = (s for s in instruction.args[:-1] if "://" not in s and not is_heredoc(s))
    return [_fixed(source) for source in local]


def _mounted(mount: str) -> list[str]:
    words = dict(word.partition("=")[::2] for word in mount.split(","))
    if words.get("type", "bind") != "bind" or words.get("from"):
        return []
    return [_fixed(words.get("source") or words.get("src") or "")]


def _fixed(source: str) -> str:
    """The part of a pattern in front of its first wildcard or variable; "" is everything."""
    parts: list[str] = []
    for part in source.strip("\"'").split("/"):
        if part == ".." or any(letter in part for letter in _WILD + _UNKNOWN):
            break
        if part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
