"""The client's files in `~/.docker`: `config.json` and contexts.

config.json                                  {"currentContext", "auths", "detachKeys", ...}
contexts/meta/SHA256(name)/meta.json         {"Name", "Endpoints": {"docker": {"Host", ...}}}
contexts/tls/SHA256(name)/docker/{ca,cert,key}.pem
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.grammar import Options


class ClientConfig:
    """`config.json`, read when first asked for. A file that is not JSON is warned about once."""

    def __init__(self, globals: Options) -> None:
        chosen = globals.text("config") or os.environ.get("DOCKER_CONFIG", "")
        self.directory = chosen or os.path.join(os.path.expanduser("~"), ".docker")
        self.path = os.path.join(self.directory, "config.json")
        self._content: dict[str, Any] | None = None

    @property
    def content(self) -> dict[str, Any]:
        """The whole file; {} when there is none."""
        if self._content is None:
            self._content = self._load()
        return self._content

    def text(self, name: str) -> str:
        value = self.content.get(name)
        return value if isinstance(value, str) else ""

    def table(self, name: str) -> dict[str, Any]:
        value = self.content.get(name)
        return value if isinstance(value, dict) else {}

    def save(self, content: dict[str, Any]) -> None:
        """Replaces the file in one step, readable by its owner only. Raises: OSError."""
        import json

        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        partial = f"{self.path}.{os.getpid()}.partial"
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file, indent="\t")
                file.flush()
                os.fsync(descriptor)
            os.replace(partial, os.path.realpath(self.path))
        except OSError:
            if os.path.exists(partial):
                os.unlink(partial)
            raise
        self._content = content

    def _load(self) -> dict[str, Any]:
        data = read_bytes(self.path)
        if not data or not data.strip():
            return {}
        from teu.cli.jsontext import loads

        try:
            content = loads(data)
        except ValueError as error:
            os.write(2, f"WARNING: Error loading config file: {self.path}: {error}\n".encode())
            return {}
        return content if isinstance(content, dict) else {}


def read_bytes(path: str) -> bytes | None:
    """The file's content, None when it is not there (or not ours to read)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    try:
        parts = []
        while part := os.read(descriptor, 1 << 20):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)
