"""The one map from error kind to HTTP status, and the only place that names status numbers."""

from typing import Final

from teu import errors

OK: Final = 200
CREATED: Final = 201
NO_CONTENT: Final = 204
CONTINUE: Final = 100
SWITCHING_PROTOCOLS: Final = 101
NOT_FOUND: Final = 404
METHOD_NOT_ALLOWED: Final = 405
BAD_REQUEST: Final = 400
UNAVAILABLE: Final = 503
INTERNAL: Final = 500
CLIENT_GONE: Final = 499  # only in the log

_BY_KIND: Final[dict[type[errors.EngineError], int]] = {
    errors.InvalidParameter: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.NotModified: 304,
    errors.NotImplementedYet: 501,
    errors.Unavailable: 503,
    errors.SystemFailure: 500,
    errors.DataLoss: 500,
    errors.DeadlineExceeded: 500,
    errors.EngineError: 500,
}


def status_of(error: errors.EngineError) -> int:
    """The status of the error's nearest kind."""
    for kind in type(error).__mro__:
        if kind in _BY_KIND:
            return _BY_KIND[kind]
    return INTERNAL


def has_body(status: int) -> bool:
    """304 is answered without one."""
    return status != _BY_KIND[errors.NotModified]
