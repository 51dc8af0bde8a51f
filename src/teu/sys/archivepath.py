"""Names inside archives, as text: relative to the root, without `.`, `..` and empty parts."""

import os

from teu.sys.tarheader import InvalidArchive


def clean_path(name: bytes) -> bytes:
    """A member's name relative to the root: `./a//b/` -> `a/b`, `/` -> ``.

    Raises: InvalidArchive for one that climbs out.
    """
    if b".." not in name and b"//" not in name and b"/./" not in name:
        plain = name.removeprefix(b"./").strip(b"/")
        return b"" if plain == b"." else plain.removesuffix(b"/.")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise InvalidArchive(f"{os.fsdecode(name)!r} is outside of the archive's root")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def lexical_path(path: bytes) -> bytes:
    """Where a path leads when `/..` is `/`."""
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)
