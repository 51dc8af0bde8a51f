"""Seccomp profiles in Docker's format, resolved for one container.

A profile allows or denies system calls by name, some only with (`includes`) or without
(`excludes`) a capability, on some architectures, or from a kernel version on. Resolving keeps
what applies here and gives the OCI runtime's `linux.seccomp` section.

The default profile is the distribution's (package golang-github-containers-common), tightened to
Docker's rules. Without it one of our own is used (seccomp_policy.py).
Source: Docker's profile format; OCI runtime specification, config-linux.md "Seccomp".
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from teu.errors import InvalidParameter
from teu.runtime import seccomp_policy

OciSeccomp = dict[str, Any]
DISTRIBUTION_PROFILES: Final = (
    Path("/etc/containers/seccomp.json"),
    Path("/usr/share/containers/seccomp.json"),
)
# uname -m: the name in profiles (Go's), the name in the OCI section.
_ARCHITECTURES: Final = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "loongarch64": ("loong64", "SCMP_ARCH_LOONGARCH64"),
}


class Machine(Struct, frozen=True):
    """What a profile's conditions look at: `uname -m`, and kernel major and minor."""

    architecture: str
    kernel: tuple[int, int]

    @classmethod
    def this(cls) -> "Machine":
        facts = os.uname()
        return cls(facts.machine, _version(facts.release))

    @property
    def profile_name(self) -> str:
        return _ARCHITECTURES.get(self.architecture, (self.architecture, ""))[0]

    @property
    def oci_name(self) -> str:
        return _ARCHITECTURES.get(self.architecture, ("", ""))[1]


def parse(text: str) -> Mapping[str, Any]:
    """A profile as the client sent it. Raises: InvalidParameter with Docker's text."""
    try:
        profile = json.loads(text)
    except ValueError as error:
        hint = "; give the profile's content, not a path" if text.startswith("/") else ""
        raise InvalidParameter(f"Decoding seccomp profile failed: {error}{hint}") from error
    problem = _problem(profile)
    if problem:
        raise InvalidParameter(f"Decoding seccomp profile failed: {problem}")
    checked: Mapping[str, Any] = profile
    return checked


def load(path: Path) -> Mapping[str, Any]:
    """A profile from a file of the administrator. Raises: InvalidParameter naming the file."""
    try:
        return parse(path.read_text())
    except (OSError, UnicodeDecodeError, InvalidParameter) as error:
        raise InvalidParameter(f"opening seccomp profile ({path}) failed: {error}") from error


def default(candidates: Sequence[Path] = DISTRIBUTION_PROFILES) -> Mapping[str, Any]:
    """The distribution's profile, tightened, else our own. Raises: InvalidParameter."""
    for path in candidates:
        if path.exists():
            return seccomp_policy.tighten(load(path))
    return seccomp_policy.PROFILE


def resolve(
    profile: Mapping[str, Any], *, capabilities: Collection[str], machine: Machine
) -> OciSeccomp:
    """The OCI section for a container with these capabilities on this machine."""
    section: OciSeccomp = {"defaultAction": profile["defaultAction"]}
    for key in ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"):
        if profile.get(key):
            section[key] = profile[key]
    if architectures := _architectures(profile, machine):
        section["architectures"] = architectures
    section["syscalls"] = [
        _rule(rule)
        for rule in profile.get("syscalls") or ()
        if _applies(rule, capabilities, machine)
    ]
    return section


def _architectures(profile: Mapping[str, Any], machine: Machine) -> list[str]:
    for entry in profile.get("archMap") or ():
        if entry["architecture"] == machine.oci_name:
            return [entry["architecture"], *(entry.get("subArchitectures") or ())]
    return list(profile.get("architectures") or ())


def _applies(rule: Mapping[str, Any], capabilities: Collection[str], machine: Machine) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    arches = includes.get("arches") or ()
    if arches and machine.profile_name not in arches:
        return False
    if machine.profile_name in (excludes.get("arches") or ()):
        return False
    if any(name not in capabilities for name in includes.get("caps") or ()):
        return False
    if any(name in capabilities for name in excludes.get("caps") or ()):
        return False
    oldest, too_new = includes.get("minKernel"), excludes.get("minKernel")
    if oldest and machine.kernel < _version(oldest):
        return False
    return not (too_new and machine.kernel >= _version(too_new))


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "names": rule.get("names") or [rule["name"]],
        "action": rule["action"],
    }
    if rule.get("errnoRet") is not None:
        found["errnoRet"] = rule["errnoRet"]
    if rule.get("args"):
        found["args"] = [
            {
                "index": argument["index"],
                "value": argument["value"],
                "valueTwo": argument.get("valueTwo", 0),
                "op": argument["op"],
            }
            for argument in rule["args"]
        ]
    return found


def _version(text: str) -> tuple[int, int]:
    """`6.1.0-9-amd64` -> (6, 1); what is not a number counts as 0."""
    numbers = [*text.partition("-")[0].split("."), "0", "0"][:2]
    major, minor = (int(number) if number.isdigit() else 0 for number in numbers)
    return major, minor


def _problem(profile: Any) -> str:
    """Why this is no profile; empty when it is one."""
    if not isinstance(profile, dict):
        return "a profile is a JSON object"
    if not isinstance(profile.get("defaultAction"), str):
        return "defaultAction is missing"
    if profile.get("architectures") and profile.get("archMap"):
        return "both 'architectures' and 'archMap' are specified in the seccomp profile, use either"
    for rule in profile.get("syscalls") or ():
        if not isinstance(rule, dict) or not isinstance(rule.get("action"), str):
            return "a rule in syscalls has no action"
        if bool(rule.get("name")) == bool(rule.get("names")):
            return "a rule in syscalls needs either 'name' or 'names'"
        for argument in rule.get("args") or ():
            if not isinstance(argument, dict) or not {"index", "value", "op"} <= set(argument):
                return "an argument condition needs index, value and op"
    return ""
