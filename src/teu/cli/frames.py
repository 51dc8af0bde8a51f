"""The 8-byte frames in which Docker's API multiplexes stdout and stderr.

stream (0 stdin, 1 stdout, 2 stderr, 3 error of the daemon), 0, 0, 0, size (4 bytes, big-endian)
"""

from __future__ import annotations

import os

from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HEADER_SIZE = 8
STDOUT = 1
STDERR = 2
DAEMON_ERROR = 3


class Demultiplexer:
    """Takes the multiplexed bytes in pieces of any size and hands on what each stream says.

    Neighbouring frames of one stream that arrive together are handed on as one piece; the order
    between the streams is kept.
    """

    __slots__ = ("_header", "_left", "_stream", "_write")

    def __init__(self, write: Callable[[int, bytes], None]) -> None:
        self._write = write
        self._header = b""
        self._stream = STDOUT
        self._left = 0

    def feed(self, data: bytes) -> None:
        """Raises: Failure when the daemon reports an error, or for what is not a frame."""
        if self._header:
            data = self._header + data
            self._header = b""
        position, end = 0, len(data)
        pieces: list[bytes] = []
        stream = self._stream
        while position < end:
            if not self._left:
                if end - position < HEADER_SIZE:
                    self._header = data[position:]
                    break
                self._left = int.from_bytes(data[position + 4 : position + 8], "big")
                self._stream = data[position]
                position += HEADER_SIZE
                continue
            if self._stream != stream and pieces:
                self._hand_on(stream, pieces)
                pieces = []
            stream = self._stream
            piece = data[position : position + self._left]
            position += len(piece)
            self._left -= len(piece)
            pieces.append(piece)
        if pieces:
            self._hand_on(stream, pieces)

    def _hand_on(self, stream: int, pieces: list[bytes]) -> None:
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if stream in (0, STDOUT):
            self._write(STDOUT, data)
        elif stream == STDERR:
            self._write(STDERR, data)
        elif stream == DAEMON_ERROR:
            text = data.decode("utf-8", "replace").strip()
            raise Failure(f"error from daemon in stream: {text}")
        else:
            raise Failure(f"Unrecognized input header: {stream}")


def write_all(descriptor: int, data: bytes) -> None:
    """Writes everything, however often write(2) stops short. Raises: BrokenPipeError."""
    written = os.write(descriptor, data)
    if written == len(data):
        return
    view = memoryview(data)
    while written < len(data):
        written += os.write(descriptor, view[written:])
