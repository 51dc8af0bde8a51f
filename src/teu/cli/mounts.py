"""`--mount`, `-v` and `--tmpfs` in the API's shape.

Source: docker/cli `opts/mount.go`, `cli/compose/loader/volume.go`; compared with Docker 28.2.
"""

from __future__ import annotations

import os

from teu.cli.values import csv_fields, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_COMMON_KEYS = {
    "type": "Type", "source": "Source", "src": "Source", "target": "Target", "dst": "Target",
    "destination": "Target", "consistency": "Consistency",
}  # fmt: skip
_SWITCHES = {"readonly": "ReadOnly", "ro": "ReadOnly", "chown": "Chown", "u": "Chown"}
_BIND_SWITCHES = {"bind-nonrecursive": "NonRecursive", "bind-create-src": "CreateMountpoint"}
_RECURSIVE = {
    "disabled": "NonRecursive", "writable": "ReadOnlyNonRecursive",
    "readonly": "ReadOnlyForceRecursive",
}  # fmt: skip
_FLAG_KEYS = frozenset((*_SWITCHES, *_BIND_SWITCHES, "volume-nocopy"))
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_OWN_KEYS = {"bind": "BindOptions", "volume": "VolumeOptions", "image": "ImageOptions"}


def parse_mount(text: str) -> dict[str, Any]:
    """One `--mount` value -> API Mount. Raises: ValueError with Docker's text."""
    mount: dict[str, Any] = {"Type": "volume"}
    options = _MountOptions()
    for field in csv_fields(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        if not equals:
            if key not in _FLAG_KEYS and key != "idmap":
                raise ValueError(f"invalid field '{field}' must be a key=value pair")
            value = "auto" if key == "idmap" else "true"
        _set_field(mount, options, key, value, field)
    if not mount["Type"]:
        raise ValueError("type is required")
    if not mount.get("Target"):
        raise ValueError("target is required")
    options.apply(mount)
    return mount


class _MountOptions:
    """Options that belong to one mount type; checked and placed when all fields are known."""

    def __init__(self) -> None:
        self.by_type: dict[str, dict[str, Any]] = {}

    def of(self, kind: str) -> dict[str, Any]:
        return self.by_type.setdefault(kind, {})

    def apply(self, mount: dict[str, Any]) -> None:
        kind = mount["Type"]
        for name in ("volume", "image", "bind", "tmpfs"):
            if name != kind and name in self.by_type:
                raise ValueError(f"cannot mix '{name}-*' options with mount type '{kind}'")
        bind = self.by_type.get("bind", {})
        if bind.get("ReadOnlyNonRecursive") and not mount.get("ReadOnly"):
            raise ValueError(_needs("writable", "'readonly' to be specified in conjunction"))
        if bind.get("ReadOnlyForceRecursive"):
            if not mount.get("ReadOnly"):
                raise ValueError(_needs("readonly", "'readonly' to be specified in conjunction"))
            if bind.get("Propagation") != "rprivate":
                wanted = "'bind-propagation=rprivate' to be specified in conjunction"
                raise ValueError(_needs("readonly", wanted))
        for name in ("bind", "volume", "image", "tmpfs"):
            if options := self.by_type.get(name):
                mount[_OWN_KEYS.get(name, "TmpfsOptions")] = options


def _needs(mode: str, what: str) -> str:
    return f"option 'bind-recursive={mode}' requires {what}"


def _set_field(
    mount: dict[str, Any], options: _MountOptions, key: str, value: str, field: str
) -> None:
    if key in _COMMON_KEYS:
        name = _COMMON_KEYS[key]
        mount[name] = absolute_if_relative(value) if name == "Source" else value
        if name in ("Type", "Consistency"):
            mount[name] = value.lower()
    elif key in _SWITCHES:
        if _boolean(key, value):
            mount[_SWITCHES[key]] = True
        else:
            mount.pop(_SWITCHES[key], None)
    elif key == "idmap":
        mount["IdMap"] = value
    elif key.startswith("bind-"):
        _set_bind(options, key, value, field)
    elif key.startswith("volume-"):
        _set_volume(options, key, value, field)
    elif key == "image-subpath":
        options.of("image")["Subpath"] = value
    elif key.startswith("tmpfs-"):
        _set_tmpfs(options, key, value, field)
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _set_bind(options: _MountOptions, key: str, value: str, field: str) -> None:
    bind = options.of("bind")
    if key == "bind-propagation":
        bind["Propagation"] = value.lower()
    elif key in _BIND_SWITCHES:
        if _boolean(key, value):
            bind[_BIND_SWITCHES[key]] = True
    elif key == "bind-recursive":
        if value in _RECURSIVE:
            bind[_RECURSIVE[value]] = True
        elif value != "enabled":
            raise ValueError(
                f"invalid value for {key}: {value} "
                '(must be "enabled", "disabled", "writable", or "readonly")'
            )
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _set_volume(options: _MountOptions, key: str, value: str, field: str) -> None:
    volume = options.of("volume")
    driver: dict[str, Any] = volume.setdefault("DriverConfig", {})
    if key == "volume-nocopy":
        if _boolean(key, value):
            volume["NoCopy"] = True
    elif key == "volume-subpath":
        volume["Subpath"] = value
    elif key == "volume-driver":
        driver["Name"] = value
    elif key in ("volume-opt", "volume-label"):
        name, _, content = value.partition("=")
        table = driver if key == "volume-opt" else volume
        table.setdefault("Options" if key == "volume-opt" else "Labels", {})[name] = content
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _set_tmpfs(options: _MountOptions, key: str, value: str, field: str) -> None:
    tmpfs = options.of("tmpfs")
    try:
        if key == "tmpfs-size":
            tmpfs["SizeBytes"] = size(value)
        elif key == "tmpfs-mode":
            tmpfs["Mode"] = int(value, 8)
        else:
            raise KeyError(key)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None
    except KeyError:
        raise ValueError(f"unexpected key '{key}' in '{field}'") from None


def _boolean(key: str, value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ValueError(f"invalid value for {key}: {value}")


def absolute_if_relative(path: str) -> str:
    """`./x` and `../x` from the working directory; anything else as it is."""
    if path == "." or path.startswith(("./", "../")) or path == "..":
        return os.path.abspath(path)
    return path


def split_volumes(specs: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """`-v` values -> (HostConfig.Binds, Config.Volumes).

    A spec with a source is a bind (or named volume) of the host, one without is an anonymous
    volume of the container. Raises: ValueError with Docker's text.
    """
    binds: list[str] = []
    volumes: dict[str, Any] = {}
    for spec in specs:
        if not spec:
            raise ValueError("invalid empty volume spec")
        if spec.count(":") > 2:
            raise ValueError(f"invalid spec: {spec}: too many colons")
        source, colon, rest = spec.partition(":")
        if not colon or not rest:
            volumes[spec] = {}
        elif not source:
            raise ValueError(f"invalid spec: {spec}: empty section between colons")
        else:
            binds.append(f"{os.path.abspath(source) if source[0] == '.' else source}:{rest}")
    return binds, volumes


def tmpfs_table(specs: Sequence[str]) -> dict[str, str]:
    """`--tmpfs path[:options]` values -> HostConfig.Tmpfs."""
    table = {}
    for spec in specs:
        path, _, options = spec.partition(":")
        table[path] = options
    return table
