"""`down`, `stop`, `kill` and the others that change what is there."""

from __future__ import annotations

import concurrent.futures

from teu.cli.client import Client
from teu.cli.compose import engine
from teu.cli.compose.changes import Changer, grace_s
from teu.cli.compose.steps import Steps
from teu.compose.convert import image_of
from teu.compose.plan import Found, start_order
from teu.compose.project import Project

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from teu.cli.session import Session

_AT_ONCE = 8


def bare(name: str) -> Project:
    """A project of which only the name is known: its files are not here."""
    return Project(name=name, directory="", files=[], environment={}, services={})


def take_down(
    session: Session,
    project: Project,
    *,
    volumes: bool = False,
    images: str = "",
    orphans: bool = False,
    timeout_s: int | None = None,
    services: Iterable[str] = (),
) -> None:
    """Raises: Failure. What is not there is no error."""
    steps = Steps()
    changer = Changer(session.client, project, steps)
    there = engine.containers(session.client, project.name, services, oneoff=True)
    known = {*project.services, *project.disabled}
    mine = [f for f in there if f.service in known or orphans or not known]

    def remove(found: Found) -> None:
        own = Changer(Client(session.client.endpoint), project, steps)
        if found.state in ("running", "restarting", "paused"):
            own.stop(found, grace_s(project, found.service, timeout_s))
        own.remove(found, volumes=volumes)

    in_reverse_order(project, mine, remove)
    if services:
        return
    everything = len(mine) == len(there)
    _remove_objects(session, project, changer, networks=everything, volumes=volumes, images=images)


def _remove_objects(
    session: Session,
    project: Project,
    changer: Changer,
    *,
    networks: bool,
    volumes: bool,
    images: str,
) -> None:
    if networks:
        for name in engine.objects(session.client, "networks", project.name):
            changer.remove_network(name)
    if volumes:
        for name in engine.objects(session.client, "volumes", project.name):
            changer.remove_volume(name)
    for key, service in project.services.items() if images else ():
        if images == "all" or "image" not in service:
            changer.remove_image(image_of(project, key))


def in_reverse_order(
    project: Project, containers: list[Found], work: Callable[[Found], None]
) -> None:
    """Service by service, those that others need last; the containers of one at once."""
    order = {key: place for place, key in enumerate(start_order(project))}
    groups: dict[int, list[Found]] = {}
    for found in containers:
        groups.setdefault(order.get(found.service, -1), []).append(found)
    for place in sorted(groups, reverse=True):
        in_parallel(groups[place], work)


def in_parallel(containers: list[Found], work: Callable[[Found], None]) -> None:
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(work, containers))
