"""The commands that change a project."""

from __future__ import annotations

from teu.cli.client import Client
from teu.cli.compose import engine
from teu.cli.compose.builds import build_service, pull_service, push_service
from teu.cli.compose.changes import Changer
from teu.cli.compose.down import bare, in_reverse_order, take_down
from teu.cli.compose.foreground import Foreground
from teu.cli.compose.project import load
from teu.cli.compose.steps import Steps
from teu.cli.compose.up import Up, shown
from teu.cli.prompt import confirm
from teu.cli.session import Failure
from teu.compose.plan import Wishes, start_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from teu.cli.grammar import Options
    from teu.cli.session import Session
    from teu.compose.plan import Found
    from teu.compose.project import Project

_WAIT_LIMIT_S = 600


def up(session: Session, options: Options, services: list[str]) -> int:
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
        up.wait(options.number("wait-timeout") or _WAIT_LIMIT_S)
    if options.flag("detach") or options.flag("wait") or options.flag("no-start"):
        return 0
    return Foreground(session, project, up, options).run()


def create(session: Session, options: Options, services: list[str]) -> int:
    project = load(session, services)
    up = Up(session, project, _wishes(options, project, services), start=False)
    up.run(
        build=options.flag("build"), no_build=options.flag("no-build"), pull=options.text("pull")
    )
    return 0


def scale(session: Session, options: Options, words: list[str]) -> int:
    project = load(session)
    scales = _scales(project, words)
    wishes = Wishes(
        services=list(scales), with_dependencies=not options.flag("no-deps"), scales=scales
    )
    Up(session, project, wishes).run()
    return 0


def down(session: Session, options: Options, services: list[str]) -> int:
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
    take_down(
        session,
        project,
        volumes=options.flag("volumes"),
        images=images,
        orphans=options.flag("remove-orphans"),
        timeout_s=_timeout(options),
        services=services,
    )
    return 0


def rm(session: Session, options: Options, services: list[str]) -> int:
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


def build(session: Session, options: Options, services: list[str]) -> int:
    project = load(session, services)
    more = [f"--{name}" for name in ("no-cache", "pull", "quiet") if options.flag(name)]
    for value in options.texts("build-arg"):
        more += ["--build-arg", value]
    steps = Steps(quiet=options.flag("quiet"))
    for key in services or sorted(project.services):
        if "build" in project.services[key]:
            build_service(session, project, key, steps, more)
    if options.flag("push"):
        return push(session, options, services)
    return 0


def pull(session: Session, options: Options, services: list[str]) -> int:
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


def push(session: Session, _options: Options, services: list[str]) -> int:
    project = load(session, services)
    for key in services or sorted(project.services):
        if "image" in project.services[key]:
            push_service(session, project, key, Steps())
    return 0


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


def each(
    session: Session,
    services: list[str],
    action: str,
    states: tuple[str, str],
    *,
    only: tuple[str, ...] = (),
    reverse: bool = False,
    query: dict[str, Any] | None = None,
) -> int:
    """Does `action` to the containers of services, in the order of starting, or its reverse."""
    project = load(session, services)
    steps = Steps()

    def act(found: Found) -> None:
        changer = Changer(Client(session.client.endpoint), project, steps)
        changer.act(found, action, states, **(query or {}))

    there = engine.containers(session.client, project.name, services)
    chosen = [found for found in there if not only or found.state in only]
    if reverse:
        in_reverse_order(project, chosen, act)
        return 0
    order = {key: place for place, key in enumerate(start_order(project))}
    for found in sorted(chosen, key=lambda found: order.get(found.service, -1)):
        act(found)
    return 0


def start(session: Session, _options: Options, services: list[str]) -> int:
    states = ("Starting", "Started")
    return each(session, services, "start", states, only=("created", "exited"))


def stop(session: Session, options: Options, services: list[str]) -> int:
    return each(
        session,
        services,
        "stop",
        ("Stopping", "Stopped"),
        only=("running", "restarting", "paused"),
        reverse=True,
        query={"t": _timeout(options)},
    )


def restart(session: Session, options: Options, services: list[str]) -> int:
    states, query = ("Restarting", "Restarted"), {"t": _timeout(options)}
    return each(session, services, "restart", states, query=query)


def kill(session: Session, options: Options, services: list[str]) -> int:
    states, query = ("Killing", "Killed"), {"signal": options.text("signal")}
    return each(session, services, "kill", states, only=("running",), query=query)


def pause(session: Session, _options: Options, services: list[str]) -> int:
    return each(session, services, "pause", ("Pausing", "Paused"), only=("running",))


def unpause(session: Session, _options: Options, services: list[str]) -> int:
    return each(session, services, "unpause", ("Unpausing", "Unpaused"), only=("paused",))
