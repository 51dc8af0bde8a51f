"""DNS messages: reading a question, writing an answer. Nothing here trusts what it reads.

A query is read only as far as needed: header, the one question, and the EDNS record. What is
forwarded goes on as the very bytes that came, under another id.

Source: RFC 1035 section 4, RFC 6891 (EDNS), RFC 7766 (TCP), RFC 3596 (AAAA).
"""

import socket
import struct

A, PTR, AAAA, OPT = 1, 12, 28, 41
INTERNET = 1
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NAME_ERROR, NOT_IMPLEMENTED = 0, 1, 2, 3, 4
HEADER_BYTES = 12
PLAIN_UDP_BYTES = 512  # without EDNS
UDP_LIMIT_BYTES = 65507
MESSAGE_LIMIT_BYTES = 65535
TTL_S = 5  # short: a container that is started again may have another address
_RESPONSE, _TRUNCATED, _WANTS_RECURSION, _HAS_RECURSION = 0x8000, 0x0200, 0x0100, 0x0080
_OPCODE, _RCODE = 0x7800, 0x000F
_HEADER = struct.Struct(">6H")
_TWO = struct.Struct(">2H")
_RECORD = struct.Struct(">HHIH")
_SAME_NAME = b"\xc0\x0c"  # a pointer to the question's name
_LABEL_LIMIT, _NAME_LIMIT = 63, 255
_OUR_OPT = b"\0" + _RECORD.pack(OPT, 4096, 0, 0)


class Query:
    """A question as it came. `name` is lower case, without the last dot; `limit` is how long a
    datagram the asker takes."""

    __slots__ = ("flags", "has_edns", "ident", "kind", "klass", "limit", "name", "question")

    def __init__(self, ident: int, flags: int) -> None:
        self.ident = ident
        self.flags = flags
        self.name = ""
        self.kind = self.klass = 0
        self.question = b""
        self.limit = PLAIN_UDP_BYTES
        self.has_edns = False


class Malformed(Exception):
    """`rcode` is what to answer; None: nothing at all (it is no query)."""

    def __init__(self, query: Query | None, rcode: int) -> None:
        super().__init__(rcode)
        self.query = query
        self.rcode = rcode


def parse_query(packet: bytes) -> Query:
    """Raises: Malformed."""
    if len(packet) < HEADER_BYTES:
        raise Malformed(None, FORMAT_ERROR)
    ident, flags, questions, answers, authorities, extras = _HEADER.unpack_from(packet)
    if flags & _RESPONSE:
        raise Malformed(None, FORMAT_ERROR)
    query = Query(ident, flags)
    if flags & _OPCODE:
        raise Malformed(query, NOT_IMPLEMENTED)
    if questions != 1:
        raise Malformed(query, FORMAT_ERROR)
    name, end = _read_name(packet, HEADER_BYTES)
    if end < 0 or end + 4 > len(packet):
        raise Malformed(query, FORMAT_ERROR)
    query.name = name
    query.kind, query.klass = _TWO.unpack_from(packet, end)
    query.question = packet[HEADER_BYTES : end + 4]
    if extras:
        _read_edns(query, packet, end + 4, answers + authorities + extras)
    return query


def _read_name(packet: bytes, offset: int) -> tuple[str, int]:
    """The first name of a message (so there is nothing it could point to), and where it ends.

    A name that breaks the rules ends at -1. Bytes beyond ASCII and dots inside labels are kept
    apart from real names by an escape.
    """
    labels: list[str] = []
    start = offset
    while True:
        if offset >= len(packet):
            return "", -1
        size = packet[offset]
        if size > _LABEL_LIMIT:
            return "", -1
        end = offset + 1 + size
        if end - start > _NAME_LIMIT:
            return "", -1
        if not size:
            return ".".join(labels), end
        label = packet[offset + 1 : end]
        text = label.decode("latin-1").replace(".", "\\.")
        labels.append(text.lower() if label.isascii() else text)
        offset = end


def _read_edns(query: Query, packet: bytes, offset: int, records: int) -> None:
    """Looks for the OPT record; stops at the first thing that is not as it should be."""
    for _ in range(records):
        offset = _skip_name(packet, offset)
        if offset < 0 or offset + _RECORD.size > len(packet):
            return
        kind, size, _ttl, length = _RECORD.unpack_from(packet, offset)
        if kind == OPT:
            query.has_edns = True
            query.limit = max(PLAIN_UDP_BYTES, min(size, UDP_LIMIT_BYTES))
            return
        offset += _RECORD.size + length


def _skip_name(packet: bytes, offset: int) -> int:
    while offset < len(packet):
        size = packet[offset]
        if size >= 0xC0:
            return offset + 2
        if size > _LABEL_LIMIT:
            return -1
        offset += 1 + size
        if not size:
            return offset
    return -1


def failure(query: Query, rcode: int) -> bytes:
    """An answer that holds no records."""
    flags = _RESPONSE | _HAS_RECURSION | (query.flags & (_WANTS_RECURSION | _OPCODE)) | rcode
    opt = _OUR_OPT if query.has_edns else b""
    count = 1 if query.question else 0
    header = _HEADER.pack(query.ident, flags, count, 0, 0, 1 if opt else 0)
    return header + query.question + opt


def answer(query: Query, records: list[bytes], limit: int) -> bytes:
    """`records` from `address_record` and `name_record`. What does not fit into `limit` is left
    out and the answer marked as cut, so that the asker comes again by TCP."""
    opt = _OUR_OPT if query.has_edns else b""
    flags = _RESPONSE | _HAS_RECURSION | (query.flags & _WANTS_RECURSION)
    room = limit - HEADER_BYTES - len(query.question) - len(opt)
    fitting = 0
    for record in records:
        room -= len(record)
        if room < 0:
            flags |= _TRUNCATED
            break
        fitting += 1
    header = _HEADER.pack(query.ident, flags, 1, fitting, 0, 1 if opt else 0)
    return b"".join((header, query.question, *records[:fitting], opt))


def address_record(address: str) -> bytes:
    """An A or AAAA record of the name that was asked for. Raises: OSError (no address)."""
    if ":" in address:
        kind, packed = AAAA, socket.inet_pton(socket.AF_INET6, address)
    else:
        kind, packed = A, socket.inet_pton(socket.AF_INET, address)
    return _SAME_NAME + _RECORD.pack(kind, INTERNET, TTL_S, len(packed)) + packed


def name_record(name: str) -> bytes:
    """A PTR record. Raises: ValueError for what cannot be a name."""
    packed = encode_name(name)
    return _SAME_NAME + _RECORD.pack(PTR, INTERNET, TTL_S, len(packed)) + packed


def encode_name(name: str) -> bytes:
    """Raises: ValueError."""
    packed = b""
    for label in name.strip(".").split("."):
        raw = label.encode()
        if not 0 < len(raw) <= _LABEL_LIMIT:
            raise ValueError(f"not a domain name: {name!r}")
        packed += bytes([len(raw)]) + raw
    if len(packed) + 1 > _NAME_LIMIT:
        raise ValueError(f"not a domain name: {name!r}")
    return packed + b"\0"


def reversed_address(name: str) -> str | None:
    """`2.0.18.172.in-addr.arpa` -> `172.18.0.2`; None for other names. Source: RFC 1035 3.5."""
    labels = name.split(".")
    suffix = labels[-2:]
    if suffix == ["in-addr", "arpa"] and len(labels) == 6:
        family, text = socket.AF_INET, ".".join(reversed(labels[:4]))
    elif suffix == ["ip6", "arpa"] and len(labels) == 34:
        digits = "".join(reversed(labels[:32]))
        groups = (digits[at : at + 4] for at in range(0, 32, 4))
        family, text = socket.AF_INET6, ":".join(groups)
    else:
        return None
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text))
    except (OSError, ValueError):
        return None


def with_ident(packet: bytes, ident: int) -> bytes:
    """The same message under another id."""
    return ident.to_bytes(2, "big") + packet[2:]


def answers_to(reply: bytes, ident: int, question: bytes) -> bool:
    """Whether `reply` is one to that question: neither late, nor forged, nor garbage."""
    if len(reply) < HEADER_BYTES:
        return False
    found, flags, questions, *_ = _HEADER.unpack_from(reply)
    if found != ident or not flags & _RESPONSE:
        return False
    if not questions:  # some servers leave it out where they refuse
        return bool(flags & _RCODE) or bool(flags & _TRUNCATED)
    there = reply[HEADER_BYTES : HEADER_BYTES + len(question)]
    return questions == 1 and there.lower() == question.lower()


def rcode_of(reply: bytes) -> int:
    """Of a message with a whole header."""
    return reply[3] & _RCODE


def fitting(reply: bytes, query: Query, limit: int) -> bytes:
    """The reply, or where it is longer than the asker takes, one that sends him to TCP."""
    if len(reply) <= limit:
        return reply
    return answer(query, [b"\0" * (limit + 1)], limit)
