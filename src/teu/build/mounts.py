"""The words of `RUN --mount`. Source: Dockerfile reference, "RUN --mount"."""

import posixpath
from collections.abc import Callable

from teu.build.steps import Mount, Origin
from teu.dockerfile.configure import joined_directory
from teu.dockerfile.errors import DockerfileError
from teu.units import parse_size

SECRETS_DIRECTORY = "/run/secrets"
_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_ALIASES = {
    "dst": "target", "destination": "target", "src": "source", "ro": "readonly",
    "rw": "readwrite",
}  # fmt: skip
_KEYS = {
    "bind": {"target", "source", "from", "readonly", "readwrite"},
    "cache": {
        "target", "source", "from", "readonly", "readwrite", "id", "sharing", "mode", "uid", "gid",
    },
    "tmpfs": {"target", "size"},
    "secret": {"target", "id", "required", "mode", "uid", "gid", "env"},
    "ssh": {"target", "id", "required", "mode", "uid", "gid"},
}  # fmt: skip
_FLAGS = frozenset(("readonly", "readwrite", "required"))


def parse_mount(text: str, directory: str, origin_of: Callable[[str], Origin]) -> Mount:
    """Args: directory: what a relative target starts from.  origin_of: what `from=` means.

    Raises: DockerfileError without a position.
    """
    words = _words(text)
    kind = words.pop("type", "bind")
    if kind not in _TYPES:
        raise DockerfileError(f'unsupported mount type "{kind}"')
    for name in words:
        if name not in _KEYS[kind]:
            raise DockerfileError(f"unexpected key '{name}' for mount type '{kind}'")
    sharing = words.get("sharing", "shared")
    if sharing not in _SHARING:
        raise DockerfileError(f'unsupported sharing value "{sharing}"')
    mount = Mount(
        type=kind,
        target=_target(kind, words, directory),
        source=words.get("source", ""),
        origin=origin_of(words["from"]) if words.get("from") else Origin(),
        id=words.get("id", ""),
        sharing=sharing,
        read_only=_read_only(kind, words),
        size_bytes=_size(words.get("size", "")),
        mode=_number(words, "mode", 8),
        uid=_number(words, "uid", 10),
        gid=_number(words, "gid", 10),
        required=words.get("required", "false") == "true",
        env=words.get("env", ""),
    )
    return _checked(mount)


def _words(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in text.split(","):
        name, given, value = word.partition("=")
        name = _ALIASES.get(name.lower(), name.lower())
        if not given:
            if name not in _FLAGS:
                raise DockerfileError(f"invalid field '{word}' must be a key=value pair")
            value = "true"
        if name in _FLAGS and value.lower() not in ("true", "false", "1", "0"):
            raise DockerfileError(f"invalid value for {name}: {value}")
        if name in _FLAGS:
            value = "true" if value.lower() in ("true", "1") else "false"
        found[name] = value
    return found


def _target(kind: str, words: dict[str, str], directory: str) -> str:
    target = words.get("target", "")
    if target:
        return joined_directory(directory, target)
    if kind == "secret" and words.get("env"):
        return ""
    if kind == "secret" and words.get("id"):
        return f"{SECRETS_DIRECTORY}/{words['id']}"
    if kind in ("secret", "ssh"):
        return ""
    raise DockerfileError(f"missing mount target for type={kind}")


def _read_only(kind: str, words: dict[str, str]) -> bool:
    if "readonly" in words:
        return words["readonly"] == "true"
    if "readwrite" in words:
        return words["readwrite"] == "false"
    return kind == "bind"


def _number(words: dict[str, str], name: str, base: int) -> int | None:
    if name not in words:
        return None
    try:
        return int(words[name], base)
    except ValueError:
        raise DockerfileError(f"invalid value {words[name]} for {name}") from None


def _size(text: str) -> int:
    try:
        return parse_size(text) if text else 0
    except ValueError as error:
        raise DockerfileError(str(error)) from None


def _checked(mount: Mount) -> Mount:
    if mount.target == "/":
        raise DockerfileError('invalid mount target "/"')
    if mount.type == "secret" and not mount.id and not mount.target and not mount.env:
        raise DockerfileError("invalid secret mount without id or target")
    if mount.type == "cache" and ".." in posixpath.normpath(mount.source).split("/"):
        raise DockerfileError(f"invalid source {mount.source!r} of a cache mount")
    return mount
