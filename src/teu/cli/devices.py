"""`--device` and `--gpus` in the API's shape. Source: docker/cli `opts/gpus.go`; Docker 28.2."""

from __future__ import annotations

from teu.cli.values import csv_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_VENDOR_PUNCTUATION = frozenset("-_.")


def split_devices(specs: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """`--device` values -> (HostConfig.Devices, CDI DeviceRequests). Raises: ValueError."""
    devices = []
    cdi = []
    for spec in specs:
        if _is_cdi(spec):
            cdi.append(spec)
        else:
            devices.append(_parse_device(spec))
    if not cdi:
        return devices, []
    request = {
        "Driver": "cdi", "Count": 0, "DeviceIDs": cdi, "Capabilities": None, "Options": None
    }  # fmt: skip
    return devices, [request]


def _is_cdi(spec: str) -> bool:
    """`vendor.com/class=name`: a Container Device Interface name, not a path."""
    kind, equals, name = spec.partition("=")
    vendor, slash, class_name = kind.partition("/")
    if not (equals and slash and name and vendor and class_name) or "/" in class_name:
        return False
    return all(
        part[0].isalnum() and all(c.isalnum() or c in _VENDOR_PUNCTUATION for c in part)
        for part in (vendor, class_name)
    )


def _parse_device(spec: str) -> dict[str, Any]:
    """`/dev/a[:/dev/b][:rwm]` -> API DeviceMapping."""
    parts = spec.split(":")
    path = inside = parts[0]
    access = "rwm"
    if not path or len(parts) > 3:
        raise ValueError(f"bad format for path: {spec}")
    if len(parts) == 2:
        if _is_access(parts[1]):
            access = parts[1]
        else:
            inside = parts[1]
    elif len(parts) == 3:
        inside, access = parts[1], parts[2]
        if not _is_access(access):
            raise ValueError(f"bad mode specified: {access}")
    if not inside.startswith("/"):
        raise ValueError(f"{inside} is not an absolute path")
    return {"PathOnHost": path, "PathInContainer": inside, "CgroupPermissions": access}


def _is_access(text: str) -> bool:
    return bool(text) and set(text) <= set("rwm") and len(set(text)) == len(text)


def parse_gpus(text: str) -> dict[str, Any]:
    """One `--gpus` value -> API DeviceRequest. Raises: ValueError with Docker's text."""
    request: dict[str, Any] = {
        "Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}
    }  # fmt: skip
    seen = set()
    for field in csv_fields(text):
        key, equals, value = field.partition("=")
        if key in seen:
            raise ValueError(f"gpu request key '{key}' can be specified only once")
        seen.add(key)
        if equals:
            _set_gpu_field(request, key, value, field)
        else:
            seen.add("count")
            request["Count"] = _gpu_count(key)
    if "count" not in seen and request["DeviceIDs"] is None:
        request["Count"] = 1
    return request


def _set_gpu_field(request: dict[str, Any], key: str, value: str, field: str) -> None:
    if key == "driver":
        request["Driver"] = value
    elif key == "count":
        request["Count"] = _gpu_count(value)
    elif key == "device":
        request["DeviceIDs"] = value.split(",")
    elif key == "capabilities":
        request["Capabilities"] = [[*value.split(","), "gpu"]]
    elif key == "options":
        parts = (option.partition("=") for option in csv_fields(value))
        request["Options"] = {name: content for name, _, content in parts}
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _gpu_count(text: str) -> int:
    if text == "all":
        return -1
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not digits.isascii() or not digits.isdigit():
        raise ValueError(
            f'invalid count ({text}): value must be either "all" or an integer: invalid syntax'
        )
    return int(text)
