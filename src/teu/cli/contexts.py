"""The store of contexts: named daemons in `~/.docker/contexts`, shared with Docker's client.

meta/SHA256(name)/meta.json                     {"Name", "Metadata", "Endpoints"}
tls/SHA256(name)/docker/{ca,cert,key}.pem       mode 0600
"""

from __future__ import annotations

import os
import shutil

from teu.cli.config import read_bytes
from teu.cli.endpoint import context_folder
from teu.cli.jsontext import dumps, loads
from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.config import ClientConfig

DEFAULT = "default"
_NAME_REST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-")
_NAME_FIRST = _NAME_REST - frozenset("_.+-")
_PATTERN = "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"


def check_name(name: str) -> None:
    """Raises: Failure with Docker's text."""
    if not name:
        raise Failure("context name cannot be empty")
    if name == DEFAULT:
        raise Failure('"default" is a reserved context name')
    if len(name) < 2 or name[0] not in _NAME_FIRST or not _NAME_REST.issuperset(name):
        raise Failure(
            f'context name "{name}" is invalid, names are validated against regexp "{_PATTERN}"'
        )


class ContextStore:
    """Reads and writes contexts. Writing replaces whole files, so a reader never sees half."""

    def __init__(self, config: ClientConfig) -> None:
        self._root = os.path.join(config.directory, "contexts")

    def meta_folder(self, name: str) -> str:
        return os.path.join(self._root, "meta", context_folder(name))

    def tls_folder(self, name: str) -> str:
        return os.path.join(self._root, "tls", context_folder(name))

    def names(self) -> list[str]:
        return [meta["Name"] for meta in self.all()]

    def all(self) -> list[dict[str, Any]]:
        """Every readable description, in no order. Raises: Failure when one is broken."""
        root = os.path.join(self._root, "meta")
        found = []
        for folder in os.listdir(root) if os.path.isdir(root) else ():
            meta = self._read(os.path.join(root, folder, "meta.json"))
            if meta is not None:
                found.append(meta)
        return found

    def get(self, name: str) -> dict[str, Any]:
        """Raises: Failure with Docker's text when there is no such context."""
        path = os.path.join(self.meta_folder(name), "meta.json")
        meta = self._read(path)
        if meta is None:
            raise Failure(
                f'context "{name}": context not found: open {path}: no such file or directory'
            )
        return meta

    def exists(self, name: str) -> bool:
        return os.path.exists(os.path.join(self.meta_folder(name), "meta.json"))

    def _read(self, path: str) -> dict[str, Any] | None:
        data = read_bytes(path)
        if data is None:
            return None
        try:
            meta: dict[str, Any] = loads(data)
        except ValueError as error:
            raise Failure(f"{path}: {error}; repair or remove this file") from None
        return meta

    def write(self, meta: dict[str, Any]) -> None:
        """Stores one context. Raises: OSError."""
        folder = self.meta_folder(meta["Name"])
        os.makedirs(folder, mode=0o755, exist_ok=True)
        _replace(os.path.join(folder, "meta.json"), dumps(meta).encode(), 0o644)

    def tls_files(self, name: str) -> dict[str, list[str]]:
        """File names by endpoint."""
        root = self.tls_folder(name)
        if not os.path.isdir(root):
            return {}
        return {
            endpoint: sorted(os.listdir(os.path.join(root, endpoint)))
            for endpoint in sorted(os.listdir(root))
        }

    def write_tls(self, name: str, files: dict[str, bytes]) -> None:
        """Replaces the TLS files of the context by `files`. Raises: OSError."""
        shutil.rmtree(self.tls_folder(name), ignore_errors=True)
        if not files:
            return
        folder = os.path.join(self.tls_folder(name), "docker")
        os.makedirs(folder, mode=0o700)
        for file_name, content in files.items():
            _replace(os.path.join(folder, file_name), content, 0o600)

    def read_tls(self, name: str) -> dict[str, bytes]:
        folder = os.path.join(self.tls_folder(name), "docker")
        names = self.tls_files(name).get("docker", [])
        contents = {file: read_bytes(os.path.join(folder, file)) for file in names}
        return {file: content for file, content in contents.items() if content is not None}

    def remove(self, name: str) -> None:
        """A context that does not exist counts as removed."""
        shutil.rmtree(self.meta_folder(name), ignore_errors=True)
        shutil.rmtree(self.tls_folder(name), ignore_errors=True)


def _replace(path: str, content: bytes, mode: int) -> None:
    partial = f"{path}.{os.getpid()}.partial"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    os.replace(partial, path)
