"""The specification's errors: a code, a status and words.

Source: OCI distribution-spec 1.1, "Error codes"; texts as the reference registry writes them.
"""

from typing import Any

OK = 200
CREATED = 201
ACCEPTED = 202
NO_CONTENT = 204
PARTIAL_CONTENT = 206
NOT_MODIFIED = 304
TEMPORARY_REDIRECT = 307
BAD_REQUEST = 400
NOT_FOUND = 404
INTERNAL = 500

_STATUS = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DENIED": 403,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 400,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "PAGINATION_NUMBER_INVALID": 400,
    "RANGE_INVALID": 416,
    "SIZE_INVALID": 400,
    "TAG_INVALID": 400,
    "TOOMANYREQUESTS": 429,
    "UNAUTHORIZED": 401,
    "UNAVAILABLE": 503,
    "UNKNOWN": 500,
    "UNSUPPORTED": 405,
}


class Refusal(Exception):
    """An answer `{"errors": [{"code", "message", "detail"}]}`; `status` when not the code's own."""

    def __init__(
        self,
        code: str,
        message: str,
        detail: Any = None,
        *,
        status: int = 0,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status or _STATUS[code]
        self.headers = headers or {}
        self.errors: list[dict[str, Any]] = [{"code": code, "message": message}]
        if detail is not None:
            self.errors[0]["detail"] = detail
