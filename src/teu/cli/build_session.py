"""Handing a build's inputs to our own daemon: the list of files first, then only what is needed.

Secrets and SSH agents go the same way; a daemon that does not know sessions (Docker's) gets an
archive of everything instead. See docs/adr/0013.
"""

from __future__ import annotations

import os
import socket
import stat
import tarfile
import threading

from teu.cli.client import Client, DaemonError, escape
from teu.cli.http1 import ProtocolError
from teu.cli.jsontext import dumps
from teu.cli.session import Failure
from teu.cli.tarfiles import pack_entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from teu.cli.build_context import LocalContext
    from teu.cli.session import Session

_TAR = {"Content-Type": "application/x-tar"}
_SECRET_LIMIT_BYTES = 500 << 10


class BuildSession:
    """One build to be. `open` first; the session ends with its build."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._client = session.client
        self.id = ""
        self._paths: list[str] | None = None

    def open(self, dockerfile: bytes, name: str, target: str) -> bool:
        """False when the daemon has no sessions. Raises: DaemonError, Failure."""
        self._client.negotiate()
        query = {"dockerfile": name, "target": target or None}
        headers = {"Content-Type": "text/plain"}
        try:
            response = self._client.request("POST", "/build/sessions", query, dockerfile, headers)
        except DaemonError as error:
            if error.is_missing:
                return False
            raise
        opened = self._client.finish_json(response)
        self.id, self._paths = opened["Id"], opened["Paths"]
        return True

    def _path(self, *parts: str) -> str:
        return "/".join(("/build/sessions", self.id, *map(escape, parts)))

    # --- files ----------------------------------------------------------------------------

    def send_files(self, context: LocalContext) -> bool:
        """What the Dockerfile may read of the build context; False when a file's name is no text,
        which only an archive can carry. Raises: Failure, DaemonError."""
        try:
            self._send(context, "", self._paths)
        except UnicodeEncodeError:
            return False
        return True

    def send_named(self, name: str, root: str) -> None:
        """A directory as a named context. Raises: Failure, DaemonError."""
        from teu.cli.build_context import LocalContext

        self._send(LocalContext(root, None), name, None)

    def _send(self, context: LocalContext, name: str, paths: list[str] | None) -> None:
        listed = [_listed(path, inner) for path, inner in context.walk(paths)]
        rows = [row for row in listed if row is not None]
        key = f"{socket.gethostname()}:{name}:{context.root}"
        query = {"key": key, "context": name or None}
        body = dumps(rows).encode()
        response = self._client.request("PUT", self._path("files"), query, body)
        needed = self._client.finish_json(response)
        if needed:
            archive = _archive(context.root, needed)
            self._client.finish(
                self._client.request("PUT", self._path("content"), query, archive, _TAR)
            )

    # --- secrets --------------------------------------------------------------------------

    def add_secret(self, text: str) -> None:
        """`id=NAME[,src=FILE|,env=VARIABLE]`. Raises: Failure."""
        words = dict(word.partition("=")[::2] for word in text.split(","))
        name = words.get("id", "")
        unknown = words.keys() - {"id", "src", "source", "env", "type"}
        if unknown or not name:
            raise Failure(f"invalid secret {text!r}: use id=NAME,src=FILE or id=NAME,env=VARIABLE")
        value = _secret(name, words)
        if len(value) > _SECRET_LIMIT_BYTES:
            raise Failure(f"secret {name}: {len(value)} bytes; at most {_SECRET_LIMIT_BYTES}")
        headers = {"Content-Type": "application/octet-stream"}
        self._client.finish(
            self._client.request("PUT", self._path("secrets", name), None, value, headers)
        )

    # --- agents ---------------------------------------------------------------------------

    def add_agent(self, text: str) -> None:
        """`default`, or `ID=SOCKET`. Raises: Failure."""
        name, _, path = text.partition("=")
        path = path or os.environ.get("SSH_AUTH_SOCK", "")
        if not path:
            raise Failure(
                f"invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set ({text})"
            )
        try:
            is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
        except OSError as error:
            raise Failure(f"ssh agent {path}: {error.strerror}") from error
        if not is_socket:
            raise Failure(f"{path} is no agent's socket: load keys into an agent with ssh-add")
        client = Client(self._client.endpoint)
        client.version = self._client.version
        _offer(client, self._path("ssh", name or "default"), path)


def _listed(path: str, name: str) -> list[Any] | None:
    try:
        found = os.lstat(path)
        mode = found.st_mode
        if stat.S_ISLNK(mode):
            return [name, mode, 0, found.st_mtime_ns, found.st_ctime_ns, os.readlink(path)]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        return [name, mode, 0, found.st_mtime_ns, 0, ""]
    if not stat.S_ISREG(mode):
        return None
    return [name, mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, ""]


def _archive(root: str, names: list[str]) -> Iterator[bytes]:
    for name in names:
        yield from pack_entry(os.path.join(root, name), name, {})
    yield bytes(2 * tarfile.BLOCKSIZE)


def _secret(name: str, words: dict[str, str]) -> bytes:
    path = words.get("src") or words.get("source") or ""
    variable = words.get("env") or (path if words.get("type") == "env" else "")
    if not path and not variable and name in os.environ:
        variable = name
    if variable:
        if variable not in os.environ:
            raise Failure(f"secret {name}: the variable {variable} is not set")
        return os.environb[os.fsencode(variable)]
    try:
        with open(os.path.expanduser(path or name), "rb") as file:
            return file.read()
    except OSError as error:
        raise Failure(f"secret {name}: {path or name}: {error.strerror}") from error


def _offer(client: Client, path: str, agent: str) -> None:
    """One connection waits at the daemon; when it is used, the next one takes its place."""
    response = client.upgrade(path)()
    connection = response.connection

    def serve() -> None:
        try:
            if not connection.take_some(1):
                return
            _offer(client, path, agent)
            with socket.socket(socket.AF_UNIX) as local:
                local.connect(agent)
                _relay(connection, local)
        except (OSError, Failure, ProtocolError):
            return
        finally:
            connection.close()

    threading.Thread(target=serve, name="ssh agent", daemon=True).start()


def _relay(connection: Any, local: socket.socket) -> None:
    def upload() -> None:
        while data := connection.take_some(1 << 16):
            local.sendall(data)
        local.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=upload, daemon=True)
    thread.start()
    while data := local.recv(1 << 16):
        connection.send(data)
    thread.join(5)
