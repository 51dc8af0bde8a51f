"""Names, tags, digests and ranges as the specification spells them.

Source: OCI distribution-spec 1.1, "Pulling manifests", "Pushing a blob in chunks".
"""

import re

from teu.distribution.errors import Refusal

NAME_LIMIT = 255
_NAME = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_CHUNK = re.compile(r"(?:bytes[ =])?(\d{1,19})-(\d{1,19})(?:/(?:\d+|\*))?")
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


def check_name(name: str) -> str:
    """Raises: Refusal NAME_INVALID."""
    if len(name) > NAME_LIMIT or not _NAME.fullmatch(name):
        raise Refusal("NAME_INVALID", "invalid repository name", {"name": name[:NAME_LIMIT]})
    return name


def is_tag(text: str) -> bool:
    return bool(_TAG.fullmatch(text))


def is_digest(text: str) -> bool:
    return bool(_DIGEST.fullmatch(text))


def check_digest(text: str) -> str:
    """Raises: Refusal DIGEST_INVALID."""
    if not is_digest(text):
        raise Refusal(
            "DIGEST_INVALID", "provided digest did not match uploaded content", text[:160]
        )
    return text


def check_reference(text: str) -> str:
    """A tag or a digest. Raises: Refusal."""
    if ":" in text:
        return check_digest(text)
    if not is_tag(text):
        raise Refusal("TAG_INVALID", "manifest tag did not match URI", {"tag": text[:160]})
    return text


def chunk_range(text: str) -> tuple[int, int]:
    """First and last byte of a `Content-Range: 0-99`. Raises: Refusal."""
    match = _CHUNK.fullmatch(text)
    if not match or int(match[2]) < int(match[1]):
        raise Refusal("RANGE_INVALID", "invalid content range", text[:80])
    return int(match[1]), int(match[2])


def byte_range(text: str, size: int) -> tuple[int, int] | None:
    """First and last byte of a `Range` header; None: serve everything (RFC 9110, 14.2).

    Raises: Refusal RANGE_INVALID when nothing of it exists.
    """
    match = _RANGE.fullmatch(text)
    if not match or not (match[1] or match[2]):
        return None
    if match[1]:
        first, last = int(match[1]), int(match[2]) if match[2] else size - 1
        if match[2] and last < first:
            return None
    else:
        first, last = max(0, size - int(match[2])), size - 1
        if int(match[2]) == 0:
            first = size
    if first >= size:
        raise Refusal("RANGE_INVALID", "the blob has no such bytes", {"size": size})
    return first, min(last, size - 1)
