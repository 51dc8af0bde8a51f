"""The netlink protocol: requests, acknowledgements, dumps and attributes, for every family.

A `Request` is one message with the words for its failure. `NetlinkSocket.run` sends all requests in
one system call; the kernel works them off in order while the call lasts, so a batch costs little
more than its slowest step. The kernel does not stop at a failed request: the first failure is
raised after all acknowledgements are in. A socket belongs to the network namespace it was created
in, whatever thread uses it; it must not be used by two threads at once.

Source: netlink(7), linux/netlink.h.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from msgspec import Struct

REPLY_LIMIT_S: Final = 10
CREATE: Final = 0x400
EXCLUSIVE: Final = 0x200
REPLACE: Final = 0x100
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_ACK_HAS_TEXT, _ACK_IS_SHORT = 0x200, 0x100
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT = 270, 10, 11, 12
_NESTED: Final = 0x8000
_RECEIVE_SIZE: Final = 256 * 1024
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")


class Request(Struct, frozen=True):
    """One message: its type, flags and body, and what it asks in words for an error."""

    kind: int
    flags: int
    body: bytes
    what: str
    tolerate: tuple[int, ...] = ()  # errno values that mean "already so"


class NetlinkSocket:
    """A socket of the calling thread's network namespace. `close` it, or use `with`."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        try:
            for option in (_CAP_ACK, _EXT_ACK, _STRICT):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            limit = struct.pack("@ll", REPLY_LIMIT_S, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        except BaseException:
            self._socket.close()
            raise
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def run(self, *requests: Request) -> None:
        """Sends all in one call and waits for every acknowledgement.

        Raises: OSError of the first refused request, its `filename` the words of what was asked.
        """
        first = self._sequence + 1
        packet = b"".join(self._message(request, _ACK) for request in requests)
        self._socket.send(packet)
        failure: OSError | None = None
        open_count = len(requests)
        while open_count:
            for kind, flags, sequence, payload in self._receive():
                if kind != _ERROR or not first <= sequence <= self._sequence:
                    continue
                open_count -= 1
                error = _refusal(payload, flags, requests[sequence - first])
                failure = failure or error
        if failure:
            raise failure

    def get(self, request: Request, kind: int) -> bytes | None:
        """The body of the one object asked for, of message type `kind`; None if there is none.

        Raises: OSError.
        """
        self._socket.send(self._message(request, 0))
        while True:
            for kind_seen, flags, sequence, payload in self._receive():
                if sequence != self._sequence:
                    continue
                if kind_seen == kind:
                    return payload
                error = _refusal(payload, flags, request)
                if error and error.errno not in (errno.ENODEV, errno.ENOENT):
                    raise error
                return None

    def dump(self, kind: int, body: bytes, what: str) -> list[bytes]:
        """The bodies of all objects. Raises: OSError."""
        request = Request(kind, _DUMP, body, what)
        self._socket.send(self._message(request, 0))
        found: list[bytes] = []
        while True:
            for kind_seen, flags, sequence, payload in self._receive():
                if sequence != self._sequence:
                    continue
                if kind_seen == _DONE:
                    return found
                if kind_seen == _ERROR:
                    raise _refusal(payload, flags, request) or OSError(errno.EPROTO, what)
                found.append(payload)

    def _message(self, request: Request, flags: int) -> bytes:
        self._sequence += 1
        size = _HEADER.size + len(request.body)
        flags |= request.flags | _REQUEST
        return _HEADER.pack(size, request.kind, flags, self._sequence, 0) + request.body

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        packet = self._socket.recv(_RECEIVE_SIZE)
        offset = 0
        while offset + _HEADER.size <= len(packet):
            size, kind, flags, sequence, _port = _HEADER.unpack_from(packet, offset)
            yield kind, flags, sequence, packet[offset + _HEADER.size : offset + size]
            offset += (size + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    padding = -len(value) % 4
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(padding)


def nested(kind: int, value: bytes) -> bytes:
    return attribute(kind | _NESTED, value)


def attributes(payload: bytes, offset: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while offset + 4 <= len(payload):
        size, kind = _ATTRIBUTE.unpack_from(payload, offset)
        if size < 4:
            break
        found[kind & 0x3FFF] = payload[offset + 4 : offset + size]
        offset += (size + 3) & ~3
    return found


def _refusal(payload: bytes, flags: int, request: Request) -> OSError | None:
    (number,) = struct.unpack_from("=i", payload)
    if number == 0 or -number in request.tolerate:
        return None
    text = os.strerror(-number)
    if flags & _ACK_HAS_TEXT:
        offset = 4 + _HEADER.size
        if not flags & _ACK_IS_SHORT:
            offset = 4 + ((struct.unpack_from("=I", payload, 4)[0] + 3) & ~3)
        words = attributes(payload, offset).get(1)
        if words:
            text = f"{text} ({words.rstrip(bytes(1)).decode(errors='replace')})"
    return OSError(-number, text, request.what)
