"""`ps`, `ls`, `images`, `top`, `port`: what is there, in tables."""

from __future__ import annotations

from teu.cli import human
from teu.cli.client import escape
from teu.cli.commands.ps import ports_text
from teu.cli.compose import engine
from teu.cli.imagename import parse
from teu.cli.jsontext import dumps
from teu.cli.session import Failure
from teu.cli.tables import Listing, render, tabulate
from teu.compose.convert import label
from teu.compose.plan import Found
from teu.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from teu.cli.session import Session

_COMMAND_WIDTH = 20
_ID_LENGTH = 12
PS_TABLE = (
    "table {{.Name}}\t{{.Image}}\t{{.Command}}\t{{.Service}}"
    "\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}"
)


class _Row:
    __slots__ = ("data", "found")

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.found = Found.read(data)


def _health(row: _Row) -> str:
    status: str = row.data.get("Status", "")
    for word in ("healthy", "unhealthy", "starting"):
        if f"({word})" in status or f"(health: {word})" in status:
            return word
    return ""


_CONTAINERS = Listing(
    "*formatter.ContainerContext",
    {
        "ID": "CONTAINER ID",
        "Name": "NAME",
        "Image": "IMAGE",
        "Command": "COMMAND",
        "Service": "SERVICE",
        "RunningFor": "CREATED",
        "Status": "STATUS",
        "Ports": "PORTS",
        "State": "STATE",
        "Health": "HEALTH",
        "Project": "PROJECT",
        "ExitCode": "EXIT CODE",
    },
    {
        "ID": lambda row: row.found.id[:_ID_LENGTH],
        "Name": lambda row: row.found.name,
        "Image": lambda row: row.data.get("Image", ""),
        "Command": lambda row: f'"{human.ellipsis(row.data.get("Command", ""), _COMMAND_WIDTH)}"',
        "Service": lambda row: row.found.service,
        "RunningFor": lambda row: human.ago(row.data.get("Created", 0)),
        "Status": lambda row: row.data.get("Status", ""),
        "Ports": lambda row: ports_text(row.data.get("Ports") or []),
        "State": lambda row: row.found.state,
        "Health": _health,
        "Project": lambda row: row.found.labels.get(label("project"), ""),
        "ExitCode": lambda row: str(_exit_code(row)),
    },
)


def _exit_code(row: _Row) -> int:
    """From `Exited (3) 2 minutes ago`."""
    _, _, rest = row.data.get("Status", "").partition("(")
    text = rest.partition(")")[0]
    return int(text) if text.isdigit() else 0


def containers_table(rows: list[dict[str, Any]], form: str) -> str:
    """`form`: `table`, `json` or a template."""
    found = [_Row(row) for row in rows]
    if form == "json":
        return "".join(f"{dumps(_as_json(row))}\n" for row in found)
    return render(_CONTAINERS, found, PS_TABLE if form in ("", "table") else form)


def _as_json(row: _Row) -> dict[str, Any]:
    shown = {name: method(row) for name, method in _CONTAINERS.methods.items()}
    ports = [
        {
            "URL": port.get("IP", ""),
            "TargetPort": port["PrivatePort"],
            "PublishedPort": port.get("PublicPort", 0),
            "Protocol": port["Type"],
        }
        for port in row.data.get("Ports") or ()
    ]
    return {**shown, "ID": row.found.id, "Publishers": ports, "ExitCode": _exit_code(row)}


def projects_table(session: Session, *, every: bool, form: str, quiet: bool) -> str:
    """All projects of the daemon: `ls`."""
    filters = dumps({"label": [label("project")]})
    rows = session.client.get("/containers/json", {"all": every, "filters": filters})
    projects: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        projects.setdefault(row["Labels"][label("project")], []).append(row)
    found = []
    for name in sorted(projects):
        states = [row["State"] for row in projects[name]]
        status = ", ".join(f"{state}({states.count(state)})" for state in sorted(set(states)))
        files = projects[name][0]["Labels"].get(label("project.config_files"), "")
        found.append({"Name": name, "Status": status, "ConfigFiles": files})
    if quiet:
        return "".join(f"{entry['Name']}\n" for entry in found)
    if form == "json":
        return dumps(found) + "\n"
    lines = ["NAME\tSTATUS\tCONFIG FILES"]
    lines += ["\t".join(entry.values()) for entry in found]
    return tabulate("\n".join(lines) + "\n")


def images_table(
    session: Session, rows: Iterable[dict[str, Any]], *, quiet: bool, form: str
) -> str:
    """The images that the containers were made from."""
    found = []
    for row in rows:
        shown = session.client.get(f"/images/{escape(row['ImageID'])}/json")
        name = parse(row["Image"]) if not row["Image"].startswith("sha256:") else None
        found.append(
            {
                "Container": Found.read(row).name,
                "Repository": name.familiar_repository if name else "<none>",
                "Tag": (name.with_default_tag().tag if name else "") or "<none>",
                "ID": shown["Id"].removeprefix("sha256:")[:_ID_LENGTH],
                "Size": human_size(shown.get("Size", 0)),
            }
        )
    if quiet:
        return "".join(f"{image}\n" for image in dict.fromkeys(e["ID"] for e in found))
    if form == "json":
        return dumps(found) + "\n"
    lines = ["CONTAINER\tREPOSITORY\tTAG\tIMAGE ID\tSIZE"]
    lines += ["\t".join(entry.values()) for entry in found]
    return tabulate("\n".join(lines) + "\n")


def top_text(session: Session, containers: list[Found]) -> str:
    parts = []
    for found in containers:
        shown = session.client.get(f"/containers/{found.id}/top")
        lines = ["\t".join(line) for line in (shown["Titles"], *shown["Processes"])]
        table = tabulate("\n".join(lines) + "\n")
        parts.append(f"{found.name}\n{table}\n")
    return "".join(parts)


def published(session: Session, name: str, service: str, number: int, port: str) -> str:
    """`0.0.0.0:8080`. Raises: Failure."""
    for found in engine.containers(session.client, name, [service]):
        if found.number == number:
            shown = session.client.get(f"/containers/{found.id}/json")
            for binding in (shown["NetworkSettings"].get("Ports") or {}).get(port) or ():
                return f"{binding['HostIp'] or '0.0.0.0'}:{binding['HostPort']}\n"
            raise Failure(f"no port {port} for container {found.name}")
    raise Failure(f'no container found for service "{service}" at index {number}')
