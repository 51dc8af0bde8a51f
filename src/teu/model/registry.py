"""What passes between the image side and a registry client."""

from collections.abc import AsyncGenerator
from typing import Protocol

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


class Upload(Protocol):
    """A blob to be pushed. Where `size_bytes` is None, `digest` and size are known only once
    `chunks` has given everything."""

    @property
    def digest(self) -> str: ...

    @property
    def size_bytes(self) -> int | None: ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The bytes, from the start; may be asked for again."""
        ...


class Target(Protocol):
    """One repository that can be pushed to; `registry/upload.py` is one."""

    async def has_blob(self, digest: str) -> bool: ...

    async def has_manifest(self, digest: str) -> bool: ...

    async def mount(self, digest: str, repository: str) -> bool: ...

    async def blob(self, upload: Upload) -> None: ...

    async def manifest(self, data: bytes, media_type: str, reference: str) -> None: ...
