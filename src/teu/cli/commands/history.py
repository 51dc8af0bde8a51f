"""`history`, `image history`."""

from __future__ import annotations

import time

from teu.cli import human
from teu.cli.grammar import Command, Flag
from teu.cli.tables import Listing, render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.grammar import Options
    from teu.cli.session import Session

_TABLE = "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
_TABLE_EXACT = "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
_YEAR_2000 = 946684800


class _Row:
    """One step. exact: times and sizes as numbers, not for people."""

    __slots__ = ("data", "exact", "full")

    def __init__(self, data: dict[str, Any], full: bool, exact: bool) -> None:
        self.data = data
        self.full = full
        self.exact = exact


def _created_at(row: _Row) -> str:
    moment = time.localtime(row.data.get("Created", 0))
    zone = time.strftime("%z", moment)
    shown = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment) + shown


def _created_since(row: _Row) -> str:
    if row.exact:
        return _created_at(row)
    created = row.data.get("Created", 0)
    return human.ago(created) if created > _YEAR_2000 else "N/A"


def _created_by(row: _Row) -> str:
    text: str = row.data.get("CreatedBy", "").replace("\t", " ")
    return text if row.full else human.ellipsis(text, 45)


def _size(row: _Row) -> str:
    from teu.units import human_size

    size = row.data.get("Size", 0)
    return str(size) if row.exact else human_size(size)


def _id(row: _Row) -> str:
    identifier: str = row.data.get("Id", "")
    return identifier if row.full else human.short_id(identifier)


_HISTORY = Listing(
    "*image.historyContext",
    {
        "ID": "IMAGE",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "CreatedBy": "CREATED BY",
        "Size": "SIZE",
        "Comment": "COMMENT",
    },
    {
        "ID": _id,
        "CreatedAt": _created_at,
        "CreatedSince": _created_since,
        "CreatedBy": _created_by,
        "Size": _size,
        "Comment": lambda row: row.data.get("Comment", ""),
    },
)


def _history(session: Session, options: Options, arguments: list[str]) -> int:
    from teu.cli.client import escape

    query: dict[str, str] = {}
    if options.text("platform"):
        from teu.cli.platforms import as_json

        query["platform"] = as_json(options.text("platform"))
    steps = session.client.get(f"/images/{escape(arguments[0])}/history", query)
    human_readable, full = options.flag("human"), options.flag("no-trunc")
    form = options.text("format") or "table"
    if form == "table":
        form = _TABLE if human_readable else _TABLE_EXACT
        if options.flag("quiet"):
            form = "{{.ID}}"
    rows = [_Row(step, full, not human_readable) for step in steps or ()]
    session.out(render(_HISTORY, rows, form))
    return 0


COMMANDS = {
    "image history": Command(
        _history,
        "[OPTIONS] IMAGE",
        args=(1, 1),
        flags=(
            Flag("format", "", "string",
                 "'table', 'table TEMPLATE', 'json', or a Go template for each step"),
            Flag("human", "H", "bool", "Sizes and times for people (default true)", default=True),
            Flag("no-trunc", "", "bool", "Do not cut ids and commands"),
            Flag("platform", "", "string", "Show only this platform's variant", since="1.48"),
            Flag("quiet", "q", "bool", "Print only ids"),
        ),
    ),
}  # fmt: skip
