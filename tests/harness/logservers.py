"""Small log servers: what they are sent is kept, to be looked at."""

import gzip
import json
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.waiting import until

_READ_BYTES = 1 << 16
# MessagePack codes that are followed by a number of so many bytes
_SIZES = dict(
    zip(range(0xCC, 0xE0), (1, 2, 4, 8) * 2 + (0,) * 5 + (1, 2, 4) + (2, 4) * 2, strict=True)
)


class DatagramServer:
    """UDP at a free port, or a unix datagram socket at `path`."""

    def __init__(self, path: Path | None = None) -> None:
        if path:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.bind(str(path))
        else:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind(("127.0.0.1", 0))
            self.port = int(self._socket.getsockname()[1])
        self._socket.settimeout(0.1)
        self._closed = False
        self.packets: list[bytes] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            with suppress(TimeoutError):
                self.packets.append(self._socket.recv(_READ_BYTES))

    def close(self) -> None:
        self._closed = True
        self._thread.join()
        self._socket.close()


class StreamServer:
    """TCP at a free (or the given) port, a unix socket at `path`, or TLS.

    `answer` gets all that a connection has said since its last answer and returns (what to say,
    bytes that are done with).
    """

    def __init__(
        self,
        path: Path | None = None,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        answer: Callable[[bytes], tuple[bytes, int]] | None = None,
    ) -> None:
        if path:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen()
        else:
            self._listener = socket.create_server(("127.0.0.1", port))
            self.port = int(self._listener.getsockname()[1])
        self._listener.settimeout(0.05)
        self._tls = tls
        self._answer = answer
        self._closed = False
        self.reads = True  # a slow server stops reading
        self.received = b""
        self.connections = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        open_now: list[tuple[socket.socket, bytearray]] = []
        while not self._closed:
            with suppress(TimeoutError, OSError):
                connection, _ = self._listener.accept()
                connection.settimeout(2)
                if self._tls:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                connection.settimeout(0.01)
                self.connections += 1
                open_now.append((connection, bytearray()))
            for connection, unanswered in open_now:
                if self.reads:
                    self._read(connection, unanswered)
        for connection, _ in open_now:
            connection.close()
        self._listener.close()

    def _read(self, connection: socket.socket, unanswered: bytearray) -> None:
        with suppress(TimeoutError, OSError):
            while data := connection.recv(_READ_BYTES):
                self.received += data
                if self._answer:
                    unanswered += data
                    said, done = self._answer(bytes(unanswered))
                    del unanswered[:done]
                    connection.sendall(said)

    def close(self) -> None:
        """Also ends all connections."""
        self._closed = True
        self._thread.join()

    def lines(self, count: int = 1, end: bytes = b"\n") -> list[bytes]:
        """Waits for so many lines; all that are there."""
        until(f"{count} lines have come", lambda: self.received.count(end) >= count)
        return self.received.split(end)[:-1]


def gelf_messages(packets: list[bytes]) -> list[dict[str, Any]]:
    """Datagrams to messages: chunks joined, decompressed, decoded."""
    whole: list[bytes] = []
    parts: dict[bytes, dict[int, bytes]] = {}
    for packet in packets:
        if packet[:2] != b"\x1e\x0f":
            whole.append(packet)
            continue
        found = parts.setdefault(packet[2:10], {})
        found[packet[10]] = packet[12:]
        if len(found) == packet[11]:
            whole.append(b"".join(found[at] for at in sorted(found)))
    return [json.loads(_unpacked(data)) for data in whole]


def _unpacked(data: bytes) -> bytes:
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    return data if data[:1] == b"{" else zlib.decompress(data)


def journal_fields(packet: bytes) -> dict[str, bytes]:
    """One datagram of systemd's native journal protocol."""
    fields: dict[str, bytes] = {}
    while packet:
        line, _, packet = packet.partition(b"\n")
        name, has_value, value = line.partition(b"=")
        if not has_value:
            (size,) = struct.unpack("<Q", packet[:8])
            value, packet = packet[8 : 8 + size], packet[9 + size :]
        fields[name.decode()] = value
    return fields


class Incomplete(Exception):
    """More bytes are needed."""


def unpack(data: bytes, at: int = 0) -> tuple[Any, int]:
    """One MessagePack value and where it ends; written from the specification, for the tests."""
    if at >= len(data):
        raise Incomplete
    code = data[at]
    at += 1
    if code < 0x80:
        return code, at
    if code < 0x90:
        return _unpack_map(data, at, code & 15)
    if code < 0xA0:
        return _unpack_list(data, at, code & 15)
    if code < 0xC0:
        return _unpack_text(data, at, code & 31)
    if code == 0xD7:
        seconds, nanos = struct.unpack(">LL", _take(data, at + 1, 8))
        return (seconds, nanos), at + 9
    size = _SIZES[code]
    count = int.from_bytes(_take(data, at, size), "big")
    at += size
    if code < 0xD9:
        return count, at
    if code < 0xDC:
        return _unpack_text(data, at, count)
    return _unpack_list(data, at, count) if code < 0xDE else _unpack_map(data, at, count)


def _take(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise Incomplete
    return data[at : at + size]


def _unpack_text(data: bytes, at: int, size: int) -> tuple[str, int]:
    return _take(data, at, size).decode(), at + size


def _unpack_list(data: bytes, at: int, count: int) -> tuple[list[Any], int]:
    found = []
    for _ in range(count):
        value, at = unpack(data, at)
        found.append(value)
    return found, at


def _unpack_map(data: bytes, at: int, count: int) -> tuple[dict[Any, Any], int]:
    flat, at = _unpack_list(data, at, 2 * count)
    return dict(zip(flat[::2], flat[1::2], strict=True)), at


def unpack_all(data: bytes) -> list[Any]:
    """All whole values."""
    found = []
    at = 0
    with suppress(Incomplete):
        while True:
            value, at = unpack(data, at)
            found.append(value)
    return found


def acknowledge(data: bytes) -> tuple[bytes, int]:
    """Fluentd's answers to forwarded messages that ask for one (`answer` of StreamServer)."""
    said, at = b"", 0
    with suppress(Incomplete):
        while True:
            message, at = unpack(data, at)
            chunk = message[3]["chunk"].encode()
            said += b"\x81\xa3ack" + bytes((0xA0 | len(chunk),)) + chunk
    return said, at
