"""The program: global flags, finding the command, and one place that turns failures into text."""

from __future__ import annotations

import os
import sys

from teu.cli.commands import GROUPS_WITH_FLAGS, Row, find
from teu.cli.grammar import Command, Flag, HelpRequested, Parser, UsageError, arity_problem
from teu.cli.launcher import INTERRUPTED_STATUS
from teu.cli.session import Failure, Session

USAGE_STATUS = 125
BROKEN_PIPE_STATUS = 141

GLOBAL_FLAGS = (
    Flag("config", "", "string", "Directory of the client's configuration files"),
    Flag("context", "c", "string", "Context to use (overrides DOCKER_HOST and the current one)"),
    Flag("debug", "D", "bool", "Print debugging details"),
    Flag("host", "H", "list", "Address of the daemon's socket"),
    Flag("log-level", "l", "string", "debug, info, warn, error or fatal", default="info"),
    Flag("tls", "", "bool", "Use TLS (implied by --tlsverify)"),
    Flag("tlscacert", "", "string", "Trust only certificates signed by this CA"),
    Flag("tlscert", "", "string", "TLS certificate file"),
    Flag("tlskey", "", "string", "TLS key file"),
    Flag("tlsverify", "", "bool", "Use TLS and verify the daemon"),
    Flag("version", "v", "bool", "Print the version and exit"),
)

_USAGE = "[OPTIONS] COMMAND [ARG...]"


def main(argv: list[str]) -> int:
    """Runs one command line (argv[0] is the program's path); returns the exit status."""
    program = "docker" if os.path.basename(argv[0]) == "docker" else "teu"
    try:
        status = _run(program, argv[1:])
        sys.stdout.flush()
        return status
    except Failure as failure:
        return _fail(str(failure), failure.status)
    except BrokenPipeError:
        from teu.cli.signals import die_of_broken_pipe

        die_of_broken_pipe()
        return BROKEN_PIPE_STATUS
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS
    except Exception as error:
        return _fail(_unexpected(program, argv, error), 1)


def _unexpected(program: str, argv: list[str], error: Exception) -> str:
    """What to say about an error that nobody expected: never a bare traceback."""
    if "-D" in argv or "--debug" in argv:
        import traceback

        return "".join(traceback.format_exception(error)).rstrip()
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{program}: {where}{error.strerror}"
    return (
        f"{program}: internal error: {type(error).__name__}: {error} "
        f"(an answer of the daemon may be incomplete; '{program} -D ...' shows where)"
    )


def _fail(message: str, status: int) -> int:
    try:
        sys.stdout.flush()
        if message:
            sys.stderr.write(message + "\n")
            sys.stderr.flush()
    except BrokenPipeError:
        pass  # nobody listens any more; the status still tells
    return status


def _run(program: str, words: list[str]) -> int:
    parser = Parser(GLOBAL_FLAGS, interspersed=False)
    try:
        rest = parser.parse(words)
    except HelpRequested as request:
        return _help(program, [], request.deprecated)
    except UsageError as error:
        raise _usage_failure(program, f"{program} {_USAGE}", str(error)) from None
    session = Session(program, parser.options)
    if not rest:
        if session.globals.flag("version"):
            from teu.cli.version import version_line

            session.out(version_line(program))
            return 0
        return _help(program, [])
    if rest[0] == "help":
        return _help(program, rest[1:])
    if rest[0] in GROUPS_WITH_FLAGS:
        rest = _group_flags(session, rest)
    row, path, rest = find(rest)
    session.path = f"{program} {path}"
    if row is None:
        return _run_group(session, path, rest)
    return run_row(session, row, rest)


def _group_flags(session: Session, words: list[str]) -> list[str]:
    """Takes the flags between a group and its command: `compose -f X up` -> `compose up`."""
    module = f"teu.cli.commands.{GROUPS_WITH_FLAGS[words[0]]}"
    __import__(module)
    parser = Parser(sys.modules[module].GROUP_FLAGS, interspersed=False)
    path = f"{session.program} {words[0]}"
    try:
        rest = parser.parse(words[1:])
    except HelpRequested:
        rest = ["--help"]
    except UsageError as error:
        raise _usage_failure(path, f"{path} [OPTIONS] COMMAND", str(error)) from None
    session.group = parser.options
    return [words[0], *rest]


def _run_group(session: Session, group: str, rest: list[str]) -> int:
    """A management command without a (known) command behind it."""
    if not group:
        try:
            Parser(GLOBAL_FLAGS).parse(rest)
        except HelpRequested as request:
            return _help(session.program, [], request.deprecated)
        except UsageError as error:
            usage = f"{session.program} {_USAGE}"
            raise _usage_failure(session.program, usage, str(error)) from None
        unknown = f"{session.program}: unknown command: {session.program} {rest[0]}"
        hint = f"Run '{session.program} --help' for more information"
        raise Failure("\n\n".join([unknown, *_suggestions(session, "", rest[0]), hint]))
    try:
        rest = Parser(()).parse(rest)
    except HelpRequested as request:
        return _help(session.program, [group], request.deprecated)
    except UsageError as error:
        raise _usage_failure(session.path, session.path, str(error)) from None
    if not rest:
        return _help(session.program, [group])
    unknown = f"{session.program}: unknown command: {session.path} {rest[0]}"
    usage = f"Usage:  {session.path}"
    hint = f"Run '{session.path} --help' for more information"
    suggestions = _suggestions(session, group, rest[0])
    raise Failure("\n\n".join([unknown, *suggestions, usage, hint]))


def _suggestions(session: Session, group: str, word: str) -> list[str]:
    from teu.cli.suggest import suggestion

    text = suggestion(session.program, group, word)
    return [text] if text else []


def run_row(session: Session, row: Row, words: list[str]) -> int:
    """One command with its flags and arguments; its exit status. Raises: Failure."""
    command = load(row)
    if command is None:
        raise Failure(f"{session.program}: '{session.path}' is not implemented yet")
    parser = Parser(command.flags, interspersed=command.interspersed)
    try:
        arguments = parser.parse(words)
    except HelpRequested as request:
        path = session.path.split()[1:]
        return _help(session.program, path, request.deprecated)
    except UsageError as error:
        raise _usage_failure(session.path, command.usage_line(session.path), str(error)) from None
    if problem := arity_problem(session.path, command, len(arguments)):
        raise Failure(f"{session.program}: {problem}")
    session.options = parser.options
    return command.run(session, parser.options, arguments)


def load(row: Row) -> Command | None:
    """Imports the command's module; None when teu does not have the command yet."""
    path, _, _, module, _ = row
    if not module:
        return None
    name = f"teu.cli.commands.{module}"
    __import__(name)
    commands: dict[str, Command] = sys.modules[name].COMMANDS
    return commands.get(path)


def _usage_failure(path: str, usage: str, problem: str) -> Failure:
    hint = f"Run '{path} --help' for more information"
    return Failure(f"{problem}\n\nUsage:  {usage}\n\n{hint}", USAGE_STATUS)


def _help(program: str, path: list[str], deprecated: bool = False) -> int:
    from teu.cli.help import help_text

    if deprecated:
        sys.stderr.write("Flag shorthand -h has been deprecated, use --help\n")
    sys.stdout.write(help_text(program, path))
    return 0
