"""The headers that carry credentials: for one registry (`X-Registry-Auth`), or for all."""

import base64
import binascii
import json
from typing import Any

from teu.api.call import Call
from teu.errors import InvalidParameter


def registry_auth(call: Call) -> dict[str, Any] | None:
    """`X-Registry-Auth`: base64url of JSON, one login. Raises: InvalidParameter."""
    return _header_table(call, "X-Registry-Auth")


def registry_logins(call: Call) -> dict[str, Any]:
    """`X-Registry-Config`: base64url of JSON, logins by registry. Raises: InvalidParameter."""
    return _header_table(call, "X-Registry-Config") or {}


def _header_table(call: Call, name: str) -> dict[str, Any] | None:
    raw = call.request.headers.get(name, "")
    if not raw:
        return None
    try:
        decoded = json.loads(base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4)))
    except (binascii.Error, ValueError) as error:
        raise InvalidParameter(f"invalid {name} header: {error}") from None
    if not isinstance(decoded, dict):
        raise InvalidParameter(f"invalid {name} header: not a JSON object")
    return decoded
