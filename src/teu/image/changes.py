"""Dockerfile instructions that change an image's config (`import --change`, `commit --change`).

Source: Dockerfile reference; moby dockerfile/dispatchers.go, daemon/commit.go (which ones).
"""

import json
import re
import shlex
from collections.abc import Callable, Iterable

import msgspec

from teu.errors import InvalidParameter
from teu.model.config import ContainerConfig, HealthConfig
from teu.units import parse_duration

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?")
_SHELL = ["/bin/sh", "-c"]
_OPTION = re.compile(r"--([a-z-]+)=(\S+)\s*")


def apply_changes(config: ContainerConfig, changes: Iterable[str]) -> ContainerConfig:
    """A changed copy. Raises: InvalidParameter, naming the instruction."""
    config = msgspec.convert(msgspec.to_builtins(config), ContainerConfig)
    for line in changes:
        for change in filter(None, map(str.strip, line.splitlines())):
            word, _, rest = change.partition(" ")
            apply = _INSTRUCTIONS.get(word.upper())
            if apply is None:
                raise InvalidParameter(f"{word.upper()} is not a valid change command")
            try:
                apply(config, rest.strip())
            except ValueError as error:
                raise InvalidParameter(f"{change}: {error}") from error
    return config


def _words_or_shell(config: ContainerConfig, text: str) -> list[str]:
    """The exec form (a JSON array of strings), else the shell form."""
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
    return [*(config.shell or _SHELL), text]


def _cmd(config: ContainerConfig, text: str) -> None:
    config.cmd = _words_or_shell(config, text)


def _entrypoint(config: ContainerConfig, text: str) -> None:
    config.entrypoint = _words_or_shell(config, text) if text and text != "[]" else []


def _pairs(text: str) -> list[tuple[str, str]]:
    """`K=V K2="V 2"`, or the old form `K V`."""
    if not text:
        raise ValueError("at least one argument is needed")
    first = text.split(None, 1)
    if "=" not in first[0]:
        if len(first) < 2:
            raise ValueError("it needs two arguments")
        return [(first[0], first[1])]
    found = []
    for word in shlex.split(text):
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ValueError(f"{word!r} is not NAME=VALUE")
        found.append((name, value))
    return found


def _env(config: ContainerConfig, text: str) -> None:
    for name, value in _pairs(text):
        kept = [item for item in config.env or [] if item.partition("=")[0] != name]
        config.env = [*kept, f"{name}={value}"]


def _label(config: ContainerConfig, text: str) -> None:
    config.labels = {**(config.labels or {}), **dict(_pairs(text))}


def _expose(config: ContainerConfig, text: str) -> None:
    ports = dict(config.exposed_ports or {})
    for word in text.split():
        match = _PORT.fullmatch(word)
        if not match or not 0 < int(match[1]) <= int(match[2] or match[1]) <= 65535:
            raise ValueError(f"invalid containerPort: {word}")
        for port in range(int(match[1]), int(match[2] or match[1]) + 1):
            ports[f"{port}/{match[3] or 'tcp'}"] = {}
    config.exposed_ports = ports


def _user(config: ContainerConfig, text: str) -> None:
    if len(text.split()) != 1:
        raise ValueError("it needs exactly one argument")
    config.user = text


def _workdir(config: ContainerConfig, text: str) -> None:
    if not text:
        raise ValueError("it needs exactly one argument")
    base = "/" if text.startswith("/") else (config.working_dir or "/").rstrip("/") + "/"
    config.working_dir = base.rstrip("/") + "/" + text.strip("/") if text != "/" else "/"


def _volume(config: ContainerConfig, text: str) -> None:
    paths = _words_or_shell(config, text)[0:] if text.startswith("[") else text.split()
    if not paths or not all(path.strip() for path in paths):
        raise ValueError("VOLUME specified can not be an empty string")
    config.volumes = {**(config.volumes or {}), **{path: {} for path in paths}}


def _on_build(config: ContainerConfig, text: str) -> None:
    word = text.partition(" ")[0].upper()
    if word in ("", "ONBUILD", "FROM", "MAINTAINER"):
        raise ValueError(f"{word or 'nothing'} isn't allowed as an ONBUILD trigger")
    config.on_build = [*(config.on_build or []), text]


def _stop_signal(config: ContainerConfig, text: str) -> None:
    if len(text.split()) != 1:
        raise ValueError("it needs exactly one argument")
    config.stop_signal = text


def _healthcheck(config: ContainerConfig, text: str) -> None:
    options = {}
    while match := _OPTION.match(text):
        options[match[1]] = match[2]
        text = text[match.end() :]
    word, _, rest = text.partition(" ")
    if word.upper() == "NONE":
        config.healthcheck = HealthConfig(test=["NONE"])
        return
    if word.upper() != "CMD" or not rest.strip():
        raise ValueError(f"unknown type {word!r} in HEALTHCHECK (try CMD)")
    rest = rest.strip()
    words = _words_or_shell(config, rest)
    test = ["CMD", *words] if rest.startswith("[") else ["CMD-SHELL", rest]
    health = HealthConfig(test=test, retries=int(options.pop("retries", "0")))
    for name in ("interval", "timeout", "start-period", "start-interval"):
        if name in options:
            nanos = int(parse_duration(options.pop(name)) * 1e9)
            setattr(health, name.replace("-", "_"), nanos)
    if options:
        raise ValueError(f"unknown flag: --{next(iter(options))}")
    config.healthcheck = health


_INSTRUCTIONS: dict[str, Callable[[ContainerConfig, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
