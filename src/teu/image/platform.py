"""Which of an index's manifests runs here.

Source: OCI image-index.md, "platform"; containerd's `platforms` (names and defaults).
"""

import os
import re
from collections.abc import Sequence

import msgspec

from teu.errors import InvalidParameter, NotFound
from teu.model.image import Descriptor, Platform

_MACHINES = {
    "x86_64": Platform("amd64", "linux"),
    "aarch64": Platform("arm64", "linux"),
    "armv7l": Platform("arm", "linux", variant="v7"),
    "armv6l": Platform("arm", "linux", variant="v6"),
    "i686": Platform("386", "linux"),
    "i386": Platform("386", "linux"),
    "ppc64le": Platform("ppc64le", "linux"),
    "s390x": Platform("s390x", "linux"),
    "riscv64": Platform("riscv64", "linux"),
    "loongarch64": Platform("loong64", "linux"),
}
_SYSTEMS = frozenset(("linux", "windows", "darwin", "freebsd"))
_ARCHITECTURES = frozenset(
    ("386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x", "wasm")
)
_ALIASES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_ALSO_RUNS = {"amd64": ("386",), "arm64": ("arm",)}
_PART = re.compile(r"[A-Za-z0-9_.-]+")


class NoMatchingPlatform(NotFound):
    """An index without a manifest for the platform."""

    def __init__(self, what: str, platform: Platform, offered: list[str]) -> None:
        super().__init__(
            f"no matching manifest for {platform} in the manifest list entries of {what}"
            + (f": it has {', '.join(offered)}" if offered else "")
        )


def host_platform() -> Platform:
    machine = os.uname().machine
    return _MACHINES.get(machine, Platform(machine, "linux"))


def parse_platform(text: str) -> Platform:
    """`linux/arm64/v8`, `linux`, `arm64`, or the API's JSON form. Empty is the host's.

    Raises: InvalidParameter.
    """
    host = host_platform()
    if not text:
        return host
    if text.startswith("{"):
        try:
            return msgspec.json.decode(text, type=Platform)
        except msgspec.DecodeError as error:
            raise InvalidParameter(f"invalid platform {text}: {error}") from error
    parts = text.split("/")
    is_known = len(parts) > 1 or text.lower() in {*_SYSTEMS, *_ARCHITECTURES, *_ALIASES}
    if len(parts) > 3 or not is_known or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidParameter(
            f'"{text}": unknown operating system or architecture: invalid argument: '
            "write it as linux/amd64 or linux/arm/v7"
        )
    if len(parts) == 1:
        if parts[0].lower() in _SYSTEMS:
            return Platform(host.architecture, parts[0].lower(), variant=host.variant)
        parts = ["linux", parts[0]]
    architecture, variant = _ALIASES.get(parts[1].lower(), (parts[1].lower(), ""))
    if len(parts) == 3:
        variant = parts[2].lower()
    return Platform(architecture, parts[0].lower(), variant=_normal_variant(architecture, variant))


def _normal_variant(architecture: str, variant: str) -> str:
    if architecture == "arm64" and variant in ("8", "v8"):
        return ""
    if architecture == "arm":
        return variant if not variant or variant.startswith("v") else f"v{variant}"
    return variant


def matches(wanted: Platform, offered: Platform) -> bool:
    """Whether what is offered runs where `wanted` is; an arm CPU runs older variants too."""
    if offered.os == wanted.os and offered.architecture in _ALSO_RUNS.get(wanted.architecture, ()):
        return True
    if (offered.os, offered.architecture) != (wanted.os, wanted.architecture):
        return False
    want, have = (
        _normal_variant(platform.architecture, platform.variant) for platform in (wanted, offered)
    )
    if wanted.architecture == "arm":
        return (have or "v7") <= (want or "v7")
    return not want or want == have or not have


def same_platform(one: Platform, other: Platform) -> bool:
    """Whether both mean the same, however their variants are spelled."""
    if (one.os or "linux", one.architecture) != (other.os or "linux", other.architecture):
        return False
    want, have = (_normal_variant(p.architecture, p.variant) for p in (one, other))
    return want == have or not want


def best(platforms: Sequence[Platform | None], wanted: Platform) -> int | None:
    """The position of the one that fits best: the exact variant, else the highest that runs.
    None fits whatever names no platform, if nothing else does."""

    def rank(position: int) -> tuple[bool, bool, bool, str]:
        have = platforms[position] or Platform()
        native = have.architecture == wanted.architecture
        variant = _normal_variant(have.architecture, have.variant)
        return platforms[position] is not None, native, variant == wanted.variant, variant

    fitting = [
        position
        for position, offered in enumerate(platforms)
        if offered is None or matches(wanted, offered)
    ]
    return max(fitting, key=rank, default=None)


def choose(manifests: list[Descriptor], platform: Platform, what: str) -> Descriptor:
    """The best manifest for a platform: the exact variant, else the highest that runs.

    Raises: NoMatchingPlatform.
    """
    chosen = best([descriptor.platform for descriptor in manifests], platform)
    if chosen is None:
        offered = [str(d.platform) for d in manifests if d.platform]
        raise NoMatchingPlatform(what, platform, [o for o in offered if "unknown" not in o])
    return manifests[chosen]
