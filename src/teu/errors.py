"""Every error that crosses a package border is one of these kinds.

A kind says what went wrong in the caller's terms; `api/status.py` is the only place that maps
kinds to HTTP status numbers. Concrete errors subclass exactly one kind, keep the facts as
attributes and build Docker's text once. A message says what failed, the likely cause, and the
next step; where clients match on Docker's wording, the text is Docker's.
"""

from typing import Final


class EngineError(Exception):
    """Base of all kinds. `code` is stable, short, and safe to persist beside the message."""

    code: str = "internal"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message: Final = message


class InvalidParameter(EngineError):
    """The request is malformed or contradicts itself."""

    code = "invalid-parameter"


class Unauthorized(EngineError):
    """Credentials are missing or wrong."""

    code = "unauthorized"


class Forbidden(EngineError):
    """Known caller, but not allowed."""

    code = "forbidden"


class NotFound(EngineError):
    """The named object does not exist."""

    code = "not-found"


class Conflict(EngineError):
    """The object's state, or another object, stands in the way."""

    code = "conflict"


class NotModified(EngineError):
    """The object already is what was asked for (answered without a body)."""

    code = "not-modified"


class NotImplementedYet(EngineError):
    """A part of Docker's API that this engine does not serve."""

    code = "not-implemented"


class Unavailable(EngineError):
    """Something this needs is not there now; a retry may succeed."""

    code = "unavailable"


class SystemFailure(EngineError):
    """The kernel, a runtime or a tool refused; the message carries its words."""

    code = "system"


class DataLoss(EngineError):
    """Stored content is missing or does not match its digest."""

    code = "data-loss"


class DeadlineExceeded(EngineError):
    """An operation with a time limit did not finish in it."""

    code = "deadline"
