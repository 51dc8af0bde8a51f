"""What log servers are sent: one line of output as a message of each protocol.

    settings of a driver, all texts:
        syslog    "format" ("", rfc3164, rfc5424, rfc5424micro), "facility" (number), "tag",
                  "hostname", "framing" (octets: RFC 5425's message lengths)
        gelf      "hostname", "compression" (gzip, zlib, none), "level", "datagrams" (1: UDP)
        fluentd   "tag", "precise" (1: nanoseconds), "acknowledged" (1: asks for acks)
        journald  nothing
    extra: further fields of each message

Source: RFC 3164, RFC 5424, RFC 5425; GELF 1.1 (Graylog documentation); Fluentd Forward Protocol
v1; systemd's JOURNAL_NATIVE_PROTOCOL; names and values as Docker's drivers send them.
"""

import base64
import functools
import json
import os
import time
from collections.abc import Callable
from typing import Any

from teu.shim.lines import Piece
from teu.shim.msgpack import EventTime, pack

Settings = dict[str, str]
Packet = tuple[bytes, bytes]  # what is sent; what the server answers when it has it, or nothing
Encoder = Callable[[int, bytes, int, Piece | None], list[Packet]]
_STDERR = 2
_ERROR, _INFO = 3, 6  # severities of syslog
_GELF_CHUNK_BYTES = 1420 - 12
_GELF_CHUNKS = 128
_ACK_BYTES = 16


def encoder(driver: str, settings: Settings, extra: dict[str, str]) -> Encoder:
    """Makes packets of (stream, line, epoch nanoseconds, piece)."""
    return _ENCODERS[driver](settings, extra)


def severity(kind: int) -> int:
    return _ERROR if kind == _STDERR else _INFO


# --- syslog ---------------------------------------------------------------------------------


def _syslog(settings: Settings, _: dict[str, str]) -> Encoder:
    facility = int(settings["facility"])
    tag, host, pid = (w.encode() for w in (settings["tag"], settings["hostname"], str(os.getpid())))
    form = settings["format"]
    octets = settings.get("framing") == "octets"

    def encode(kind: int, line: bytes, at_ns: int, _: Piece | None) -> list[Packet]:
        head = b"<%d>" % (facility << 3 | severity(kind))
        if form.startswith("rfc5424"):
            stamp = _rfc3339(at_ns, micros=form == "rfc5424micro")
            message = b"%b1 %b %b %b %b %b - %b\n" % (head, stamp, host, tag, pid, tag, line)
        elif form == "rfc3164":
            message = b"%b%b %b %b[%b]: %b\n" % (head, _stamp(at_ns), host, tag, pid, line)
        else:
            message = b"%b%b %b[%b]: %b\n" % (head, _stamp(at_ns), tag, pid, line)
        return [(b"%d %b" % (len(message), message) if octets else message, b"")]

    return encode


def _stamp(at_ns: int) -> bytes:
    """`Jan  2 15:04:05`"""
    return _second(at_ns // 1_000_000_000, "%b %e %H:%M:%S")


def _rfc3339(at_ns: int, *, micros: bool) -> bytes:
    seconds, nanos = divmod(at_ns, 1_000_000_000)
    fraction = b".%06d" % (nanos // 1000) if micros else b""
    return _second(seconds, "%Y-%m-%dT%H:%M:%S") + fraction + _zone(seconds)


@functools.lru_cache(maxsize=4)
def _second(seconds: int, form: str) -> bytes:
    return time.strftime(form, time.localtime(seconds)).encode()


@functools.lru_cache(maxsize=4)
def _zone(seconds: int) -> bytes:
    zone = time.strftime("%z", time.localtime(seconds))
    return b"Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}".encode()


# --- gelf -----------------------------------------------------------------------------------


def _gelf(settings: Settings, extra: dict[str, str]) -> Encoder:
    fixed = {"version": "1.1", "host": settings["hostname"], **extra}
    datagrams = bool(settings.get("datagrams"))
    squeeze = _compressor(settings["compression"], int(settings["level"]))

    def encode(kind: int, line: bytes, at_ns: int, _: Piece | None) -> list[Packet]:
        message = {
            **fixed,
            "short_message": line.decode(errors="replace"),
            "timestamp": at_ns // 1_000_000 / 1000,
            "level": severity(kind),
        }
        data = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
        if not datagrams:
            return [(data + b"\0", b"")]
        return [(part, b"") for part in _gelf_chunks(squeeze(data))]

    return encode


def _compressor(kind: str, level: int) -> Callable[[bytes], bytes]:
    if kind == "none":
        return lambda data: data
    import zlib

    bits = 31 if kind == "gzip" else 15

    def squeeze(data: bytes) -> bytes:
        packer = zlib.compressobj(level, zlib.DEFLATED, bits)
        return packer.compress(data) + packer.flush()

    return squeeze


def _gelf_chunks(data: bytes) -> list[bytes]:
    """Whole if it fits in one datagram; nothing if it would need more parts than GELF allows."""
    if len(data) <= _GELF_CHUNK_BYTES:
        return [data]
    count = -(-len(data) // _GELF_CHUNK_BYTES)
    if count > _GELF_CHUNKS:
        return []
    head = b"\x1e\x0f" + os.urandom(8)
    return [
        head + bytes((at, count)) + data[at * _GELF_CHUNK_BYTES : (at + 1) * _GELF_CHUNK_BYTES]
        for at in range(count)
    ]


# --- fluentd --------------------------------------------------------------------------------


def _fluentd(settings: Settings, extra: dict[str, str]) -> Encoder:
    precise = bool(settings.get("precise"))
    acknowledged = bool(settings.get("acknowledged"))

    def encode(kind: int, line: bytes, at_ns: int, piece: Piece | None) -> list[Packet]:
        record: dict[str, Any] = {
            "source": "stderr" if kind == _STDERR else "stdout",
            "log": line,
            **extra,
        }
        if piece:
            record |= {
                "partial_message": "true",
                "partial_id": piece.id,
                "partial_ordinal": str(piece.ordinal),
                "partial_last": "true" if piece.last else "false",
            }
        instant = EventTime(at_ns) if precise else at_ns // 1_000_000_000
        message = [settings["tag"], instant, record]
        answer = b""
        if acknowledged:
            answer = base64.b64encode(os.urandom(_ACK_BYTES))
            message.append({"chunk": answer})
        return [(pack(message), answer)]

    return encode


# --- journald -------------------------------------------------------------------------------


def _journald(_: Settings, extra: dict[str, str]) -> Encoder:
    fixed = b"".join(_field(name, value.encode()) for name, value in extra.items())

    def encode(kind: int, line: bytes, at_ns: int, piece: Piece | None) -> list[Packet]:
        seconds, nanos = divmod(at_ns, 1_000_000_000)
        stamp = _second(seconds, "%Y-%m-%dT%H:%M:%S") + b".%09d" % nanos + _zone(seconds)
        message = fixed + _field("PRIORITY", b"%d" % severity(kind))
        message += _field("SYSLOG_TIMESTAMP", stamp)
        if piece:
            message += _field("CONTAINER_PARTIAL_ID", piece.id.encode())
            message += _field("CONTAINER_PARTIAL_ORDINAL", b"%d" % piece.ordinal)
            message += _field("CONTAINER_PARTIAL_LAST", b"true" if piece.last else b"false")
        if piece and not piece.last:
            message += _field("CONTAINER_PARTIAL_MESSAGE", b"true")
        return [(message + _field("MESSAGE", line), b"")]

    return encode


def _field(name: str, value: bytes) -> bytes:
    """With its length in front if it has newlines."""
    if b"\n" in value:
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


_ENCODERS: dict[str, Callable[[Settings, dict[str, str]], Encoder]] = {
    "syslog": _syslog,
    "gelf": _gelf,
    "fluentd": _fluentd,
    "journald": _journald,
}
