"""`up`: from what is there to what the files say, one service after those that it needs."""

from __future__ import annotations

import concurrent.futures

from teu.cli.client import Client
from teu.cli.compose import builds, engine
from teu.cli.compose.changes import Changer, grace_s
from teu.cli.compose.steps import Steps
from teu.cli.session import Failure
from teu.compose.plan import (
    CREATE,
    KEEP,
    RECREATE,
    REMOVE,
    Change,
    Plan,
    Wishes,
    make_plan,
    selected,
    start_order,
)
from teu.compose.project import dependencies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teu.cli.session import Session
    from teu.compose.project import Project

DEFAULT_LIMIT_S = 600.0
_AT_ONCE = 8
_SIGNS = {CREATE: "+", RECREATE: "~", REMOVE: "-", KEEP: "=", "start": ">"}


class Up:
    """One `up`. `start`: also starts. `timeout_s`: for containers that have to stop."""

    def __init__(
        self,
        session: Session,
        project: Project,
        wishes: Wishes,
        *,
        start: bool = True,
        timeout_s: int | None = None,
        quiet: bool = False,
    ) -> None:
        self._session = session
        self._client = session.client
        self._project = project
        self._wishes = wishes
        self._start = start
        self._timeout_s = timeout_s
        self.steps = Steps(quiet=quiet)
        self._changer = Changer(session.client, project, self.steps)
        self._ids: dict[str, list[tuple[str, str]]] = {}

    @property
    def services(self) -> list[str]:
        """Those that are meant, in the order in which they start."""
        chosen = selected(self._project, self._wishes)
        return [key for key in start_order(self._project) if key in chosen]

    def plan(self) -> Plan:
        """What would be done now. Raises: Failure."""
        there = engine.containers(self._client, self._project.name)
        existing = (
            set(engine.objects(self._client, "networks")),
            set(engine.objects(self._client, "volumes")),
        )
        images = engine.image_ids(self._client, self._project, self.services)
        return make_plan(self._project, there, images, existing, self._wishes)

    def prepare(self, *, build: bool = False, no_build: bool = False, pull: str = "") -> Plan:
        """Images, networks and volumes; what is left to do. Raises: Failure."""
        self._changer.check_external()
        builds.ensure(
            self._session,
            self._project,
            self.services,
            self.steps,
            build=build,
            no_build=no_build,
            pull=pull,
        )
        plan = self.plan()
        for key in plan.networks:
            self._changer.create_network(key)
        for key in plan.volumes:
            self._changer.create_volume(key)
        return plan

    def run(self, *, build: bool = False, no_build: bool = False, pull: str = "") -> None:
        """Raises: Failure; what was running runs on then, as far as nothing replaced it yet."""
        plan = self.prepare(build=build, no_build=no_build, pull=pull)
        for change in plan.changes:
            if change.action == REMOVE:
                self._remove(change)
        for key in self.services:
            self._service(key, [c for c in plan.of(key) if c.action != REMOVE])

    def _service(self, key: str, changes: list[Change]) -> None:
        if self._start:
            self._await_dependencies(key)
        peers = {name: found[0][0] for name, found in self._ids.items() if found}
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            made = list(pool.map(lambda change: self._container(change, peers), changes))
        self._ids[key] = made

    def _container(self, change: Change, peers: dict[str, str]) -> tuple[str, str]:
        """Carries one change out, over a connection of its own; (id, name)."""
        client = Client(self._client.endpoint)
        changer = Changer(client, self._project, self.steps)
        found = change.container
        if change.action == CREATE:
            container = changer.create(change, peers)
        elif change.action == RECREATE:
            limit_s = grace_s(self._project, change.service, self._timeout_s)
            container = changer.replace(change, peers, limit_s)
        else:
            assert found is not None
            container = found.id
            if change.action == KEEP:
                self.steps.tell(f"Container {change.name}", "Running")
        if self._start and change.action != KEEP:
            changer.start(container, change.name, change.service)
        return container, change.name

    def _remove(self, change: Change) -> None:
        assert change.container is not None
        limit_s = grace_s(self._project, change.service, self._timeout_s)
        if change.container.state == "running":
            self._changer.stop(change.container, limit_s)
        self._changer.remove(change.container)

    def _await_dependencies(self, key: str) -> None:
        for name, how in dependencies(self._project.services[key]).items():
            if how["condition"] == "service_started":
                continue
            for container, shown in self._ids.get(name, ()):
                try:
                    self._changer.wait_until(container, shown, how["condition"], DEFAULT_LIMIT_S)
                except Failure as failure:
                    if how.get("required", True):
                        raise Failure(f"dependency failed to start: {failure}") from failure

    def wait(self, limit_s: float) -> None:
        """Until everything runs, and is healthy where there is a health check. Raises: Failure."""
        for found in self._ids.values():
            for container, name in found:
                shown = self._client.get(f"/containers/{container}/json")
                healthy = (shown["State"].get("Health") or {}).get("Status")
                condition = "service_healthy" if healthy else "service_running"
                self._changer.wait_until(container, name, condition, limit_s)

    def started(self) -> list[str]:
        """Ids of the containers of the services that were meant."""
        return [container for found in self._ids.values() for container, _ in found]


def shown(plan: Plan) -> str:
    """A plan in words: `~ app-web-1  recreate: its configuration has changed`."""
    lines = [f"+ network {key}" for key in plan.networks]
    lines += [f"+ volume {key}" for key in plan.volumes]
    for change in plan.changes:
        why = f": {', '.join(change.reasons)}" if change.reasons else ""
        lines.append(f"{_SIGNS[change.action]} {change.name}  {change.action}{why}")
    return "".join(f"{line}\n" for line in lines) or "nothing to do\n"
