"""Small files of one directory, replaced as a whole, and sockets with long paths."""

import contextlib
import json
import os
import socket
from typing import Any

RESERVED_BYTES = 512
_SUN_PATH_BYTES = 107


class Directory:
    """The container's directory, held open: short paths for sockets, no lookups by full path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.fd)

    def reserve(self, name: str) -> None:
        """Takes the space of a later `write_json(name)`, which then works on a full disk too."""
        self._write(f".{name}.tmp", b" " * RESERVED_BYTES)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Readers see the old file or the new one, never a part. Raises: OSError."""
        self._write(f".{name}.tmp", json.dumps(content).encode())
        os.rename(f".{name}.tmp", name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def read(self, name: str) -> bytes:
        """Raises: OSError."""
        return read_file(name, self.fd)

    def _write(self, name: str, content: bytes) -> None:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
        try:
            os.write(fd, content)
            os.ftruncate(fd, len(content))  # not O_TRUNC: that would give up reserved space
        finally:
            os.close(fd)

    def remove(self, *names: str) -> None:
        """Accepts files that are not there."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.fd)

    def listen(self, name: str, kind: int) -> socket.socket:
        """A listening unix socket `name`, mode 0600, non-blocking."""
        self.remove(name)
        listener = socket.socket(socket.AF_UNIX, kind)
        try:
            listener.bind(f"/proc/self/fd/{self.fd}/{name}")  # sun_path holds 107 bytes only
            os.chmod(name, 0o600, dir_fd=self.fd)
            listener.listen(16)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        return listener

    def socket_path(self, name: str) -> str:
        """A path of `name` that fits in sun_path for other processes, while this one lives."""
        path = f"{self.path}/{name}"
        if len(os.fsencode(path)) <= _SUN_PATH_BYTES:
            return path
        return f"/proc/{os.getpid()}/fd/{self.fd}/{name}"


def read_file(path: str, directory_fd: int | None = None) -> bytes:
    """All of a file (the io module would touch many more pages). Raises: OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        return b"".join(iter(lambda: os.read(fd, 1 << 14), b""))
    finally:
        os.close(fd)
