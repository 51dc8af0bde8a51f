"""What has to change so that the engine runs what the files say, and why.

Made from the project and what is there; carried out, or only shown (`up --dry-run`).
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from teu.compose.convert import config_hash, container_name, label, number_of
from teu.compose.project import Project, dependencies, scale

CREATE, RECREATE, START, KEEP, REMOVE = "create", "recreate", "start", "keep", "remove"


class Found(Struct, kw_only=True):
    """A container of the project that is there."""

    id: str
    name: str
    service: str
    number: int
    state: str
    hash: str
    image: str
    labels: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, row: dict[str, Any]) -> Found:
        """From a row of `GET /containers/json`."""
        labels = row.get("Labels") or {}
        return cls(
            id=row["Id"],
            name=row["Names"][0].lstrip("/") if row.get("Names") else row["Id"][:12],
            service=labels.get(label("service"), ""),
            number=number_of(labels),
            state=row.get("State", ""),
            hash=labels.get(label("config-hash"), ""),
            image=row.get("ImageID", ""),
            labels=labels,
        )


class Change(Struct, kw_only=True):
    """One container: what is done with it. `reasons`: why, in the words of the files."""

    action: str
    service: str
    number: int
    name: str
    container: Found | None = None
    reasons: list[str] = field(default_factory=list)


class Plan(Struct, kw_only=True):
    """`changes`: by service, in the order in which services start."""

    networks: list[str]
    volumes: list[str]
    changes: list[Change]

    def of(self, service: str) -> list[Change]:
        return [change for change in self.changes if change.service == service]


class Wishes(Struct, kw_only=True):
    """How `up` was asked: which services, and what to do with those that need no change."""

    services: list[str] = field(default_factory=list)  # all when empty
    with_dependencies: bool = True
    force_recreate: bool = False
    no_recreate: bool = False
    always_recreate_dependencies: bool = False
    scales: dict[str, int] = field(default_factory=dict)
    remove_orphans: bool = False


def make_plan(
    project: Project,
    containers: list[Found],
    images: dict[str, str],
    existing: tuple[set[str], set[str]],
    wishes: Wishes,
) -> Plan:
    """`images`: service -> id of the image that it would run now ("": not here).
    `existing`: names of the networks and volumes that are there."""
    chosen = selected(project, wishes)
    changes: list[Change] = []
    for key in start_order(project):
        if key in chosen:
            mine = [found for found in containers if found.service == key]
            changes += _service_changes(project, key, mine, images.get(key, ""), wishes)
    if wishes.remove_orphans:
        known = {*project.services, *project.disabled}
        changes += [
            _removal(found, "its service is not in the files")
            for found in containers
            if found.service not in known
        ]
    return Plan(
        networks=_absent(project.networks, existing[0], _used(project, chosen, "networks")),
        volumes=_absent(project.volumes, existing[1], set(project.volumes)),
        changes=changes,
    )


def selected(project: Project, wishes: Wishes) -> set[str]:
    """The services that are meant, with what they depend on."""
    if not wishes.services:
        return set(project.services)
    found: set[str] = set()
    waiting = list(wishes.services)
    while waiting:
        key = waiting.pop()
        if key in found or key not in project.services:
            continue
        found.add(key)
        if wishes.with_dependencies:
            waiting += dependencies(project.services[key])
    return found


def start_order(project: Project) -> list[str]:
    """Each service after those that it depends on; otherwise by name."""
    order: list[str] = []

    def visit(key: str) -> None:
        if key in order or key not in project.services:
            return
        for other in sorted(dependencies(project.services[key])):
            visit(other)
        order.append(key)

    for key in sorted(project.services):
        visit(key)
    return order


def _service_changes(
    project: Project, key: str, mine: list[Found], image: str, wishes: Wishes
) -> list[Change]:
    wanted = wishes.scales.get(key, scale(project.services[key]))
    there = sorted(mine, key=lambda found: (found.state != "running", found.number))
    kept, surplus = there[:wanted], there[wanted:]
    changes = [_existing(project, key, found, image, wishes) for found in kept]
    numbers = {found.number for found in kept}
    number = 0
    for _ in range(wanted - len(kept)):
        number += 1
        while number in numbers:
            number += 1
        numbers.add(number)
        name = container_name(project, key, number)
        changes.append(Change(action=CREATE, service=key, number=number, name=name))
    changes += [_removal(found, f"the service has {wanted} containers") for found in surplus]
    return sorted(changes, key=lambda change: (change.action == REMOVE, change.number))


def _existing(project: Project, key: str, found: Found, image: str, wishes: Wishes) -> Change:
    reasons = []
    if wishes.force_recreate and key in selected_by_name(project, wishes):
        reasons.append("asked for")
    elif not wishes.no_recreate:
        if found.hash != config_hash(project, key):
            reasons.append("its configuration has changed")
        if image and found.image and image != found.image:
            reasons.append("there is a newer image")
    action = RECREATE if reasons else KEEP if found.state == "running" else START
    name = container_name(project, key, found.number)
    return Change(
        action=action,
        service=key,
        number=found.number,
        name=name if action == RECREATE else found.name,
        container=found,
        reasons=reasons,
    )


def selected_by_name(project: Project, wishes: Wishes) -> set[str]:
    """Without dependencies, unless those are meant too."""
    if not wishes.services or wishes.always_recreate_dependencies:
        return selected(project, wishes)
    return set(wishes.services)


def _removal(found: Found, reason: str) -> Change:
    return Change(
        action=REMOVE,
        service=found.service,
        number=found.number,
        name=found.name,
        container=found,
        reasons=[reason],
    )


def _used(project: Project, chosen: set[str], kind: str) -> set[str]:
    return {name for key in chosen for name in project.services[key].get(kind, {})}


def _absent(objects: dict[str, Any], existing: set[str], used: set[str]) -> list[str]:
    return [
        key
        for key in sorted(used)
        if not objects[key].get("external") and objects[key]["name"] not in existing
    ]
