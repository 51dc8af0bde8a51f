"""Commands that change what containers do, from `stop` to `rm`; also `rename` and `wait`."""

from __future__ import annotations

from teu.cli.grammar import Command, Flag, Options
from teu.cli.session import Failure, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from teu.cli.client import Query
    from teu.cli.http1 import Response

# At most this many requests are on their way at once, each on its own connection.
_AT_ONCE = 50


def for_each(
    session: Session,
    names: list[str],
    send: Callable[[str], Callable[[], Response]],
    show: Callable[[str, Response], None],
    may_be_missing: bool = False,
) -> int:
    """Sends a request for every name, many at once, and shows the results in order.

    Failures are collected and reported at the end, as Docker does; a name that does not exist is
    only told where it `may_be_missing`. Returns 0.
    """
    from teu.cli.client import DaemonError

    problems: list[str] = []
    for start in range(0, len(names), _AT_ONCE):
        answers = []
        for name in names[start : start + _AT_ONCE]:
            try:
                answers.append((name, send(name)))
            except Failure as failure:
                problems.append(str(failure))
        for name, answer in answers:
            try:
                show(name, session.client.check(answer()))
            except DaemonError as error:
                if may_be_missing and error.is_missing:
                    session.err(f"{error}\n")
                else:
                    problems.append(str(error))
            except Failure as failure:
                problems.append(str(failure))
    if problems:
        raise Failure("\n".join(problems))
    return 0


def _change(
    session: Session,
    names: list[str],
    action: str,
    query: Query | None = None,
    *,
    method: str = "POST",
    may_be_missing: bool = False,
) -> int:
    """`method` /containers/NAME/ACTION for all; prints the names that worked."""
    client = session.client
    suffix = f"/{action}" if action else ""

    def send(name: str) -> Callable[[], Response]:
        return client.open(method, f"/containers/{escape(name)}{suffix}", query)

    def show(name: str, response: Response) -> None:
        client.finish(response)
        session.out(name + "\n")

    return for_each(session, names, send, show, may_be_missing)


def escape(name: str) -> str:
    """A container's name in a path; a leading slash belongs to the name, not to the path.

    Raises: Failure for an empty name, which would address all containers.
    """
    from teu.cli.client import escape as percent

    trimmed = name.strip().removeprefix("/")
    if not trimmed:
        raise Failure("invalid container name or ID: value is empty")
    return percent(trimmed)


def stop(session: Session, options: Options, names: list[str]) -> int:
    """Asks with a signal, then kills after the timeout; the daemon does the waiting."""
    return _change(session, names, "stop", _stop_query(session, options))


def restart(session: Session, options: Options, names: list[str]) -> int:
    return _change(session, names, "restart", _stop_query(session, options))


def _stop_query(session: Session, options: Options) -> Query:
    if options.changed("time"):
        session.err("Flag --time has been deprecated, use --timeout instead\n")
        if options.changed("timeout"):
            raise Failure("conflicting options: cannot specify both --timeout and --time")
    query: dict[str, str | int | bool | list[str] | None] = {}
    if signal := options.text("signal"):
        query["signal"] = signal
    for name in ("timeout", "time"):
        if options.changed(name):
            query["t"] = options.number(name)
    return query


def kill(session: Session, options: Options, names: list[str]) -> int:
    return _change(session, names, "kill", {"signal": options.text("signal") or None})


def pause(session: Session, _options: Options, names: list[str]) -> int:
    return _change(session, names, "pause")


def unpause(session: Session, _options: Options, names: list[str]) -> int:
    return _change(session, names, "unpause")


def remove(session: Session, options: Options, names: list[str]) -> int:
    query = {
        "v": options.flag("volumes"),
        "link": options.flag("link"),
        "force": options.flag("force"),
    }
    if not all(name.strip("/") for name in names):
        raise Failure("container name cannot be empty")
    force = options.flag("force")
    return _change(session, names, "", query, method="DELETE", may_be_missing=force)


def rename(session: Session, _options: Options, names: list[str]) -> int:
    old, new = (name.strip() for name in names)
    if not old or not new:
        raise Failure("Error: Neither old nor new names may be empty")
    try:
        session.client.post(f"/containers/{escape(old)}/rename", {"name": new})
    except Failure as failure:
        raise Failure(f"{failure}\nError: failed to rename container named {old}") from failure
    return 0


def wait(session: Session, _options: Options, names: list[str]) -> int:
    """Prints each container's exit status as it is known, in the order of the names."""
    client = session.client

    def send(name: str) -> Callable[[], Response]:
        return client.open("POST", f"/containers/{escape(name)}/wait")

    def show(_name: str, response: Response) -> None:
        answer = client.finish_json(response)
        error = answer.get("Error") or {}
        if error.get("Message"):
            raise Failure(f"Error response from daemon: {error['Message']}")
        session.out(f"{answer['StatusCode']}\n")

    return for_each(session, names, send, show)


_SIGNAL = Flag("signal", "s", "string", "Signal to send")
_STOP_FLAGS = (
    _SIGNAL,
    Flag("time", "", "int", "Seconds to wait before KILL", hidden=True),
    Flag("timeout", "t", "int", "Seconds to wait before KILL"),
)
_MANY = "CONTAINER [CONTAINER...]"
_SOME = (1, None)
COMMANDS = {
    "container kill": Command(kill, f"[OPTIONS] {_MANY}", args=_SOME, flags=(_SIGNAL,)),
    "container pause": Command(pause, _MANY, args=_SOME),
    "container rename": Command(rename, "CONTAINER NEW_NAME", args=(2, 2)),
    "container restart": Command(restart, f"[OPTIONS] {_MANY}", args=_SOME, flags=_STOP_FLAGS),
    "container rm": Command(
        remove,
        f"[OPTIONS] {_MANY}",
        args=_SOME,
        flags=(
            Flag("force", "f", "bool", "Remove running containers too (KILL)"),
            Flag("link", "l", "bool", "Remove the link, not the container"),
            Flag("volumes", "v", "bool", "Remove the containers' anonymous volumes"),
        ),
    ),
    "container stop": Command(stop, f"[OPTIONS] {_MANY}", args=_SOME, flags=_STOP_FLAGS),
    "container unpause": Command(unpause, _MANY, args=_SOME),
    "container wait": Command(wait, _MANY, args=_SOME),
}
