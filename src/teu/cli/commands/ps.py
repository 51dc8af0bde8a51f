"""`ps`, `container ls`."""

from __future__ import annotations

from teu.cli import filters, human
from teu.cli.grammar import Command, Flag
from teu.cli.session import Failure
from teu.cli.tables import Listing, plain_fields, render
from teu.template.quoting import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from teu.cli.grammar import Options
    from teu.cli.session import Session

DEFAULT = (
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
)
_RAW = """container_id: {{.ID}}
image: {{.Image}}
command: {{.Command}}
created_at: {{.CreatedAt}}
state: {{- pad .State 1 0}}
status: {{- pad .Status 1 0}}
names: {{.Names}}
labels: {{- pad .Labels 1 0}}
ports: {{- pad .Ports 1 0}}
"""


class ContainerRow:
    """One entry of the container list. full: show ids, names and commands uncut."""

    __slots__ = ("asks_size", "data", "full")

    def __init__(self, data: dict[str, Any], full: bool) -> None:
        self.data = data
        self.full = full
        self.asks_size = False


def _id(row: ContainerRow) -> str:
    identifier: str = row.data.get("Id", "")
    return identifier if row.full else human.short_id(identifier)


def _names(row: ContainerRow) -> str:
    names = [name[1:] for name in row.data.get("Names") or ()]
    if not row.full:
        for name in names:
            if "/" not in name:
                return str(name)
    return ",".join(names)


def _image(row: ContainerRow) -> str:
    image: str = row.data.get("Image", "")
    if not image:
        return "<no image>"
    if row.full:
        return image
    short = human.short_id(row.data.get("ImageID", ""))
    if short == human.short_id(image):
        return short
    from teu.cli.familiar import parts as familiar_parts

    parts = familiar_parts(image)
    if parts is None:
        return image
    name, tag, _ = parts
    return f"{name}:{tag}" if tag else name


def _command(row: ContainerRow) -> str:
    command: str = row.data.get("Command", "")
    return quote(command if row.full else human.ellipsis(command, 20))


def _size(row: ContainerRow) -> str:
    from teu.units import human_size

    row.asks_size = True
    writable = human_size(row.data.get("SizeRw") or 0)
    whole = row.data.get("SizeRootFs") or 0
    return f"{writable} (virtual {human_size(whole)})" if whole > 0 else writable


def _mounts(row: ContainerRow) -> str:
    names = [m.get("Name") or m.get("Source", "") for m in row.data.get("Mounts") or ()]
    return ",".join(names if row.full else (human.ellipsis(name, 15) for name in names))


def _local_volumes(row: ContainerRow) -> str:
    return str(sum(m.get("Driver") == "local" for m in row.data.get("Mounts") or ()))


def _networks(row: ContainerRow) -> str:
    settings = row.data.get("NetworkSettings") or {}
    return ",".join(settings.get("Networks") or ())


def _platform(row: ContainerRow) -> Any:
    platform = (row.data.get("ImageManifestDescriptor") or {}).get("platform")
    if platform is None:
        from teu.template.values import NilPointer

        return NilPointer("*formatter.Platform")
    from teu.template.values import Shown

    parts = [platform.get(name, "") for name in ("os", "architecture", "variant")]
    order = ("architecture", "os", "os.version", "os.features", "variant")
    return Shown("/".join(filter(None, parts)), {n: platform[n] for n in order if n in platform})


def ports_text(ports: list[dict[str, Any]]) -> str:
    """`0.0.0.0:80->80/tcp, 443/tcp`: equal neighbours as ranges, remapped ports last."""
    groups: dict[str, list[int]] = {}
    finished: list[str] = []
    remapped: list[str] = []
    for port in sorted(ports, key=_port_key):
        address, private, kind = port.get("IP", ""), port["PrivatePort"], port.get("Type", "")
        public = port.get("PublicPort", 0)
        if address and public != private:
            remapped.append(f"{_host(address)}:{public}->{private}/{kind}")
            continue
        key = f"{address}/{kind}" if address else kind
        group = groups.get(key)
        if group is None:
            groups[key] = [private, private]
        elif private == group[1] + 1:
            group[1] = private
        else:
            finished.append(_port_group(key, group))
            groups[key] = [private, private]
    finished += [_port_group(key, group) for key, group in groups.items()]
    return ", ".join(finished + remapped)


def _port_key(port: dict[str, Any]) -> tuple[int, str, int, str]:
    return (
        port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0), port.get("Type", "")
    )  # fmt: skip


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _port_group(key: str, group: list[int]) -> str:
    first, last = group
    span = str(first) if first == last else f"{first}-{last}"
    address, slash, kind = key.rpartition("/")
    if slash:
        return f"{_host(address)}:{span}->{span}/{kind}"
    return f"{span}/{kind}"


def _label(row: ContainerRow, name: str) -> str:
    return str((row.data.get("Labels") or {}).get(name, ""))


def _text(name: str) -> Callable[[ContainerRow], str]:
    return lambda row: row.data.get(name) or ""


CONTAINERS = Listing(
    "*formatter.ContainerContext",
    {
        "ID": "CONTAINER ID",
        "Names": "NAMES",
        "Image": "IMAGE",
        "Command": "COMMAND",
        "CreatedAt": "CREATED AT",
        "RunningFor": "CREATED",
        "Ports": "PORTS",
        "State": "STATE",
        "Status": "STATUS",
        "Size": "SIZE",
        "Labels": "LABELS",
        "Mounts": "MOUNTS",
        "LocalVolumes": "LOCAL VOLUMES",
        "Networks": "NETWORKS",
        "Platform": "PLATFORM",
    },
    {
        "ID": _id,
        "Names": _names,
        "Image": _image,
        "Command": _command,
        "CreatedAt": lambda row: human.local_time(row.data.get("Created", 0)),
        "RunningFor": lambda row: human.ago(row.data.get("Created", 0)),
        "Platform": _platform,
        "Ports": lambda row: ports_text(row.data.get("Ports") or []),
        "State": _text("State"),
        "Status": _text("Status"),
        "Size": _size,
        "Labels": lambda row: human.labels_text(row.data.get("Labels")),
        "Label": _label,
        "Mounts": _mounts,
        "LocalVolumes": _local_volumes,
        "Networks": _networks,
    },
)


def _list(session: Session, options: Options, _arguments: list[str]) -> int:
    form = options.text("format")
    if not form:
        form = session.config.text("psFormat")
    elif options.flag("quiet"):
        session.err("WARNING: Ignoring custom format, because both --format and --quiet are set.\n")
    with_size = _wants_size(options, form)
    limit = options.value("last")
    if options.flag("latest") and limit == -1:
        limit = 1
    containers = session.client.get(
        "/containers/json",
        {
            "all": options.flag("all"),
            "limit": limit if limit > 0 else None,
            "size": with_size,
            "filters": filters.encode(options.texts("filter")),
        },
    )
    full = options.flag("no-trunc")
    rows = [ContainerRow(data, full) for data in containers or ()]
    session.out(render(CONTAINERS, rows, _format(form, options.flag("quiet"), with_size)))
    return 0


def _wants_size(options: Options, form: str) -> bool:
    """Sizes cost the daemon a walk over files: asked for only when they will be shown."""
    asked = bool(form) and _shows_size(form)
    if asked and not options.changed("size") and not options.flag("quiet"):
        return True
    return options.flag("size")


def _shows_size(form: str) -> bool:
    """Raises: Failure when `form` is wrong; it is tried on an empty row."""
    fields = plain_fields(CONTAINERS, form)
    if fields is not None:
        return "Size" in fields
    row = ContainerRow({}, False)
    from teu.template import TemplateError, parse
    from teu.template.values import Record

    try:
        template = parse(form)
    except TemplateError as error:
        raise Failure(f"failed to parse template: {error}") from None
    try:
        template.execute(Record(CONTAINERS.type, CONTAINERS.methods, row))
    except TemplateError as error:
        raise Failure(f"failed to execute template: {error}") from None
    return row.asks_size


def _format(form: str, quiet: bool, with_size: bool) -> str:
    if form == "raw":
        if quiet:
            return "container_id: {{.ID}}"
        return _RAW + ("size: {{.Size}}\\n" if with_size else "")
    if quiet:
        return "{{.ID}}"
    if form in ("", "table"):
        return DEFAULT + ("\t{{.Size}}" if with_size else "")
    return form


COMMANDS = {
    "container ls": Command(
        _list,
        "[OPTIONS]",
        flags=(
            Flag("all", "a", "bool", "Show all containers (default shows just running)"),
            Flag("filter", "f", "filter", "Show only what fits `name=value` (repeatable)",
                 check="filter"),
            Flag("format", "", "string",
                 "'table', 'table TEMPLATE', 'json', or a Go template for each container"),
            Flag("last", "n", "int", "Show the n containers created last, in any state",
                 default=-1),
            Flag("latest", "l", "bool", "Show the container created last, in any state"),
            Flag("no-trunc", "", "bool", "Do not cut ids, commands and names"),
            Flag("quiet", "q", "bool", "Print only ids"),
            Flag("size", "s", "bool", "Show sizes on disk"),
        ),
    ),
}  # fmt: skip
