"""The project that a command line names, and the commands that are put together of others."""

from __future__ import annotations

import os

from teu.cli.session import Failure
from teu.compose import project as projects
from teu.compose.errors import ComposeError
from teu.compose.files import Asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from teu.cli.session import Session
    from teu.compose.project import Project

COMPOSE_STATUS = 15  # as docker compose ends for a file that is wrong


def load(session: Session, services: Sequence[str] = ()) -> Project:
    """The project of the files; the named services are active whatever their profiles.

    Raises: Failure that names file and line, or a service that is not there.
    """
    try:
        project = projects.load(asked(session))
        projects.enable(project, list(services))
    except ComposeError as error:
        raise Failure(str(error), COMPOSE_STATUS) from error
    for name in services:
        if name not in project.services:
            raise Failure(f"no such service: {name}")
    return project


def asked(session: Session) -> Asked:
    """What the flags of `compose` and the environment say."""
    options = session.group
    assert options is not None
    told: set[str] = set()

    def warn(text: str) -> None:
        if text not in told:
            told.add(text)
            session.err(f"WARN[0000] {text}\n")

    return Asked(
        files=options.texts("file"),
        name=options.text("project-name"),
        directory=options.text("project-directory"),
        env_files=options.texts("env-file"),
        profiles=options.texts("profile"),
        environment=dict(os.environ),
        warn=warn,
    )


def name_only(session: Session) -> str:
    """The project's name, for commands that work without its files. Raises: Failure."""
    options = session.group
    assert options is not None
    if name := options.text("project-name"):
        return name
    return load(session).name


def run_command(session: Session, path: str, words: list[str]) -> int:
    """Another command of this program, as if it had been typed: `container exec`."""
    from teu.cli.commands import find
    from teu.cli.main import run_row

    row, _, _ = find(path.split())
    assert row is not None
    return run_row(session, row, words)
