"""Instructions that change an image's configuration and nothing else.

Used by builds, and by `commit --change` and `import --change`. Source: Dockerfile reference; OCI
image-spec config.md; docker/docker image/spec (Healthcheck, OnBuild, Shell).
"""

import posixpath
import re
from collections.abc import Callable

from teu.dockerfile.errors import DockerfileError
from teu.dockerfile.instructions import Instruction
from teu.dockerfile.words import Expander
from teu.model.config import ContainerConfig, HealthConfig
from teu.units import parse_duration

DEFAULT_SHELL = ["/bin/sh", "-c"]
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(\w+))?")
_PROTOCOLS = ("tcp", "udp", "sctp")
_MILLISECOND_NS = 1_000_000


def configure(config: ContainerConfig, instruction: Instruction, expander: Expander) -> None:
    """Changes `config` in place. Raises: DockerfileError without a position."""
    _CHANGES[instruction.keyword](config, instruction, expander)


def configures(keyword: str) -> bool:
    return keyword in _CHANGES


def command_words(config: ContainerConfig, instruction: Instruction) -> list[str]:
    """The exec form as it is, the shell form behind the image's shell."""
    if instruction.is_json:
        return list(instruction.args)
    return [*(config.shell or DEFAULT_SHELL), *instruction.args]


def joined_directory(current: str, path: str) -> str:
    """WORKDIR: relative to the one before."""
    clean = posixpath.normpath(posixpath.join(current or "/", path))
    return "/" + clean.lstrip("/")


def set_variable(variables: list[str] | None, name: str, value: str) -> list[str]:
    """In place of an earlier one of the same name, else at the end."""
    entry = f"{name}={value}"
    found = list(variables or [])
    for position, known in enumerate(found):
        if known.partition("=")[0] == name:
            found[position] = entry
            return found
    return [*found, entry]


def _cmd(config: ContainerConfig, instruction: Instruction, expander: Expander) -> None:
    config.cmd = command_words(config, instruction) if instruction.args else []


def _entrypoint(config: ContainerConfig, instruction: Instruction, expander: Expander) -> None:
    config.entrypoint = command_words(config, instruction) if instruction.args else []


def _env(config: ContainerConfig, instruction: Instruction, expander: Expander) -> None:
    # All values see the environment as it was before the instruction.
    values = [
        (expander.expand(name), expander.expand(value or "")) for name, value in instruction.pairs
    ]
    for name, value in values:
        config.env = set_variable(config.env, name, value)


def _label(config: ContainerConfig, instruction: Instruction, expander: Expander) -> None:
    labels = dict(config.labels or {})
    for name, value in instruction.pairs:
        labels[expander.expand(name)] = expander.expand(value or "")
    config.labels = labels


def _expose(config: ContainerConfig, instruction: Instruction, expander: Expander) -> None:
    ports = dict(config.exposed_ports or {})
    for word in instruction.args:
        for text in expander.expand_words(word):
            for port in _ports(text):
                ports[port] = {}
    config.exposed_ports = ports


def _ports(text: str) -> list[str]:
    match = _PORT.fullmatch(text.rpartition(":")[2])
    first = int(match[1]) if match else 0
    last = int(match[2] or first) if match else 0
    if match is None or not 0 < first <= last <= 65535:
        raise DockerfileError(f"invalid containerPort: {text}")
    protocol = (match[3] or "tcp").lower()
    if protocol not in _PROTOCOLS:
        raise DockerfileError(f"invalid proto: {protocol}")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _user(config: ContainerConfig, instruction: Instruction, expander: Expander) -> None:
    config.user = expander.expand(instruction.args[0])


def _workdir(config: ContainerConfig, instruction: Instruction, expander: Expander) -> None:
    path = expander.expand(instruction.args[0])
    if not path:
        raise DockerfileError("WORKDIR requires exactly one argument")
    config.working_dir = joined_directory(config.working_dir, path)


def _volume(config: ContainerConfig, instruction: Instruction, expander: Expander) -> None:
    volumes = dict(config.volumes or {})
    for word in instruction.args:
        path = expander.expand(word).strip()
        if not path:
            raise DockerfileError("VOLUME specified can not be an empty string")
        volumes[path] = {}
    config.volumes = volumes


def _on_build(config: ContainerConfig, instruction: Instruction, expander: Expander) -> None:
    text = instruction.args[0]
    for heredoc in instruction.heredocs:
        text += f"\n{heredoc.content}{heredoc.name}"
    config.on_build = [*(config.on_build or []), text]


def _stop_signal(config: ContainerConfig, instruction: Instruction, expander: Expander) -> None:
    config.stop_signal = expander.expand(instruction.args[0])


def _shell(config: ContainerConfig, instruction: Instruction, expander: Expander) -> None:
    config.shell = list(instruction.args)


def _healthcheck(config: ContainerConfig, instruction: Instruction, expander: Expander) -> None:
    if instruction.args[0] == "NONE":
        config.healthcheck = HealthConfig(test=["NONE"])
        return
    health = HealthConfig(test=list(instruction.args), retries=_retries(instruction))
    for name in ("interval", "timeout", "start-period", "start-interval"):
        if instruction.flag(name):
            setattr(health, name.replace("-", "_"), _nanoseconds(name, instruction.flag(name)))
    config.healthcheck = health


def _retries(instruction: Instruction) -> int:
    text = instruction.flag("retries", "0")
    if not text.lstrip("+-").isdigit():
        raise DockerfileError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    if int(text) < 0:
        raise DockerfileError("--retries cannot be negative")
    return int(text)


def _nanoseconds(name: str, text: str) -> int:
    try:
        found = round(parse_duration(text) * 1e9)
    except ValueError as error:
        raise DockerfileError(str(error)) from None
    if found < 0:
        raise DockerfileError(f"interval {name!r} cannot be negative")
    if 0 < found < _MILLISECOND_NS:
        raise DockerfileError(f"interval {name!r} cannot be less than 1ms")
    return found


_CHANGES: dict[str, Callable[[ContainerConfig, Instruction, Expander], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
