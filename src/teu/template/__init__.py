"""Go's text/template, as far as Docker's `--format` uses it (which is all of it but channels).

template = parse("{{.Name}}: {{join .Tags \", \"}}")
text = template.execute({"Name": "x", "Tags": ["a", "b"]})
"""

from __future__ import annotations

from teu.template.parser import Parser, TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from teu.template import nodes
    from teu.template.values import Method

__all__ = ["Template", "TemplateError", "parse"]


class Template:
    """A parsed template; may be executed any number of times."""

    __slots__ = ("name", "root", "templates", "text")

    def __init__(
        self,
        name: str,
        text: str,
        root: list[nodes.Node],
        templates: dict[str, list[nodes.Node]],
    ) -> None:
        self.name = name
        self.text = text
        self.root = root
        self.templates = templates

    def execute(
        self,
        data: Any,
        *,
        missing_is_error: bool = False,
        functions: Mapping[str, Method] | None = None,
    ) -> str:
        """The text that the template makes of `data` (see `values` for what that may be).

        missing_is_error: a missing map key fails instead of printing `<no value>`.
        functions: instead of the usual ones.
        Raises: TemplateError with Go's text.
        """
        parts: list[str] = []
        self.write(data, parts.append, missing_is_error=missing_is_error, functions=functions)
        return "".join(parts)

    def write(
        self,
        data: Any,
        write: Callable[[str], object],
        *,
        missing_is_error: bool = False,
        functions: Mapping[str, Method] | None = None,
    ) -> None:
        """`execute`, piece by piece: what came before a TemplateError has been written."""
        from teu.template.evaluate import Evaluator
        from teu.template.functions import FUNCTIONS

        Evaluator(self, functions or FUNCTIONS, write, missing_is_error).run(data)


def parse(text: str, name: str = "", extra: Mapping[str, Method] | None = None) -> Template:
    """Parses `text`. name: only for error texts. extra: more functions that may be called.

    Raises: TemplateError with Go's text, such as `template: :1: unclosed action`.
    """
    from teu.template.functions import FUNCTIONS

    parser = Parser(text, name, FUNCTIONS | dict(extra) if extra else FUNCTIONS)
    root = parser.parse()
    return Template(name, text, root, parser.templates)
