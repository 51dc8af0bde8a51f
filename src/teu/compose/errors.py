"""What is wrong with a project, with the place where it is written."""


class ComposeError(Exception):
    """`str()` is what the user reads."""


class Place:
    """`file:line` and the path of keys there: `services.web.ports`."""

    __slots__ = ("file", "line", "path")

    def __init__(self, file: str, line: int, path: str) -> None:
        self.file = file
        self.line = line
        self.path = path

    def error(self, reason: str) -> ComposeError:
        return ComposeError(f"{self.file}:{self.line}: {self.path} {reason}")
