"""A DNS client and server of our own for tests: as much of RFC 1035 as they need."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

A, PTR, AAAA, TXT, ANY = 1, 12, 28, 16, 255
RESOLVER = ("127.0.0.11", 53)


@dataclass
class Reply:
    """`records`: addresses, or names for PTR, in the order of the answer."""

    rcode: int
    truncated: bool
    records: list[str] = field(default_factory=list)
    size: int = 0


def packed(name: str) -> bytes:
    labels = name.encode().split(b".") if name else []
    return b"".join(bytes([len(one)]) + one for one in labels) + b"\0"


def question(name: str, kind: int = A, *, ident: int = 7, edns: int = 0) -> bytes:
    extra = b"\0" + struct.pack(">HHIH", 41, edns, 0, 0) if edns else b""
    header = struct.pack(">6H", ident, 0x0100, 1, 0, 0, 1 if edns else 0)
    return header + packed(name) + struct.pack(">2H", kind, 1) + extra


def ask(
    name: str,
    kind: int = A,
    *,
    tcp: bool = False,
    edns: int = 0,
    server: tuple[str, int] = RESOLVER,
    timeout_s: float = 5,
) -> Reply:
    """In the calling thread's network namespace."""
    return parse(exchange(question(name, kind, edns=edns), tcp=tcp, server=server, limit=timeout_s))


def exchange(
    packet: bytes, *, tcp: bool = False, server: tuple[str, int] = RESOLVER, limit: float = 5
) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as sock:
        sock.settimeout(limit)
        sock.connect(server)
        if not tcp:
            sock.send(packet)
            return sock.recv(65535)
        sock.sendall(len(packet).to_bytes(2, "big") + packet)
        return _framed(sock)


def _framed(sock: socket.socket) -> bytes:
    data = b""
    while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
        chunk = sock.recv(65535)
        if not chunk:
            return b""
        data += chunk
    return data[2:]


def parse(packet: bytes) -> Reply:
    _ident, flags, questions, answers, *_ = struct.unpack_from(">6H", packet)
    assert flags & 0x8000, "a reply"
    reply = Reply(flags & 15, bool(flags & 0x0200), size=len(packet))
    offset = 12
    for _ in range(questions):
        offset = _name(packet, offset)[1] + 4
    for _ in range(answers):
        offset = _name(packet, offset)[1]
        kind, _class, _ttl, length = struct.unpack_from(">HHIH", packet, offset)
        offset += 10
        data = packet[offset : offset + length]
        if kind in (A, AAAA):
            family = socket.AF_INET if kind == A else socket.AF_INET6
            reply.records.append(socket.inet_ntop(family, data))
        elif kind == PTR:
            reply.records.append(_name(packet, offset)[0])
        offset += length
    return reply


def _name(packet: bytes, offset: int) -> tuple[str, int]:
    labels = []
    while size := packet[offset]:
        if size >= 0xC0:
            target = int.from_bytes(packet[offset : offset + 2], "big") & 0x3FFF
            return ".".join([*labels, _name(packet, target)[0]]), offset + 2
        labels.append(packet[offset + 1 : offset + 1 + size].decode("latin-1"))
        offset += 1 + size
    return ".".join(labels), offset + 1


@contextlib.contextmanager
def server(
    answer: Callable[[bytes], bytes], address: str, port: int = 53
) -> Iterator[list[tuple[str, bytes]]]:
    """Answers questions by UDP and TCP in the namespace of the caller; yields (client, packet) of
    those seen. An empty answer is none."""
    seen: list[tuple[str, bytes]] = []
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for sock in (udp, tcp):
        sock.bind((address, port))
        sock.settimeout(0.05)
    tcp.listen(16)
    stop = threading.Event()

    def by_udp() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError, ConnectionError):
                packet, peer = udp.recvfrom(65535)
                seen.append((peer[0], packet))
                if reply := answer(packet):
                    udp.sendto(reply, peer)

    def by_tcp() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError, ConnectionError):
                client, peer = tcp.accept()
                with client:
                    client.settimeout(2)
                    packet = _framed(client)
                    seen.append((peer[0], packet))
                    reply = answer(packet)
                    client.sendall(len(reply).to_bytes(2, "big") + reply)

    threads = [threading.Thread(target=work, daemon=True) for work in (by_udp, by_tcp)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join(5)
        udp.close()
        tcp.close()


def fixed(address: str, *, count: int = 1, rcode: int = 0) -> Callable[[bytes], bytes]:
    """A server's answer to everything: `count` A records of that address, cut at 512 by UDP only
    where the caller says so by `count`."""

    def answer(packet: bytes) -> bytes:
        end = _name(packet, 12)[1] + 4
        record = b"\xc0\x0c" + struct.pack(">HHIH", A, 1, 60, 4) + socket.inet_aton(address)
        flags = 0x8180 | rcode
        header = struct.pack(">6H", int.from_bytes(packet[:2], "big"), flags, 1, count, 0, 0)
        return header + packet[12:end] + record * count

    return answer
