"""A registry's refusals, in Docker's words.

Source: distribution-spec "Error Codes"; moby distribution/errors.go (texts and kinds).
"""

import msgspec
from msgspec import Struct, field

from teu.errors import EngineError, Forbidden, NotFound, SystemFailure, Unauthorized, Unavailable
from teu.model.reference import Reference

_MESSAGE_LIMIT = 300


class PullDenied(NotFound):
    """No such repository, or not for us: registries do not tell which."""


class ManifestUnknown(NotFound):
    """The repository is there; the tag or digest is not."""


class TooManyRequests(Unavailable):
    """The registry limits us (status 429) beyond what a retry can wait for."""


class RegistryError(Struct):
    """One element of a registry's error body."""

    code: str = "UNKNOWN"
    message: str = ""

    def __str__(self) -> str:
        words = self.code.lower().replace("_", " ")
        return f"{words}: {self.message or words}"[:_MESSAGE_LIMIT]


class _Body(Struct):
    errors: list[RegistryError] = field(default_factory=list)


_BY_STATUS = {
    401: RegistryError("UNAUTHORIZED", "authentication required"),
    403: RegistryError("DENIED", "requested access to the resource is denied"),
    404: RegistryError("NAME_UNKNOWN", "repository name not known to registry"),
    429: RegistryError("TOOMANYREQUESTS", "too many requests"),
}


def parse_error(status: int, body: bytes) -> RegistryError:
    """What the registry says; for a body of another form, what its status means."""
    try:
        errors = msgspec.json.decode(body, type=_Body).errors
    except msgspec.DecodeError:
        errors = []
    if errors:
        return errors[0]
    return _BY_STATUS.get(status) or RegistryError("UNKNOWN", f"the registry answered {status}")


def manifest_error(status: int, body: bytes, name: Reference, request: str) -> EngineError:
    """The error of a refused manifest request."""
    error = parse_error(status, body)
    if status == 404 and error.code == "NAME_UNKNOWN" and not body.strip().startswith(b"{"):
        error = RegistryError("MANIFEST_UNKNOWN", "manifest unknown")
    match error.code:
        case "DENIED":
            return PullDenied(
                f"pull access denied for {name.familiar_name}, repository does not exist or may "
                f"require 'docker login': {error}"
            )
        case "MANIFEST_UNKNOWN":
            return ManifestUnknown(f"manifest for {name.familiar} not found: {error}")
        case "NAME_UNKNOWN":
            return PullDenied(f"repository {name.familiar_name} not found: {error}")
    return request_error(status, error, request)


def request_error(status: int, error: RegistryError, request: str) -> EngineError:
    """The error of any other refused request; `request` is like `Get "https://…"`."""
    text = f"{request}: {error}"
    if status == 401:
        return Unauthorized(text)
    if status == 403:
        return Forbidden(text)
    if status == 404:
        return NotFound(text)
    if status == 429:
        return TooManyRequests(f"{text}: wait a while, or log in for a higher limit")
    return SystemFailure(f"{text} (status {status})")
