"""The project as YAML or JSON: what `config` prints."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from teu.compose.project import Project

_ALWAYS = ("command", "entrypoint")
_AMBIGUOUS = re.compile(
    r"y|n|yes|no|on|off|true|false|null|~|[-+]?(\d[\d_]*(\.\d*)?|\.\d+)(e[-+]?\d+)?|\d+(:\d+)+"
    r"|0x[0-9a-f]+|\d{4}-\d\d-\d\d.*",
    re.IGNORECASE,
)
_PORT_KEYS = ("name", "mode", "host_ip", "target", "published", "protocol", "app_protocol")
_SIZES = {"mem_limit", "memswap_limit", "mem_reservation", "shm_size", "memory"}


def as_dict(project: Project, *, interpolated: bool = True) -> dict[str, Any]:
    """In the order that is shown; dollars of values doubled, so that it can be read again."""
    found: dict[str, Any] = {"name": project.name}
    found["services"] = {key: _service(project.services[key]) for key in sorted(project.services)}
    for kind in ("networks", "volumes", "configs", "secrets"):
        objects = getattr(project, kind)
        if objects:
            found[kind] = {key: _sorted(objects[key]) for key in sorted(objects)}
    found.update(project.extensions)
    escaped: dict[str, Any] = _escape(found) if interpolated else found
    return escaped


def as_yaml(project: Project) -> str:
    return yaml.dump(
        as_dict(project), Dumper=_Dumper, sort_keys=False, width=10**6, allow_unicode=True
    )


def as_json(project: Project) -> str:
    return json.dumps(as_dict(project), indent=2, ensure_ascii=False) + "\n"


def _service(service: dict[str, Any]) -> dict[str, Any]:
    shown = {key: None for key in _ALWAYS if key not in service}
    full = {**shown, **service}
    found = {key: _sorted(full[key], key) for key in sorted(full)}
    if "ports" in found:
        found["ports"] = [
            {key: port[key] for key in _PORT_KEYS if key in port} for port in found["ports"]
        ]
    return found


def _sorted(value: Any, key: str = "") -> Any:
    if key in _SIZES and isinstance(value, int):
        return str(value)
    if key in ("secrets", "configs") and isinstance(value, list):
        return [_sorted(_with_octal_mode(entry)) for entry in value]
    if isinstance(value, dict):
        keys = sorted(value) if key != "volumes" else list(value)
        return {name: _sorted(value[name], name) for name in keys}
    if isinstance(value, list):
        return [
            _kept_order(item) if key in ("volumes", "ports") else _sorted(item) for item in value
        ]
    return value


def _with_octal_mode(entry: dict[str, Any]) -> dict[str, Any]:
    return {**entry, "mode": f"{entry['mode']:04o}"} if "mode" in entry else entry


def _kept_order(item: Any) -> Any:
    return dict(item) if isinstance(item, dict) else item


def _escape(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _escape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape(item) for item in value]
    return value


class _Dumper(yaml.SafeDumper):
    """Go's way: items of a list are indented, strings in double quotes where quotes are needed."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    if "\n" in value and not re.search(r"[ \t]\n", value):
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|")
    style = '"' if _AMBIGUOUS.fullmatch(value) or value == "" else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(
    type(None), lambda d, _: d.represent_scalar("tag:yaml.org,2002:null", "null")
)
