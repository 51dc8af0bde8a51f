"""A Dockerfile as stages: which there are, which a target needs.

ARG …            global arguments, for the FROM lines
FROM base AS a   stage 0
FROM a           stage 1, needs stage 0
"""

import re
from collections.abc import Iterator

from msgspec import Struct, field

from teu.dockerfile.errors import DockerfileError, Span
from teu.dockerfile.instructions import Instruction, parse_instruction
from teu.dockerfile.lines import Source, read_source
from teu.errors import InvalidParameter

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")


class Stage(Struct):
    """`name` in lower case; `base` and `platform` still raw."""

    index: int
    base: str
    span: Span
    text: str
    name: str = ""
    platform: str = ""
    instructions: list[Instruction] = field(default_factory=list)


class Dockerfile(Struct):
    """`name` is for messages."""

    source: Source
    global_args: list[Instruction]
    stages: list[Stage]
    name: str = "Dockerfile"

    def stage_index(self, ref: str, before: int | None = None) -> int | None:
        """The stage that a FROM or `--from` means: by name (the last one wins), or by number."""
        limit = len(self.stages) if before is None else before
        for stage in reversed(self.stages[:limit]):
            if stage.name and stage.name == ref.lower():
                return stage.index
        if ref.isdigit() and int(ref) < limit:
            return int(ref)
        return None

    def target_index(self, target: str) -> int:
        """The last stage, or the one that `--target` names. Raises: InvalidParameter."""
        if not target:
            return len(self.stages) - 1
        found = self.stage_index(target)
        if found is None:
            raise InvalidParameter(f"target stage {target!r} could not be found")
        return found


def parse_dockerfile(data: bytes, name: str = "Dockerfile") -> Dockerfile:
    """Raises: DockerfileError."""
    source = read_source(data)
    found = Dockerfile(source, [], [], name)
    for line in source.lines:
        instruction = parse_instruction(line, source.escape)
        if instruction.keyword == "FROM":
            found.stages.append(_stage(instruction, len(found.stages)))
        elif found.stages:
            found.stages[-1].instructions.append(instruction)
        elif instruction.keyword == "ARG":
            found.global_args.append(instruction)
        else:
            raise DockerfileError("no build stage in current context", instruction.span)
    if not found.stages:
        raise DockerfileError("no build stage in current context", source.lines[-1].span)
    return found


def parse_triggers(texts: list[str], span: Span) -> Iterator[Instruction]:
    """The instructions that a base image's ONBUILD asks for, as if they stood at `span`."""
    for text in texts:
        source = read_source(text.encode())
        for line in source.lines:
            parsed = parse_instruction(line, source.escape)
            yield Instruction(
                **{
                    name: getattr(parsed, name)
                    for name in Instruction.__struct_fields__
                    if name not in ("span", "triggered")
                },
                span=span,
                triggered=True,
            )


def _stage(instruction: Instruction, index: int) -> Stage:
    base, *names = instruction.args
    name = names[0].lower() if names else ""
    if name and not _STAGE_NAME.fullmatch(name):
        raise DockerfileError(
            f'invalid name for build stage: "{names[0]}", name can\'t start with a number or '
            "contain symbols",
            instruction.span,
        )
    return Stage(
        index=index,
        base=base,
        span=instruction.span,
        text=instruction.text,
        name=name,
        platform=instruction.flag("platform"),
    )
