"""HTTP/1.1 as the command line needs it: one connection, one request at a time, any framing.

Written on `_socket` and bytes because `socket` costs 6 ms at start and `http.client` 30.
Errors: OSError from the socket, `ProtocolError` for an answer that is not HTTP.
"""

from __future__ import annotations

import _socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RECEIVE_SIZE = 1 << 18
HEAD_LIMIT = 1 << 20
SWITCHING = 101
NO_BODY = frozenset((204, 304))


class ProtocolError(Exception):
    """The peer closed early or sent something that is not HTTP."""


class Connection:
    """A socket, which it owns, and the bytes read too far: `data` from `position` on."""

    __slots__ = ("data", "position", "sock")

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock
        self.data = b""
        self.position = 0

    def send(self, head: bytes, body: bytes | Iterable[bytes] = b"") -> None:
        """Sends a request; an iterable body goes out chunked.

        A peer that stops reading has usually answered already: its answer says more than EPIPE,
        so a failing send of an iterable body is left for `read_response` to explain.
        """
        if isinstance(body, bytes):
            self.sock.sendall(head + body if body else head)
            return
        self.sock.sendall(head)
        try:
            for part in body:
                if part:
                    self.sock.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            self.sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass

    def read_response(self, method: str) -> Response:
        """Reads status and headers (skipping `100 Continue`); the body is left to the caller."""
        while True:
            status, headers = self._read_head()
            if status == SWITCHING or status >= 200:
                return Response(self, status, headers, method)

    def _read_head(self) -> tuple[int, dict[str, str]]:
        lines = self._take_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        parts = lines[0].split(" ", 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
            raise ProtocolError(f"this is not an HTTP answer: {lines[0][:80]!r}")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(parts[1]), headers

    def fill(self) -> None:
        """Reads more behind what is left. Raises: ProtocolError at the end of the stream."""
        received = self.sock.recv(RECEIVE_SIZE)
        if not received:
            raise ProtocolError("the connection was closed before the answer was complete")
        rest = self.data[self.position :]
        self.data = rest + received if rest else received
        self.position = 0

    def take_some(self, limit: int = -1) -> bytes:
        """What is buffered, at most `limit` bytes; reads first when nothing is."""
        if self.position == len(self.data):
            self.fill()
        end = len(self.data) if limit < 0 else min(self.position + limit, len(self.data))
        part = self.data[self.position : end]
        self.position = end
        return part

    def _take_until(self, mark: bytes) -> bytes:
        """What stands before the next `mark`; both are consumed."""
        while (end := self.data.find(mark, self.position)) < 0:
            if len(self.data) - self.position > HEAD_LIMIT:
                raise ProtocolError("the header of the answer has no end")
            self.fill()
        part = self.data[self.position : end]
        self.position = end + len(mark)
        return part

    def take_chunk_size(self) -> int:
        """The size of the next chunk of a chunked body; at 0 the trailers are consumed too."""
        header = self._take_until(b"\r\n").partition(b";")[0]
        try:
            size = int(header, 16)
        except ValueError as error:
            raise ProtocolError(f"bad chunk header {header[:40]!r}") from error
        if not size:
            while self._take_until(b"\r\n"):
                pass
        return size

    def skip(self, size: int) -> None:
        """Drops `size` bytes, which must be on their way."""
        while len(self.data) - self.position < size:
            self.fill()
        self.position += size

    def is_drained(self) -> bool:
        """True when all that has been read was taken."""
        return self.position == len(self.data)

    def is_alive(self) -> bool:
        """False when the peer closed the idle connection (or sent something unasked)."""
        try:
            self.sock.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        self.sock.close()


class Response:
    """Status, headers (lower-case names) and a body that is read at most once.

    `reusable` turns true when the body was read to its end and the peer keeps the connection.
    """

    __slots__ = ("_length", "connection", "headers", "reusable", "status")

    def __init__(
        self, connection: Connection, status: int, headers: dict[str, str], method: str
    ) -> None:
        self.connection = connection
        self.status = status
        self.headers = headers
        self._length = -1
        if method == "HEAD" or status in NO_BODY:
            self._length = 0
        elif headers.get("content-length", "").isdigit():
            self._length = int(headers["content-length"])
        self.reusable = self._length == 0 and self._keeps_open()

    def _keeps_open(self) -> bool:
        return "close" not in self.headers.get("connection", "").lower()

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives, in pieces of any size."""
        if self._length == 0:
            return
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            yield from self._chunked()
        elif self._length > 0:
            left = self._length
            while left:
                part = self.connection.take_some(left)
                left -= len(part)
                yield part
        else:
            yield from self._until_closed()
            return
        self._length = 0
        self.reusable = self._keeps_open()

    def _chunked(self) -> Iterator[bytes]:
        """Small chunks that arrived together come out as one piece."""
        connection = self.connection
        parts: list[bytes] = []
        while True:
            if parts and connection.data.find(b"\r\n", connection.position) < 0:
                yield b"".join(parts)
                parts.clear()
            left = connection.take_chunk_size()
            if not left:
                break
            while left:
                if parts and connection.position == len(connection.data):
                    yield b"".join(parts)
                    parts.clear()
                part = connection.take_some(left)
                left -= len(part)
                parts.append(part)
            if connection.position + 2 > len(connection.data):
                yield b"".join(parts)
                parts.clear()
            connection.skip(2)
        if parts:
            yield b"".join(parts)

    def _until_closed(self) -> Iterator[bytes]:
        connection = self.connection
        if connection.position < len(connection.data):
            yield connection.take_some()
        while data := connection.sock.recv(RECEIVE_SIZE):
            yield data

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks())

    def lines(self) -> Iterator[bytes]:
        """The body cut at newlines, as it arrives; empty lines are left out."""
        rest = b""
        for part in self.chunks():
            pieces = (rest + part).split(b"\n")
            rest = pieces.pop()
            for piece in pieces:
                if piece.strip():
                    yield piece
        if rest.strip():
            yield rest
