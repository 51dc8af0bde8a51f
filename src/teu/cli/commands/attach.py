"""`attach`."""

from __future__ import annotations

import os

from teu.cli.commands.lifecycle import escape
from teu.cli.grammar import Command, Flag, Options
from teu.cli.session import Failure, Session


def attach(session: Session, options: Options, names: list[str]) -> int:
    """Joins the streams of a running container; its exit status becomes ours."""
    info = session.client.get(f"/containers/{escape(names[0])}/json")
    state, config = info["State"], info["Config"]
    if not state["Running"]:
        raise Failure("You cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise Failure("You cannot attach to a paused container, unpause it first")
    if state["Restarting"]:
        raise Failure("You cannot attach to a restarting container, wait until it is running")
    stdin = not options.flag("no-stdin") and config["OpenStdin"]
    if stdin and config["Tty"] and not os.isatty(0):
        raise Failure("the input device is not a TTY")
    from teu.cli.foreground import ContainerFront

    front = ContainerFront(
        session,
        info["Id"],
        tty=config["Tty"],
        stdin=stdin,
        detach_keys=options.text("detach-keys"),
    )
    return front.join(proxy=options.flag("sig-proxy") and not config["Tty"])


COMMANDS = {
    "container attach": Command(
        attach,
        "[OPTIONS] CONTAINER",
        args=(1, 1),
        flags=(
            Flag("detach-keys", "", "string", "Keys that detach from the container"),
            Flag("no-stdin", "", "bool", "Do not attach STDIN"),
            Flag("sig-proxy", "", "bool", "Hand signals on to the container", default=True),
        ),
    ),
}
