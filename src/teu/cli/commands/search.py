"""`search`: images in a registry, asked through the daemon."""

from __future__ import annotations

from teu.cli import filters, human
from teu.cli.grammar import Command, Flag
from teu.cli.tables import Listing, render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.grammar import Options
    from teu.cli.session import Session

_TABLE = "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"


class _Row:
    __slots__ = ("as_json", "data", "full")

    def __init__(self, data: dict[str, Any], full: bool, as_json: bool) -> None:
        self.data = data
        self.full = full
        self.as_json = as_json


def _description(row: _Row) -> str:
    text: str = row.data.get("description", "").replace("\n", " ").replace("\r", " ")
    return text if row.full else human.ellipsis(text, 45)


def _official(row: _Row) -> str:
    official = row.data.get("is_official")
    if row.as_json:
        return human.yes_no(official)
    return "[OK]" if official else ""


_RESULTS = Listing(
    "*registry.searchContext",
    {
        "Name": "NAME",
        "Description": "DESCRIPTION",
        "StarCount": "STARS",
        "IsOfficial": "OFFICIAL",
    },
    {
        "Name": lambda row: row.data.get("name", ""),
        "Description": _description,
        "StarCount": lambda row: str(row.data.get("star_count", 0)),
        "IsOfficial": _official,
    },
)


def _search(session: Session, options: Options, arguments: list[str]) -> int:
    limit = options.number("limit")
    query = {
        "term": arguments[0],
        "limit": limit if limit > 0 else None,
        "filters": filters.encode(options.texts("filter")),
    }
    found = session.client.get("/images/search", query) or []
    form = options.text("format")
    as_json = form == "json" or "{{json" in form
    rows = [_Row(data, options.flag("no-trunc"), as_json) for data in found]
    session.out(render(_RESULTS, rows, _TABLE if form in ("", "table") else form))
    return 0


COMMANDS = {
    "search": Command(
        _search,
        "[OPTIONS] TERM",
        args=(1, 1),
        flags=(
            Flag("filter", "f", "filter", "Show only what fits `name=value` (repeatable)",
                 check="filter"),
            Flag("format", "", "string",
                 "'table', 'table TEMPLATE', 'json', or a Go template for each image"),
            Flag("limit", "", "int", "Most results to show", default=0),
            Flag("no-trunc", "", "bool", "Do not cut descriptions"),
        ),
    ),
}  # fmt: skip
