"""Which files make a project, and what they may refer to: the environment, other files.

Source: docker compose v2, "--file", "COMPOSE_FILE", "COMPOSE_PROJECT_NAME", ".env".
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping

from msgspec import Struct, field

from teu.compose.environment import parse_env
from teu.compose.errors import ComposeError

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
STDIN = "-"


class Asked(Struct, kw_only=True):
    """What the command line and the environment say about the project."""

    files: list[str] = []
    name: str = ""
    directory: str = ""
    env_files: list[str] = []
    profiles: list[str] = []
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    warn: Callable[[str], None] = lambda _: None


class Base(Struct, kw_only=True):
    """Where everything relative starts. `files`: absolute, or STDIN."""

    directory: str
    files: list[str]
    environment: dict[str, str]


def locate(asked: Asked) -> Base:
    """Raises: ComposeError when there is no file, or a file of variables is wrong."""
    files = asked.files or _from_environment(asked.environment)
    first = "" if not files or files[0] == STDIN else os.path.dirname(os.path.abspath(files[0]))
    start = os.path.abspath(asked.directory or first or os.getcwd())
    environment = dict(asked.environment)
    for path in asked.env_files or _dot_env(start):
        values = parse_env(read(path), path, environment, asked.warn)
        for name, value in values.items():
            if value is not None:
                environment.setdefault(name, value)
    files = files or _from_environment(environment) or _search(start)
    if not asked.directory and files[0] != STDIN:
        start = os.path.dirname(os.path.abspath(files[0]))
    absolute = [file if file == STDIN else os.path.abspath(file) for file in files]
    return Base(directory=start, files=absolute, environment=environment)


def read(path: str) -> str:
    """Raises: ComposeError."""
    try:
        if path == STDIN:
            return sys.stdin.read()
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ComposeError(f"{path}: not UTF-8 text") from error
    except OSError as error:
        raise ComposeError(f"open {path}: {(error.strerror or '').lower()}") from error


def project_name(asked: Asked, base: Base, written: str) -> str:
    """By `-p`, COMPOSE_PROJECT_NAME, `name:` of the files, or the directory.

    Raises: ComposeError for a name that was given and is none.
    """
    given = asked.name or base.environment.get("COMPOSE_PROJECT_NAME", "") or written
    if given:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", given):
            raise ComposeError(
                f'invalid project name "{given}": must consist only of lowercase alphanumeric '
                "characters, hyphens, and underscores as well as start with a letter or number"
            )
        return given
    name = re.sub(r"[^a-z0-9_-]", "", os.path.basename(base.directory).lower()).lstrip("_-")
    if not name:
        raise ComposeError("project name must not be empty: give one with -p")
    return name


def _from_environment(environment: Mapping[str, str]) -> list[str]:
    separator = environment.get("COMPOSE_PATH_SEPARATOR", os.pathsep)
    return [file for file in environment.get("COMPOSE_FILE", "").split(separator) if file]


def _dot_env(directory: str) -> list[str]:
    path = os.path.join(directory, ".env")
    return [path] if os.path.isfile(path) else []


def _search(directory: str) -> list[str]:
    """The nearest file in this directory or one above it, and its override."""
    current = directory
    while True:
        for name in NAMES:
            path = os.path.join(current, name)
            if os.path.isfile(path):
                return [path, *_override(current, name)]
        above = os.path.dirname(current)
        if above == current:
            raise ComposeError("no configuration file provided: not found")
        current = above


def _override(directory: str, name: str) -> list[str]:
    stem = name.rpartition(".")[0]
    for ending in ("yml", "yaml"):
        path = os.path.join(directory, f"{stem}.override.{ending}")
        if os.path.isfile(path):
            return [path]
    return []
