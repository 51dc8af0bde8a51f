"""`compose …`: the flags; the work is in cli/compose/."""

from __future__ import annotations

import sys

from teu.cli.grammar import Command, Flag
from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from teu.cli.grammar import Options
    from teu.cli.session import Session
    from teu.compose.plan import Found
    from teu.compose.project import Project

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


def _up(session: Session, options: Options, services: list[str]) -> int:
    from teu.cli.compose.foreground import Foreground
    from teu.cli.compose.project import load
    from teu.cli.compose.up import Up, shown

    _check_up(options)
    project = load(session, services)
    up = Up(
        session,
        project,
        _wishes(options, project, services),
        start=not options.flag("no-start"),
        timeout_s=_timeout(options),
    )
    if options.flag("dry-run"):
        session.out(shown(up.plan()))
        return 0
    up.run(
        build=options.flag("build"), no_build=options.flag("no-build"), pull=options.text("pull")
    )
    if options.flag("wait"):
        up.wait(options.number("wait-timeout") or 600)
    if options.flag("detach") or options.flag("wait") or options.flag("no-start"):
        return 0
    return Foreground(session, project, up, options).run()


def _check_up(options: Options) -> None:
    for one, other in (
        ("build", "no-build"),
        ("force-recreate", "no-recreate"),
        ("detach", "abort-on-container-exit"),
        ("detach", "exit-code-from"),
    ):
        if options.value(one) and options.value(other):
            raise Failure(f"--{one} and --{other} are incompatible")  # fmt: skip


def _wishes(options: Options, project: Project, services: list[str]) -> Any:
    from teu.compose.plan import Wishes

    return Wishes(
        services=services,
        with_dependencies=not options.flag("no-deps"),
        force_recreate=options.flag("force-recreate"),
        no_recreate=options.flag("no-recreate"),
        always_recreate_dependencies=options.flag("always-recreate-deps"),
        scales=_scales(project, options.texts("scale")),
        remove_orphans=options.flag("remove-orphans"),
    )


def _scales(project: Project, words: Sequence[str]) -> dict[str, int]:
    """`web=3` -> {web: 3}. Raises: Failure."""
    found = {}
    for word in words:
        service, equals, count = word.partition("=")
        if not equals or not count.isdigit():
            raise Failure(f"invalid scale specifier {word!r}: should be <service=num>")
        if service not in project.services:
            raise Failure(f"no such service: {service}")
        if int(count) > 1 and project.services[service].get("container_name"):
            raise Failure(f"cannot scale {service}: it has a container_name")
        found[service] = int(count)
    return found


def _timeout(options: Options) -> int | None:
    return options.number("timeout") if options.changed("timeout") else None


def _create(session: Session, options: Options, services: list[str]) -> int:
    from teu.cli.compose.project import load
    from teu.cli.compose.up import Up

    project = load(session, services)
    up = Up(session, project, _wishes(options, project, services), start=False)
    up.run(
        build=options.flag("build"), no_build=options.flag("no-build"), pull=options.text("pull")
    )
    return 0


def _scale(session: Session, options: Options, words: list[str]) -> int:
    from teu.cli.compose.project import load
    from teu.cli.compose.up import Up
    from teu.compose.plan import Wishes

    project = load(session)
    scales = _scales(project, words)
    wishes = Wishes(
        services=list(scales), with_dependencies=not options.flag("no-deps"), scales=scales
    )
    Up(session, project, wishes).run()
    return 0


def _down(session: Session, options: Options, services: list[str]) -> int:
    from teu.cli.compose.down import bare, down
    from teu.cli.compose.project import load

    images = options.text("rmi")
    if images not in ("", "all", "local"):
        raise Failure(f"invalid value for --rmi: {images!r}: want all or local")
    assert session.group
    by_name = session.group.text("project-name") and not session.group.texts("file")
    try:
        project = load(session, services)
    except Failure:
        if not by_name:
            raise
        project = bare(session.group.text("project-name"))
    down(
        session,
        project,
        volumes=options.flag("volumes"),
        images=images,
        orphans=options.flag("remove-orphans"),
        timeout_s=_timeout(options),
        services=services,
    )
    return 0


def _each(
    action: str,
    states: tuple[str, str],
    *,
    only: tuple[str, ...] = (),
    reverse: bool = False,
    query: Callable[[Options], dict[str, Any]] = lambda _: {},
) -> Run:
    """A command that does `action` to the containers of services, in order."""

    def run(session: Session, options: Options, services: list[str]) -> int:
        from teu.cli.client import Client
        from teu.cli.compose import engine
        from teu.cli.compose.changes import Changer
        from teu.cli.compose.down import in_reverse_order
        from teu.cli.compose.project import load
        from teu.cli.compose.steps import Steps
        from teu.compose.plan import start_order

        project = load(session, services)
        there = engine.containers(session.client, project.name, services)
        steps = Steps()
        told = query(options)

        def act(found: Found) -> None:
            changer = Changer(Client(session.client.endpoint), project, steps)
            changer.act(found, action, states, **told)

        chosen = [found for found in there if not only or found.state in only]
        if reverse:
            in_reverse_order(project, chosen, act)
            return 0
        order = start_order(project)
        for found in sorted(
            chosen, key=lambda f: order.index(f.service) if f.service in order else -1
        ):
            act(found)
        return 0

    return run


def _stop_query(options: Options) -> dict[str, Any]:
    return {"t": _timeout(options)}


def _rm(session: Session, options: Options, services: list[str]) -> int:
    from teu.cli.compose import engine
    from teu.cli.compose.changes import Changer
    from teu.cli.compose.project import load
    from teu.cli.compose.steps import Steps
    from teu.cli.prompt import confirm

    project = load(session, services)
    there = engine.containers(session.client, project.name, services)
    if not options.flag("stop"):
        there = [found for found in there if found.state not in ("running", "paused")]
    if not there:
        session.err("No stopped containers\n")
        return 0
    names = ", ".join(found.name for found in there)
    if not options.flag("force") and not confirm(session, f"Going to remove {names}\nSure?"):
        return 0
    changer = Changer(session.client, project, Steps())
    for found in there:
        if found.state == "running":
            changer.stop(found)
        changer.remove(found, volumes=options.flag("volumes"))
    return 0


def _ps(session: Session, options: Options, services: list[str]) -> int:
    from teu.cli.compose import engine
    from teu.cli.compose.project import name_only
    from teu.cli.compose.tables import containers_table
    from teu.compose.plan import Found

    name = name_only(session)
    every = options.flag("all") or bool(options.texts("status"))
    rows = engine.rows(session.client, name, services, every=every)
    if wanted := options.texts("status"):
        rows = [row for row in rows if row["State"] in wanted]
    if options.flag("services"):
        names = dict.fromkeys(Found.read(row).service for row in rows)
        session.out("".join(f"{service}\n" for service in names))
    elif options.flag("quiet"):
        session.out("".join(f"{row['Id']}\n" for row in rows))
    else:
        session.out(containers_table(rows, options.text("format")))
    return 0


def _ls(session: Session, options: Options, _arguments: list[str]) -> int:
    from teu.cli.compose.tables import projects_table

    every, form, quiet = options.flag("all"), options.text("format"), options.flag("quiet")
    session.out(projects_table(session, every=every, form=form, quiet=quiet))
    return 0


def _images(session: Session, options: Options, services: list[str]) -> int:
    from teu.cli.compose import engine
    from teu.cli.compose.project import name_only
    from teu.cli.compose.tables import images_table

    rows = engine.rows(session.client, name_only(session), services)
    quiet, form = options.flag("quiet"), options.text("format")
    session.out(images_table(session, rows, quiet=quiet, form=form))
    return 0


def _top(session: Session, _options: Options, services: list[str]) -> int:
    from teu.cli.compose import engine
    from teu.cli.compose.project import name_only
    from teu.cli.compose.tables import top_text

    there = engine.containers(session.client, name_only(session), services, every=False)
    session.out(top_text(session, there))
    return 0


def _port(session: Session, options: Options, words: list[str]) -> int:
    from teu.cli.compose.project import name_only
    from teu.cli.compose.tables import published

    port = f"{words[1]}/{options.text('protocol')}"
    number = options.number("index") or 1
    session.out(published(session, name_only(session), words[0], number, port))
    return 0


def _logs(session: Session, options: Options, services: list[str]) -> int:
    from teu.cli.compose import engine
    from teu.cli.compose.output import Printer, print_logs
    from teu.cli.compose.project import name_only
    from teu.cli.instants import from_option

    there = engine.containers(session.client, name_only(session), services)
    query: dict[str, str | int | bool | list[str] | None] = {
        "stdout": True,
        "stderr": True,
        "follow": options.flag("follow"),
        "timestamps": options.flag("timestamps"),
        "tail": options.text("tail"),
    }
    for name in ("since", "until"):
        if options.changed(name):
            query[name] = from_option(options, name)
    colour = False if options.flag("no-color") else None
    names = [found.name for found in there]
    printer = Printer(names, prefix=not options.flag("no-log-prefix"), colour=colour)
    print_logs(session.client, there, printer, query)
    return 0


def _config(session: Session, options: Options, services: list[str]) -> int:
    from teu.cli.compose.configuration import print_config

    return print_config(session, options, services)


def _build(session: Session, options: Options, services: list[str]) -> int:
    from teu.cli.compose.builds import build_service
    from teu.cli.compose.project import load
    from teu.cli.compose.steps import Steps

    project = load(session, services)
    more = [f"--{name}" for name in ("no-cache", "pull", "quiet") if options.flag(name)]
    for value in options.texts("build-arg"):
        more += ["--build-arg", value]
    steps = Steps(quiet=options.flag("quiet"))
    for key in services or sorted(project.services):
        if "build" in project.services[key]:
            build_service(session, project, key, steps, more)
    if options.flag("push"):
        return _push(session, options, services)
    return 0


def _pull(session: Session, options: Options, services: list[str]) -> int:
    from teu.cli.compose.builds import pull_service
    from teu.cli.compose.project import load
    from teu.cli.compose.steps import Steps

    project = load(session, services)
    steps = Steps(quiet=options.flag("quiet"))
    problems = []
    for key in services or sorted(project.services):
        service = project.services[key]
        if "image" not in service or ("build" in service and options.flag("ignore-buildable")):
            steps.tell(f"Service {key}", "Skipped")
            continue
        try:
            pull_service(session, project, key, steps, quiet=options.flag("quiet"))
        except Failure as failure:
            problems.append(str(failure))
    if problems and not options.flag("ignore-pull-failures"):
        raise Failure("\n".join(problems))
    return 0


def _push(session: Session, _options: Options, services: list[str]) -> int:
    from teu.cli.compose.builds import push_service
    from teu.cli.compose.project import load
    from teu.cli.compose.steps import Steps

    project = load(session, services)
    for key in services or sorted(project.services):
        if "image" in project.services[key]:
            push_service(session, project, key, Steps())
    return 0


def _onto_container(path: str, *, flags: Sequence[str] = ()) -> Run:
    """A command of one container, whose first word is a service here."""

    def run(session: Session, options: Options, words: list[str]) -> int:
        from teu.cli.compose.project import run_command
        from teu.cli.compose.single import container_of, typed

        container = container_of(session, words[0], options.number("index") or 1)
        return run_command(session, path, [*typed(options, flags), container, *words[1:]])

    return run


def _exec(session: Session, options: Options, words: list[str]) -> int:
    from teu.cli.compose.single import execute

    return execute(session, options, words)


def _run(session: Session, options: Options, words: list[str]) -> int:
    from teu.cli.compose.single import run_once

    return run_once(session, options, words)


def _cp(session: Session, options: Options, words: list[str]) -> int:
    from teu.cli.compose.single import copy

    return copy(session, options, words)


def _stats(session: Session, options: Options, services: list[str]) -> int:
    from teu.cli.compose import engine
    from teu.cli.compose.project import name_only, run_command

    there = engine.containers(session.client, name_only(session), services, every=False)
    words = ["--no-stream"] if options.flag("no-stream") else []
    return run_command(session, "container stats", [*words, *(found.name for found in there)])


def _events(session: Session, options: Options, _services: list[str]) -> int:
    from teu.cli.compose.project import name_only, run_command
    from teu.compose.convert import label

    words = [
        "--filter",
        f"label={label('project')}={name_only(session)}",
        "--filter",
        "type=container",
    ]
    for name in ("since", "until"):
        words += [f"--{name}", options.text(name)] if options.changed(name) else []
    words += ["--format", "json"] if options.flag("json") else []
    return run_command(session, "system events", words)


def _wait(session: Session, options: Options, services: list[str]) -> int:
    from teu.cli.compose.single import wait_for

    return wait_for(session, services, down=options.flag("down-project"))


def _version(session: Session, options: Options, _arguments: list[str]) -> int:
    from teu import __version__

    text = __version__ if options.flag("short") else f"teu compose version {__version__}"
    session.out(f"{text}\n")
    return 0


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
        _up,
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
        _create, _SERVICES, args=_MANY, flags=(*_BUILD_FLAGS, *_CHANGE_FLAGS)
    ),
    "compose scale": Command(
        _scale,
        "[OPTIONS] SERVICE=N...",
        args=(1, None),
        flags=(Flag("no-deps", "", "bool", "Leave out what the services depend on"),),
    ),
    "compose down": Command(
        _down,
        _SERVICES,
        args=_MANY,
        flags=(
            Flag("volumes", "v", "bool", "Remove the project's volumes, too"),
            Flag("rmi", "", "string", "Remove images: all, or local (built here)"),
            Flag("remove-orphans", "", "bool", "Also containers of services that are gone"),
            _TIMEOUT,
        ),
    ),
    "compose start": Command(
        _each("start", ("Starting", "Started"), only=("created", "exited")), _SERVICES, args=_MANY
    ),
    "compose stop": Command(
        _each(
            "stop",
            ("Stopping", "Stopped"),
            only=("running", "restarting", "paused"),
            reverse=True,
            query=_stop_query,
        ),
        _SERVICES,
        args=_MANY,
        flags=(_TIMEOUT,),
    ),
    "compose restart": Command(
        _each("restart", ("Restarting", "Restarted"), query=_stop_query),
        _SERVICES,
        args=_MANY,
        flags=(_TIMEOUT, Flag("no-deps", "", "bool", "", hidden=True)),
    ),
    "compose kill": Command(
        _each(
            "kill",
            ("Killing", "Killed"),
            only=("running",),
            query=lambda options: {"signal": options.text("signal")},
        ),
        _SERVICES,
        args=_MANY,
        flags=(Flag("signal", "s", "string", "Signal to send", default="SIGKILL"),),
    ),
    "compose pause": Command(
        _each("pause", ("Pausing", "Paused"), only=("running",)), _SERVICES, args=_MANY
    ),
    "compose unpause": Command(
        _each("unpause", ("Unpausing", "Unpaused"), only=("paused",)), _SERVICES, args=_MANY
    ),
    "compose rm": Command(
        _rm,
        _SERVICES,
        args=_MANY,
        flags=(
            Flag("force", "f", "bool", "Do not ask"),
            Flag("stop", "s", "bool", "Stop them first"),
            Flag("volumes", "v", "bool", "Remove their anonymous volumes"),
        ),
    ),
    "compose ps": Command(
        _ps,
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
        _ls,
        "[OPTIONS]",
        flags=(Flag("all", "a", "bool", "Also stopped projects"), _QUIET, _FORMAT),
    ),
    "compose images": Command(_images, _SERVICES, args=_MANY, flags=(_QUIET, _FORMAT)),
    "compose top": Command(_top, "[SERVICE...]", args=_MANY),
    "compose port": Command(
        _port,
        "[OPTIONS] SERVICE PORT",
        args=(2, 2),
        flags=(
            Flag("protocol", "", "string", "tcp or udp", default="tcp"),
            Flag("index", "", "int", "Which of the service's containers"),
        ),
    ),
    "compose logs": Command(
        _logs,
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
        _config,
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
        _build,
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
        _pull,
        _SERVICES,
        args=_MANY,
        flags=(
            _QUIET,
            Flag("ignore-buildable", "", "bool", "Leave out what can be built"),
            Flag("ignore-pull-failures", "", "bool", "Go on after a failure"),
        ),
    ),
    "compose push": Command(_push, _SERVICES, args=_MANY),
    "compose exec": Command(
        _exec,
        "[OPTIONS] SERVICE COMMAND [ARG...]",
        args=(2, None),
        interspersed=False,
        flags=_EXEC_FLAGS,
    ),
    "compose run": Command(
        _run,
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
        _onto_container("container attach"),
        "[OPTIONS] SERVICE",
        args=(1, 1),
        flags=(Flag("index", "", "int", "Which of the service's containers"),),
    ),
    "compose cp": Command(
        _cp,
        "[OPTIONS] SERVICE:PATH PATH|- | PATH|- SERVICE:PATH",
        args=(2, 2),
        flags=(
            Flag("archive", "a", "bool", "Keep owners"),
            Flag("follow-link", "L", "bool", "Follow symbolic links in the source"),
            Flag("index", "", "int", "Which of the service's containers"),
        ),
    ),
    "compose stats": Command(
        _stats,
        _SERVICES,
        args=_MANY,
        flags=(Flag("no-stream", "", "bool", "Print once, then end"),),
    ),
    "compose events": Command(
        _events,
        _SERVICES,
        args=_MANY,
        flags=(
            Flag("json", "", "bool", "A JSON object for each event"),
            Flag("since", "", "string", "Begin at this time"),
            Flag("until", "", "string", "End at this time"),
        ),
    ),
    "compose wait": Command(
        _wait,
        "[OPTIONS] SERVICE...",
        args=(1, None),
        flags=(Flag("down-project", "", "bool", "Remove the project when the first one ends"),),
    ),
    "compose version": Command(
        _version, "[OPTIONS]", flags=(Flag("short", "", "bool", "Only the number"),)
    ),
}
