"""Image references: `busybox` means `docker.io/library/busybox:latest`.

    [DOMAIN[:PORT]/]PATH[:TAG][@DIGEST]

Source: the grammar of distribution/reference (`normalize.go`, `regexp.go`); texts are Docker's.
"""

import re
from typing import Self

from msgspec import Struct

from teu.errors import InvalidParameter

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_MAX_NAME = 255

_ALNUM = "[a-z0-9]+"
_SEPARATOR = "(?:[._]|__|[-]+)"
_COMPONENT = f"{_ALNUM}(?:{_SEPARATOR}{_ALNUM})*"
_PATH = f"{_COMPONENT}(?:/{_COMPONENT})*"
_DOMAIN_COMPONENT = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_DOMAIN_COMPONENT}(?:\.{_DOMAIN_COMPONENT})*|\[(?:[a-fA-F0-9:]+)\])"
_DOMAIN = f"{_HOST}(?::[0-9]+)?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(f"((?:{_DOMAIN}/)?{_PATH})(?::({_TAG}))?(?:@({_DIGEST}))?", re.ASCII)
_TAG_ONLY = re.compile(_TAG, re.ASCII)
_IDENTIFIER = re.compile("[a-f0-9]{64}")
_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


class InvalidReference(InvalidParameter):
    """Not a reference; the text is Docker's."""


class Reference(Struct, frozen=True):
    """A normalized reference: `domain` and `path` are never empty; `tag` and `digest` may be."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises: InvalidReference."""
        if _IDENTIFIER.fullmatch(text):
            raise InvalidReference(
                f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )
        domain, remainder = _split_domain(text)
        remote = remainder.partition(":")[0] if ":" in remainder else remainder
        if remote.partition("@")[0].lower() != remote.partition("@")[0]:
            raise InvalidReference(
                f"invalid reference format: repository name ({remote}) must be lowercase"
            )
        match = _REFERENCE.fullmatch(f"{domain}/{remainder}")
        if not match:
            raise InvalidReference("invalid reference format")
        name, tag, digest = match[1], match[2] or "", match[3] or ""
        if len(name) > _MAX_NAME:
            raise InvalidReference(f"repository name must not be more than {_MAX_NAME} characters")
        _check_digest(digest)
        return cls(domain, name[len(domain) + 1 :], tag, digest)

    @property
    def name(self) -> str:
        """`docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The shortest name people write: `busybox`, `user/app`, `host:5000/app`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        official = self.path.removeprefix(_OFFICIAL)
        return self.path if "/" in official else official

    @property
    def familiar(self) -> str:
        return self._with_suffix(self.familiar_name)

    def __str__(self) -> str:
        return self._with_suffix(self.name)

    def _with_suffix(self, name: str) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return name + tag + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> "Reference":
        """`latest` where neither tag nor digest was given."""
        if self.tag or self.digest:
            return self
        return Reference(self.domain, self.path, DEFAULT_TAG)

    def with_tag(self, tag: str) -> "Reference":
        """The same repository, this tag. Raises: InvalidReference."""
        if not _TAG_ONLY.fullmatch(tag):
            raise InvalidReference("invalid tag format")
        return Reference(self.domain, self.path, tag)

    def with_digest(self, digest: str) -> "Reference":
        """The same repository, this digest, no tag."""
        return Reference(self.domain, self.path, "", digest)


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    is_name = not any(mark in first for mark in ".:") and first != "localhost"
    if not slash or (is_name and first.lower() == first):
        domain, remainder = DEFAULT_DOMAIN, text
    else:
        domain, remainder = first, rest
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = _OFFICIAL + remainder
    return domain, remainder


def _check_digest(digest: str) -> None:
    if not digest:
        return
    algorithm, _, value = digest.partition(":")
    length = _DIGEST_LENGTHS.get(algorithm)
    if length is None:
        raise InvalidReference("unsupported digest algorithm")
    if len(value) != length or value.lower() != value:
        raise InvalidReference("invalid checksum digest length")
