"""One document over another: the rules by which several files make one project.

Mappings are merged key by key, sequences appended, single values replaced; what a command is made
of is replaced as a whole. Entries of a sequence that mean the same thing (a container's port, the
target of a mount) are replaced too.
Source: Compose Specification, "Merge and override".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from teu.compose.source import Map, Override, Reset, Seq

_WHOLE = {"command", "entrypoint", "test"}
_KEYS: dict[str, Callable[[Any], object]] = {
    "ports": lambda p: (p.get("host_ip", ""), p["target"], p.get("published", ""), p["protocol"]),
    "volumes": lambda volume: volume["target"],
    "configs": lambda config: config.get("target") or config.get("source"),
    "secrets": lambda secret: secret.get("target") or secret.get("source"),
    "devices": lambda device: device.get("target") or device.get("source") or str(device),
    "env_file": lambda entry: entry["path"],
    "expose": str,
    "extra_hosts": str,
    "dns": str,
    "dns_opt": str,
    "dns_search": str,
    "cap_add": str,
    "cap_drop": str,
    "security_opt": str,
    "tmpfs": lambda entry: entry.partition(":")[0],
    "external_links": str,
    "profiles": str,
    "aliases": str,
}


def merge(base: Any, over: Any, key: str = "") -> Any:
    """`over` wins. Both in the long form; neither is changed."""
    if isinstance(over, Override):
        return over.value
    if isinstance(base, dict) and isinstance(over, dict) and key not in _WHOLE:
        return _merge_maps(base, over)
    if isinstance(base, list) and isinstance(over, list) and key not in _WHOLE:
        return _merge_lists(base, over, key)
    return over


def settle(value: Any) -> Any:
    """Without the marks that only a merge understands: what they reset was never there."""
    if isinstance(value, dict):
        items = {key: settle(item) for key, item in value.items() if not isinstance(item, Reset)}
        return _like(value, items)
    if isinstance(value, Override):
        return settle(value.value)
    if isinstance(value, list):
        return [settle(item) for item in value]
    return value


def _merge_maps(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    found = _like(base, base)
    for key, value in over.items():
        if isinstance(value, Reset):
            found.pop(key, None)
        elif key in found:
            found[key] = merge(found[key], value, key)
        else:
            found[key] = settle(value)
    if isinstance(found, Map) and isinstance(over, Map):
        found.lines = {**found.lines, **over.lines}
    return found


def _merge_lists(base: list[Any], over: list[Any], key: str) -> list[Any]:
    found = Seq(getattr(base, "file", ""), getattr(base, "line", 0))
    identity = _KEYS.get(key)
    if identity is None:
        found.extend([*base, *over])
        return found
    entries = {identity(entry): entry for entry in base}
    for entry in over:
        same = identity(entry)
        known = entries.get(same)
        both = isinstance(known, dict) and isinstance(entry, dict)
        entries[same] = _merge_maps(known, entry) if both and known is not None else entry
    found.extend(entries.values())
    return found


def _like(value: dict[str, Any], items: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(value, Map):
        return dict(items)
    found = Map(value.file, value.line)
    found.lines = dict(value.lines)
    found.update(items)
    return found
