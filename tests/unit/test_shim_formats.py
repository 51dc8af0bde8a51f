"""Lines cut for log servers, and what each protocol makes of them."""

import json
import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.logservers import gelf_messages, journal_fields, unpack, unpack_all
from teu.shim.formats import encoder
from teu.shim.lines import LINE_BYTES, LineCutter
from teu.shim.msgpack import EventTime, pack

AT_NS = 1_700_000_000_123_456_789
SYSLOG = {"format": "", "facility": "3", "tag": "tag", "hostname": "host"}
GELF = {"hostname": "host", "compression": "gzip", "level": "1", "datagrams": "1"}


def only(driver: str, settings: dict[str, str], line: bytes, kind: int = 1, **extra: str) -> bytes:
    """The one packet of a line."""
    (packet,) = encoder(driver, settings, extra)(kind, line, AT_NS, None)
    return packet[0]


# --- lines --------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=9)), st.integers(0, 3))
def test_lines_come_back_whole(chunks: list[bytes], newlines: int) -> None:
    text = b"".join(chunks) + b"\n" * newlines
    cutter = LineCutter()
    found = [line for chunk in [*chunks, b"\n" * newlines] for line in cutter.feed(chunk)]
    found += cutter.finish()
    expected = text.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert [line for line, _ in found] == expected
    assert all(piece is None for _, piece in found)


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 4 * LINE_BYTES), min_size=1, max_size=4), st.integers(1, 3 * LINE_BYTES)
)
def test_long_lines_are_cut(sizes: list[int], chunk_size: int) -> None:
    text = b"".join(bytes([97 + at]) * size + b"\n" for at, size in enumerate(sizes))
    cutter = LineCutter()
    found = [
        line
        for at in range(0, len(text), chunk_size)
        for line in cutter.feed(text[at : at + chunk_size])
    ] + cutter.finish()
    for at, size in enumerate(sizes):
        pieces = [(line, piece) for line, piece in found if line[:1] == bytes([97 + at])]
        assert sum(len(line) for line, _ in pieces) == size
        assert max(len(line) for line, _ in pieces) <= LINE_BYTES
        if len(pieces) == 1:
            assert pieces[0][1] is None
            continue
        marks = [piece for _, piece in pieces if piece]
        assert [mark.ordinal for mark in marks] == list(range(1, len(pieces) + 1))
        assert [mark.last for mark in marks] == [False] * (len(pieces) - 1) + [True]
        assert len({mark.id for mark in marks}) == 1


def test_what_has_no_newline_is_the_last_line() -> None:
    cutter = LineCutter()
    assert cutter.feed(b"a\nb") == [(b"a", None)]
    assert cutter.finish() == [(b"b", None)]
    assert cutter.finish() == []


# --- syslog -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("", rb"<30>Nov 1[45] \d\d:\d\d:\d\d tag\[\d+\]: x\xff y\n"),
        ("rfc3164", rb"<30>Nov 1[45] \d\d:\d\d:\d\d host tag\[\d+\]: x\xff y\n"),
        ("rfc5424", rb"<30>1 2023-11-1[45]T[\d:]{8}(Z|[+-]\d\d:\d\d) host tag \d+ tag - x\xff y\n"),
        (
            "rfc5424micro",
            rb"<30>1 2023-11-1[45]T[\d:]{8}\.123456(Z|[+-]\d\d:\d\d) host tag \d+ tag - x\xff y\n",
        ),
    ],
)
def test_syslog(form: str, pattern: bytes) -> None:
    """Bytes that are no text pass unchanged."""
    assert re.fullmatch(pattern, only("syslog", SYSLOG | {"format": form}, b"x\xff y"))


def test_syslog_octet_counting() -> None:
    packet = only("syslog", SYSLOG | {"format": "rfc5424", "framing": "octets"}, "é".encode())
    count, message = packet.split(b" ", 1)
    assert int(count) == len(message)


def test_a_single_digit_day_is_padded_with_a_space() -> None:
    encode = encoder("syslog", SYSLOG, {})
    (packet,) = encode(2, b"x", 1_699_012_800 * 10**9, None)  # 3 November, noon in UTC
    assert packet[0].startswith(b"<27>Nov  3 ")


# --- gelf ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["gzip", "zlib", "none"])
def test_gelf(compression: str) -> None:
    packet = only("gelf", GELF | {"compression": compression}, b'bad \xff "text"', 2, _a="b")
    (message,) = gelf_messages([packet])
    assert message == {
        "version": "1.1", "host": "host", "_a": "b", "short_message": 'bad � "text"',
        "timestamp": 1700000000.123, "level": 3,
    }  # fmt: skip


def test_gelf_in_parts() -> None:
    packets = encoder("gelf", GELF | {"compression": "none"}, {})(1, b"y" * 16384, AT_NS, None)
    assert len(packets) == 12
    assert max(len(data) for data, _ in packets) <= 1420
    (message,) = gelf_messages([data for data, _ in reversed(packets)])
    assert message["short_message"] == "y" * 16384


def test_gelf_that_would_need_too_many_parts_is_not_sent() -> None:
    assert encoder("gelf", GELF | {"compression": "none"}, {})(1, b"y" * 190_000, AT_NS, None) == []


def test_gelf_over_a_stream_ends_with_zero() -> None:
    packet = only("gelf", GELF | {"datagrams": ""}, b"x")
    assert packet.endswith(b"\0")
    assert json.loads(packet[:-1])["short_message"] == "x"


# --- fluentd ------------------------------------------------------------------------------------


def test_fluentd() -> None:
    packet = only("fluentd", {"tag": "t"}, b"x", container_id="c")
    record = {"source": "stdout", "log": "x", "container_id": "c"}
    assert unpack_all(packet) == [["t", 1_700_000_000, record]]


def test_fluentd_with_everything() -> None:
    settings = {"tag": "t", "precise": "1", "acknowledged": "1"}
    ((packet, answer),) = encoder("fluentd", settings, {})(2, b"x", AT_NS, None)
    (message,) = unpack_all(packet)
    assert message[1] == (1_700_000_000, 123_456_789)
    assert message[3] == {"chunk": answer.decode()}


VALUES = st.recursive(
    st.text(max_size=300) | st.integers(0, 2**32 - 1),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
    max_leaves=30,
)


@settings(max_examples=60)
@given(VALUES)
def test_messagepack_round_trip(value: object) -> None:
    packed = pack(value)
    assert unpack(packed) == (value, len(packed))


@pytest.mark.parametrize("size", [31, 32, 255, 256, 65535, 65536])
def test_messagepack_sizes(size: int) -> None:
    packed = pack(b"x" * size)
    assert unpack(packed) == ("x" * size, len(packed))


def test_messagepack_event_time() -> None:
    assert pack(EventTime(AT_NS)) == b"\xd7\x00" + struct.pack(">LL", 1_700_000_000, 123_456_789)
    with pytest.raises(TypeError):
        pack(1.5)


# --- journald -----------------------------------------------------------------------------------


def test_journald() -> None:
    packet = only("journald", {}, b"two\nlines \xff", 2, CONTAINER_NAME="web")
    fields = journal_fields(packet)
    stamp = fields.pop("SYSLOG_TIMESTAMP").decode()
    assert re.fullmatch(r"2023-11-1[45]T[\d:]{8}\.123456789(Z|[+-]\d\d:\d\d)", stamp)
    assert fields == {
        "CONTAINER_NAME": b"web",
        "PRIORITY": b"3",
        "MESSAGE": b"two\nlines \xff",
    }


def test_journald_tells_pieces() -> None:
    cutter = LineCutter()
    (line, piece), (_, last) = cutter.feed(b"x" * (LINE_BYTES + 1) + b"\n")
    encode = encoder("journald", {}, {})
    fields = journal_fields(encode(1, line, AT_NS, piece)[0][0])
    assert fields["CONTAINER_PARTIAL_MESSAGE"] == b"true"
    assert "CONTAINER_PARTIAL_MESSAGE" not in journal_fields(encode(1, line, AT_NS, last)[0][0])
