"""Ports, mounts and other things that have a short form."""

from __future__ import annotations

import re
from typing import Any

from teu.compose import shapes
from teu.compose.errors import Place
from teu.compose.shapes import boolean, integer, labels, one_of, size, string, table, text

_PORT = re.compile(
    r"(?:(?P<ip>\[[0-9a-fA-F:.]+\]|\d+(?:\.\d+){3}):)?(?:(?P<published>\d+(?:-\d+)?)?:)?"
    r"(?P<target>\d+(?:-\d+)?)(?:/(?P<protocol>tcp|udp|sctp))?"
)
_WINDOWS = re.compile(r"[A-Za-z]:\\")
_LAST_PORT = 65535

_BIND = {
    "propagation": string,
    "create_host_path": boolean,
    "selinux": one_of("z", "Z"),
    "recursive": one_of("enabled", "disabled", "writable", "readonly"),
}
_LONG_PORT = table(
    {
        "name": string,
        "mode": one_of("host", "ingress"),
        "host_ip": string,
        "target": integer,
        "published": text,
        "protocol": string,
        "app_protocol": string,
    }
)
_LONG_VOLUME = table(
    {
        "type": one_of("volume", "bind", "tmpfs", "image", "npipe", "cluster"),
        "source": string,
        "target": string,
        "read_only": boolean,
        "consistency": string,
        "bind": table(_BIND),
        "volume": table({"nocopy": boolean, "subpath": string, "labels": labels}),
        "tmpfs": table({"size": size, "mode": integer}),
        "image": table({"subpath": string}),
    }
)


def ports(value: Any, place: Place) -> list[Any]:
    """All in the long form, ranges taken apart."""
    if not isinstance(value, list):
        raise place.error("must be a list")
    found: list[dict[str, Any]] = []
    for position, entry in enumerate(value):
        here = Place(place.file, getattr(entry, "line", place.line), f"{place.path}[{position}]")
        if isinstance(entry, dict):
            long = dict(_LONG_PORT(entry, here))
            if "target" not in long:
                raise here.error("needs a target")
            found.append({"mode": "ingress", "protocol": "tcp", **long})
        else:
            found += _short_port(text(entry, here), here)
    return found


def _short_port(words: str, place: Place) -> list[dict[str, Any]]:
    match = _PORT.fullmatch(words)
    if not match:
        raise place.error(f"is no port mapping: {words!r} (want [[IP:]HOST:]CONTAINER[/PROTOCOL])")
    targets = _range(match["target"], place)
    published = _range(match["published"], place) if match["published"] else None
    one_of_many = published is not None and len(targets) == 1 and len(published) > 1
    if published is not None and not one_of_many and len(published) != len(targets):
        raise place.error(f"maps ranges of different lengths: {words!r}")
    found = []
    for position, target in enumerate(targets):
        port: dict[str, Any] = {"mode": "ingress", "target": target}
        if one_of_many:
            port["published"] = match["published"]
        elif published is not None:
            port["published"] = str(published[position])
        if match["ip"]:
            port["host_ip"] = match["ip"].strip("[]")
        port["protocol"] = match["protocol"] or "tcp"
        found.append(port)
    return found


def _range(words: str, place: Place) -> list[int]:
    first, dash, last = words.partition("-")
    begin, end = int(first), int(last) if dash else int(first)
    if not 0 <= begin <= end <= _LAST_PORT:
        raise place.error(f"is no port or range of ports: {words}")
    return list(range(begin, end + 1))


def volumes(value: Any, place: Place) -> list[Any]:
    """All in the long form; paths as they are written."""
    if not isinstance(value, list):
        raise place.error("must be a list")
    found = []
    for position, entry in enumerate(value):
        here = Place(place.file, getattr(entry, "line", place.line), f"{place.path}[{position}]")
        long = dict(_LONG_VOLUME(entry, here)) if isinstance(entry, dict) else None
        volume = long or _short_volume(string(entry, here), here)
        if "type" not in volume:
            raise here.error("needs a type")
        if not volume.get("target"):
            raise here.error("needs a target")
        found.append(volume)
    return found


def _short_volume(words: str, place: Place) -> dict[str, Any]:
    if _WINDOWS.match(words):
        raise place.error("is a path of Windows")
    parts = words.split(":")
    if len(parts) > 3 or not all(parts):
        raise place.error(f"is no mount: {words!r} (want [SOURCE:]TARGET[:OPTIONS])")
    if len(parts) == 1:
        return {"type": "volume", "target": words, "volume": {}}
    source, target = parts[0], parts[1]
    kind = "bind" if source.startswith((".", "/", "~")) else "volume"
    volume: dict[str, Any] = {"type": kind, "source": source, "target": target}
    volume[kind] = {"create_host_path": True} if kind == "bind" else {}
    for option in parts[2].split(",") if len(parts) == 3 else ():
        _apply_option(volume, option, place)
    return volume


def _apply_option(volume: dict[str, Any], option: str, place: Place) -> None:
    if option == "ro":
        volume["read_only"] = True
    elif option == "nocopy":
        volume["volume"] = {"nocopy": True}
    elif option in ("z", "Z"):
        volume["bind"] = {**volume.get("bind", {}), "selinux": option}
    elif option in ("shared", "rshared", "private", "rprivate", "slave", "rslave"):
        volume["bind"] = {**volume.get("bind", {}), "propagation": option}
    elif option in ("cached", "delegated", "consistent"):
        volume["consistency"] = option
    elif option != "rw":
        raise place.error(f"has an unknown option {option!r}")


def file_reference(value: Any, place: Place) -> Any:
    """A config or secret that a service gets: its name, or where and how it is mounted."""
    return table(
        {"source": string, "target": string, "uid": text, "gid": text, "mode": _mode},
        short=lambda words, here: {"source": string(words, here)},
    )(value, place)


def _mode(value: Any, place: Place) -> int:
    """YAML reads 0440 as an octal number; a string is octal too."""
    if isinstance(value, str):
        try:
            return int(value, 8)
        except ValueError:
            raise place.error(f"is no file mode: {value!r}") from None
    return integer(value, place)


def device(value: Any, place: Place) -> Any:
    def short(words: Any, here: Place) -> dict[str, str]:
        parts = string(words, here).split(":")
        if len(parts) > 3:
            raise here.error(f"is no device: {words!r} (want HOST[:CONTAINER[:rwm]])")
        source, *rest = parts
        target = rest[0] if rest and rest[0].startswith("/") else source
        permissions = rest[-1] if rest and not rest[-1].startswith("/") else "rwm"
        return {"source": source, "target": target, "permissions": permissions}

    keys = {"source": string, "target": string, "permissions": string}
    return table(keys, short=short)(value, place)


def extra_hosts(value: Any, place: Place) -> list[str]:
    """`name=address`, from a mapping or a list with `:` or `=`."""
    if isinstance(value, dict):
        found = []
        for host, addresses in value.items():
            several = addresses if isinstance(addresses, list) else [addresses]
            found += [f"{host}={text(address, place)}" for address in several]
        return found
    entries: list[str] = shapes.sequence(string)(value, place)
    for entry in entries:
        if not re.match(r"[^=:]+[=:].+", entry):
            raise place.error(f"is no host: {entry!r} (want NAME=ADDRESS)")
    return [re.sub(r"^([^=:]+)[=:]", r"\1=", entry) for entry in entries]
