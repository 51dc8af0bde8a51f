"""`--security-opt`: parsing and meaning.

Known: `no-new-privileges[=BOOL]`, `seccomp=unconfined|builtin|JSON`, `apparmor=PROFILE`,
`systempaths=unconfined` (normally turned into empty path lists by the client), `label=…` (accepted;
there is no SELinux here), `writable-cgroups[=BOOL]`. `:` instead of `=` is accepted as Docker does.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from teu.errors import InvalidParameter

UNCONFINED = "unconfined"
BUILTIN = "builtin"
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


class SecurityOptions(Struct, frozen=True):
    """`seccomp` and `apparmor` empty: the default. None: not asked."""

    no_new_privileges: bool | None = None
    seccomp: str = ""
    apparmor: str = ""
    unconfined_paths: bool = False
    writable_cgroups: bool | None = None
    labels: tuple[str, ...] = ()


def parse(options: Sequence[str]) -> SecurityOptions:
    """A later option replaces an earlier one of its kind; labels add up.

    Raises: InvalidParameter with Docker's text for an option that does not exist.
    """
    found: dict[str, Any] = {}
    labels: list[str] = []
    for option in options:
        name, value = _one("label=disable" if option == "disable" else option)
        if name == "labels":
            labels.append(str(value))
        else:
            found[name] = value
    return SecurityOptions(**found, labels=tuple(labels))


def _one(option: str) -> tuple[str, str | bool]:
    """The field of SecurityOptions that one option sets, and its value."""
    name, given, value = option.partition("=" if "=" in option else ":")
    if name in ("no-new-privileges", "writable-cgroups"):
        return name.replace("-", "_"), _boolean(option, value) if given else True
    if not given:
        raise InvalidParameter(f'invalid --security-opt 1: "{option}"')
    if name in ("seccomp", "apparmor"):
        return name, value
    if name == "label":
        return "labels", value
    if name == "systempaths" and value == UNCONFINED:
        return "unconfined_paths", True
    raise InvalidParameter(f'invalid --security-opt 2: "{option}"')


def _boolean(option: str, value: str) -> bool:
    if value not in _BOOLEANS:
        raise InvalidParameter(f'invalid --security-opt 2: "{option}"')
    return _BOOLEANS[value]
