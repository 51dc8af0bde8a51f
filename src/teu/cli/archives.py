"""Files and streams that hold archives: reading them for upload, writing them whole or not."""

from __future__ import annotations

import os

from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from teu.cli.http1 import Response
    from teu.cli.session import Session

PIECE_SIZE = 1 << 20


def read_pieces(descriptor: int) -> Iterator[bytes]:
    """The rest of a file, pipe or terminal, in pieces."""
    while piece := os.read(descriptor, PIECE_SIZE):
        yield piece


def open_input(path: str) -> int:
    """A descriptor for reading. Raises: Failure with Docker's text."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"open {path}: {(error.strerror or '').lower()}") from error


def save_response(session: Session, response: Response, path: str) -> None:
    """Writes the body to stdout, or to the file `path`, which appears only when it is complete.

    Raises: Failure.
    """
    if not path:
        from teu.cli.frames import write_all

        session.client.copy(response, lambda data: write_all(1, data))
        return
    if not os.path.isdir(path) and os.path.exists(path) and not os.path.isfile(path):
        _write_through(session, response, path)  # a pipe or a device
        return
    partial = f"{path}.{os.getpid()}.partial"
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            session.client.copy(response, _writer(descriptor))
        finally:
            os.close(descriptor)
        os.replace(partial, path)
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror}") from error
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def _write_through(session: Session, response: Response, path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        session.client.copy(response, _writer(descriptor))
    finally:
        os.close(descriptor)


def _writer(descriptor: int) -> Callable[[bytes], None]:
    from teu.cli.frames import write_all

    return lambda data: write_all(descriptor, data)


def check_output(path: str, what: str) -> None:
    """Refuses before anything is asked of the daemon: an archive on a terminal, a bad path.

    Raises: Failure with Docker's text.
    """
    if not path:
        if os.isatty(1):
            raise Failure("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        return
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise Failure(
            f"failed to {what}: invalid output path: stat {folder}: no such file or directory"
        )
    if os.path.isdir(path):
        raise Failure(f"failed to {what}: cannot write to a directory")
