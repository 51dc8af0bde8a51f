"""`builder shell`: look at what was there before a build step failed."""

from __future__ import annotations

import os

from teu.cli.grammar import Command, Options, Parser
from teu.cli.session import Session


def shell(session: Session, _options: Options, words: list[str]) -> int:
    """A shell with the failed step's files, environment, user and directory; the last failure's
    without an id."""
    from teu.cli.commands import run

    query = {"id": words[0] if words else None}
    entered = session.client.post("/build/failures", query)
    session.err(f"the step that failed here: {entered['Command']}\n")
    terminal = ["-it"] if os.isatty(0) and os.isatty(1) else ["-i"]
    command = run.COMMANDS["container run"]
    parser = Parser(command.flags, interspersed=command.interspersed)
    arguments = parser.parse(["--rm", *terminal, "--entrypoint", "/bin/sh", entered["Id"]])
    session.options = parser.options
    try:
        return command.run(session, parser.options, arguments)
    finally:
        session.client.delete(f"/images/{entered['Id']}", {"force": True})


COMMANDS = {"builder shell": Command(shell, "[ID]", args=(0, 1))}
