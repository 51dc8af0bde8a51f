"""`volume clone|cp|du|export|import|rename|snapshot`: what Docker's volumes cannot do."""

from __future__ import annotations

import os

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

_TAR = {"Content-Type": "application/x-tar"}
_NO_PAUSE = Flag(
    "pause", "", "bool", "Pause the containers that write to it meanwhile (default true)",
    default=True,
)  # fmt: skip
_LABEL = Flag("label", "", "list", "Label `name=value`", check="label")


class _Row:
    __slots__ = ("data",)

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data


def _size(row: _Row) -> str:
    from teu.units import human_size

    size_bytes = row.data.get("Size", -1)
    return "N/A" if size_bytes < 0 else human_size(size_bytes, 4)


_USAGE = Listing(
    "volume",
    {
        "Name": "VOLUME NAME", "Driver": "DRIVER", "Size": "SIZE", "Users": "USED BY",
    },
    {
        "Name": lambda row: row.data["Name"],
        "Driver": lambda row: row.data["Driver"],
        "Size": _size,
        "Users": lambda row: ",".join(row.data["Users"]) or "-",
    },
)  # fmt: skip


def _path(name: str, what: str) -> str:
    return f"/teu/volumes/{escape(name)}/{what}"


def _clone(session: Session, options: Options, arguments: list[str]) -> int:
    return _copy(session, options, arguments[0], arguments[1], snapshot=False)


def _snapshot(session: Session, options: Options, arguments: list[str]) -> int:
    name = arguments[1] if len(arguments) > 1 else ""
    return _copy(session, options, arguments[0], name, snapshot=True)


def _copy(session: Session, options: Options, source: str, target: str, *, snapshot: bool) -> int:
    body = {
        "Name": target,
        "Labels": pairs(options.texts("label")),
        "Snapshot": snapshot,
        "Pause": options.flag("pause"),
    }
    session.out(session.client.post(_path(source, "clone"), body=body)["Name"] + "\n")
    return 0


def _rename(session: Session, _options: Options, arguments: list[str]) -> int:
    session.client.post(_path(arguments[0], "rename"), {"name": arguments[1]})
    return 0


def _export(session: Session, options: Options, arguments: list[str]) -> int:
    from teu.cli.archives import check_output, save_response

    path = options.text("output")
    check_output(path, "export volume")
    query = {"pause": options.flag("pause")}
    response = session.client.request("GET", _path(arguments[0], "export"), query)
    save_response(session, response, path)
    return 0


def _import(session: Session, _options: Options, arguments: list[str]) -> int:
    from teu.cli.archives import open_input, read_pieces

    source = arguments[1] if len(arguments) > 1 else "-"
    if source == "-" and os.isatty(0):
        raise Failure("requested import from stdin, but stdin is empty")
    descriptor = 0 if source == "-" else open_input(source)
    pieces = read_pieces(descriptor)
    response = session.client.request("POST", _path(arguments[0], "import"), {}, pieces, _TAR)
    session.out(session.client.finish_json(response)["Name"] + "\n")
    return 0


def _cp(session: Session, options: Options, arguments: list[str]) -> int:
    from teu.cli.commands.cp import Copy, split

    (source_volume, source), (target_volume, target) = map(split, arguments)
    if bool(source_volume) == bool(target_volume):
        raise Failure("name one volume, as the source or as the destination: VOLUME:PATH")
    volume = source_volume or target_volume
    probe = f"/volumes/{escape(volume)}"
    job = Copy(session, options, volume, _path(volume, "archive"), probe)
    return job.run(source or "/", target, outwards=bool(source_volume), where=arguments[1])


def _usage(session: Session, options: Options, arguments: list[str]) -> int:
    rows = session.client.get("/teu/volumes") or []
    known = {row["Name"] for row in rows}
    for name in arguments:
        if name not in known:
            raise Failure(f"get {name}: no such volume")
    chosen = [row for row in rows if not arguments or row["Name"] in arguments]
    chosen.sort(key=lambda row: (-row["Size"], row["Name"]))
    form = options.text("format") or "table"
    if form == "table":
        form = "table {{.Name}}\t{{.Driver}}\t{{.Size}}\t{{.Users}}"
    session.out(render(_USAGE, [_Row(row) for row in chosen], form))
    return 0


COMMANDS = {
    "volume clone": Command(
        _clone,
        "[OPTIONS] VOLUME NEW_VOLUME",
        args=(2, 2),
        flags=(_LABEL, _NO_PAUSE),
        long="Make a volume with the content of another one. Where the file system can, both\n"
        "share their blocks until one of them changes.",
    ),
    "volume snapshot": Command(
        _snapshot,
        "[OPTIONS] VOLUME [NEW_VOLUME]",
        args=(1, 2),
        flags=(_LABEL, _NO_PAUSE),
        long="Keep a volume's content as it is now, as a volume that is only ever mounted\n"
        "read-only. Clone it to go on from there.",
    ),
    "volume rename": Command(
        _rename,
        "VOLUME NEW_VOLUME",
        args=(2, 2),
        long="Give a volume another name, also in all containers that use it.",
    ),
    "volume export": Command(
        _export,
        "[OPTIONS] VOLUME",
        args=(1, 1),
        flags=(Flag("output", "o", "string", "Write to this file, not to STDOUT"), _NO_PAUSE),
    ),
    "volume import": Command(
        _import,
        "VOLUME [FILE|-]",
        args=(1, 2),
        long="Read a tar archive, plain or compressed, into a volume. A volume that does not\n"
        "exist is made, and appears when it is complete.",
    ),
    "volume cp": Command(
        _cp,
        "[OPTIONS] VOLUME:SRC_PATH DEST_PATH|-\n"
        "\t{program} volume cp [OPTIONS] SRC_PATH|- VOLUME:DEST_PATH",
        args=(2, 2),
        flags=(
            Flag("archive", "a", "bool", "Keep user and group ids"),
            Flag("follow-link", "L", "bool", "Follow a symbolic link in SRC_PATH"),
            Flag("quiet", "q", "bool", "Do not say what was copied"),
        ),
    ),
    "volume du": Command(
        _usage,
        "[OPTIONS] [VOLUME...]",
        args=(0, None),
        flags=(
            Flag("format", "", "string",
                 "'table', 'table TEMPLATE', 'json', or a Go template for each volume"),
        ),
    ),
}  # fmt: skip
