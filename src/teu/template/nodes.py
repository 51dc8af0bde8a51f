"""The parse tree. `str(node)` is the node as error messages quote it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Node:
    """position: index into the template's text."""

    __slots__ = ("position",)

    def __init__(self, position: int) -> None:
        self.position = position


class Text(Node):
    __slots__ = ("text",)

    def __init__(self, position: int, text: str) -> None:
        super().__init__(position)
        self.text = text


class Literal(Node):
    """A constant. text: as it was written."""

    __slots__ = ("text", "value")

    def __init__(self, position: int, value: Any, text: str) -> None:
        super().__init__(position)
        self.value = value
        self.text = text

    def __str__(self) -> str:
        return self.text


class Number(Literal):
    """value: int or float. overflow: it does not fit into an int."""

    __slots__ = ("overflow",)

    def __init__(self, position: int, value: Any, text: str, overflow: bool) -> None:
        super().__init__(position, value, text)
        self.overflow = overflow


class Dot(Node):
    __slots__ = ()

    def __str__(self) -> str:
        return "."


class Nil(Node):
    __slots__ = ()

    def __str__(self) -> str:
        return "nil"


class Field(Node):
    """`.A.B`: fields of the dot."""

    __slots__ = ("names",)

    def __init__(self, position: int, names: list[str]) -> None:
        super().__init__(position)
        self.names = names

    def __str__(self) -> str:
        return "".join("." + name for name in self.names)


class Variable(Node):
    """`$x.A`: a variable (with its `$`) and fields of it."""

    __slots__ = ("name", "names")

    def __init__(self, position: int, name: str, names: list[str]) -> None:
        super().__init__(position)
        self.name = name
        self.names = names

    def __str__(self) -> str:
        return self.name + "".join("." + name for name in self.names)


class Chain(Node):
    """`(pipeline).A.B`: fields of something computed."""

    __slots__ = ("names", "node")

    def __init__(self, position: int, node: Node, names: list[str]) -> None:
        super().__init__(position)
        self.node = node
        self.names = names

    def __str__(self) -> str:
        inner = f"({self.node})" if isinstance(self.node, Pipeline) else str(self.node)
        return inner + "".join("." + name for name in self.names)


class Function(Node):
    __slots__ = ("name",)

    def __init__(self, position: int, name: str) -> None:
        super().__init__(position)
        self.name = name

    def __str__(self) -> str:
        return self.name


class Command(Node):
    """One stage of a pipeline: an operand and its arguments."""

    __slots__ = ("arguments",)

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.arguments: list[Node] = []

    def __str__(self) -> str:
        return " ".join(
            f"({node})" if isinstance(node, Pipeline) else str(node) for node in self.arguments
        )


class Pipeline(Node):
    """declared: variables that get the value. assigns: `=` instead of `:=`."""

    __slots__ = ("assigns", "commands", "declared", "line")

    def __init__(self, position: int, line: int) -> None:
        super().__init__(position)
        self.line = line
        self.declared: list[Variable] = []
        self.assigns = False
        self.commands: list[Command] = []

    def __str__(self) -> str:
        text = " | ".join(map(str, self.commands))
        if not self.declared:
            return text
        names = ", ".join(map(str, self.declared))
        return f"{names} {'=' if self.assigns else ':='} {text}"


class Action(Node):
    __slots__ = ("pipeline",)

    def __init__(self, position: int, pipeline: Pipeline) -> None:
        super().__init__(position)
        self.pipeline = pipeline

    def __str__(self) -> str:
        return "{{" + str(self.pipeline) + "}}"


class Branch(Node):
    """`if`, `with` or `range` (the word is `kind`). otherwise: the else list, if there is one."""

    __slots__ = ("body", "kind", "otherwise", "pipeline")

    def __init__(
        self, kind: str, pipeline: Pipeline, body: list[Node], otherwise: list[Node] | None
    ) -> None:
        super().__init__(pipeline.position)
        self.kind = kind
        self.pipeline = pipeline
        self.body = body
        self.otherwise = otherwise

    def __str__(self) -> str:
        return "{{" + f"{self.kind} {self.pipeline}" + "}}"


class Mark(Node):
    """`end`, `else`, `break` or `continue`. chained: the `if` or `with` right after an else."""

    __slots__ = ("chained", "kind")

    def __init__(self, position: int, kind: str, chained: str = "") -> None:
        super().__init__(position)
        self.kind = kind
        self.chained = chained

    def __str__(self) -> str:
        return "{{" + self.kind + "}}"


class Call(Node):
    """`{{template "name" pipeline}}`."""

    __slots__ = ("name", "pipeline")

    def __init__(self, position: int, name: str, pipeline: Pipeline | None) -> None:
        super().__init__(position)
        self.name = name
        self.pipeline = pipeline

    def __str__(self) -> str:
        from teu.template.quoting import quote

        words = f"template {quote(self.name)}"
        return "{{" + (f"{words} {self.pipeline}" if self.pipeline else words) + "}}"
