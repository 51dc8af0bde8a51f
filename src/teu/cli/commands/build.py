"""`build`."""

from __future__ import annotations

import os
import sys

from teu.cli import values
from teu.cli.build_context import REMOTE, STDIN, LocalContext, StdinContext, one_file, with_file
from teu.cli.build_outputs import (
    deliver,
    local_caches,
    read_outputs,
    write_caches,
    write_metadata,
    write_text,
    writes_to_stdout,
)
from teu.cli.build_progress import BuildView, view_for
from teu.cli.build_session import BuildSession
from teu.cli.grammar import Command, Flag, Options
from teu.cli.jsontext import dumps
from teu.cli.lists import csv_values, pairs
from teu.cli.progress import ProgressView
from teu.cli.session import Failure, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Body = bytes | Iterable[bytes]
    Query = dict[str, str | int | bool | list[str] | None]

_END = bytes(1024)
_TAR = {"Content-Type": "application/x-tar"}


def build(session: Session, options: Options, words: list[str]) -> int:
    """Builds an image; with -q its id is all that is printed."""
    if words[0] == "shell" and not os.path.exists("shell"):
        from teu.cli.commands.buildshell import shell

        return shell(session, options, [])
    outputs = read_outputs(options)
    query = _query(session, options)
    quiet = options.flag("quiet") or writes_to_stdout(outputs)
    view = None if quiet else view_for(options.text("progress"))
    query |= {"progress": "events" if view else None, "q": quiet or None}
    body = _inputs(session, options, words[0], query)
    headers = {**_TAR, "X-Registry-Config": _logins(session)}
    if options.flag("check"):
        answer = session.client.request("POST", "/build", query | {"check": "1"}, body, headers)
        found = session.client.finish_json(answer)
        session.out(found["Text"])
        return 1 if found["Warnings"] else 0
    image = _follow(session.client.stream("POST", "/build", query, body, headers), view, quiet)
    if options.flag("quiet"):
        session.out(f"{image}\n")
    tags = options.texts("tag")
    write_caches(session, options.texts("cache-to"), image)
    deliver(session, outputs, image, tags)
    if path := options.text("iidfile"):
        write_text(path, image)
    if path := options.text("metadata-file"):
        write_metadata(path, image, tags)
    return 0


def _follow(messages: Iterator[Any], view: BuildView | None, quiet: bool) -> str:
    """Shows what the daemon says until the end; the image's id. Raises: Failure."""
    if quiet:
        return _quietly(messages).strip()
    if view:
        view.show_all(messages)
        return str(view.result.get("ID", ""))
    result: dict[str, Any] = {}
    ProgressView(sys.stdout).show_all(_checked(messages), result.update)
    return str(result.get("ID", ""))


def _quietly(messages: Iterator[Any]) -> str:
    return "".join(message.get("stream", "") for message in _checked(messages))


def _checked(messages: Iterator[Any]) -> Iterator[Any]:
    """Raises: Failure with the failed command's exit code."""
    for message in messages:
        if detail := message.get("errorDetail"):
            raise Failure(str(detail.get("message", "")), int(detail.get("code") or 1))
        yield message


def _inputs(session: Session, options: Options, where: str, query: Query) -> Body:
    """What is sent with the request; everything else is in the session then."""
    asked = options.text("file")
    if where == STDIN:
        if asked == STDIN:
            raise Failure("invalid argument: can't use stdin for both build context and dockerfile")
        source = StdinContext()
        if source.is_archive:
            query["dockerfile"] = asked or None
            return source.pieces()
        return _without_context(session, options, source.text(), query)
    if where.startswith(REMOTE) and not os.path.isdir(where):
        query["remote"] = where
        query["dockerfile"] = asked or None
        return b""
    context = LocalContext(where, asked)
    build_session = BuildSession(session)
    target = options.text("target")
    has_sessions = build_session.open(context.dockerfile_text, context.dockerfile, target)
    if has_sessions and build_session.send_files(context):
        return _with_session(build_session, options, query)
    _refuse_session_flags(options)
    name = context.sent_dockerfile
    query["dockerfile"] = name
    return with_file(name, context.dockerfile_text, context.archive())


def _without_context(session: Session, options: Options, text: bytes, query: Query) -> Body:
    build_session = BuildSession(session)
    if build_session.open(text, "Dockerfile", options.text("target")):
        return _with_session(build_session, options, query)
    _refuse_session_flags(options)
    return _ended(one_file("Dockerfile", text))


def _with_session(build_session: BuildSession, options: Options, query: Query) -> Body:
    for text in options.texts("secret"):
        build_session.add_secret(text)
    for text in options.texts("ssh"):
        build_session.add_agent(text)
    contexts = pairs(options.texts("build-context"))
    for name, value in contexts.items():
        if "://" not in value:
            build_session.send_named(name, value)
            contexts[name] = "local"
    query["contexts"] = _json(contexts)
    for number, directory in local_caches(options.texts("cache-from"), "src").items():
        if os.path.isdir(directory):  # on the first build there is none yet
            build_session.send_named(f"cache-from-{number}", directory)
    query["session"] = build_session.id
    return b""


def _refuse_session_flags(options: Options) -> None:
    for name in ("secret", "ssh", "build-context"):
        if options.texts(name):
            raise Failure(f"--{name} needs a teu daemon")


def _ended(pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield from pieces
    yield _END


def _query(session: Session, options: Options) -> Query:
    limits = ("cpu-period", "cpu-quota", "cpu-shares", "memory", "memory-swap", "shm-size")
    query: Query = {name.replace("-", ""): options.number(name) or None for name in limits}
    query["memswap"] = query.pop("memoryswap")
    for name in ("cpuset-cpus", "cpuset-mems", "cgroup-parent", "target", "platform"):
        query[name.replace("-", "")] = options.text(name) or None
    network = options.text("network")
    ulimits = [values.ulimit(text) for text in options.texts("ulimit")]
    query |= {
        "t": options.texts("tag") or None,
        "nocache": options.flag("no-cache") or None,
        "pull": options.flag("pull") or None,
        "squash": options.flag("squash") or None,
        "networkmode": None if network == "default" else network,
        "buildargs": _json(_arguments(session, options)),
        "labels": _json(pairs(options.texts("label"))),
        "cachefrom": _json(options.texts("cache-from")),
        "cacheto": _json(options.texts("cache-to")),
        "extrahosts": [values.extra_host(text) for text in options.texts("add-host")] or None,
        "ulimits": _json(ulimits),
        "securityopt": _json(options.texts("security-opt")),
        "allow": _json(csv_values(options.texts("allow"))),
        "nocachefilter": _json(csv_values(options.texts("no-cache-filter"))),
        "annotations": _json(_annotations(options)),
        "explain": options.flag("explain") or None,
        "rm": "1",
    }
    return query


def _annotations(options: Options) -> dict[str, str]:
    """`manifest:KEY=VALUE` or `KEY=VALUE`: of the image's manifest. Raises: Failure."""
    found = {}
    for text in options.texts("annotation"):
        level, colon, rest = text.partition(":")
        key = level.partition("=")[0]
        if colon and key == level and level.startswith(("manifest", "index")):
            if level.startswith("index"):
                raise Failure(f"annotation {text!r}: only those of manifests are supported")
            name, given, value = rest.partition("=")
        else:
            name, given, value = text.partition("=")
        if not name or not given:
            raise Failure(f"invalid annotation {text!r}: use KEY=VALUE")
        found[name] = value
    return found


def _json(value: Any) -> str | None:
    return dumps(value) if value else None


def _arguments(session: Session, options: Options) -> dict[str, str | None]:
    """`--build-arg`; a name alone takes its value from this environment, where it has one."""
    from teu.cli.proxies import add_proxies

    found: dict[str, str | None] = {}
    for text in options.texts("build-arg"):
        name, given, value = text.partition("=")
        found[name] = value if given else os.environ.get(name)
    for text in add_proxies(session, None) or []:
        name, _, value = text.partition("=")
        found.setdefault(name, value)
    if "SOURCE_DATE_EPOCH" in os.environ:
        found.setdefault("SOURCE_DATE_EPOCH", os.environ["SOURCE_DATE_EPOCH"])
    return found


def _logins(session: Session) -> str:
    """X-Registry-Config: all logins, since the daemon finds out which bases it needs."""
    import base64

    from teu.cli.credentials import all_logins

    return base64.urlsafe_b64encode(dumps(all_logins(session.config)).encode()).decode()


_FLAGS = (
    Flag("add-host", "", "list", "Add a line HOST:IP to /etc/hosts of the commands"),
    Flag("allow", "", "list", "Allow network.host or security.insecure to the commands"),
    Flag("annotation", "", "list", "Set an annotation of the image's manifest (KEY=VALUE)"),
    Flag("build-arg", "", "list", "Give an ARG a value"),
    Flag("build-context", "", "list", "Another context (NAME=DIRECTORY or docker-image://NAME)"),
    Flag("cache-from", "", "list", "Take cached results from there, too"),
    Flag("cache-to", "", "list", "Write results there (type=inline, registry or local)"),
    Flag("cgroup-parent", "", "string", "Parent cgroup of the commands"),
    Flag("check", "", "bool", "Check the Dockerfile and build nothing"),
    Flag("compress", "", "bool", "Accepted and ignored", hidden=True),
    Flag("cpu-period", "", "int", "Limit the CPU period (CFS)"),
    Flag("cpu-quota", "", "int", "Limit the CPU quota (CFS)"),
    Flag("cpu-shares", "c", "int", "CPU shares (relative weight)"),
    Flag("cpuset-cpus", "", "string", "CPUs that may be used (0-3, 0,1)"),
    Flag("cpuset-mems", "", "string", "Memory nodes that may be used (0-3, 0,1)"),
    Flag("disable-content-trust", "", "bool", default=True, hidden=True),
    Flag("explain", "", "bool", "Say what made each step miss the cache"),
    Flag("file", "f", "string", "The Dockerfile (default PATH/Dockerfile; - for stdin)"),
    Flag("force-rm", "", "bool", "Accepted and ignored: nothing is left behind", hidden=True),
    Flag("iidfile", "", "string", "Write the image's id to this file"),
    Flag("isolation", "", "string", hidden=True),
    Flag("label", "", "list", "Set a label of the image"),
    Flag("load", "", "bool", "Put the result into the image store, besides other outputs"),
    Flag("memory", "m", "bytes", "Limit the memory of the commands"),
    Flag("memory-swap", "", "bytes", "Limit memory plus swap; -1: no limit for swap"),
    Flag("metadata-file", "", "string", "Write facts about the result to this file"),
    Flag("network", "", "string", "Network of the commands", default="default"),
    Flag("no-cache", "", "bool", "Run every step"),
    Flag("no-cache-filter", "", "list", "Run every step of these stages"),
    Flag("output", "o", "list", "Where the result goes (type=local,dest=DIR; type=tar,dest=FILE)"),
    Flag("platform", "", "string", "Platform of the image (linux/arm64)"),
    Flag(
        "progress", "", "string", "How to show progress: auto, plain, tty, rawjson", default="auto"
    ),
    Flag("pull", "", "bool", "Look for newer base images"),
    Flag("push", "", "bool", "Push the result under its names"),
    Flag("quiet", "q", "bool", "Print only the image's id"),
    Flag("rm", "", "bool", default=True, hidden=True),
    Flag("secret", "", "list", "A secret for RUN --mount=type=secret (id=NAME,src=FILE)"),
    Flag("security-opt", "", "list", "Security options of the commands"),
    Flag("shm-size", "", "bytes", "Size of /dev/shm"),
    Flag("squash", "", "bool", "Make one layer of all that the build added"),
    Flag("ssh", "", "list", "An SSH agent for RUN --mount=type=ssh (default, or ID=SOCKET)"),
    Flag("tag", "t", "list", "Name of the image (NAME[:TAG])"),
    Flag("target", "", "string", "Build up to this stage"),
    Flag("ulimit", "", "list", "Ulimits of the commands"),
)
_COMMAND = Command(build, "[OPTIONS] PATH | URL | -", args=(1, 1), flags=_FLAGS)
COMMANDS = {"image build": _COMMAND, "builder build": _COMMAND}
