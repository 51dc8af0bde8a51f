"""`start`: in the background for any number of containers, or attached to one."""

from __future__ import annotations

from teu.cli.commands.lifecycle import escape
from teu.cli.grammar import Command, Flag, Options
from teu.cli.session import Failure, Session


def start(session: Session, options: Options, names: list[str]) -> int:
    for flag in ("checkpoint", "checkpoint-dir"):
        if options.changed(flag):
            where = "on a Docker daemon with experimental features enabled"
            raise Failure(f'"--{flag}" is only supported {where}')
    if options.flag("attach") or options.flag("interactive"):
        if len(names) > 1:
            raise Failure("you cannot start and attach multiple containers at once")
        return _start_attached(session, options, names[0])
    return _start_all(session, names)


def _start_all(session: Session, names: list[str]) -> int:
    """Starts one after the other; says what failed as it happens, and sums up at the end."""
    failed = []
    for name in names:
        try:
            session.client.post(f"/containers/{escape(name)}/start")
            session.out(name + "\n")
        except Failure as failure:
            session.err(f"{failure}\n")
            failed.append(name)
    if failed:
        raise Failure(f"Error: failed to start containers: {', '.join(failed)}")
    return 0


def _start_attached(session: Session, options: Options, name: str) -> int:
    info = session.client.get(f"/containers/{escape(name)}/json")
    config = info["Config"]
    from teu.cli.foreground import ContainerFront

    front = ContainerFront(
        session,
        info["Id"],
        tty=config["Tty"],
        stdin=options.flag("interactive") and config["OpenStdin"],
        detach_keys=options.text("detach-keys"),
    )
    removed = (info.get("HostConfig") or {}).get("AutoRemove")
    proxy = not config["Tty"]
    return front.supervise("removed" if removed else "next-exit", proxy=proxy)


COMMANDS = {
    "container start": Command(
        start,
        "[OPTIONS] CONTAINER [CONTAINER...]",
        args=(1, None),
        flags=(
            Flag("attach", "a", "bool", "Attach STDOUT/STDERR and hand signals on"),
            Flag("checkpoint", "", "string", "Start from this checkpoint", hidden=True),
            Flag("checkpoint-dir", "", "string", "Directory of checkpoints", hidden=True),
            Flag("detach-keys", "", "string", "Keys that detach from the container"),
            Flag("interactive", "i", "bool", "Attach STDIN"),
        ),
    ),
}
