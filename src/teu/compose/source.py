"""YAML documents as plain values that remember where they were written.

A mapping is a `Map`, a sequence a `Seq`: dict and list with the line of each item. Merge keys
(`<<`) are applied, duplicate keys refused. `!reset` becomes RESET, `!override X` an Override.
"""

from __future__ import annotations

from typing import Any

import yaml

from teu.compose.errors import ComposeError, Place

_MERGE = "tag:yaml.org,2002:merge"
_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}
_DEPTH_LIMIT = 200
_NODES_LIMIT = 200_000  # with aliases expanded: a bomb ends here


class Map(dict[str, Any]):
    """`lines`: of each key; `file`: where it is from."""

    def __init__(self, file: str, line: int) -> None:
        super().__init__()
        self.file = file
        self.line = line
        self.lines: dict[str, int] = {}

    def place(self, path: str, key: str = "") -> Place:
        """Of a key in this mapping, whose own path is `path`."""
        full = f"{path}.{key}" if path and key else path or key
        return Place(self.file, self.lines.get(key, self.line), full)


class Seq(list[Any]):
    def __init__(self, file: str, line: int) -> None:
        super().__init__()
        self.file = file
        self.line = line


class Reset:
    """`!reset`: the key of the files before is taken away."""


class Override:
    """`!override`: the value takes the place of that of the files before."""

    def __init__(self, value: Any) -> None:
        self.value = value


def parse(text: str, file: str) -> Map:
    """One document. Raises: ComposeError with file and line."""
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ComposeError(_words(error, file)) from error
    except RecursionError as error:
        raise ComposeError(f"{file}: nested too deeply") from error
    if len(nodes) > 1:
        raise ComposeError(f"{file}: more than one document; give each a file of its own")
    if not nodes or nodes[0] is None:
        raise ComposeError(f"{file}: empty compose file")
    found = _Builder(file).value(nodes[0], 0)
    if not isinstance(found, Map):
        raise ComposeError(f"{file}: Top-level object must be a mapping")
    return found


def _words(error: yaml.YAMLError, file: str) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"{file}:{mark.line + 1}: {problem}" if mark else f"{file}: {problem}"


class _Builder:
    def __init__(self, file: str) -> None:
        self._file = file
        self._scalars = yaml.SafeLoader("")
        self._count = 0

    def value(self, node: yaml.Node, depth: int) -> Any:
        self._count += 1
        line = node.start_mark.line + 1
        if depth > _DEPTH_LIMIT or self._count > _NODES_LIMIT:
            raise ComposeError(f"{self._file}:{line}: too large, or an alias that holds itself")
        if node.tag == "!reset":
            return Reset()
        if node.tag == "!override":
            return Override(self._untagged(node, depth))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode):
            found = Seq(self._file, line)
            found.extend(self.value(item, depth + 1) for item in node.value)
            return found
        return self._scalar(node)

    def _untagged(self, node: yaml.Node, depth: int) -> Any:
        if isinstance(node, yaml.ScalarNode):
            implicit = (True, False) if node.style is None else (False, True)
            node.tag = self._scalars.resolve(yaml.ScalarNode, node.value, implicit)  # type: ignore[no-untyped-call]
        else:
            kind = "map" if isinstance(node, yaml.MappingNode) else "seq"
            node.tag = f"tag:yaml.org,2002:{kind}"
        return self.value(node, depth)

    def _scalar(self, node: yaml.Node) -> Any:
        if node.tag in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:binary"):
            return node.value
        if node.tag == "tag:yaml.org,2002:bool" and node.value.lower() not in ("true", "false"):
            return node.value  # `on`, `yes` are words: YAML 1.2
        if node.tag == "tag:yaml.org,2002:int" and (":" in node.value or "_" in node.value):
            return node.value  # 80:80 is a port mapping, not a number in base sixty
        if node.tag not in _SCALARS:
            raise ComposeError(
                f"{self._file}:{node.start_mark.line + 1}: unknown tag {node.tag}: only !reset "
                "and !override are known"
            )
        try:
            return self._scalars.construct_object(node, deep=True)
        except (ValueError, yaml.YAMLError):
            return node.value

    def _mapping(self, node: yaml.MappingNode, depth: int) -> Map:
        found = Map(self._file, node.start_mark.line + 1)
        merged: list[Map] = []
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            value = self.value(value_node, depth + 1)
            if key_node.tag == _MERGE:
                merged += self._merged(value, line)
                continue
            key = str(self._scalar(key_node)) if key_node.value != "" else ""
            if key_node.tag == "tag:yaml.org,2002:bool" or key_node.tag.endswith(":null"):
                key = key_node.value
            if key in found:
                raise ComposeError(
                    f'{self._file}:{line}: mapping key "{key}" already defined at line '
                    f"{found.lines[key]}"
                )
            found[key] = value
            found.lines[key] = line
        for source in merged:
            for key, value in source.items():
                if key not in found:
                    found[key] = value
                    found.lines[key] = source.lines[key]
        return found

    def _merged(self, value: Any, line: int) -> list[Map]:
        sources = value if isinstance(value, Seq) else [value]
        if not all(isinstance(source, Map) for source in sources):
            raise ComposeError(f"{self._file}:{line}: << needs a mapping, or several in a list")
        return list(sources)
