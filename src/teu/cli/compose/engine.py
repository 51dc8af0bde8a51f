"""What of a project is there: its containers, networks, volumes, images."""

from __future__ import annotations

from teu.cli.client import DaemonError
from teu.cli.jsontext import dumps
from teu.compose.convert import image_of, label
from teu.compose.plan import Found

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from teu.cli.client import Client
    from teu.compose.project import Project


def rows(
    client: Client,
    name: str,
    services: Iterable[str] = (),
    *,
    oneoff: bool = False,
    every: bool = True,
) -> list[dict[str, Any]]:
    """Rows of `GET /containers/json`, by service and number. `every`: stopped ones too."""
    labels = [f"{label('project')}={name}"]
    if not oneoff:
        labels.append(f"{label('oneoff')}=False")
    filters = dumps({"label": labels})
    found = client.get("/containers/json", {"all": every, "filters": filters})
    wanted = set(services)
    chosen = [row for row in found if not wanted or _service(row) in wanted]
    return sorted(chosen, key=lambda row: (_service(row), Found.read(row).number))


def containers(
    client: Client,
    name: str,
    services: Iterable[str] = (),
    *,
    oneoff: bool = False,
    every: bool = True,
) -> list[Found]:
    return [Found.read(row) for row in rows(client, name, services, oneoff=oneoff, every=every)]


def objects(client: Client, kind: str, name: str = "") -> dict[str, dict[str, Any]]:
    """Networks or volumes by name; of one project, or all."""
    query = {"filters": dumps({"label": [f"{label('project')}={name}"]})} if name else {}
    answer = client.get(f"/{kind}", query)
    listed = answer if kind == "networks" else answer.get("Volumes") or []
    return {entry["Name"]: entry for entry in listed}


def image_ids(client: Client, project: Project, services: Iterable[str]) -> dict[str, str]:
    """Service -> id of its image; empty where it is not here."""
    return {key: image_id(client, image_of(project, key)) for key in services}


def image_id(client: Client, image: str) -> str:
    from teu.cli.client import escape

    try:
        return str(client.get(f"/images/{escape(image)}/json")["Id"])
    except DaemonError as error:
        if error.is_missing:
            return ""
        raise


def _service(row: dict[str, Any]) -> str:
    return str((row.get("Labels") or {}).get(label("service"), ""))
