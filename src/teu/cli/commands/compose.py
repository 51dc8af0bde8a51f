"""`compose …`: the flags; the work is in cli/compose/."""

from __future__ import annotations

import sys

from teu.cli.grammar import Command, Flag
from teu.cli.launcher import add_libraries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from teu.cli.grammar import Options
    from teu.cli.session import Session

    Run = Callable[[Session, Options, list[str]], int]

GROUP_FLAGS = (
    Flag("file", "f", "list", "Compose files", metavar="file"),
    Flag("project-name", "p", "string", "Project name"),
    Flag("project-directory", "", "string", "Directory that paths start from", metavar="dir"),
    Flag("profile", "", "list", "Profiles to enable"),
    Flag("env-file", "", "list", "Files of variables (default .env)", metavar="file"),
    Flag("compatibility", "", "bool", "", hidden=True),
    Flag("ansi", "", "string", "", hidden=True),
    Flag("progress", "", "string", "", hidden=True),
    Flag("parallel", "", "int", "", hidden=True),
)
_TIMEOUT = Flag("timeout", "t", "int", "Seconds to stop before killing", metavar="seconds")


def _in(module: str, function: str) -> Run:
    """A command of `cli/compose/MODULE.py`, which is imported when the command is used."""

    def run(session: Session, options: Options, arguments: list[str]) -> int:
        add_libraries()
        name = f"teu.cli.compose.{module}"
        __import__(name)
        status: int = getattr(sys.modules[name], function)(session, options, arguments)
        return status

    return run


_BUILD_FLAGS = (
    Flag("build", "", "bool", "Build images first"),
    Flag("no-build", "", "bool", "Build nothing"),
    Flag("pull", "", "string", "Get images: always, missing, never, build", metavar="when"),
)
_CHANGE_FLAGS = (
    Flag("force-recreate", "", "bool", "Replace containers that need not change, too"),
    Flag("no-recreate", "", "bool", "Replace no container"),
    Flag("remove-orphans", "", "bool", "Remove containers of services that are gone"),
    Flag("scale", "", "list", "Number of containers: SERVICE=N", metavar="service=n"),
)
_EXEC_FLAGS = (
    Flag("detach", "d", "bool", "Run in the background"),
    Flag("env", "e", "list", "Set an environment variable"),
    Flag("user", "u", "string", "User name or id"),
    Flag("workdir", "w", "string", "Working directory inside"),
    Flag("privileged", "", "bool", "Give the command all capabilities"),
    Flag("index", "", "int", "Which of the service's containers"),
    Flag("no-tty", "T", "bool", "No terminal (default: one if ours is one)",
         default=not sys.stdout.isatty()),
    Flag("interactive", "i", "bool", "", default=True, hidden=True),
    Flag("tty", "t", "bool", "", default=True, hidden=True),
)  # fmt: skip
_SERVICES = "[OPTIONS] [SERVICE...]"
_MANY = (0, None)
_QUIET = Flag("quiet", "q", "bool", "Only ids, or no progress")
_FORMAT = Flag("format", "", "string", "table, json, or a template")

COMMANDS = {
    "compose up": Command(
        _in("actions", "up"),
        _SERVICES,
        args=_MANY,
        flags=(
            Flag("detach", "d", "bool", "Run in the background"),
            *_BUILD_FLAGS,
            *_CHANGE_FLAGS,
            Flag("always-recreate-deps", "", "bool", "Replace what services depend on, too"),
            Flag("no-deps", "", "bool", "Leave out what the services depend on"),
            Flag("no-start", "", "bool", "Make, but do not start"),
            Flag("wait", "", "bool", "Wait until everything runs and is healthy (implies -d)"),
            Flag("wait-timeout", "", "int", "Seconds to wait", metavar="seconds"),
            Flag("abort-on-container-exit", "", "bool", "Stop everything when a container ends"),
            Flag("abort-on-container-failure", "", "bool", "The same when one fails"),
            Flag("exit-code-from", "", "string", "End with this service's exit code"),
            Flag("attach", "", "list", "Show the output of these services only"),
            Flag("no-attach", "", "list", "Do not show the output of these"),
            Flag("no-log-prefix", "", "bool", "Do not show names before lines"),
            Flag("no-color", "", "bool", "No colours"),
            Flag("timestamps", "", "bool", "Show the time of each line"),
            Flag("quiet-pull", "", "bool", "", hidden=True),
            Flag("dry-run", "", "bool", "Show what would change and why, change nothing"),
            _TIMEOUT,
        ),
        long="""Make and start everything that the files say: images, networks, volumes, containers.

What runs as the files say is left alone. A container that has to change is made anew beside
the old one, and takes its place only then.""",
    ),
    "compose create": Command(
        _in("actions", "create"), _SERVICES, args=_MANY, flags=(*_BUILD_FLAGS, *_CHANGE_FLAGS)
    ),
    "compose scale": Command(
        _in("actions", "scale"),
        "[OPTIONS] SERVICE=N...",
        args=(1, None),
        flags=(Flag("no-deps", "", "bool", "Leave out what the services depend on"),),
    ),
    "compose down": Command(
        _in("actions", "down"),
        _SERVICES,
        args=_MANY,
        flags=(
            Flag("volumes", "v", "bool", "Remove the project's volumes, too"),
            Flag("rmi", "", "string", "Remove images: all, or local (built here)"),
            Flag("remove-orphans", "", "bool", "Also containers of services that are gone"),
            _TIMEOUT,
        ),
    ),
    "compose start": Command(_in("actions", "start"), _SERVICES, args=_MANY),
    "compose stop": Command(
        _in("actions", "stop"),
        _SERVICES,
        args=_MANY,
        flags=(_TIMEOUT,),
    ),
    "compose restart": Command(
        _in("actions", "restart"),
        _SERVICES,
        args=_MANY,
        flags=(_TIMEOUT, Flag("no-deps", "", "bool", "", hidden=True)),
    ),
    "compose kill": Command(
        _in("actions", "kill"),
        _SERVICES,
        args=_MANY,
        flags=(Flag("signal", "s", "string", "Signal to send", default="SIGKILL"),),
    ),
    "compose pause": Command(_in("actions", "pause"), _SERVICES, args=_MANY),
    "compose unpause": Command(_in("actions", "unpause"), _SERVICES, args=_MANY),
    "compose rm": Command(
        _in("actions", "rm"),
        _SERVICES,
        args=_MANY,
        flags=(
            Flag("force", "f", "bool", "Do not ask"),
            Flag("stop", "s", "bool", "Stop them first"),
            Flag("volumes", "v", "bool", "Remove their anonymous volumes"),
        ),
    ),
    "compose ps": Command(
        _in("looks", "ps"),
        _SERVICES,
        args=_MANY,
        flags=(
            Flag("all", "a", "bool", "Also stopped containers"),
            _QUIET,
            _FORMAT,
            Flag("services", "", "bool", "Only the services' names"),
            Flag("status", "", "list", "Only containers in this state"),
        ),
    ),
    "compose ls": Command(
        _in("looks", "ls"),
        "[OPTIONS]",
        flags=(Flag("all", "a", "bool", "Also stopped projects"), _QUIET, _FORMAT),
    ),
    "compose images": Command(
        _in("looks", "images"), _SERVICES, args=_MANY, flags=(_QUIET, _FORMAT)
    ),
    "compose top": Command(_in("looks", "top"), "[SERVICE...]", args=_MANY),
    "compose port": Command(
        _in("looks", "port"),
        "[OPTIONS] SERVICE PORT",
        args=(2, 2),
        flags=(
            Flag("protocol", "", "string", "tcp or udp", default="tcp"),
            Flag("index", "", "int", "Which of the service's containers"),
        ),
    ),
    "compose logs": Command(
        _in("looks", "logs"),
        _SERVICES,
        args=_MANY,
        flags=(
            Flag("follow", "f", "bool", "Go on with what is written from now on"),
            Flag("tail", "n", "string", "Number of lines from the end", default="all"),
            Flag("since", "", "string", "Begin at this time or age (42m)"),
            Flag("until", "", "string", "End at this time or age (42m)"),
            Flag("timestamps", "t", "bool", "Show the time of each line"),
            Flag("no-log-prefix", "", "bool", "Do not show names before lines"),
            Flag("no-color", "", "bool", "No colours"),
        ),
    ),
    "compose config": Command(
        _in("configuration", "print_config"),
        _SERVICES,
        args=_MANY,
        flags=(
            Flag("format", "", "string", "yaml or json", default="yaml"),
            _QUIET,
            Flag("output", "o", "string", "Write to this file", metavar="file"),
            Flag("services", "", "bool", "Only the services' names"),
            Flag("volumes", "", "bool", "Only the volumes' names"),
            Flag("networks", "", "bool", "Only the networks' names"),
            Flag("profiles", "", "bool", "Only the profiles"),
            Flag("images", "", "bool", "Only the images"),
            Flag("environment", "", "bool", "The variables that files are read with"),
            Flag("hash", "", "string", "Hashes of services ('*': all)"),
            Flag("explain", "", "bool", "Which file set each value"),
        ),
    ),
    "compose build": Command(
        _in("actions", "build"),
        _SERVICES,
        args=_MANY,
        flags=(
            Flag("build-arg", "", "list", "Set a build argument"),
            Flag("no-cache", "", "bool", "Use no cached step"),
            Flag("pull", "", "bool", "Look for newer base images"),
            Flag("push", "", "bool", "Push what was built"),
            _QUIET,
        ),
    ),
    "compose pull": Command(
        _in("actions", "pull"),
        _SERVICES,
        args=_MANY,
        flags=(
            _QUIET,
            Flag("ignore-buildable", "", "bool", "Leave out what can be built"),
            Flag("ignore-pull-failures", "", "bool", "Go on after a failure"),
        ),
    ),
    "compose push": Command(_in("actions", "push"), _SERVICES, args=_MANY),
    "compose exec": Command(
        _in("single", "execute"),
        "[OPTIONS] SERVICE COMMAND [ARG...]",
        args=(2, None),
        interspersed=False,
        flags=_EXEC_FLAGS,
    ),
    "compose run": Command(
        _in("single", "run_once"),
        "[OPTIONS] SERVICE [COMMAND] [ARG...]",
        args=(1, None),
        interspersed=False,
        flags=(
            *(flag for flag in _EXEC_FLAGS if flag.name not in ("index", "privileged")),
            Flag("rm", "", "bool", "Remove the container when it ends"),
            Flag("name", "", "string", "Name of the container"),
            Flag("entrypoint", "", "string", "Replace the ENTRYPOINT"),
            Flag("label", "l", "list", "Set a label"),
            Flag("volume", "v", "list", "Mount a directory or a volume"),
            Flag("publish", "p", "list", "Publish a port"),
            Flag("service-ports", "P", "bool", "Publish the service's ports"),
            Flag("no-deps", "", "bool", "Do not start what the service depends on"),
            Flag("build", "", "bool", "Build the image first"),
        ),
    ),
    "compose attach": Command(
        _in("single", "attach"),
        "[OPTIONS] SERVICE",
        args=(1, 1),
        flags=(Flag("index", "", "int", "Which of the service's containers"),),
    ),
    "compose cp": Command(
        _in("single", "copy"),
        "[OPTIONS] SERVICE:PATH PATH|- | PATH|- SERVICE:PATH",
        args=(2, 2),
        flags=(
            Flag("archive", "a", "bool", "Keep owners"),
            Flag("follow-link", "L", "bool", "Follow symbolic links in the source"),
            Flag("index", "", "int", "Which of the service's containers"),
        ),
    ),
    "compose stats": Command(
        _in("looks", "stats"),
        _SERVICES,
        args=_MANY,
        flags=(Flag("no-stream", "", "bool", "Print once, then end"),),
    ),
    "compose events": Command(
        _in("looks", "events"),
        _SERVICES,
        args=_MANY,
        flags=(
            Flag("json", "", "bool", "A JSON object for each event"),
            Flag("since", "", "string", "Begin at this time"),
            Flag("until", "", "string", "End at this time"),
        ),
    ),
    "compose wait": Command(
        _in("single", "wait"),
        "[OPTIONS] SERVICE...",
        args=(1, None),
        flags=(Flag("down-project", "", "bool", "Remove the project when the first one ends"),),
    ),
    "compose version": Command(
        _in("looks", "version"), "[OPTIONS]", flags=(Flag("short", "", "bool", "Only the number"),)
    ),
}
