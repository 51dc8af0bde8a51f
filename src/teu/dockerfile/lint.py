"""What is allowed in a Dockerfile but mostly a mistake: BuildKit's rules, by their names.

Source: Docker documentation, "Build checks". `# check=skip=RULE,RULE` (or `all`) leaves rules out,
`error=true` makes a build with warnings fail.
"""

import re
from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

from teu.dockerfile.errors import DockerfileError, Span
from teu.dockerfile.instructions import Instruction
from teu.dockerfile.lines import Line
from teu.dockerfile.stages import Dockerfile, Stage
from teu.dockerfile.words import Expander

RULES_URL = "https://docs.docker.com/go/dockerfile/rule/"
_SECRET = re.compile(
    r"(?:^|_)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)",
    re.IGNORECASE,
)
_PUBLIC = re.compile(r"(?:^|_)public(?:_|$)|_?(?:file|path|dir|url|name|id)$", re.IGNORECASE)
_RESERVED = frozenset(("scratch", "context"))
_PLATFORM_ARGS = frozenset(("$TARGETPLATFORM", "${TARGETPLATFORM}"))
_EXPANDED = frozenset(
    ("ADD", "COPY", "ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")
)
_ONLY_ONE = ("CMD", "ENTRYPOINT", "HEALTHCHECK")
BaseVariables = Callable[[str], Mapping[str, str] | None]


class Finding(Struct, frozen=True):
    """One finding."""

    rule: str
    text: str
    span: Span

    @property
    def url(self) -> str:
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", self.rule)
        return f"{RULES_URL}{words.lower()}/"


class Checks(Struct, frozen=True):
    """The `check` directive."""

    skipped: frozenset[str] = frozenset()
    fails: bool = False


def read_checks(dockerfile: Dockerfile) -> Checks:
    text = dockerfile.source.directives.get("check", "")
    words = dict(word.strip().partition("=")[::2] for word in text.split(";") if word.strip())
    skipped = frozenset(rule.strip().lower() for rule in words.get("skip", "").split(","))
    return Checks(skipped - {""}, words.get("error", "").lower() == "true")


def lint(dockerfile: Dockerfile, base_variables: BaseVariables) -> list[Finding]:
    """All findings, in the order of lines. `base_variables`: the environment of a base image, None
    where it is not known (then nothing is said about undefined variables)."""
    skipped = read_checks(dockerfile).skipped
    if "all" in skipped:
        return []
    found = [
        *_lines(dockerfile.source.lines),
        *_stages(dockerfile),
        *_instructions(dockerfile),
        *_variables(dockerfile, base_variables),
    ]
    kept = {warning for warning in found if warning.rule.lower() not in skipped}
    return sorted(kept, key=lambda warning: (warning.span.start, warning.rule))


def is_secret_name(name: str) -> bool:
    """Whether a variable's name says that its value should not be in an image."""
    return bool(_SECRET.search(name)) and not _PUBLIC.search(name)


# --- how it is written ------------------------------------------------------------------


def _lines(lines: tuple[Line, ...]) -> Iterator[Finding]:
    upper = sum(line.keyword.isupper() for line in lines)
    lower = sum(line.keyword.islower() for line in lines)
    for line in lines:
        if line.empty_continuation:
            yield Finding("NoEmptyContinuation", "Empty continuation line", line.span)
        word = "uppercase" if upper >= lower else "lowercase"
        wanted = line.keyword.upper() if upper >= lower else line.keyword.lower()
        if line.keyword != wanted:
            yield Finding(
                "ConsistentInstructionCasing",
                f"Command '{line.keyword}' should match the case of the command majority ({word})",
                line.span,
            )
        if line.keyword.upper() == "FROM":
            yield from _from_line(line)


def _from_line(line: Line) -> Iterator[Finding]:
    words = line.rest.split()
    as_words = [word for word in words if word.upper() == "AS"]
    if as_words and as_words[0].isupper() != line.keyword.isupper():
        yield Finding(
            "FromAsCasing",
            f"'{as_words[0]}' and '{line.keyword}' keywords' casing do not match",
            line.span,
        )
    name = words[-1] if as_words else ""
    if name != name.lower():
        yield Finding("StageNameCasing", f"Stage name '{name}' should be lowercase", line.span)


def _stages(dockerfile: Dockerfile) -> Iterator[Finding]:
    seen: set[str] = set()
    for stage in dockerfile.stages:
        if stage.name and stage.name in seen:
            yield Finding(
                "DuplicateStageName",
                f'Duplicate stage name "{stage.name}", stage names should be unique',
                stage.span,
            )
        if stage.name in _RESERVED:
            yield Finding(
                "ReservedStageName",
                f'Stage name should not use the same name as reserved stage "{stage.name}"',
                stage.span,
            )
        seen.add(stage.name)
        if stage.platform in _PLATFORM_ARGS:
            yield Finding(
                "RedundantTargetPlatform",
                f"Setting platform to predefined {stage.platform} in FROM is redundant as this is "
                "the default behavior",
                stage.span,
            )
        elif stage.platform and "$" not in stage.platform and len(dockerfile.stages) == 1:
            yield Finding(
                "FromPlatformFlagConstDisallowed",
                f'FROM --platform flag should not use constant value "{stage.platform}"',
                stage.span,
            )


# --- what it does -----------------------------------------------------------------------


def _instructions(dockerfile: Dockerfile) -> Iterator[Finding]:
    for stage in dockerfile.stages:
        last: dict[str, Instruction] = {}
        has_workdir = False
        for instruction in stage.instructions:
            keyword = instruction.keyword
            if keyword in _ONLY_ONE and keyword in last:
                yield Finding(
                    "MultipleInstructionsDisallowed",
                    f"Multiple {keyword} instructions should not be used in the same stage because "
                    "only the last one will be used",
                    last[keyword].span,
                )
            last[keyword] = instruction
            if keyword == "WORKDIR":
                if not has_workdir and instruction.args[0][0] not in "/$\"'":
                    yield Finding(
                        "WorkdirRelativePath",
                        f'Relative workdir "{instruction.args[0]}" can have unexpected results if '
                        "the base image changes",
                        instruction.span,
                    )
                has_workdir = True
            yield from _one(instruction, has_shell="SHELL" in last)


def _one(instruction: Instruction, *, has_shell: bool) -> Iterator[Finding]:
    span, keyword = instruction.span, instruction.keyword
    is_shell_form = bool(instruction.args) and not instruction.is_json
    if keyword in ("CMD", "ENTRYPOINT") and is_shell_form and not has_shell:
        yield Finding(
            "JSONArgsRecommended",
            f"JSON arguments recommended for {keyword} to prevent unintended behavior related "
            "to OS signals",
            span,
        )
    if keyword == "MAINTAINER":
        yield Finding(
            "MaintainerDeprecated",
            "Maintainer instruction is deprecated in favor of using label",
            span,
        )
    if keyword in ("ENV", "LABEL") and "=" not in instruction.rest.split()[0]:
        yield Finding(
            "LegacyKeyValueFormat",
            f'"{keyword} key=value" should be used instead of legacy "{keyword} key value" format',
            span,
        )
    if keyword in ("ENV", "ARG"):
        for name, _ in instruction.pairs:
            if is_secret_name(name):
                yield Finding(
                    "SecretsUsedInArgOrEnv",
                    f'Do not use ARG or ENV instructions for sensitive data ({keyword} "{name}")',
                    span,
                )
    if keyword == "EXPOSE":
        yield from _ports(instruction)


def _ports(instruction: Instruction) -> Iterator[Finding]:
    for word in instruction.args:
        protocol = word.partition("/")[2]
        if protocol != protocol.lower():
            yield Finding(
                "ExposeProtoCasing",
                f"Defined protocol '{word}' in EXPOSE instruction should be lowercase",
                instruction.span,
            )
        if ":" in word:
            yield Finding(
                "ExposeInvalidFormat",
                f"EXPOSE instruction should not define an IP address or host-port mapping, found "
                f"'{word}'",
                instruction.span,
            )


# --- variables --------------------------------------------------------------------------


def _variables(dockerfile: Dockerfile, base_variables: BaseVariables) -> Iterator[Finding]:
    from_args = {name: value or "" for one in dockerfile.global_args for name, value in one.pairs}
    known_globals = {*from_args, *_predefined("BUILD"), *_predefined("TARGET")}
    known: dict[int, set[str] | None] = {}
    for stage in dockerfile.stages:
        expander = Expander(from_args, dockerfile.source.escape)
        base = _expanded(expander, stage.base)
        _expanded(expander, stage.platform)
        for name in sorted(expander.missing - known_globals):
            yield Finding(
                "UndefinedArgInFrom",
                f"FROM argument '{name}' is not declared",
                stage.span,
            )
        if base is not None and not re.sub(r":$", "", base) and not expander.missing:
            yield Finding(
                "InvalidDefaultArgInFrom",
                f"Default value for ARG {stage.base} results in empty or invalid base image name",
                stage.span,
            )
        names = _base_names(dockerfile, stage, base or "", known, base_variables)
        known[stage.index] = names
        if names is not None:
            yield from _undefined(stage, names, dockerfile.source.escape)


def _predefined(prefix: str) -> set[str]:
    return {f"{prefix}{word}" for word in ("PLATFORM", "OS", "ARCH", "VARIANT", "STAGE")}


def _expanded(expander: Expander, text: str) -> str | None:
    try:
        return expander.expand(text)
    except DockerfileError:
        return None


def _base_names(
    dockerfile: Dockerfile,
    stage: Stage,
    base: str,
    known: Mapping[int, set[str] | None],
    base_variables: BaseVariables,
) -> set[str] | None:
    index = dockerfile.stage_index(base, before=stage.index)
    if index is not None:
        names = known.get(index)
        return None if names is None else set(names)
    if base == "scratch":
        return {"PATH"}
    variables = base_variables(base)
    return None if variables is None else {*variables, "PATH"}


def _undefined(stage: Stage, names: set[str], escape: str) -> Iterator[Finding]:
    """Adds to `names` what the stage declares."""
    for instruction in stage.instructions:
        if instruction.keyword in _EXPANDED:
            expander = Expander(dict.fromkeys(names, "x"), escape)
            for word in (*instruction.args, *(value or "" for _, value in instruction.pairs)):
                _expanded(expander, word)
            for name in sorted(expander.missing):
                yield Finding(
                    "UndefinedVar",
                    f"Usage of undefined variable '${name}'",
                    instruction.span,
                )
        if instruction.keyword in ("ARG", "ENV"):
            names.update(name for name, _ in instruction.pairs)
