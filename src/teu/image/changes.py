"""Dockerfile instructions that change an image's config (`import --change`, `commit --change`).

Source: Dockerfile reference; moby dockerfile/dispatchers.go, daemon/commit.go (which ones).
"""

from collections.abc import Iterable

import msgspec

from teu.dockerfile.configure import configure, configures
from teu.dockerfile.errors import DockerfileError
from teu.dockerfile.instructions import Instruction, parse_instruction
from teu.dockerfile.lines import read_source
from teu.dockerfile.words import Expander
from teu.errors import InvalidParameter
from teu.model.config import ContainerConfig

_NOT_ALLOWED = frozenset(("SHELL",))


def apply_changes(config: ContainerConfig, changes: Iterable[str]) -> ContainerConfig:
    """A changed copy. Raises: InvalidParameter, naming the instruction."""
    config = msgspec.convert(msgspec.to_builtins(config), ContainerConfig)
    for text in changes:
        if not text.strip():
            continue
        try:
            for instruction in _instructions(text):
                variables = (entry.partition("=") for entry in config.env or [])
                configure(config, instruction, Expander({n: v for n, _, v in variables}))
        except DockerfileError as error:
            raise InvalidParameter(f"{text.strip()}: {error.problem}") from error
    return config


def _instructions(text: str) -> Iterable[Instruction]:
    for line in read_source(text.encode()).lines:
        keyword = line.keyword.upper()
        if not configures(keyword) or keyword in _NOT_ALLOWED:
            raise InvalidParameter(f"{keyword} is not a valid change command")
        yield parse_instruction(line)
