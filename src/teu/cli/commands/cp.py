"""`cp`: files between a container and this machine, as tar archives through the API.

Where a copy lands follows cp(1): into a directory that exists, else under the new name; `DIR/.`
means the directory's content. Source: docker/cli `container/cp.go`, moby `pkg/archive/copy.go`.
"""

from __future__ import annotations

import os
import posixpath
import stat
import sys

from teu.cli.commands.lifecycle import escape
from teu.cli.grammar import Command, Flag, Options
from teu.cli.session import Failure, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from teu.cli.http1 import Response

# Bits of Go's fs.FileMode, which the stat header uses.
_GO_DIRECTORY = 1 << 31
_GO_SYMLINK = 1 << 27


def copy(session: Session, options: Options, words: list[str]) -> int:
    source_container, source = split(words[0])
    target_container, target = split(words[1])
    if source_container and target_container:
        raise Failure("copying between containers is not supported")
    if not source_container and not target_container:
        raise Failure("must specify at least one container source")
    container = source_container or target_container
    path = f"/containers/{escape(container)}"
    job = Copy(session, options, container, f"{path}/archive", f"{path}/json")
    return job.run(source, target, outwards=bool(source_container), where=words[1])


def split(text: str) -> tuple[str, str]:
    """`container:path` -> both; a path of this machine -> ("", path)."""
    container, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")):
        return "", text
    return container, path


class Copy:
    """One copy from or to a container, or a volume.

    archive: its path in the API.  probe: a path that is there when the thing itself is.
    """

    def __init__(
        self, session: Session, options: Options, label: str, archive: str, probe: str
    ) -> None:
        self._session = session
        self._client = session.client
        self._label = label
        self._path = archive
        self._probe = probe
        self._quiet = options.flag("quiet")
        self._archive = options.flag("archive")
        self._follow = options.flag("follow-link")

    def run(self, source: str, target: str, *, outwards: bool, where: str) -> int:
        """`outwards`: to this machine. `where`: what the user called the destination."""
        if outwards and target == "-":
            return self.to_stdout(source)
        if outwards:
            size = self.from_container(source, target)
            where = os.path.abspath(target)
        else:
            size = self.to_container(source, target)
        if not self._quiet and sys.stderr.isatty():
            from teu.units import human_size

            self._session.err(f"Successfully copied {human_size(size)} to {where}\n")
        return 0

    def to_stdout(self, source: str) -> int:
        from teu.cli.frames import write_all

        self._client.copy(self._fetch(self._followed(source)), lambda data: write_all(1, data))
        return 0

    def from_container(self, source: str, target: str) -> int:
        """Returns the number of bytes that came over the wire."""
        from teu.cli.tarfiles import Unpacker

        folder = os.path.dirname(os.path.abspath(target.rstrip("/") or "/"))
        if not os.path.isdir(folder):
            raise Failure(f'invalid output path: directory "{folder}" does not exist')
        response = self._fetch(self._followed(source))
        info = _stat_header(response)
        is_folder = bool(info["mode"] & _GO_DIRECTORY)
        name = posixpath.basename(source.rstrip("/"))
        into, new_name = _landing(
            target, exists=os.path.lexists(target), is_folder=os.path.isdir(target),
            source_name=info["name"], source_is_folder=is_folder,
            content_only=name == "." or source.endswith("/."),
        )  # fmt: skip
        unpacker = Unpacker(into, new_name, keep_owner=self._archive)
        unpacker.unpack(response.chunks())
        return unpacker.size

    def to_container(self, source: str, target: str) -> int:
        """Returns the number of bytes that went over the wire."""
        target, info = self._resolved(target or "/")
        if source == "-":
            if info is None or not info["mode"] & _GO_DIRECTORY:
                raise Failure(f'destination "{self._label}:{target}" must be a directory')
            from teu.cli.archives import read_pieces

            return self._send(target, read_pieces(0))
        from teu.cli.tarfiles import pack

        if self._follow:
            source = os.path.realpath(source) + ("/." if source.endswith("/.") else "")
        try:
            mode = os.stat(source).st_mode if source.endswith("/") else os.lstat(source).st_mode
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise Failure(f"lstat {os.path.abspath(source)}: {reason}") from error
        into, new_name = _landing(
            target, exists=info is not None,
            is_folder=bool(info and info["mode"] & _GO_DIRECTORY),
            source_name=os.path.basename(os.path.abspath(source)),
            source_is_folder=stat.S_ISDIR(mode),
            content_only=os.path.basename(source) == ".",
        )  # fmt: skip
        return self._send(into, pack(source, new_name))

    def _send(self, target: str, pieces: Iterator[bytes]) -> int:
        sent = 0

        def counted() -> Iterator[bytes]:
            nonlocal sent
            for piece in pieces:
                sent += len(piece)
                yield piece

        query = {
            "path": target,
            "noOverwriteDirNonDir": "true",
            "copyUIDGID": "true" if self._archive else None,
        }
        headers = {"Content-Type": "application/x-tar"}
        response = self._client.request("PUT", self._path, query, counted(), headers)
        self._client.finish(response)
        return sent

    def _fetch(self, source: str) -> Response:
        return self._client.request("GET", self._path, {"path": source})

    def _followed(self, source: str) -> str:
        """With -L the path that a symbolic link in the container points to."""
        if not self._follow:
            return source
        return self._resolved(source)[0]

    def _resolved(self, path: str) -> tuple[str, dict[str, Any] | None]:
        """The path behind a symbolic link, and what is there (None: nothing)."""
        info = self._stat(path)
        if info is None or not info["mode"] & _GO_SYMLINK:
            return path, info
        link = info["linkTarget"]
        if not link.startswith("/"):
            link = posixpath.join(posixpath.dirname(path.rstrip("/")), link)
        return link, self._stat(link)

    def _stat(self, path: str) -> dict[str, Any] | None:
        from teu.cli.client import DaemonError

        response = self._client.open("HEAD", self._path, {"path": path})()
        try:
            self._client.finish(response)
        except DaemonError as error:
            # A HEAD has no text: no such container, or no such path in it?
            if not error.is_missing:
                raise
            self._client.get(self._probe)
            return None
        return _stat_header(response)


def _stat_header(response: Response) -> dict[str, Any]:
    """{"name", "size", "mode" (Go's), "mtime", "linkTarget"}. Raises: Failure."""
    import base64

    from teu.cli.jsontext import loads

    encoded = response.headers.get("x-docker-container-path-stat", "")
    try:
        info = loads(base64.b64decode(encoded))
        return {"name": info["name"], "mode": int(info["mode"]), "linkTarget": info["linkTarget"]}
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(
            f"unable to get resource stat from response: unable to decode container path stat "
            f"header: {error}"
        ) from error


def _landing(
    target: str,
    *,
    exists: bool,
    is_folder: bool,
    source_name: str,
    source_is_folder: bool,
    content_only: bool,
) -> tuple[str, str]:
    """The directory to unpack in, and the name there ("" for the content alone).

    Raises: Failure when the copy makes no sense.
    """
    if exists and is_folder:
        return target, "" if content_only and source_is_folder else source_name
    wants_folder = target.endswith(("/", "/."))
    if exists:
        if source_is_folder:
            raise Failure("cannot copy directory")
        if wants_folder:
            raise Failure("not a directory")
    elif wants_folder and not source_is_folder:
        raise Failure("no such directory")
    bare = target.rstrip("/").removesuffix("/.").rstrip("/")
    return posixpath.dirname(bare) or ("/" if bare.startswith("/") else "."), posixpath.basename(
        bare
    )


COMMANDS = {
    "container cp": Command(
        copy,
        "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n"
        "\t{program} cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
        args=(2, 2),
        flags=(
            Flag("archive", "a", "bool", "Keep user and group ids"),
            Flag("follow-link", "L", "bool", "Follow a symbolic link in SRC_PATH"),
            Flag("quiet", "q", "bool", "Do not say what was copied"),
        ),
        long=(
            "Copies files between a container and this machine. With '-' as the source a tar\n"
            "archive is read from STDIN and unpacked in a directory of the container; with '-' as\n"
            "the destination a tar archive of the source is written to STDOUT."
        ),
    ),
}
