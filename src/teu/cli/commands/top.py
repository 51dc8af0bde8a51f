"""`top`."""

from __future__ import annotations

from teu.cli.commands.lifecycle import escape
from teu.cli.grammar import Command, Options
from teu.cli.session import Session


def top(session: Session, _options: Options, words: list[str]) -> int:
    """Prints the container's processes; further words are options of ps(1)."""
    path = f"/containers/{escape(words[0])}/top"
    answer = session.client.get(path, {"ps_args": " ".join(words[1:]) or None})
    from teu.cli.tables import tabulate

    rows = [answer["Titles"], *(answer["Processes"] or ())]
    text = "".join("\t".join(row) + "\n" for row in rows)
    session.out(tabulate(text, minimum=20, padding=3))
    return 0


COMMANDS = {
    "container top": Command(top, "CONTAINER [ps OPTIONS]", args=(1, None), interspersed=False),
}
