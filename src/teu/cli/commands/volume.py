"""`volume ls|create|rm`."""

from __future__ import annotations

from teu.cli import filters, human
from teu.cli.client import escape
from teu.cli.grammar import Command, Flag
from teu.cli.lists import pairs
from teu.cli.session import Failure
from teu.cli.tables import Listing, render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.grammar import Options
    from teu.cli.session import Session

_CLUSTER_FLAGS = (
    ("availability", "string"), ("group", "string"), ("limit-bytes", "bytes"),
    ("required-bytes", "bytes"), ("scope", "string"), ("secret", "map"), ("sharing", "string"),
    ("topology-preferred", "list"), ("topology-required", "list"), ("type", "string"),
)  # fmt: skip


class VolumeRow:
    __slots__ = ("data",)

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data


def _links(row: VolumeRow) -> str:
    usage = row.data.get("UsageData")
    return "N/A" if usage is None else str(usage.get("RefCount", 0))


def _size(row: VolumeRow) -> str:
    from teu.units import human_size

    usage = row.data.get("UsageData")
    return "N/A" if usage is None else human_size(usage.get("Size", 0), 4)


def _cluster(row: VolumeRow, name: str) -> str:
    cluster = row.data.get("ClusterVolume")
    return "N/A" if cluster is None else str((cluster.get("Spec") or {}).get(name, ""))


def _status(row: VolumeRow) -> str:
    cluster = row.data.get("ClusterVolume")
    if cluster is None:
        return "N/A"
    if not (cluster.get("Info") or {}).get("VolumeID"):
        return "pending creation"
    count = len(cluster.get("PublishStatus") or ())
    return ("created", "in use (1 node)")[count] if count < 2 else f"in use ({count} nodes)"


VOLUMES = Listing(
    "*formatter.volumeContext",
    {
        "ID": "ID",
        "Name": "VOLUME NAME",
        "Group": "GROUP",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "Availability": "AVAILABILITY",
        "Mountpoint": "MOUNTPOINT",
        "Labels": "LABELS",
        "Links": "LINKS",
        "Size": "SIZE",
        "Status": "STATUS",
    },
    {
        "Name": lambda row: row.data.get("Name", ""),
        "Driver": lambda row: row.data.get("Driver", ""),
        "Scope": lambda row: row.data.get("Scope", ""),
        "Mountpoint": lambda row: row.data.get("Mountpoint", ""),
        "Labels": lambda row: human.labels_text(row.data.get("Labels")),
        "Label": lambda row, name: (row.data.get("Labels") or {}).get(name, ""),
        "Links": _links,
        "Size": _size,
        "Group": lambda row: _cluster(row, "Group"),
        "Availability": lambda row: _cluster(row, "Availability"),
        "Status": _status,
    },
)


def _list(session: Session, options: Options, _arguments: list[str]) -> int:
    query = {"filters": filters.encode(options.texts("filter"))}
    volumes = (session.client.get("/volumes", query) or {}).get("Volumes") or []
    quiet = options.flag("quiet")
    configured = "" if quiet else session.config.text("volumesFormat")
    form = options.text("format") or configured or "table"
    if form == "table":
        form = "{{.Name}}" if quiet else "table {{.Driver}}\t{{.Name}}"
    elif form == "raw":
        form = "name: {{.Name}}" if quiet else "name: {{.Name}}\\ndriver: {{.Driver}}\\n"
    volumes.sort(key=lambda data: human.natural_key(data.get("Name", "")))
    session.out(render(VOLUMES, [VolumeRow(data) for data in volumes], form))
    return 0


def _create(session: Session, options: Options, arguments: list[str]) -> int:
    name = options.text("name")
    if arguments and name:
        raise Failure(
            "conflicting options: cannot specify a volume-name through both --name and as a "
            "positional arg"
        )
    body = {
        "Name": arguments[0] if arguments else name,
        "Driver": options.text("driver"),
        "DriverOpts": pairs(options.texts("opt")),
        "Labels": pairs(options.texts("label")),
    }
    answer = session.client.post("/volumes/create", body=body)
    session.out(answer["Name"] + "\n")
    return 0


def _remove(session: Session, options: Options, arguments: list[str]) -> int:
    problems: list[str] = []
    for name in arguments:
        try:
            force = {"force": options.flag("force")}
            session.client.delete(f"/volumes/{escape(name)}", force)
        except Failure as failure:
            problems.append(str(failure))
        else:
            session.out(name + "\n")
    if problems:
        raise Failure("\n".join(problems))
    return 0


COMMANDS = {
    "volume ls": Command(
        _list,
        "[OPTIONS]",
        flags=(
            Flag("cluster", "", "bool", "Show only cluster volumes", missing=True),
            Flag("filter", "f", "filter", "Show only what fits `name=value` (repeatable)",
                 check="filter"),
            Flag("format", "", "string",
                 "'table', 'table TEMPLATE', 'json', or a Go template for each volume"),
            Flag("quiet", "q", "bool", "Print only names"),
        ),
    ),
    "volume create": Command(
        _create,
        "[OPTIONS] [VOLUME]",
        args=(0, 1),
        flags=(
            Flag("driver", "d", "string", "Driver of the volume", default="local"),
            Flag("label", "", "list", "Label `name=value`", check="label"),
            Flag("name", "", "string", "Name of the volume", hidden=True),
            Flag("opt", "o", "map", "Option `name=value` for the driver"),
            *(Flag(name, "", kind, "For cluster volumes", missing=True)
              for name, kind in _CLUSTER_FLAGS),
        ),
    ),
    "volume rm": Command(
        _remove,
        "[OPTIONS] VOLUME [VOLUME...]",
        args=(1, None),
        flags=(Flag("force", "f", "bool", "A volume that does not exist is no error"),),
        long="Remove volumes. A volume that a container uses cannot be removed.",
    ),
}  # fmt: skip
