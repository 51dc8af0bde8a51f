"""What a registry holds, and the rules for changing it; no HTTP. Loop's thread.

A blob or manifest is served by the repositories that it was pushed or mounted to, and by no other.
Files come first, rows after: a row always has its file; a file without a row is garbage. So a
process that dies anywhere serves nothing half, and has kept everything that it acknowledged.
"""

import asyncio
from pathlib import Path

from teu import clock
from teu.content.blobs import BlobStore, digest_of
from teu.distribution import manifest
from teu.distribution.errors import Refusal
from teu.distribution.uploads import Upload, Uploads
from teu.store.distribution import DistributionStore, ManifestRow


class Registry:
    """`quota_bytes`: the most that one repository may hold; 0: no limit."""

    def __init__(self, root: Path, *, quota_bytes: int = 0) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.blobs = BlobStore(root)
        self.blobs.clean()
        self.store = DistributionStore(root / "registry.db")
        self.uploads = Uploads(root / "uploads", self.store)
        self._quota_bytes = quota_bytes

    def close(self) -> None:
        self.uploads.close()
        self.store.close()

    # Blobs.

    def blob_size(self, repository: str, digest: str) -> int:
        """Of a blob, or of a manifest asked for as one. Raises: Refusal BLOB_UNKNOWN."""
        size = self.store.blob_size(repository, digest)
        if size is None and (row := self.store.manifest(repository, digest)):
            size = row.size
        if size is None:
            raise Refusal("BLOB_UNKNOWN", "blob unknown to registry", digest)
        return size

    async def finish(self, repository: str, upload: Upload, digest: str) -> None:
        """The upload becomes the repository's blob.

        Raises: Refusal DIGEST_INVALID (the upload is gone then), DENIED (quota).
        """
        actual = await asyncio.to_thread(upload.digest, digest.partition(":")[0])
        if actual != digest:
            self.uploads.drop(upload.name)
            text = "provided digest did not match uploaded content"
            raise Refusal("DIGEST_INVALID", text, {"expected": digest, "actual": actual})
        self.check_quota(repository, upload.offset)
        with self.blobs.lease([digest]):
            await asyncio.to_thread(self.blobs.adopt, upload.path, digest)
            self.store.link(repository, digest, upload.offset, clock.now_ns(), upload.name)
        self.uploads.drop(upload.name)

    def mount(self, repository: str, digest: str, source: str) -> bool:
        """Gives a repository another one's blob; False if that one does not have it."""
        size = self.store.blob_size(source, digest)
        if size is None:
            return False
        self.check_quota(repository, size)
        self.store.link(repository, digest, size, clock.now_ns())
        return True

    def check_quota(self, repository: str, more_bytes: int) -> None:
        """Raises: Refusal DENIED."""
        if self._quota_bytes and more_bytes + self.store.size_bytes(repository) > self._quota_bytes:
            text = f"the repository may hold {self._quota_bytes} bytes: delete tags, then try again"
            raise Refusal("DENIED", text, {"quota": self._quota_bytes})

    # Manifests.

    def find(self, repository: str, reference: str) -> ManifestRow:
        """By tag or digest. Raises: Refusal MANIFEST_UNKNOWN, NAME_UNKNOWN."""
        digest = reference
        if ":" not in reference:
            digest = self.store.resolve(repository, reference) or ""
        row = self.store.manifest(repository, digest)
        if row is None:
            kind = "revision" if ":" in reference else "tag"
            detail = {"name": repository, kind: reference}
            raise Refusal("MANIFEST_UNKNOWN", "manifest unknown", detail)
        return row

    async def put_manifest(
        self, repository: str, reference: str, data: bytes, content_type: str
    ) -> ManifestRow:
        """Stores a manifest whose blobs (and, of an index, manifests) are all there.

        Raises: Refusal MANIFEST_INVALID, MANIFEST_BLOB_UNKNOWN, DIGEST_INVALID, DENIED.
        """
        parsed, media_type = manifest.parse(data, content_type)
        algorithm = reference.partition(":")[0] if ":" in reference else "sha256"
        digest = digest_of(data, algorithm)
        if ":" in reference and digest != reference:
            raise Refusal("DIGEST_INVALID", "provided digest did not match uploaded content")
        needs = parsed.needs()
        self._check_present(repository, needs)
        self.check_quota(repository, len(data))
        row = ManifestRow(
            digest=digest,
            media_type=media_type,
            size=len(data),
            subject=parsed.subject.digest if parsed.subject else "",
            artifact_type=parsed.kind_of_artifact,
            annotations=parsed.annotations or {},
            at_ns=clock.now_ns(),
        )
        with self.blobs.lease([digest]):
            await asyncio.to_thread(self.blobs.put, data, digest)
            # Again: what it needs may have been deleted in the meantime.
            self._check_present(repository, needs)
            tag = "" if ":" in reference else reference
            self.store.put_manifest(repository, row, needs, tag)
        return row

    def _check_present(self, repository: str, needs: list[tuple[str, str]]) -> None:
        missing = [digest for digest, kind in needs if not self._has(repository, digest, kind)]
        if missing:
            refusal = Refusal("MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")
            refusal.errors = [{**refusal.errors[0], "detail": digest} for digest in missing]
            raise refusal

    def _has(self, repository: str, digest: str, kind: str) -> bool:
        if kind == manifest.MANIFEST:
            return self.store.manifest(repository, digest) is not None
        return self.store.blob_size(repository, digest) is not None

    def delete(self, repository: str, reference: str) -> None:
        """Removes a tag, or a manifest with all its tags. Raises: Refusal MANIFEST_UNKNOWN."""
        row = self.find(repository, reference)
        if ":" in reference:
            self.store.delete_manifest(repository, row.digest)
        else:
            self.store.delete_tag(repository, reference)
