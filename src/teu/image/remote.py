"""Images where they are: asking a registry what it has, and putting indexes together there.

Nothing of this touches the store. Source: API 1.51 DistributionInspect; docker/cli
`manifest push` (which sources may be used).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from teu.content.blobs import digest_of
from teu.errors import InvalidParameter
from teu.image.download import Registry, fetch_small
from teu.image.pulling import CONFIG_LIMIT_BYTES
from teu.model.image import (
    DOCKER_MANIFEST,
    OCI_INDEX,
    Descriptor,
    Index,
    InvalidImage,
    Manifest,
    Platform,
    artifact_type,
    parse_config,
    parse_manifest,
)
from teu.model.reference import Reference
from teu.model.registry import FetchedManifest, Target


class RemoteManifest(Struct, rename="pascal"):
    """A manifest as a registry has it; `raw` are its bytes (base64 on the wire)."""

    ref: str
    descriptor: Descriptor
    raw: bytes


class RemoteImages:
    """See the module's text. `auth` is what a client sent as X-Registry-Auth."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def inspect(self, ref: str, auth: Mapping[str, Any] | None) -> dict[str, Any]:
        """`GET /distribution/{name}/json`: the descriptor of a name, and its platforms.

        Raises: InvalidReference, ManifestUnknown, PullDenied, Unauthorized, RegistryUnreachable.
        """
        name = Reference.parse(ref).with_default_tag()
        fetched = await self._registry.manifest(name, auth)
        parsed = parse_manifest(fetched.data, fetched.media_type)
        if isinstance(parsed, Index):
            platforms = [entry.platform for entry in parsed.manifests if entry.platform]
        else:
            platform = await self._platform(name, parsed, auth)
            platforms = [platform] if platform else []
        descriptor = msgspec.to_builtins(_descriptor(fetched, parsed))
        return {"Descriptor": descriptor, "Platforms": msgspec.to_builtins(platforms)}

    async def tags(self, ref: str, auth: Mapping[str, Any] | None) -> list[str]:
        """All tags of a repository. Raises: like `inspect`."""
        return await self._registry.tags(Reference.parse(ref), auth)

    async def manifest(self, ref: str, auth: Mapping[str, Any] | None) -> RemoteManifest:
        """The manifest itself; that of one image with its platform. Raises: like `inspect`."""
        name = Reference.parse(ref).with_default_tag()
        fetched = await self._registry.manifest(name, auth)
        parsed = parse_manifest(fetched.data, fetched.media_type)
        descriptor = _descriptor(fetched, parsed)
        if isinstance(parsed, Manifest):
            descriptor.platform = await self._platform(name, parsed, auth)
        return RemoteManifest(str(name), descriptor, fetched.data)

    async def put_index(
        self, ref: str, raw: bytes, sources: Sequence[str], auth: Mapping[str, Any] | None
    ) -> str:
        """Makes `ref` mean an index of manifests that the registry has, here or in other
        repositories (`sources`: names with a digest), whose blobs are then mounted; its digest.

        Raises: InvalidParameter, InvalidImage, ManifestUnknown, Unauthorized, Forbidden, ….
        """
        name = Reference.parse(ref).with_default_tag()
        index = parse_manifest(raw, OCI_INDEX)
        if not isinstance(index, Index):
            raise InvalidImage("an index must have `manifests`")
        target = await self._registry.target(name, auth)
        for source in sources:
            await self._bring(target, name, Reference.parse(source), auth)
        await target.manifest(raw, index.media_type or OCI_INDEX, name.tag)
        return digest_of(raw)

    async def _bring(
        self,
        target: Target,
        name: Reference,
        source: Reference,
        auth: Mapping[str, Any] | None,
    ) -> None:
        """A manifest of another repository, with all that it names."""
        if source.domain != name.domain:
            raise InvalidParameter(
                f"cannot use source images from a different registry than the target image: "
                f"{source.domain} != {name.domain}"
            )
        if await target.has_manifest(source.digest):
            return
        fetched = await self._registry.manifest(source, auth)
        parsed = parse_manifest(fetched.data, fetched.media_type)
        if isinstance(parsed, Manifest):
            for part in [parsed.config, *parsed.layers]:
                await self._mount(target, part, source)
        await target.manifest(fetched.data, fetched.media_type, fetched.digest)

    async def _mount(self, target: Target, part: Descriptor, source: Reference) -> None:
        if part.urls or await target.has_blob(part.digest):
            return
        if not await target.mount(part.digest, source.path):
            raise InvalidParameter(
                f"the registry does not let blob {part.digest} be mounted from {source.path}: push "
                "the image to the repository of the list first"
            )

    async def _platform(
        self, name: Reference, manifest: Manifest, auth: Mapping[str, Any] | None
    ) -> Platform | None:
        """From the image's config; None for an artifact."""
        if artifact_type(manifest):
            return None
        data = await fetch_small(self._registry, name, manifest.config, auth, CONFIG_LIMIT_BYTES)
        return parse_config(data).platform


def _descriptor(fetched: FetchedManifest, parsed: Manifest | Index) -> Descriptor:
    media_type = parsed.media_type or fetched.media_type or DOCKER_MANIFEST
    return Descriptor(media_type, fetched.digest, len(fetched.data))
