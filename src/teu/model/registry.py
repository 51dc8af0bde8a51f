"""What passes between the image side and a registry client."""

from msgspec import Struct

from teu.errors import Unavailable


class RegistryUnreachable(Unavailable):
    """No connection to any of a registry's addresses (it did not even answer)."""


class BrokenTransfer(Unavailable):
    """A registry stopped sending, or sent something else than it promised."""


class FetchedManifest(Struct, frozen=True):
    """A manifest or an index as it came; `digest` was checked against `data`."""

    data: bytes
    media_type: str
    digest: str
