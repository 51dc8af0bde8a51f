"""Image names as people write them: without `docker.io/library/`.

Source: distribution/reference; compared with Docker 28.2.
"""

from __future__ import annotations

_ALNUM = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_TAG = _ALNUM | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_.-")
_DOMAIN = _TAG | frozenset(":[]")


def parts(reference: str) -> tuple[str, str, str] | None:
    """(familiar name, tag, digest) of an image reference; None when it is not a valid one."""
    rest, at, digest = reference.partition("@")
    name, tag = rest, ""
    colon = rest.rfind(":")
    if colon > rest.rfind("/"):
        name, tag = rest[:colon], rest[colon + 1 :]
        if not tag or tag[0] in ".-" or len(tag) > 128 or not _TAG.issuperset(tag):
            return None
    if at and not _is_digest(digest):
        return None
    domain, slash, path = name.partition("/")
    is_domain = slash and ("." in domain or ":" in domain or domain == "localhost")
    if not is_domain:
        domain, path = "docker.io", name
    if not _DOMAIN.issuperset(domain) or not _is_path(path):
        return None
    if not at and not tag and not slash and len(path) == 64 and _is_hex(path):
        return None
    if domain in ("docker.io", "index.docker.io"):
        return path.removeprefix("library/"), tag, digest
    return f"{domain}/{path}", tag, digest


def _is_digest(text: str) -> bool:
    algorithm, colon, digits = text.partition(":")
    return bool(algorithm and colon and len(digits) >= 32 and _is_hex(digits))


def _is_hex(text: str) -> bool:
    return frozenset("0123456789abcdef").issuperset(text)


def _is_path(path: str) -> bool:
    for part in path.split("/"):
        if not part or part[0] not in _ALNUM or part[-1] not in _ALNUM:
            return False
        if not (_ALNUM | frozenset("._-")).issuperset(part) or ".." in part or "___" in part:
            return False
    return True
