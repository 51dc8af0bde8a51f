"""Image names as Docker reads them: `ubuntu` means `docker.io/library/ubuntu:latest`.

Source: distribution/reference `normalize.go`; texts compared with Docker 28.2.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DEFAULT_DOMAIN: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_INVALID = "invalid reference format"
_NAME_LIMIT = 255


class ImageName:
    """A name in full. `tag` and `digest` are empty when the user gave none."""

    __slots__ = ("digest", "domain", "path", "tag")

    def __init__(self, domain: str, path: str, tag: str, digest: str) -> None:
        self.domain = domain
        self.path = path
        self.tag = tag
        self.digest = digest

    @property
    def repository(self) -> str:
        """`docker.io/library/ubuntu`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """`ubuntu`, `user/thing`, `localhost:5000/thing`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        short = self.path.removeprefix("library/")
        return self.path if "/" in short else short

    @property
    def full(self) -> str:
        """`docker.io/library/ubuntu:22.04`, or with its digest."""
        return self.repository + self._suffix()

    @property
    def familiar(self) -> str:
        """`ubuntu:22.04`."""
        return self.familiar_repository + self._suffix()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag

    def with_default_tag(self) -> ImageName:
        """The same name, tagged `latest` if it has neither tag nor digest."""
        if self.tag or self.digest:
            return self
        return ImageName(self.domain, self.path, DEFAULT_TAG, "")


def parse(text: str) -> ImageName:
    """Raises: ValueError with Docker's text."""
    if _IDENTIFIER.fullmatch(text):
        raise ValueError(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    domain, remote = _split_domain(text)
    name = remote.partition("@")[0]
    path, colon, tag = name.partition(":")
    if path.lower() != path:
        raise ValueError(f"{_INVALID}: repository name ({path}) must be lowercase")
    digest = remote.partition("@")[2]
    fits = bool(_DOMAIN.fullmatch(domain) and _PATH.fullmatch(path))
    fits = fits and (not colon or bool(_TAG.fullmatch(tag)))
    if not fits or ("@" in remote and not _DIGEST.fullmatch(digest)):
        raise ValueError(_INVALID)
    if len(path) > _NAME_LIMIT:
        raise ValueError(f"repository name must not be more than {_NAME_LIMIT} characters")
    return ImageName(domain, path, tag, digest)


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    is_domain = slash and (
        "." in first or ":" in first or first == "localhost" or first.lower() != first
    )
    if not is_domain:
        first, rest = DEFAULT_DOMAIN, text
    if first == "index.docker.io":
        first = DEFAULT_DOMAIN
    if first == DEFAULT_DOMAIN and "/" not in rest:
        rest = f"library/{rest}"
    return first, rest
