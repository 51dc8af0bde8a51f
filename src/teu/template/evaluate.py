"""Runs a parsed template over data, with the error texts of Go's executor."""

from __future__ import annotations

from teu.template import nodes
from teu.template.functions import FunctionError
from teu.template.parser import TemplateError
from teu.template.printing import render, text_of
from teu.template.quoting import quote
from teu.template.values import (
    ANY,
    NO_VALUE,
    Header,
    Map,
    Method,
    NilPointer,
    Record,
    Slice,
    Struct,
    truth,
    type_name,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, NoReturn

    from teu.template import Template

_MAX_DEPTH = 150
_EXPECTED = {"string": "string", "int": "integer", "bool": "bool"}


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Missing:
    """No value came down the pipeline."""


_MISSING = _Missing()


class Evaluator:
    """One execution. write: gets the output piece by piece."""

    def __init__(
        self,
        template: Template,
        functions: Mapping[str, Method],
        write: Callable[[str], object],
        missing_is_error: bool,
    ) -> None:
        self._template = template
        self._functions = functions
        self._write = write
        self._missing_is_error = missing_is_error
        self._variables: list[tuple[str, Any]] = []
        self._node: nodes.Node | None = None
        self._depth = 0

    def run(self, data: Any) -> None:
        """Raises: TemplateError; what was written before stays written."""
        self._variables = [("$", data)]
        try:
            self._walk_all(self._template.root, data)
        except RecursionError:
            self._fail("templates or data are nested too deeply")

    # structure

    def _walk_all(self, body: list[nodes.Node], dot: Any) -> None:
        for node in body:
            self._walk(node, dot)

    def _walk(self, node: nodes.Node, dot: Any) -> None:
        self._node = node
        if isinstance(node, nodes.Text):
            self._write(node.text)
        elif isinstance(node, nodes.Action):
            value = self._pipeline(node.pipeline, dot)
            if not node.pipeline.declared:
                self._print(node, value)
        elif isinstance(node, nodes.Branch):
            known = len(self._variables)
            if node.kind == "range":
                self._range(node, dot)
            else:
                self._if_or_with(node, dot)
            del self._variables[known:]
        elif isinstance(node, nodes.Call):
            self._call_template(node, dot)
        elif isinstance(node, nodes.Mark):
            raise _Break if node.kind == "break" else _Continue

    def _print(self, node: nodes.Action, value: Any) -> None:
        self._node = node
        if isinstance(value, Method):
            self._fail(f"can't print {node} of type func()")
        self._write(text_of(value))

    def _if_or_with(self, node: nodes.Branch, dot: Any) -> None:
        value = self._pipeline(node.pipeline, dot)
        if truth(value):
            self._walk_all(node.body, value if node.kind == "with" else dot)
        elif node.otherwise is not None:
            self._walk_all(node.otherwise, dot)

    def _range(self, node: nodes.Branch, dot: Any) -> None:
        value = self._pipeline(node.pipeline, dot)
        known = len(self._variables)
        empty = True
        for index, item in self._items(node, value):
            empty = False
            self._set_loop_variables(node.pipeline, index, item)
            try:
                self._walk_all(node.body, item)
            except _Break:
                break
            except _Continue:
                pass
            finally:
                del self._variables[known:]
        if empty and node.otherwise is not None:
            self._walk_all(node.otherwise, dot)

    def _items(self, node: nodes.Branch, value: Any) -> Iterator[tuple[Any, Any]]:
        if isinstance(value, list):
            return iter(list(enumerate(value)))
        if isinstance(value, dict):
            return iter([(key, value[key]) for key in sorted(value)])
        if value is None or value is NO_VALUE:
            return iter(())
        if isinstance(value, int) and not isinstance(value, bool):
            if len(node.pipeline.declared) > 1:
                self._fail(f"can't use {value} to iterate over more than one variable")
            return ((number, number) for number in range(value))
        self._fail(f"range can't iterate over {render(value)}")

    def _set_loop_variables(self, pipeline: nodes.Pipeline, index: Any, item: Any) -> None:
        names = [variable.name for variable in pipeline.declared]
        values = [item] if len(names) == 1 else [index, item]
        if pipeline.assigns:
            for name, value in zip(names, values, strict=False):
                self._assign(name, value)
            return
        for place, name in enumerate(names):
            self._variables[place - len(names)] = (name, values[place])

    def _call_template(self, node: nodes.Call, dot: Any) -> None:
        body = self._template.templates.get(node.name)
        if body is None:
            self._fail(f"template {quote(node.name)} not defined")
        if self._depth >= _MAX_DEPTH:
            self._fail(f"exceeded maximum template depth ({_MAX_DEPTH})")
        value = self._pipeline(node.pipeline, dot) if node.pipeline else NO_VALUE
        variables = self._variables
        self._variables = [("$", value)]
        self._depth += 1
        self._walk_all(body, value)
        self._depth -= 1
        self._variables = variables

    def _fail(self, message: str) -> NoReturn:
        node = self._node
        name = self._template.name
        if node is None:
            raise TemplateError(f"template: {name}: {message}")
        before = self._template.text[: node.position]
        line = before.count("\n") + 1
        column = len(before[before.rfind("\n") + 1 :].encode(errors="surrogateescape"))
        where = f"{name}:{line}:{column}: executing {quote(name)} at <{node}>"
        raise TemplateError(f"template: {where}: {message}")

    # variables

    def _assign(self, name: str, value: Any) -> None:
        for place in range(len(self._variables) - 1, -1, -1):
            if self._variables[place][0] == name:
                self._variables[place] = (name, value)
                return
        self._fail(f"undefined variable: {name}")

    def _lookup(self, name: str) -> Any:
        for known, value in reversed(self._variables):
            if known == name:
                return value
        self._fail(f"undefined variable: {name}")

    # pipelines

    def _pipeline(self, pipeline: nodes.Pipeline, dot: Any) -> Any:
        self._node = pipeline
        value: Any = _MISSING
        for command in pipeline.commands:
            value = self._command(command, dot, value)
            if value is None:
                value = NO_VALUE
        for variable in pipeline.declared:
            if pipeline.assigns:
                self._assign(variable.name, value)
            else:
                self._variables.append((variable.name, value))
        return value

    def _command(self, command: nodes.Command, dot: Any, final: Any) -> Any:
        first = command.arguments[0]
        rest = command.arguments[1:]
        if isinstance(first, nodes.Function):
            return self._function(first, command, dot, final)
        if isinstance(first, nodes.Field | nodes.Variable | nodes.Chain):
            return self._path(first, dot, rest, final)
        if isinstance(first, nodes.Pipeline):
            self._refuse_arguments(first, rest, final)
            return self._pipeline(first, dot)
        self._node = first
        self._refuse_arguments(first, rest, final)
        if isinstance(first, nodes.Nil):
            self._fail("nil is not a command")
        return self._constant(first, dot)

    def _refuse_arguments(self, first: nodes.Node, rest: Sequence[nodes.Node], final: Any) -> None:
        if rest or final is not _MISSING:
            self._fail(f"can't give argument to non-function {first}")

    def _constant(self, node: nodes.Node, dot: Any) -> Any:
        if isinstance(node, nodes.Dot):
            return dot
        if isinstance(node, nodes.Number) and node.overflow:
            self._node = node
            self._fail(f"{node.text} overflows int")
        assert isinstance(node, nodes.Literal)
        return node.value

    # fields and methods

    def _path(self, node: nodes.Node, dot: Any, rest: Sequence[nodes.Node], final: Any) -> Any:
        """`.A.B`, `$x.A` or `(…).A`, with arguments when the last name is a method."""
        self._node = node
        if isinstance(node, nodes.Variable):
            value = self._lookup(node.name)
            if not node.names:
                self._refuse_arguments(node, rest, final)
                return value
            names = node.names
        elif isinstance(node, nodes.Chain):
            if isinstance(node.node, nodes.Nil):
                self._fail(f"indirection through explicit nil in {node}")
            value = self._argument(node.node, dot, ANY)
            names = node.names
        else:
            assert isinstance(node, nodes.Field)
            value, names = dot, node.names
        inside = False
        for name in names[:-1]:
            inner = self._field(value, name, node, dot, (), _MISSING, inside)
            inside, value = _holds_any(value), inner
        return self._field(value, names[-1], node, dot, rest, final, inside)

    def _field(
        self,
        value: Any,
        name: str,
        node: nodes.Node,
        dot: Any,
        rest: Sequence[nodes.Node],
        final: Any,
        inside: bool,
    ) -> Any:
        """One step of a path. inside: `value` came out of a map or list of interface {}."""
        if value is NO_VALUE:
            if self._missing_is_error:
                self._fail(f"nil data; no entry for key {quote(name)}")
            return NO_VALUE
        if value is None:
            self._fail(f"nil pointer evaluating {ANY}.{name}")
        method = _method(value, name)
        if method is not None:
            return self._invoke(method, name, node, dot, rest, final)
        has_arguments = bool(rest) or final is not _MISSING
        if isinstance(value, Struct) and value.has(name):
            if has_arguments:
                self._fail(f"{name} has arguments but cannot be invoked as function")
            return value.get(name)
        if isinstance(value, dict):
            if has_arguments:
                self._fail(f"{name} is not a method but has arguments")
            return self._entry(value, name)
        if isinstance(value, NilPointer) and not (value.shape and name not in value.shape.fields):
            self._fail(f"nil pointer evaluating {value.type}.{name}")
        self._fail(f"can't evaluate field {name} in type {ANY if inside else type_name(value)}")

    def _entry(self, value: dict[str, Any], name: str) -> Any:
        if name in value:
            return value[name]
        if self._missing_is_error:
            self._fail(f"map has no entry for key {quote(name)}")
        return NO_VALUE

    # calls

    def _function(self, node: nodes.Function, command: nodes.Command, dot: Any, final: Any) -> Any:
        self._node = node
        method = self._functions[node.name]
        return self._invoke(method, node.name, command, dot, command.arguments[1:], final)

    def _invoke(
        self,
        method: Method,
        name: str,
        node: nodes.Node,
        dot: Any,
        rest: Sequence[nodes.Node],
        final: Any,
    ) -> Any:
        self._check_count(method, name, len(rest), final is not _MISSING)
        if name in ("and", "or") and method is self._functions.get(name):
            return self._and_or(name, dot, rest, final)
        if name == "call" and method is self._functions.get(name):
            self._refuse_call(node, dot, rest, final)
        wanted = _parameter_types(method, len(rest) + (final is not _MISSING))
        values = [
            self._argument(argument, dot, kind)
            for argument, kind in zip(rest, wanted, strict=False)
        ]
        if final is not _MISSING:
            values.append(self._fit(final, wanted[-1]))
        try:
            return method.call(*values)
        except FunctionError as error:
            self._node = node
            self._fail(f"error calling {name}: {error}")

    def _check_count(self, method: Method, name: str, given: int, piped: bool) -> None:
        least = len(method.parameters) - method.variadic
        if method.variadic and given + piped < least:
            self._fail(f"wrong number of args for {name}: want at least {least} got {given}")
        if not method.variadic and given + piped != least:
            self._fail(f"wrong number of args for {name}: want {least} got {given + piped}")

    def _and_or(self, name: str, dot: Any, rest: Sequence[nodes.Node], final: Any) -> Any:
        value: Any = None
        for argument in rest:
            value = self._argument(argument, dot, ANY)
            if truth(value) == (name == "or"):
                return value
        return value if final is _MISSING else final

    def _refuse_call(
        self, node: nodes.Node, dot: Any, rest: Sequence[nodes.Node], final: Any
    ) -> NoReturn:
        """`call` needs a function, and no value that a template can reach is one."""
        value = self._argument(rest[0], dot, ANY) if rest else final
        self._node = node
        if value is None or value is NO_VALUE:
            self._fail("error calling call: call of nil")
        shown = rest[0] if rest else "argument"
        self._fail(f"error calling call: non-function {shown} of type {type_name(value)}")

    def _argument(self, node: nodes.Node, dot: Any, kind: str) -> Any:
        """The value of one argument, checked against the parameter's type."""
        self._node = node
        if isinstance(node, nodes.Nil):
            if kind in _EXPECTED:
                self._fail(f"cannot assign nil to {kind}")
            return None
        if isinstance(node, nodes.Dot):
            return self._fit(dot, kind)
        if isinstance(node, nodes.Field | nodes.Variable | nodes.Chain):
            return self._fit(self._path(node, dot, (), _MISSING), kind)
        if isinstance(node, nodes.Pipeline):
            return self._fit(self._pipeline(node, dot), kind)
        if isinstance(node, nodes.Function):
            lone = nodes.Command(node.position)
            lone.arguments = [node]
            return self._fit(self._function(node, lone, dot, _MISSING), kind)
        value = self._constant(node, dot)
        if kind != ANY and not _fits(value, kind):
            self._fail(f"expected {_EXPECTED.get(kind, kind)}; found {node}")
        return value

    def _fit(self, value: Any, kind: str) -> Any:
        if value is NO_VALUE:
            if kind in _EXPECTED:
                self._fail(f"invalid value; expected {kind}")
            return None
        if value is None and kind == ANY:
            return None
        if kind != ANY and not _fits(value, kind):
            self._fail(f"wrong type for value; expected {kind}; got {type_name(value)}")
        return value


def _holds_any(value: Any) -> bool:
    if isinstance(value, Map | Slice):
        return value.element == ANY
    return isinstance(value, dict | list) and not isinstance(value, Header)


def _method(value: Any, name: str) -> Method | None:
    if isinstance(value, Record):
        return value.method(name)
    if isinstance(value, Header) and name == "Label":
        return Method(value.label, ("string",))
    return None


def _parameter_types(method: Method, count: int) -> list[str]:
    wanted = list(method.parameters[:count])
    return wanted + [method.parameters[-1]] * (count - len(wanted)) if wanted else wanted


def _fits(value: Any, kind: str) -> bool:
    if kind == "string":
        return isinstance(value, str)
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "[]string":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return True
