"""The steps of a stage: what is left of instructions once everything is substituted.

A step that changes files has a key of its own and makes at most one layer; `Note` changes the
configuration only. All of a stage's steps are known before the first one runs.
"""

from msgspec import Struct, field

from teu.dockerfile.errors import Span
from teu.model.config import ContainerConfig
from teu.model.image import Image, Platform

PIPES_DIRECTORY = "/dev/pipes"  # where scripts of heredocs are


class Origin(Struct, frozen=True):
    """Where files come from: the build context (all empty), a stage, an image, a named context."""

    stage: int | None = None
    image: str = ""
    context: str = ""

    @property
    def is_context(self) -> bool:
        return self.stage is None and not self.image


class Mount(Struct, frozen=True, kw_only=True):
    """One `RUN --mount`. Modes and ids are None where the type's default holds."""

    type: str
    target: str = ""
    source: str = ""
    origin: Origin = Origin()
    id: str = ""
    sharing: str = "shared"
    read_only: bool = False
    size_bytes: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    required: bool = False
    env: str = ""


class Step(Struct, kw_only=True):
    """What all steps have. `number` counts from 1 over the whole build; `name` is for people;
    `history` is `created_by`."""

    stage: int
    number: int = 0
    name: str
    history: str
    span: Span
    config: ContainerConfig  # as it is after the step
    triggered: bool = False


class Note(Step, kw_only=True):
    """Changes nothing but the configuration."""


class Run(Step, kw_only=True):
    """A command. `env` is complete, build arguments included; `secret_env` names variables that
    come from secrets. `keyed_env` leaves out what must not change the cache (proxies)."""

    args: list[str]
    shown: str
    env: list[str]
    keyed_env: list[str]
    user: str
    directory: str
    mounts: list[Mount] = field(default_factory=list)
    network: str = ""
    insecure: bool = False
    scripts: dict[str, str] = field(default_factory=dict)  # name below /dev/pipes -> content


class Inline(Struct, frozen=True):
    """A file whose content stands in the Dockerfile."""

    name: str
    content: str


class Copy(Step, kw_only=True):
    """COPY and ADD. `destination` is absolute; a slash at its end is kept. `unpack` None: archives
    of the context are unpacked, remote ones are not (ADD); COPY never does."""

    sources: list[str]
    destination: str
    origin: Origin = Origin()
    inline: list[Inline] = field(default_factory=list)
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    excludes: list[str] = field(default_factory=list)
    is_add: bool = False
    unpack: bool | None = None
    checksum: str = ""
    keep_git_dir: bool = False


class MakeDirectory(Step, kw_only=True):
    """WORKDIR: makes what is missing of `path`."""

    path: str


class Base(Struct, kw_only=True):
    """What a stage stands on: an image, another stage, or nothing (`scratch`)."""

    name: str
    image: Image | None = None
    stage: int | None = None


class StagePlan(Struct, kw_only=True):
    """A stage whose every instruction is resolved. `config` is the result's."""

    index: int
    name: str
    title: str  # the FROM line
    span: Span
    base: Base
    platform: Platform
    steps: list[Step]
    config: ContainerConfig
    author: str = ""
    number: int = 0
