"""The X-Registry-Auth header: credentials for the registry that a request is about."""

import base64
import binascii
import json
from typing import Any

from teu.api.call import Call
from teu.errors import InvalidParameter


def registry_auth(call: Call) -> dict[str, Any] | None:
    """`X-Registry-Auth`: base64url of JSON. Raises: InvalidParameter."""
    raw = call.request.headers.get("X-Registry-Auth", "")
    if not raw:
        return None
    try:
        decoded = json.loads(base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4)))
    except (binascii.Error, ValueError) as error:
        raise InvalidParameter(f"invalid X-Registry-Auth header: {error}") from None
    if not isinstance(decoded, dict):
        raise InvalidParameter("invalid X-Registry-Auth header: not a JSON object")
    return decoded
