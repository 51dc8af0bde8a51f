"""What a client asks of one build, independent of how it was said (query, session, flags)."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec import Struct, field

from teu.build.keptcontext import KeptContext
from teu.model.config import Ulimit


class Limits(Struct, kw_only=True):
    """For every RUN step. Memory in bytes, CPU as in the API."""

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    shm_size: int = 0
    ulimits: list[Ulimit] = field(default_factory=list)
    cgroup_parent: str = ""
    security_opt: list[str] = field(default_factory=list)


class Export(Struct, kw_only=True):
    """One `--output`. `type`: image, docker, oci, tar, local, registry."""

    type: str
    options: dict[str, str] = field(default_factory=dict)


class BuildRequest(Struct, kw_only=True):
    """`dockerfile` is a path inside the context; with `dockerfile_text` it is only its name.

    `build_args`: None takes the value from nowhere, which leaves the default.
    `source_date_epoch`: seconds; None leaves times as they are.
    """

    tags: list[str] = field(default_factory=list)
    remote: str = ""  # a URL to build from instead of what the client sends
    dockerfile: str = "Dockerfile"
    dockerfile_text: bytes | None = None
    target: str = ""
    platforms: list[str] = field(default_factory=list)
    build_args: dict[str, str | None] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    no_cache: bool = False
    no_cache_filter: list[str] = field(default_factory=list)
    cache_from: list[str] = field(default_factory=list)
    cache_to: list[str] = field(default_factory=list)
    pull: bool = False
    quiet: bool = False
    squash: bool = False
    network: str = ""
    extra_hosts: list[str] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)
    exports: list[Export] = field(default_factory=list)
    contexts: dict[str, str] = field(default_factory=dict)  # named contexts: name -> what
    allow: list[str] = field(default_factory=list)  # entitlements: network.host, security.insecure
    auths: dict[str, dict[str, str]] = field(default_factory=dict)  # by registry
    source_date_epoch: int | None = None
    check: bool = False
    explain: bool = False


async def unhindered() -> None:
    """A client that is never behind."""


class Inputs(Struct):
    """What a build reads besides images: the context's directory, secrets by id (in memory only),
    agents' sockets by id, directories of named contexts. `is_filtered`: what the ignore file leaves
    out is not in the context. `flow` waits while the client is behind with reading."""

    context: Path | None = None
    secrets: dict[str, bytes] = field(default_factory=dict)
    agents: dict[str, Path] = field(default_factory=dict)
    named: dict[str, Path] = field(default_factory=dict)
    is_filtered: bool = False
    kept: list[KeptContext] = field(default_factory=list)
    flow: Callable[[], Awaitable[None]] = unhindered
