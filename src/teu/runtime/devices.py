"""Devices in a container: which exist, and which the device cgroup lets it use.

A device is `{"path", "type": "c"|"b", "major", "minor", "fileMode", "uid", "gid"}`, a rule
`{"allow", "type", "major", "minor", "access"}` of the OCI runtime specification; a number that
is left out stands for any.
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from typing import Any, Final

from teu.errors import InvalidParameter
from teu.model.config import DeviceMapping

OciObject = dict[str, Any]

# zero, null, urandom, random, tty, console; the runtime adds its own (full, ptmx, pts) itself.
_DEFAULT_NUMBERS: Final = ((1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1))
ALLOW_ALL: Final[OciObject] = {"allow": True, "access": "rwm"}
DENY_ALL: Final[OciObject] = {"allow": False, "access": "rwm"}
DEFAULT_RULES: Final = (
    DENY_ALL,
    *(
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in _DEFAULT_NUMBERS
    ),
)
_RULE: Final = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")
_NOT_DEVICES: Final = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"})


def check_permissions(permissions: str) -> None:
    """Raises: InvalidParameter unless it is one to three of `r`, `w`, `m`."""
    if not permissions or set(permissions) - set("rwm") or len(permissions) > 3:
        raise InvalidParameter(f"invalid device mode: {permissions}")


def from_mapping(mapping: DeviceMapping) -> tuple[list[OciObject], list[OciObject]]:
    """Devices and rules of one `--device`; a folder gives all devices below it.

    Raises: InvalidParameter when the path is neither a device nor a folder with devices.
    """
    permissions = mapping.cgroup_permissions or "rwm"
    check_permissions(permissions)
    host = os.path.realpath(mapping.path_on_host)
    inside = mapping.path_in_container or mapping.path_on_host
    try:
        facts = os.stat(host)
    except OSError as error:
        raise _unusable(mapping.path_on_host, error.strerror or str(error)) from error
    if stat.S_ISDIR(facts.st_mode):
        devices = [
            {**device, "path": inside + device["path"].removeprefix(host)} for device in _walk(host)
        ]
    else:
        found = describe(inside, facts)
        devices = [found] if found else []
    if not devices:
        raise _unusable(mapping.path_on_host, "not a device node")
    return devices, [_rule_for(device, permissions) for device in devices]


def rule_from_text(text: str) -> OciObject:
    """`c 1:* rwm` as a rule. Raises: InvalidParameter with Docker's text."""
    match = _RULE.fullmatch(text)
    if not match:
        raise InvalidParameter(f"invalid device cgroup rule format: '{text}'")
    kind, major, minor, access = match.groups()
    rule: OciObject = {"allow": True, "type": kind, "access": access}
    for name, number in (("major", major), ("minor", minor)):
        if number != "*":
            rule[name] = int(number)
    return rule


def of_host() -> list[OciObject]:
    """Every device below /dev, for a privileged container."""
    return [device for device in _walk("/dev") if device["path"] != "/dev/console"]


def describe(path: str, facts: os.stat_result) -> OciObject | None:
    """The OCI device for a stat result, None when it is no device."""
    if stat.S_ISCHR(facts.st_mode):
        kind = "c"
    elif stat.S_ISBLK(facts.st_mode):
        kind = "b"
    else:
        return None
    return {
        "path": path,
        "type": kind,
        "major": os.major(facts.st_rdev),
        "minor": os.minor(facts.st_rdev),
        "fileMode": stat.S_IMODE(facts.st_mode),
        "uid": facts.st_uid,
        "gid": facts.st_gid,
    }


def block_numbers(path: str) -> tuple[int, int]:
    """Major and minor of the device at `path` on the host. Raises: InvalidParameter."""
    try:
        facts = os.stat(path)
    except OSError as error:
        raise InvalidParameter(f"stat {path}: {(error.strerror or '').lower()}") from error
    return os.major(facts.st_rdev), os.minor(facts.st_rdev)


def _rule_for(device: OciObject, permissions: str) -> OciObject:
    return {
        "allow": True,
        "type": device["type"],
        "major": device["major"],
        "minor": device["minor"],
        "access": permissions,
    }


def _walk(folder: str) -> Iterator[OciObject]:
    """Devices below a folder; symbolic links and what vanishes meanwhile are left out."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _NOT_DEVICES:
                    yield from _walk(entry.path)
                continue
            found = describe(entry.path, entry.stat(follow_symlinks=False))
        except OSError:
            continue
        if found:
            yield found


def _unusable(path: str, reason: str) -> InvalidParameter:
    return InvalidParameter(
        "error gathering device information while adding custom device "
        f'"{path}": {reason[:1].lower()}{reason[1:]}'
    )


def rules(mappings: Sequence[OciObject], texts: Sequence[str]) -> list[OciObject]:
    """The default rules, then those of the container's own devices, then `--device-cgroup-rule`."""
    return [*DEFAULT_RULES, *mappings, *map(rule_from_text, texts)]
