"""`run` and `create`."""

from __future__ import annotations

import os

from teu.cli.client import DaemonError
from teu.cli.container_config import create_body
from teu.cli.grammar import Command, Options
from teu.cli.run_flags import CREATE_FLAGS, RUN_FLAGS, WINDOWS_FLAGS
from teu.cli.session import Failure, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENGINE_STATUS = 125
NOT_EXECUTABLE_STATUS = 126
NOT_FOUND_STATUS = 127
_NOT_FOUND = ("executable file not found", "no such file or directory")
_NOT_EXECUTABLE = ("permission denied", "is a directory")


def run(session: Session, options: Options, words: list[str]) -> int:
    """Creates and starts a container; in the foreground its exit status is ours."""
    try:
        if options.flag("detach"):
            return _run_detached(session, options, words)
        return _run_attached(session, options, words)
    except ConflictingOptions as conflict:
        raise Failure(str(conflict)) from None
    except ValueError as error:
        raise _with_hint(session, str(error), ENGINE_STATUS) from error
    except Failure as failure:
        raise _with_hint(session, str(failure), _status_of(str(failure))) from failure


class ConflictingOptions(ValueError):
    """Options that exclude each other; reported without the hint to --help."""


def _status_of(message: str) -> int:
    """The exit status that the text of a failed run stands for."""
    if any(text in message for text in _NOT_FOUND):
        return NOT_FOUND_STATUS
    if any(text in message for text in _NOT_EXECUTABLE):
        return NOT_EXECUTABLE_STATUS
    return ENGINE_STATUS


def _with_hint(session: Session, message: str, status: int) -> Failure:
    """Docker's form of a failed run."""
    program = session.program
    hint = f"Run '{program} run --help' for more information"
    return Failure(f"{program}: {message}\n\n{hint}", status)


def _run_detached(session: Session, options: Options, words: list[str]) -> int:
    if options.texts("attach"):
        text = "conflicting options: cannot specify both --attach and --detach"
        raise ConflictingOptions(text)
    body = create_body(options, words[0], words[1:])
    body |= {
        "AttachStdin": False, "AttachStdout": False, "AttachStderr": False, "StdinOnce": False
    }  # fmt: skip
    container = create(session, options, body)
    session.client.post(f"/containers/{container}/start")
    session.out(container + "\n")
    return 0


def _run_attached(session: Session, options: Options, words: list[str]) -> int:
    body = create_body(options, words[0], words[1:])
    if body["Tty"] and body["AttachStdin"] and not os.isatty(0):
        raise ConflictingOptions("the input device is not a TTY")
    if not (body["AttachStdin"] or body["AttachStdout"] or body["AttachStderr"]):
        return _run_detached(session, options, words)
    container = create(session, options, body)
    from teu.cli.foreground import ContainerFront

    front = ContainerFront(
        session,
        container,
        tty=body["Tty"],
        stdin=body["AttachStdin"],
        stdout=body["AttachStdout"],
        stderr=body["AttachStderr"],
        detach_keys=options.text("detach-keys"),
    )
    condition = "removed" if options.flag("rm") else "next-exit"
    return front.supervise(condition, proxy=options.flag("sig-proxy"))


def create(session: Session, options: Options, body: dict[str, Any]) -> str:
    """Creates the container, getting its image first if need be; returns the id.

    Raises: Failure, ValueError (before anything was asked of the daemon).
    """
    _check(options)
    _check_image(body["Image"])
    if body["Tty"]:
        from teu.cli.terminal import size

        body["HostConfig"]["ConsoleSize"] = list(size())
    if session.config.content.get("proxies"):
        from teu.cli.proxies import add_proxies

        body["Env"] = add_proxies(session, body["Env"])
    id_file = IdFile(options.text("cidfile"))
    try:
        answer = _create(session, options, body)
        for warning in answer.get("Warnings") or ():
            session.err(f"WARNING: {warning}\n")
        id_file.write(answer["Id"])
    finally:
        id_file.close()
    return str(answer["Id"])


def _check(options: Options) -> None:
    if options.text("pull") not in ("always", "missing", "never"):
        choices = 'must be one of "always", "missing" or "never"'
        raise ValueError(f"invalid pull option: '{options.text('pull')}': {choices}")
    for name in WINDOWS_FLAGS:
        if options.changed(name):
            raise ConflictingOptions(
                f'"--{name}" is only supported on a Docker daemon running on windows, '
                "but the Docker daemon is running on linux"
            )


def _check_image(image: str) -> None:
    """Names that are right beyond doubt pass at once; the full check costs 5 ms."""
    plain = image.isascii() and image.replace("-", "x").replace(":", "x", 1).isalnum()
    if plain and image.islower() and image[0] not in "-:" and image[-1] not in "-:":
        return
    from teu.cli.transfer import image_name

    if not is_image_id(image):
        image_name(image)


def is_image_id(text: str) -> bool:
    digits = text.removeprefix("sha256:")
    return len(digits) == 64 and frozenset("0123456789abcdef").issuperset(digits)


def _create(session: Session, options: Options, body: dict[str, Any]) -> dict[str, Any]:
    policy = options.text("pull")
    if policy == "always":
        _pull(session, options, body["Image"])
    query = {"name": options.text("name") or None, "platform": _platform(options)}
    try:
        answer = session.client.post("/containers/create", query, body)
    except DaemonError as error:
        missing = error.is_missing and "no such image" in error.reason.lower()
        if not missing or policy != "missing":
            raise
        if not options.flag("quiet"):
            from teu.cli.transfer import image_name

            name = image_name(body["Image"]).with_default_tag().familiar
            session.err(f"Unable to find image '{name}' locally\n")
        _pull(session, options, body["Image"])
        answer = session.client.post("/containers/create", query, body)
    return dict(answer)


def _platform(options: Options) -> str | None:
    if not options.text("platform"):
        return None
    from teu.cli.platforms import normalize

    return normalize(options.text("platform"))


def _pull(session: Session, options: Options, image: str) -> None:
    import sys

    from teu.cli.transfer import pull_image

    sink = None if options.flag("quiet") else sys.stderr
    pull_image(session, image, platform=options.text("platform"), sink=sink)


class IdFile:
    """`--cidfile`: must not exist before; does not stay behind empty."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._written = False
        if path:
            try:
                self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                raise Failure(
                    "container ID file found, make sure the other container isn't running "
                    f"or delete {path}"
                ) from None
            except OSError as error:
                reason = f"open {path}: {(error.strerror or '').lower()}"
                raise Failure(f"failed to create the container ID file: {reason}") from error

    def write(self, container: str) -> None:
        if self._path:
            os.write(self._descriptor, container.encode())
            self._written = True

    def close(self) -> None:
        if self._path:
            os.close(self._descriptor)
            if not self._written:
                os.unlink(self._path)


def create_only(session: Session, options: Options, words: list[str]) -> int:
    """Creates a container and prints its id."""
    try:
        body = create_body(options, words[0], words[1:])
        container = create(session, options, body)
    except ConflictingOptions as conflict:
        raise Failure(str(conflict)) from None
    except ValueError as error:
        hint = f"Run '{session.program} create --help' for more information"
        raise Failure(f"{session.program}: {error}\n\n{hint}", ENGINE_STATUS) from error
    session.out(container + "\n")
    return 0


_USAGE = "[OPTIONS] IMAGE [COMMAND] [ARG...]"
COMMANDS = {
    "container run": Command(run, _USAGE, args=(1, None), flags=RUN_FLAGS, interspersed=False),
    "container create": Command(
        create_only, _USAGE, args=(1, None), flags=CREATE_FLAGS, interspersed=False
    ),
}
