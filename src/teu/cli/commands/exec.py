"""`exec`."""

from __future__ import annotations

import os

from teu.cli.commands.lifecycle import escape
from teu.cli.grammar import Command, Flag, Options
from teu.cli.session import Failure, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def execute(session: Session, options: Options, words: list[str]) -> int:
    """Runs a command in a container; in the foreground its exit status becomes ours."""
    tty, stdin = options.flag("tty"), options.flag("interactive")
    detach = options.flag("detach")
    if not detach and tty and stdin and not os.isatty(0):
        raise Failure("the input device is not a TTY")
    client = session.client
    path = f"/containers/{escape(words[0])}/exec"
    body = _exec_body(session, options, words[1:])
    exec_id = client.post(path, body=body)["Id"]
    if detach:
        client.post(f"/exec/{exec_id}/start", body={"Detach": True, "Tty": tty})
        return 0
    from teu.cli.foreground import ExecFront

    front = ExecFront(session, exec_id, tty=tty, stdin=stdin, detach_keys=body["DetachKeys"])
    return front.supervise(body.get("ConsoleSize"))


def _exec_body(session: Session, options: Options, command: list[str]) -> dict[str, Any]:
    detach = options.flag("detach")
    body: dict[str, Any] = {
        "User": options.text("user"),
        "Privileged": options.flag("privileged"),
        "Tty": options.flag("tty"),
        "AttachStdin": options.flag("interactive") and not detach,
        "AttachStderr": not detach,
        "AttachStdout": not detach,
        "Detach": detach,
        "DetachKeys": options.text("detach-keys") or session.config.text("detachKeys"),
        "Env": _environment(options) or None,
        "WorkingDir": options.text("workdir"),
        "Cmd": command,
    }
    if options.flag("tty"):
        from teu.cli.terminal import size

        body["ConsoleSize"] = list(size())
    return body


def _environment(options: Options) -> list[str]:
    files = options.texts("env-file")
    if not files:
        return options.texts("env")
    from teu.cli.container_rare import read_files

    try:
        return read_files(files, "env", inherit=True) + options.texts("env")
    except ValueError as error:
        raise Failure(str(error)) from error


COMMANDS = {
    "container exec": Command(
        execute,
        "[OPTIONS] CONTAINER COMMAND [ARG...]",
        args=(2, None),
        interspersed=False,
        flags=(
            Flag("detach", "d", "bool", "Run in the background"),
            Flag("detach-keys", "", "string", "Keys that detach from the command"),
            Flag("env", "e", "list", "Set an environment variable", check="env"),
            Flag("env-file", "", "list", "Read environment variables from a file"),
            Flag("interactive", "i", "bool", "Keep STDIN open even if not attached"),
            Flag("privileged", "", "bool", "Give the command all capabilities"),
            Flag("tty", "t", "bool", "Give the command a terminal"),
            Flag("user", "u", "string", "User name or id (<name|uid>[:<group|gid>])"),
            Flag("workdir", "w", "string", "Working directory inside"),
        ),
    ),
}
