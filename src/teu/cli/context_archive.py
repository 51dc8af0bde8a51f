"""Contexts as tar files, for carrying them to another machine: meta.json and tls/docker/*.pem.

What comes in is not trusted: only those names are read, and each file has a size limit.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile

from teu.cli.commands.context import default_meta
from teu.cli.contexts import DEFAULT, ContextStore, check_name
from teu.cli.jsontext import dumps, loads
from teu.cli.session import Failure
from teu.template.quoting import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

    from teu.cli.session import Session

_LIMIT_BYTES = 1 << 20
_ARCHIVE_LIMIT_BYTES = 1 << 23
_TLS_FILES = ("ca.pem", "cert.pem", "key.pem")


def export_context(session: Session, name: str, target: str) -> None:
    """Writes the archive to the file `target` ("-": stdout), which must not exist yet.

    Raises: Failure.
    """
    store = ContextStore(session.config)
    meta = default_meta(session) if name == DEFAULT else store.get(name)
    data = _pack(meta, store.read_tls(name))
    if target == "-":
        if sys.stdout.isatty():
            raise Failure(
                "cowardly refusing to export to a terminal, specify a file path or redirect stdout"
            )
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        return
    try:
        with open(target, "xb", opener=_private) as file:
            file.write(data)
    except OSError as error:
        raise Failure(f"open {target}: {(error.strerror or '').lower()}") from error
    session.err(f"Written file {quote(target)}\n")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _pack(meta: dict[str, Any], files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        _add(tar, "meta.json", dumps(meta).encode(), 0o644)
        _add(tar, "tls", None, 0o700)
        if files:
            _add(tar, "tls/docker", None, 0o700)
        for name, content in sorted(files.items()):
            _add(tar, f"tls/docker/{name}", content, 0o600)
    return stream.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes | None, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    if content is None:
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
        return
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def import_context(session: Session, name: str, source: str) -> None:
    """Stores the context in the archive `source` ("-": stdin) as `name`. Raises: Failure."""
    check_name(name)
    store = ContextStore(session.config)
    if store.exists(name):
        raise Failure(f"context {quote(name)} already exists")
    if source == "-":
        meta, files = _unpack(sys.stdin.buffer)
    else:
        try:
            with open(source, "rb") as file:
                meta, files = _unpack(file)
        except OSError as error:
            raise Failure(f"open {source}: {(error.strerror or '').lower()}") from error
    store.write_tls(name, files)
    store.write(meta | {"Name": name})


def _unpack(stream: BinaryIO) -> tuple[dict[str, Any], dict[str, bytes]]:
    # Docker's client leaves the last block and the end marker out.
    data = stream.read(_ARCHIVE_LIMIT_BYTES) + bytes(2 * tarfile.RECORDSIZE)
    meta: dict[str, Any] | None = None
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for entry in tar:
                name = entry.name.removeprefix("./")
                content = _content(tar, entry)
                if name == "meta.json" and content is not None:
                    meta = loads(content)
                elif name.startswith("tls/docker/") and content is not None:
                    files[_tls_name(name)] = content
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise Failure(f"this is not the archive of a context: {error}") from error
    if not isinstance(meta, dict):
        raise Failure("invalid context: no metadata found")
    return meta, files


def _tls_name(path: str) -> str:
    name = path.removeprefix("tls/docker/")
    if name not in _TLS_FILES:
        raise ValueError(f"unexpected file {path}")
    return name


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes | None:
    if not entry.isreg():
        return None
    if entry.size > _LIMIT_BYTES:
        raise ValueError(f"{entry.name} is larger than {_LIMIT_BYTES} bytes")
    file = tar.extractfile(entry)
    return file.read() if file else None
