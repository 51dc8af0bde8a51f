"""`--platform`: OS, architecture and variant. Source: containerd/platforms `Parse`."""

from __future__ import annotations

from teu.cli.session import Failure

_SYSTEMS = frozenset("linux windows darwin freebsd netbsd openbsd solaris plan9 android".split())
_ALIASES = {
    "x86_64": "amd64", "x86-64": "amd64", "i386": "386", "aarch64": "arm64",
    "armhf": "arm/v7", "armel": "arm/v6",
}  # fmt: skip
_ARCHITECTURES = frozenset(
    "386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv64 s390x "
    "wasm".split()
)
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.-()")


def normalize(text: str) -> str:
    """`x86_64` -> `linux/amd64`, `linux/arm64/v8` -> `linux/arm64`. Raises: Failure."""
    parts = text.lower().split("/")
    if len(parts) > 3:
        raise _wrong(f'"{text}": cannot parse platform specifier')
    for part in parts:
        if not part or not _ALLOWED.issuperset(part):
            raise _wrong(
                f'"{part}" is an invalid component of "{text}": '
                'platform specifier component must match "^[A-Za-z0-9_.-]+$"'
            )
    if len(parts) == 1:
        parts = _complete(parts[0], text)
    system, architecture, *variant = parts
    architecture, _, implied = _ALIASES.get(architecture, architecture).partition("/")
    version = variant[0] if variant else implied
    if (architecture, version) in (("arm64", "v8"), ("amd64", "v1")):
        version = ""
    return "/".join(part for part in (system, architecture, version) if part)


def _complete(part: str, text: str) -> list[str]:
    """An OS alone means this machine's architecture, an architecture alone means linux."""
    if part in _SYSTEMS:
        import os

        return [part, os.uname().machine]
    if part in _ALIASES or part in _ARCHITECTURES:
        return ["linux", part]
    raise _wrong(f'"{text}": unknown operating system or architecture')


def _wrong(problem: str) -> Failure:
    return Failure(f"error parsing specified platform: {problem}: invalid argument")


def as_json(text: str) -> str:
    """The JSON form that newer requests take. Raises: Failure."""
    from teu.cli.jsontext import dumps

    parts = normalize(text).split("/")
    names = ("os", "architecture", "variant")
    table = dict(zip(names, parts, strict=False))
    return dumps({name: table[name] for name in sorted(table)})
