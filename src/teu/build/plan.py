"""From instructions to steps: variables substituted, configuration followed, origins resolved.

Stages are planned in order, only those that the target needs. Base images are asked for here (their
configuration decides what variables mean), so all that can be wrong with a Dockerfile is found
before the first step runs.
"""

import json
import posixpath
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Struct, field

from teu.build.mounts import parse_mount
from teu.build.request import BuildRequest
from teu.build.scope import Arguments, platform_arguments
from teu.build.steps import (
    PIPES_DIRECTORY,
    Base,
    Copy,
    Inline,
    MakeDirectory,
    Mount,
    Note,
    Origin,
    Run,
    StagePlan,
    Step,
)
from teu.dockerfile.configure import command_words, configure, joined_directory
from teu.dockerfile.errors import DockerfileError
from teu.dockerfile.instructions import Instruction
from teu.dockerfile.lines import Heredoc, is_heredoc
from teu.dockerfile.stages import Dockerfile, Stage, parse_triggers
from teu.dockerfile.words import Expander
from teu.errors import EngineError, InvalidParameter
from teu.image.platform import host_platform, parse_platform
from teu.model.config import ContainerConfig
from teu.model.image import Image, Platform
from teu.runtime.processes import DEFAULT_PATH

SCRATCH = "scratch"
IMAGE_CONTEXT = "docker-image://"
BaseImages = Callable[[str, Platform], Awaitable[Image]]


class BuildPlan(Struct):
    """`stages` by index: those the target needs. `total` counts FROM lines and instructions."""

    stages: dict[int, StagePlan]
    target: int
    total: int
    warnings: list[str] = field(default_factory=list)


class Planner:
    """One build for one platform."""

    def __init__(
        self,
        dockerfile: Dockerfile,
        request: BuildRequest,
        platform: Platform,
        base_image: BaseImages,
    ) -> None:
        self.dockerfile = dockerfile
        self.request = request
        self.platform = platform
        self.base_image = base_image
        self.escape = dockerfile.source.escape
        self.target = dockerfile.target_index(request.target)
        stage_name = dockerfile.stages[self.target].name or "default"
        self.arguments = Arguments(
            request.build_args, platform_arguments(platform, host_platform(), stage_name)
        )
        self.plans: dict[int, StagePlan] = {}
        self.scopes: dict[int, dict[str, str]] = {}
        self.total = 0

    async def plan(self) -> BuildPlan:
        """Raises: DockerfileError, InvalidParameter; what asking for base images raises."""
        self.arguments.declare_globals(self.dockerfile.global_args, self.escape)
        for index in sorted(self._needed()):
            stage = self.dockerfile.stages[index]
            self.plans[index] = await _StagePlanner(self, stage).plan()
        warnings = []
        if unused := self.arguments.unconsumed():
            warnings.append(
                f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed"
            )
        return BuildPlan(self.plans, self.target, self.total, warnings)

    def next_number(self) -> int:
        self.total += 1
        return self.total

    def origin(self, ref: str, stage: Stage) -> Origin:
        """What `--from=` or `from=` means: a named context, an earlier stage, an image."""
        named = self.request.contexts.get(ref.lower())
        if named is not None:
            image = named.removeprefix(IMAGE_CONTEXT)
            return Origin(image=image) if image != named else Origin(context=ref.lower())
        index = self.dockerfile.stage_index(ref, before=stage.index)
        if index is not None:
            return Origin(stage=index)
        if ref.isdigit() or (stage.name and ref.lower() == stage.name):
            raise DockerfileError(f"invalid from flag value {ref}: it is no stage before this one")
        return Origin(image=ref)

    def base_of(self, stage: Stage) -> str:
        """The FROM line's name, substituted. Raises: DockerfileError."""
        name = Expander(self.arguments.globals, self.escape).expand(stage.base)
        if not name:
            raise DockerfileError(f"base name ({stage.base}) should not be blank", stage.span)
        named = self.request.contexts.get(name.lower())
        if named is None:
            return name
        if not named.startswith(IMAGE_CONTEXT):
            raise DockerfileError(
                f"context {name!r} is a directory, and FROM needs an image: use "
                f"{IMAGE_CONTEXT}NAME",
                stage.span,
            )
        return named.removeprefix(IMAGE_CONTEXT)

    def base_stage(self, stage: Stage, name: str) -> int | None:
        """By name only: a number is an image."""
        if name.isdigit() or stage.base.lower() in self.request.contexts:
            return None
        return self.dockerfile.stage_index(name, before=stage.index)

    def _needed(self) -> set[int]:
        wanted, needed = [self.target], set[int]()
        while wanted:
            index = wanted.pop()
            if index in needed:
                continue
            needed.add(index)
            stage = self.dockerfile.stages[index]
            base = self.base_stage(stage, self.base_of(stage))
            wanted += [] if base is None else [base]
            found = (self._from(ref, stage) for ref in _references(stage))
            wanted += [other for other in found if other is not None]
        return needed

    def _from(self, ref: str, stage: Stage) -> int | None:
        if ref.lower() in self.request.contexts:
            return None
        return self.dockerfile.stage_index(ref, before=stage.index)


def _references(stage: Stage) -> list[str]:
    """What the instructions of a stage name with `--from=` and `from=`."""
    found: list[str] = []
    for instruction in stage.instructions:
        found += instruction.flags.get("from", ())
        for mount in instruction.flags.get("mount", ()):
            found += [w.partition("=")[2] for w in mount.split(",") if w.startswith("from=")]
    return found


class _StagePlanner:
    def __init__(self, owner: Planner, stage: Stage) -> None:
        self._owner = owner
        self._stage = stage
        self._arguments: dict[str, str] = {}
        self._config = ContainerConfig()
        self._steps: list[Step] = []
        self._author = ""
        self._cmd_given = False

    async def plan(self) -> StagePlan:
        owner, stage = self._owner, self._stage
        number = owner.next_number()
        base, platform = await self._base()
        triggers, self._config.on_build = self._config.on_build or [], None
        for instruction in [*parse_triggers(triggers, stage.span), *stage.instructions]:
            try:
                self._instruction(instruction)
            except DockerfileError as error:
                raise DockerfileError(error.problem, error.span or instruction.span) from None
        owner.scopes[stage.index] = self._arguments
        return StagePlan(
            index=stage.index,
            name=stage.name,
            title=stage.text,
            span=stage.span,
            base=base,
            platform=platform,
            steps=self._steps,
            config=self._config,
            author=self._author,
            number=number,
        )

    # --- FROM -----------------------------------------------------------------------------

    async def _base(self) -> tuple[Base, Platform]:
        owner, stage = self._owner, self._stage
        name = owner.base_of(stage)
        platform = self._platform()
        index = owner.base_stage(stage, name)
        if index is not None:
            below = owner.plans[index]
            self._config = _copied(below.config)
            self._arguments = dict(owner.scopes[index])
            self._author = below.author
            return Base(name=name, stage=index), below.platform
        if name == SCRATCH:
            self._config = ContainerConfig(env=[f"PATH={DEFAULT_PATH}"], working_dir="/")
            return Base(name=name), platform
        try:
            image = await owner.base_image(name, platform)
        except EngineError as error:
            error.add_note(str(stage.span))
            raise
        self._config = _copied(image.config.config)
        self._author = image.config.author
        return Base(name=name, image=image), image.config.platform

    def _platform(self) -> Platform:
        raw = self._stage.platform
        if not raw:
            return self._owner.platform
        text = Expander(self._owner.arguments.globals, self._owner.escape).expand(raw)
        try:
            return parse_platform(text) if text else self._owner.platform
        except InvalidParameter as error:
            raise DockerfileError(
                f"failed to parse platform {text}: {error}", self._stage.span
            ) from None

    # --- instructions ---------------------------------------------------------------------

    def _expander(self) -> Expander:
        return Expander(self._variables(), self._owner.escape)

    def _variables(self) -> dict[str, str]:
        env = (entry.partition("=") for entry in self._config.env or [])
        return {**self._arguments, **{name: value for name, _, value in env}}

    def _instruction(self, instruction: Instruction) -> None:
        match instruction.keyword:
            case "RUN":
                step: Step = self._run(instruction)
            case "COPY" | "ADD":
                step = self._copy(instruction)
            case "ARG":
                step = self._arg(instruction)
            case "MAINTAINER":
                self._author = instruction.args[0]
                step = self._note(instruction)
            case _:
                step = self._configured(instruction)
        step.number = self._owner.next_number()
        step.triggered = instruction.triggered
        self._steps.append(step)

    def _note(self, instruction: Instruction) -> Note:
        return Note(**self._common(instruction, instruction.text))

    def _common(self, instruction: Instruction, history: str) -> dict[str, Any]:
        return {
            "stage": self._stage.index,
            "name": instruction.text,
            "history": history,
            "span": instruction.span,
            "config": _copied(self._config),
        }

    def _arg(self, instruction: Instruction) -> Note:
        shown = []
        for name, default in instruction.pairs:
            value = self._owner.arguments.declare(name, default, self._expander())
            if value is not None:
                self._arguments[name] = value
            shown.append(name if value is None else f"{name}={value}")
        return Note(**self._common(instruction, f"ARG {' '.join(shown)}"))

    def _configured(self, instruction: Instruction) -> Step:
        configure(self._config, instruction, self._expander())
        keyword = instruction.keyword
        if keyword == "CMD":
            self._cmd_given = True
        if keyword == "ENTRYPOINT" and not self._cmd_given:
            self._config.cmd = None  # the base image's would be its arguments
        if keyword == "WORKDIR":
            path = self._config.working_dir
            return MakeDirectory(**self._common(instruction, f"WORKDIR {path}"), path=path)
        history = instruction.text
        if keyword in ("CMD", "ENTRYPOINT"):
            words = self._config.cmd if keyword == "CMD" else self._config.entrypoint
            history = f"{keyword} {json.dumps(words)}"
        return Note(**self._common(instruction, history))

    # --- RUN ------------------------------------------------------------------------------

    def _run(self, instruction: Instruction) -> Run:
        args, scripts = self._command(instruction)
        mounts = [self._mount(text) for text in instruction.flags.get("mount", ())]
        config = self._config
        env = list(config.env or [])
        names = {entry.partition("=")[0] for entry in env}
        arguments = [f"{n}={v}" for n, v in sorted(self._arguments.items()) if n not in names]
        proxies = [f"{n}={v}" for n, v in sorted(self._owner.arguments.proxies().items())]
        shown = " ".join(args)
        prefix = f"|{len(arguments)} {' '.join(arguments)} " if arguments else ""
        return Run(
            **self._common(instruction, f"RUN {prefix}{shown}"),
            args=args,
            shown=shown,
            env=[*env, *arguments, *proxies],
            keyed_env=[*env, *arguments],
            user=config.user,
            directory=config.working_dir or "/",
            mounts=_numbered_agents(mounts),
            network=self._network(instruction),
            insecure=self._insecure(instruction),
            scripts=scripts,
        )

    def _command(self, instruction: Instruction) -> tuple[list[str], dict[str, str]]:
        """What to run; scripts of heredocs that name their own interpreter."""
        if instruction.is_json or not instruction.heredocs:
            return command_words(self._config, instruction), {}
        shell = command_words(self._config, _without_args(instruction))
        line = instruction.args[0]
        first = instruction.heredocs[0]
        if is_heredoc(line.strip()):
            if first.content.startswith("#!"):
                return [*shell, f"{PIPES_DIRECTORY}/{first.name}"], {first.name: first.content}
            return [*shell, first.content], {}
        for heredoc in instruction.heredocs:
            line += f"\n{heredoc.content}{heredoc.name}"
        return [*shell, line], {}

    def _mount(self, text: str) -> Mount:
        directory = self._config.working_dir or "/"
        expanded = self._expander().expand(text)
        return parse_mount(expanded, directory, lambda ref: self._owner.origin(ref, self._stage))

    def _network(self, instruction: Instruction) -> str:
        network = instruction.flag("network", "default")
        if network not in ("default", "none", "host"):
            raise DockerfileError(f"invalid value {network!r} for --network: default, none or host")
        if network == "host" and not self._allowed("network.host"):
            raise DockerfileError(
                "granting entitlement network.host is not allowed by build daemon configuration: "
                "allow it with --allow network.host"
            )
        return "" if network == "default" else network

    def _insecure(self, instruction: Instruction) -> bool:
        security = instruction.flag("security", "sandbox")
        if security not in ("sandbox", "insecure"):
            raise DockerfileError(f'security "{security}" is not valid: sandbox or insecure')
        if security == "insecure" and not self._allowed("security.insecure"):
            raise DockerfileError(
                "granting entitlement security.insecure is not allowed by build daemon "
                "configuration: allow it with --allow security.insecure"
            )
        return security == "insecure"

    def _allowed(self, entitlement: str) -> bool:
        return entitlement in self._owner.request.allow

    # --- COPY, ADD ------------------------------------------------------------------------

    def _copy(self, instruction: Instruction) -> Copy:
        expander = self._expander()
        *sources, destination = [expander.expand(word) for word in instruction.args]
        inline = [_inline(heredoc, expander) for heredoc in instruction.heredocs]
        raw = instruction.args[:-1]
        paths = [s for s, word in zip(sources, raw, strict=True) if not is_heredoc(word)]
        if instruction.is_json:
            paths, inline = sources, []
        if len(paths) + len(inline) > 1 and not destination.endswith("/") and destination != ".":
            raise DockerfileError(
                f"When using {instruction.keyword} with more than one source file, the destination "
                "must be a directory and end with a /"
            )
        ref = instruction.flag("from")
        unpack = instruction.flag("unpack")
        shown = " ".join([*paths, *(f"<<{one.name}" for one in inline), destination])
        return Copy(
            **self._common(instruction, f"{instruction.keyword} {shown}"),
            sources=paths,
            destination=self._destination(destination),
            origin=self._owner.origin(ref, self._stage) if ref else Origin(),
            inline=inline,
            chown=expander.expand(instruction.flag("chown")),
            chmod=expander.expand(instruction.flag("chmod")),
            link=instruction.is_set("link"),
            parents=instruction.is_set("parents"),
            excludes=[expander.expand(one) for one in instruction.flags.get("exclude", ())],
            is_add=instruction.keyword == "ADD",
            unpack=unpack == "true" if unpack else None,
            checksum=expander.expand(instruction.flag("checksum")),
            keep_git_dir=instruction.is_set("keep-git-dir"),
        )

    def _destination(self, text: str) -> str:
        if not text:
            raise DockerfileError("COPY destination is empty")
        path = joined_directory(self._config.working_dir, text)
        is_directory = text.endswith(("/", "/.")) or text == "."
        return path.rstrip("/") + "/" if is_directory else path


def _inline(heredoc: Heredoc, expander: Expander) -> Inline:
    content = heredoc.content
    return Inline(heredoc.name, expander.expand_raw(content) if heredoc.expand else content)


def _without_args(instruction: Instruction) -> Instruction:
    return msgspec.structs.replace(instruction, args=())


def _numbered_agents(mounts: list[Mount]) -> list[Mount]:
    """SSH agents without a target get one each."""
    found, number = [], 0
    for mount in mounts:
        changed: dict[str, str] = {}
        if mount.type == "ssh" and not mount.target:
            changed["target"] = f"/run/buildkit/ssh_agent.{number}"
            number += 1
        elif mount.type == "secret" and not mount.id:
            changed["id"] = mount.env or posixpath.basename(mount.target)
        found.append(msgspec.structs.replace(mount, **changed))
    return found


def _copied(config: ContainerConfig) -> ContainerConfig:
    return msgspec.convert(msgspec.to_builtins(config), ContainerConfig)
