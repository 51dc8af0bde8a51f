"""Template text to a tree of nodes, with the error texts of Go's parser."""

from __future__ import annotations

from teu.template import lexer, nodes
from teu.template.lexer import Token
from teu.template.quoting import quote, unquote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container
    from typing import NoReturn

_MAX_DEPTH = 100
_OPERANDS = frozenset(
    (lexer.BOOL, lexer.CHARACTER, lexer.FIELD, lexer.IDENTIFIER, lexer.NUMBER, lexer.RAW,
     lexer.STRING, lexer.VARIABLE, lexer.OPEN)
)  # fmt: skip
_CONSTANTS = (nodes.Literal, nodes.Dot, nodes.Nil)


class TemplateError(Exception):
    """The template is wrong, or does not fit the data. `str()` is Go's text."""


class Parser:
    """Parses one text. name: the template's name, for error messages.

    functions: the names that may be called.
    """

    def __init__(self, text: str, name: str, functions: Container[str]) -> None:
        self._name = name
        self._functions = functions
        self._tokens = lexer.tokenize(text)
        self._at = 0
        self._last: Token = self._tokens[0]
        self._variables = ["$"]
        self._loops = 0
        self._depth = 0
        self._action_line = 0
        self.templates: dict[str, list[nodes.Node]] = {}

    def parse(self) -> list[nodes.Node]:
        """The top level. Raises: TemplateError."""
        body: list[nodes.Node] = []
        while self._peek().kind != lexer.EOF:
            if self._define():
                continue
            node = self._text_or_action()
            if isinstance(node, nodes.Mark) and node.kind in ("end", "else"):
                self._fail(f"unexpected {node}")
            body.append(node)
        return body

    # tokens

    def _peek(self) -> Token:
        self._last = self._tokens[min(self._at, len(self._tokens) - 1)]
        return self._last

    def _next(self) -> Token:
        token = self._peek()
        self._at += 1
        return token

    def _next_solid(self) -> Token:
        """The next token that is not space."""
        while True:
            token = self._next()
            if token.kind != lexer.SPACE:
                return token

    def _peek_solid(self) -> Token:
        while self._peek().kind == lexer.SPACE:
            self._at += 1
        return self._peek()

    def _expect(self, kind: int, context: str) -> Token:
        token = self._next_solid()
        if token.kind != kind:
            self._unexpected(token, context)
        return token

    def _fail(self, message: str) -> NoReturn:
        raise TemplateError(f"template: {self._name}:{self._last.line}: {message}")

    def _unexpected(self, token: Token, context: str) -> NoReturn:
        if token.kind != lexer.ERROR:
            self._fail(f"unexpected {token} in {context}")
        extra = ""
        if self._action_line and self._action_line != token.line:
            extra = f" in action started at {self._name}:{self._action_line}"
            if token.value.endswith(" action"):
                extra = extra.removeprefix(" in action")
        self._fail(f"{token}{extra}")

    # structure

    def _define(self) -> bool:
        """Takes a `{{define}}` when one starts here."""
        start = self._at
        if self._next().kind == lexer.LEFT:
            self._action_line = self._last.line
            if self._is_keyword(self._next_solid(), "define"):
                name = self._template_name(self._next_solid(), "define clause")
                self._expect(lexer.RIGHT, "define clause")
                self._definition(name, "define clause")
                return True
        self._at = start
        return False

    @staticmethod
    def _is_keyword(token: Token, word: str) -> bool:
        return token.kind == lexer.KEYWORD and token.value == word

    def _definition(self, name: str, context: str) -> None:
        variables, loops = self._variables, self._loops
        self._variables, self._loops = ["$"], 0
        body, mark = self._items()
        self._variables, self._loops = variables, loops
        if mark.kind != "end":
            self._fail(f"unexpected {mark} in {context}")
        if _is_empty(self.templates.get(name, [])):
            self.templates[name] = body
        elif not _is_empty(body):
            self._fail(f"template: multiple definition of template {quote(name)}")

    def _items(self) -> tuple[list[nodes.Node], nodes.Mark]:
        """Nodes up to `{{end}}` or `{{else}}`, and that mark."""
        body: list[nodes.Node] = []
        while self._peek_solid().kind != lexer.EOF:
            node = self._text_or_action()
            if isinstance(node, nodes.Mark) and node.kind in ("end", "else"):
                return body, node
            body.append(node)
        self._fail("unexpected EOF")

    def _text_or_action(self) -> nodes.Node:
        token = self._next_solid()
        if token.kind == lexer.TEXT:
            return nodes.Text(token.position, token.value)
        if token.kind != lexer.LEFT:
            self._unexpected(token, "input")
        self._action_line = token.line
        node = self._action()
        self._action_line = 0
        return node

    def _action(self) -> nodes.Node:
        token = self._next_solid()
        if token.kind == lexer.KEYWORD:
            if token.value in ("if", "with", "range"):
                return self._branch(token.value)
            if token.value in ("break", "continue"):
                return self._jump(token)
            if token.value == "else":
                return self._else()
            if token.value == "end":
                return nodes.Mark(self._expect(lexer.RIGHT, "end").position, "end")
            if token.value == "block":
                return self._block()
            if token.value == "template":
                return self._call()
        self._at -= 1
        token = self._peek()
        pipeline = self._pipeline("command", lexer.RIGHT)
        return nodes.Action(token.position, pipeline)

    def _jump(self, token: Token) -> nodes.Node:
        follower = self._next_solid()
        if follower.kind != lexer.RIGHT:
            self._unexpected(follower, "{{" + token.value + "}}")
        if not self._loops:
            self._fail("{{" + token.value + "}} outside {{range}}")
        return nodes.Mark(token.position, token.value)

    def _else(self) -> nodes.Node:
        token = self._peek_solid()
        for word in ("if", "with"):
            if self._is_keyword(token, word):
                return nodes.Mark(token.position, "else", word)
        return nodes.Mark(self._expect(lexer.RIGHT, "else").position, "else")

    def _branch(self, kind: str) -> nodes.Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._fail(f"more than {_MAX_DEPTH} nested blocks")
        known = len(self._variables)
        pipeline = self._pipeline(kind, lexer.RIGHT)
        self._loops += kind == "range"
        body, mark = self._items()
        self._loops -= kind == "range"
        otherwise: list[nodes.Node] | None = None
        if mark.kind == "else":
            otherwise = self._otherwise(kind, mark)
        del self._variables[known:]
        self._depth -= 1
        return nodes.Branch(kind, pipeline, body, otherwise)

    def _otherwise(self, kind: str, mark: nodes.Mark) -> list[nodes.Node]:
        if mark.chained and mark.chained == kind and kind != "range":
            self._next_solid()
            return [self._branch(kind)]
        body, end = self._items()
        if end.kind != "end":
            self._fail(f"expected end; found {end}")
        return body

    def _block(self) -> nodes.Node:
        token = self._next_solid()
        name = self._template_name(token, "block clause")
        pipeline = self._pipeline("block clause", lexer.RIGHT)
        self._definition(name, "block clause")
        return nodes.Call(token.position, name, pipeline)

    def _call(self) -> nodes.Node:
        token = self._next_solid()
        name = self._template_name(token, "template clause")
        pipeline = None
        if self._next_solid().kind != lexer.RIGHT:
            self._at -= 1
            pipeline = self._pipeline("template clause", lexer.RIGHT)
        return nodes.Call(token.position, name, pipeline)

    def _template_name(self, token: Token, context: str) -> str:
        if token.kind not in (lexer.STRING, lexer.RAW):
            self._unexpected(token, context)
        return self._unquote(token.value)

    def _unquote(self, text: str) -> str:
        try:
            return unquote(text)
        except ValueError as error:
            self._fail(str(error))

    # expressions

    def _pipeline(self, context: str, end: int) -> nodes.Pipeline:
        token = self._peek_solid()
        pipeline = nodes.Pipeline(token.position, token.line)
        self._declarations(pipeline, context)
        while True:
            token = self._next_solid()
            if token.kind == end:
                self._check(pipeline, context)
                return pipeline
            operand = token.kind in _OPERANDS or (
                token.kind == lexer.KEYWORD and token.value in (".", "nil")
            )
            if not operand:
                self._unexpected(token, context)
            self._at -= 1
            pipeline.commands.append(self._command())

    def _declarations(self, pipeline: nodes.Pipeline, context: str) -> None:
        while self._peek_solid().kind == lexer.VARIABLE:
            start = self._at
            name = self._next()
            follower = self._peek_solid()
            comma = follower.kind == lexer.CHAR and follower.value == ","
            if not comma and follower.kind not in (lexer.DECLARE, lexer.ASSIGN):
                self._at = start
                return
            self._next_solid()
            pipeline.declared.append(nodes.Variable(name.position, name.value, []))
            self._variables.append(name.value)
            if not comma:
                pipeline.assigns = follower.kind == lexer.ASSIGN
                return
            if context != "range" or len(pipeline.declared) > 1:
                self._fail(f"too many declarations in {context}")
            if self._peek_solid().kind not in (lexer.VARIABLE, lexer.RIGHT, lexer.CLOSE):
                self._fail("range can only initialize variables")

    def _check(self, pipeline: nodes.Pipeline, context: str) -> None:
        if not pipeline.commands:
            self._fail(f"missing value for {context}")
        for stage, command in enumerate(pipeline.commands[1:], 2):
            if isinstance(command.arguments[0], _CONSTANTS):
                self._fail(f"non executable command in pipeline stage {stage}")

    def _command(self) -> nodes.Command:
        command = nodes.Command(self._peek_solid().position)
        while True:
            self._peek_solid()
            operand = self._operand()
            if operand is not None:
                command.arguments.append(operand)
            token = self._next()
            if token.kind == lexer.SPACE:
                continue
            if token.kind in (lexer.RIGHT, lexer.CLOSE):
                self._at -= 1
            elif token.kind != lexer.PIPE:
                self._unexpected(token, "operand")
            break
        if not command.arguments:
            self._fail("empty command")
        return command

    def _operand(self) -> nodes.Node | None:
        node = self._term()
        if node is None or self._peek().kind != lexer.FIELD:
            return node
        position = self._peek().position
        names = []
        while self._peek().kind == lexer.FIELD:
            names.append(self._next().value[1:])
        if isinstance(node, nodes.Field):
            return nodes.Field(position, node.names + names)
        if isinstance(node, nodes.Variable):
            return nodes.Variable(position, node.name, node.names + names)
        if isinstance(node, _CONSTANTS):
            self._fail(f"unexpected . after term {quote(str(node))}")
        return nodes.Chain(position, node, names)

    def _term(self) -> nodes.Node | None:
        token = self._next_solid()
        if token.kind == lexer.FIELD:
            return nodes.Field(token.position, [token.value[1:]])
        if token.kind == lexer.IDENTIFIER:
            if token.value not in self._functions:
                self._fail(f"function {quote(token.value)} not defined")
            return nodes.Function(token.position, token.value)
        if token.kind == lexer.VARIABLE:
            if token.value not in self._variables:
                self._fail(f"undefined variable {quote(token.value)}")
            return nodes.Variable(token.position, token.value, [])
        if token.kind == lexer.OPEN:
            return self._parenthesized()
        if token.kind == lexer.KEYWORD and token.value == ".":
            return nodes.Dot(token.position)
        if token.kind == lexer.KEYWORD and token.value == "nil":
            return nodes.Nil(token.position)
        return self._constant(token)

    def _parenthesized(self) -> nodes.Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._fail("max expression depth exceeded")
        pipeline = self._pipeline("parenthesized pipeline", lexer.CLOSE)
        self._depth -= 1
        return pipeline

    def _constant(self, token: Token) -> nodes.Node | None:
        if token.kind == lexer.BOOL:
            return nodes.Literal(token.position, token.value == "true", token.value)
        if token.kind in (lexer.STRING, lexer.RAW):
            return nodes.Literal(token.position, self._unquote(token.value), token.value)
        if token.kind in (lexer.NUMBER, lexer.CHARACTER):
            from teu.template.numbers import read_number

            try:
                value, overflow = read_number(token.value)
            except ValueError as error:
                self._fail(str(error))
            return nodes.Number(token.position, value, token.value, overflow)
        self._at -= 1
        return None


def _is_empty(body: list[nodes.Node]) -> bool:
    return all(isinstance(node, nodes.Text) and not node.text.strip() for node in body)
