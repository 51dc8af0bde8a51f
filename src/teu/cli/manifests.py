"""Manifest lists in the making, in `~/.docker/manifests`, laid out as Docker's own client does.

    manifests/LIST/MANIFEST   JSON: {"Ref", "Descriptor": {…, "platform"}, "Raw": base64,
                              "SchemaV2Manifest" or "OCIManifest": the manifest again}

Names become file names by `:` -> `-` and `/` -> `_`. Source: docker/cli `cli/manifest/store`.
"""

from __future__ import annotations

import json
import os

from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.config import ClientConfig
    from teu.cli.imagename import ImageName

    Entry = dict[str, Any]


class ManifestLists:
    """See the module's text. Raises: Failure when files cannot be read or written."""

    def __init__(self, config: ClientConfig) -> None:
        self._root = os.path.join(config.directory, "manifests")

    def exists(self, name: ImageName) -> bool:
        return os.path.isdir(self._directory(name))

    def entries(self, name: ImageName) -> list[Entry]:
        """Of a list, in the order of their names. Raises: Failure when there is no such list."""
        try:
            files = sorted(os.listdir(self._directory(name)))
        except FileNotFoundError:
            raise Failure(f"No such manifest: {name.full}") from None
        found = (self._read(os.path.join(self._directory(name), file)) for file in files)
        return [entry for entry in found if entry is not None]

    def find(self, name: ImageName, member: ImageName) -> Entry | None:
        return self._read(os.path.join(self._directory(name), _file_name(member)))

    def save(self, name: ImageName, member: ImageName, entry: Entry) -> None:
        """One member of a list, in one step."""
        directory = self._directory(name)
        path = os.path.join(directory, _file_name(member))
        partial = f"{path}.{os.getpid()}.partial"
        try:
            os.makedirs(directory, mode=0o755, exist_ok=True)
            with open(partial, "w", encoding="utf-8") as file:
                json.dump(entry, file, separators=(",", ":"))
            os.replace(partial, path)
        except OSError as error:
            raise Failure(f"cannot keep the manifest in {directory}: {error.strerror}") from error

    def remove(self, name: ImageName) -> None:
        """Raises: Failure when there is no such list."""
        import shutil

        try:
            shutil.rmtree(self._directory(name))
        except FileNotFoundError:
            raise Failure(f"No such manifest: {name.full}") from None
        except OSError as error:
            raise Failure(f"cannot remove {name.full}: {error}") from error

    def _directory(self, name: ImageName) -> str:
        return os.path.join(self._root, _file_name(name))

    def _read(self, path: str) -> Entry | None:
        try:
            with open(path, encoding="utf-8") as file:
                entry = json.load(file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise Failure(f"{path} cannot be read: {error}; remove the list and start over") from (
                error
            )
        return entry if isinstance(entry, dict) else None


def _file_name(name: ImageName) -> str:
    return name.full.replace(":", "-").replace("/", "_")
