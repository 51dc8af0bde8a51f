"""A Dockerfile's text as logical lines: directives, comments, continuations, heredocs.

A logical line is one instruction with its words still raw. Positions are those of the file.
Source: Dockerfile reference, "Format", "Parser directives", "Here-Documents"; BuildKit's parser
for what the reference leaves open (comments inside a continuation, trailing blanks).
"""

import re
from collections.abc import Iterator

from msgspec import Struct, field

from teu.dockerfile.errors import DockerfileError, Span

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*$")
_COMMENT = re.compile(r"\s*#")
_HEREDOC = re.compile(r"(?<![<\\])(\d*)<<(-?)((?:'[^']*'|\"[^\"]*\"|[^\s<>&|;'\"()])+)")
_WITH_HEREDOC = frozenset(("ADD", "COPY", "RUN"))
_KNOWN_DIRECTIVES = frozenset(("syntax", "escape", "check"))
MAX_BYTES = 4 << 20


class Heredoc(Struct, frozen=True):
    """`name` without quotes. `expand`: variables in the content are substituted."""

    name: str
    content: str
    expand: bool
    chomp: bool = False
    fd: int = 0


class Line(Struct, frozen=True):
    """One instruction: `keyword` as written, `rest` everything behind it, joined to one line.
    `text` is the whole as in the file, joined; for progress and error messages."""

    keyword: str
    rest: str
    span: Span
    heredocs: tuple[Heredoc, ...] = ()
    empty_continuation: bool = False

    @property
    def text(self) -> str:
        return f"{self.keyword} {self.rest}".strip()


class Source(Struct, frozen=True):
    """A Dockerfile: its directives by lower-case name, its logical lines."""

    text: str
    lines: tuple[Line, ...]
    directives: dict[str, str] = field(default_factory=dict)

    @property
    def escape(self) -> str:
        return self.directives.get("escape", "\\")


def read_source(data: bytes) -> Source:
    """Raises: DockerfileError."""
    if len(data) > MAX_BYTES:
        raise DockerfileError(f"the Dockerfile is larger than {MAX_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DockerfileError(f"the Dockerfile is not UTF-8 text (byte {error.start})") from error
    rows = [row.removesuffix("\r") for row in text.split("\n")]
    directives = _directives(rows)
    lines = tuple(_Reader(rows, directives.get("escape", "\\")).lines())
    if not lines:
        raise DockerfileError("file with no instructions")
    return Source(text, lines, directives)


def _directives(rows: list[str]) -> dict[str, str]:
    """`# key=value` lines before anything else; another comment ends them."""
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        match = _DIRECTIVE.match(row.strip())
        if not match or match[1].lower() not in _KNOWN_DIRECTIVES:
            break
        name = match[1].lower()
        if name in found:
            raise DockerfileError(
                f"only one {name} parser directive can be used", Span(number, number)
            )
        if name == "escape" and match[2] not in ("\\", "`"):
            raise DockerfileError(
                f"invalid ESCAPE '{match[2]}'. Must be ` or \\", Span(number, number)
            )
        found[name] = match[2]
    return found


class _Reader:
    def __init__(self, rows: list[str], escape: str) -> None:
        self._rows = rows
        self._next = 0
        quoted = re.escape(escape)
        self._continued = re.compile(rf"(?:^|([^{quoted}])){quoted}[ \t]*$")

    def lines(self) -> Iterator[Line]:
        while self._next < len(self._rows):
            row = self._rows[self._next].lstrip()
            if not row or row.startswith("#"):
                self._next += 1
                continue
            yield self._line()

    def _line(self) -> Line:
        start = self._next + 1
        joined, empty = self._joined()
        keyword, rest = _split_keyword(joined)
        heredocs = tuple(self._heredocs(keyword, rest, start))
        return Line(keyword, rest, Span(start, self._next), heredocs, empty)

    def _joined(self) -> tuple[str, bool]:
        """The row at hand with its continuations; whether an empty row was among them."""
        parts: list[str] = []
        empty = False
        while self._next < len(self._rows):
            row = self._rows[self._next]
            self._next += 1
            if parts and _COMMENT.match(row):
                continue
            if parts and not row.strip():
                if not any(rest.strip() for rest in self._rows[self._next :]):
                    break
                empty = True
                continue
            match = self._continued.search(row)
            if match is None:
                parts.append(row)
                break
            parts.append(row[: match.start()] + (match[1] or ""))
        return "".join(parts).strip(), empty

    def _heredocs(self, keyword: str, rest: str, start: int) -> Iterator[Heredoc]:
        words = keyword.upper()
        if words == "ONBUILD":
            words = rest.partition(" ")[0].upper()
        if words not in _WITH_HEREDOC:
            return
        for match in _heredoc_marks(rest):
            fd, dash, raw = match
            name = re.sub(r"['\"]", "", raw)
            yield Heredoc(
                name,
                self._content(name, bool(dash), start),
                expand=name == raw,
                chomp=bool(dash),
                fd=int(fd or 0),
            )

    def _content(self, name: str, chomp: bool, start: int) -> str:
        rows: list[str] = []
        while self._next < len(self._rows):
            row = self._rows[self._next]
            self._next += 1
            shown = row.lstrip("\t") if chomp else row
            if shown == name:
                return "".join(f"{row}\n" for row in rows)
            rows.append(shown)
        raise DockerfileError(
            f"unterminated heredoc: {name} is not found on a line of its own",
            Span(start, start),
        )


def _split_keyword(joined: str) -> tuple[str, str]:
    keyword, *rest = joined.split(None, 1)
    return keyword, rest[0] if rest else ""


def _heredoc_marks(rest: str) -> list[tuple[str, str, str]]:
    """`<<NAME` outside of quotes."""
    found: list[tuple[str, str, str]] = []
    position = 0
    while position < len(rest):
        letter = rest[position]
        if letter in "'\"":
            end = rest.find(letter, position + 1)
            position = len(rest) if end < 0 else end + 1
            continue
        match = _HEREDOC.match(rest, position)
        if match and (position == 0 or rest[position - 1] in " \t"):
            found.append((match[1], match[2], match[3]))
            position = match.end()
            continue
        position += 1
    return found


def heredoc_names(text: str) -> list[str]:
    """Names of the heredocs that words of an instruction stand for."""
    return [re.sub(r"['\"]", "", raw) for _, _, raw in _heredoc_marks(text)]


def is_heredoc(word: str) -> bool:
    return _HEREDOC.fullmatch(word) is not None
