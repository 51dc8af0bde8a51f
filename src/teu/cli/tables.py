"""Lists of things as tables, JSON lines or whatever a template makes of them.

A `Listing` says which fields the rows have; `render` turns rows and a format into text. Formats
that only name fields (all the default ones) are filled in directly; the template engine is
loaded for the rest.

Source: docker/cli `formatter`, Go `text/tabwriter`; compared with Docker 28.2.
"""

from __future__ import annotations

from teu.cli.human import text_width
from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from teu.template import Template

    Method = Callable[..., Any]

NO_VALUE = "<no value>"


class Listing:
    """The fields of one kind of row.

    type: the row's type in Go, for error texts. titles: column titles by field; fields without
    one are not shown in a table's head. methods: fields by name; each gets the row, and the
    arguments that a template gives (`{{.Label "x"}}`).
    """

    __slots__ = ("methods", "titles", "type")

    def __init__(self, type: str, titles: Mapping[str, str], methods: Mapping[str, Method]) -> None:
        self.type = type
        self.titles = titles
        self.methods = methods


def render(listing: Listing, rows: Iterable[Any], form: str) -> str:
    """The finished text. form: `table`-something, `json`, or a template for each row.

    Raises: Failure when the template is wrong.
    """
    is_table, body = clean_format(form)
    plain = _plain_parts(listing, body)
    if plain is not None:
        names, texts = plain
        lines = [_fill(texts, [_shown(listing.methods[n](row)) for n in names]) for row in rows]
        head = _fill(texts, [listing.titles.get(n, NO_VALUE) for n in names])
    else:
        lines, head = _through_template(listing, rows, body, is_table)
    if is_table:
        return tabulate("".join(f"{line}\n" for line in [head, *lines]))
    return "".join(f"{line}\n" for line in lines)


def clean_format(form: str) -> tuple[bool, str]:
    """Whether `form` asks for a table, and the template in it."""
    is_table = form.startswith("table")
    body = form[5:] if is_table else "{{json .}}" if form == "json" else form
    return is_table, body.strip(" ").replace("\\t", "\t").replace("\\n", "\n")


def plain_fields(listing: Listing, form: str) -> list[str] | None:
    """The fields that `form` names, if it does nothing but name fields; else None."""
    plain = _plain_parts(listing, clean_format(form)[1])
    return plain[0] if plain else None


def _plain_parts(listing: Listing, body: str) -> tuple[list[str], list[str]] | None:
    """Field names and the texts around them, when `body` is nothing but `{{.Name}}` and text."""
    pieces = body.split("{{")
    names, texts = [], [pieces[0]]
    for piece in pieces[1:]:
        action, closed, text = piece.partition("}}")
        name = action.strip(" ")[1:]
        method = listing.methods.get(name)
        if not closed or action.strip(" ")[:1] != "." or method is None:
            return None
        if method.__code__.co_argcount != 1:
            return None
        names.append(name)
        texts.append(text)
    return names, texts


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    from teu.template.printing import text_of

    return text_of(value)


def _fill(texts: Sequence[str], values: Sequence[str]) -> str:
    parts = [texts[0]]
    for value, text in zip(values, texts[1:], strict=True):
        parts += (value, text)
    return "".join(parts)


def _through_template(
    listing: Listing, rows: Iterable[Any], body: str, is_table: bool
) -> tuple[list[str], str]:
    from teu.template import TemplateError
    from teu.template.values import Record

    template = parse_format(body)
    try:
        lines = [template.execute(Record(listing.type, listing.methods, row)) for row in rows]
    except TemplateError as error:
        raise Failure(f"template parsing error: {error}") from None
    return lines, _head(listing, template) if is_table else ""


def parse_format(body: str) -> Template:
    """The template. Raises: Failure with Docker's text."""
    from teu.template import TemplateError, parse

    try:
        return parse(body)
    except TemplateError as error:
        raise Failure(f"template parsing error: {error}") from None


def _head(listing: Listing, template: Template) -> str:
    from teu.template import TemplateError
    from teu.template.functions import HEADER_FUNCTIONS
    from teu.template.values import Header

    parts: list[str] = []
    try:
        template.write(Header(listing.titles), parts.append, functions=HEADER_FUNCTIONS)
    except TemplateError:
        pass  # Docker shows the head as far as it got
    return "".join(parts)


def tabulate(text: str, minimum: int = 10, padding: int = 3) -> str:
    """Aligns tab-separated cells: a column is as wide as its widest cell plus `padding`.

    A column ends where a line lacks it; lines after that are aligned anew.
    """
    lines = [line.split("\t") for line in text.split("\n")]
    columns = max(len(line) for line in lines) - 1
    for column in range(columns):
        start = 0
        while start < len(lines):
            end = start
            while end < len(lines) and len(lines[end]) - 1 > column:
                end += 1
            _align(lines[start:end], column, minimum, padding)
            start = end + 1
    return "\n".join("".join(line) for line in lines)


def _align(lines: list[list[str]], column: int, minimum: int, padding: int) -> None:
    widths = [text_width(line[column]) for line in lines]
    target = max(minimum, max(widths, default=0) + padding)
    for line, width in zip(lines, widths, strict=True):
        line[column] += " " * (target - width)
