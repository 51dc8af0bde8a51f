"""What can be wrong with a Dockerfile or a step of it."""

from msgspec import Struct

from teu.errors import InvalidParameter, SystemFailure


class Span(Struct, frozen=True):
    """Lines of a Dockerfile, from 1; both ends belong to it."""

    start: int
    end: int

    def __str__(self) -> str:
        return f"line {self.start}"


class DockerfileError(InvalidParameter):
    """A Dockerfile that cannot be understood. `span` is where; the text has Docker's wording."""

    def __init__(self, problem: str, span: Span | None = None) -> None:
        where = f"dockerfile parse error on {span}: " if span else ""
        super().__init__(where + problem)
        self.problem = problem
        self.span = span


class StepFailed(SystemFailure):
    """A command of a build ended with an error."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def excerpt(source: str, span: Span, name: str = "Dockerfile", around: int = 2) -> str:
    """The lines of a span and some around them, marked, as people see them in an editor."""
    lines = source.splitlines()
    first = max(1, span.start - around)
    last = min(len(lines), span.end + around)
    shown = [f"{name}:{span.start}", "-" * 20]
    for number in range(first, last + 1):
        mark = ">>>" if span.start <= number <= span.end else "   "
        shown.append(f"{number:4} | {mark} {lines[number - 1]}".rstrip())
    return "\n".join([*shown, "-" * 20])
