"""DNS packets as nobody should send them: read without a crash, a loop or a wrong name."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import dns
from teu.resolver import message
from teu.resolver.message import Malformed, Query, parse_query

LABELS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=63)
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(".".join)


def read(packet: bytes) -> tuple[Query | None, int | None]:
    """(the query, None), or what could be read of it and the code of the refusal."""
    try:
        return parse_query(packet), None
    except Malformed as error:
        return error.query, error.rcode


@given(st.binary(max_size=600))
def test_any_bytes_are_a_query_or_malformed(packet: bytes) -> None:
    query, rcode = read(packet)
    if rcode is None:
        assert query
        assert query.question == packet[12 : 12 + len(query.question)]
    elif query:
        assert len(message.failure(query, rcode)) <= len(packet) + 24


@given(st.binary(max_size=64), st.integers(0, 0x7FFF), st.integers(0, 3), st.integers(0, 0xFFFF))
def test_a_header_of_lies_is_survived(body: bytes, flags: int, questions: int, extra: int) -> None:
    packet = struct.pack(">6H", 1, flags & ~0x8000, questions, extra, extra, extra) + body
    query, rcode = read(packet)
    assert query is not None
    assert rcode in (None, message.FORMAT_ERROR, message.NOT_IMPLEMENTED)
    assert 512 <= query.limit <= message.UDP_LIMIT_BYTES


@given(NAMES, st.integers(0, 0xFFFF), st.sampled_from([0, 512, 1232, 4096, 65535]))
def test_a_good_question_is_read_as_it_was_meant(name: str, ident: int, edns: int) -> None:
    query = parse_query(dns.question(name.upper(), dns.AAAA, ident=ident, edns=edns))
    assert (query.name, query.kind, query.ident) == (name.lower(), dns.AAAA, ident)
    assert query.has_edns == bool(edns)
    assert query.limit == max(512, min(edns, message.UDP_LIMIT_BYTES))


@given(NAMES, st.lists(st.ip_addresses(v=4).map(str), max_size=300), st.sampled_from([512, 65535]))
def test_an_answer_holds_what_fits(name: str, addresses: list[str], limit: int) -> None:
    query = parse_query(dns.question(name))
    packet = message.answer(query, [message.address_record(one) for one in addresses], limit)
    reply = dns.parse(packet)
    assert len(packet) <= limit
    assert reply.records == addresses[: len(reply.records)]
    assert reply.truncated == (len(reply.records) < len(addresses))


@pytest.mark.parametrize(
    ("packet", "rcode"),
    [
        (struct.pack(">6H", 1, 0, 0, 0, 0, 0), message.FORMAT_ERROR),
        (struct.pack(">6H", 1, 0, 2, 0, 0, 0) + b"\0\0\1\0\1" * 2, message.FORMAT_ERROR),
        (struct.pack(">6H", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1", message.FORMAT_ERROR),
        (struct.pack(">6H", 1, 0, 1, 0, 0, 0) + b"\x3fabc", message.FORMAT_ERROR),
        (struct.pack(">6H", 1, 0, 1, 0, 0, 0) + b"\1a" * 130, message.FORMAT_ERROR),
        (struct.pack(">6H", 1, 0x2800, 1, 0, 0, 0) + b"\0\0\1\0\1", message.NOT_IMPLEMENTED),
    ],
    ids=["none", "two", "pointer to itself", "cut label", "too long", "update"],
)
def test_bad_questions_are_refused(packet: bytes, rcode: int) -> None:
    with pytest.raises(Malformed) as caught:
        parse_query(packet)
    assert caught.value.rcode == rcode
    assert caught.value.query
    assert dns.parse(message.failure(caught.value.query, rcode)).rcode == rcode


def test_replies_and_fragments_are_not_answered() -> None:
    for packet in (b"", b"\0" * 11, dns.question("a")[:2] + b"\x80" + dns.question("a")[3:]):
        with pytest.raises(Malformed) as caught:
            parse_query(packet)
        assert caught.value.query is None


def test_a_dot_inside_a_label_is_not_a_border() -> None:
    packet = dns.question("x")[:12] + b"\x07web.net\0" + struct.pack(">2H", 1, 1)
    assert parse_query(packet).name == r"web\.net"


@given(st.ip_addresses())
def test_addresses_backwards(address: object) -> None:
    pointer = address.reverse_pointer  # type: ignore[attr-defined]
    assert message.reversed_address(pointer) is not None
    import ipaddress

    assert ipaddress.ip_address(message.reversed_address(pointer)) == address


@given(st.text(max_size=80))
def test_other_names_are_no_addresses(name: str) -> None:
    for suffix in (".in-addr.arpa", ".ip6.arpa"):
        found = message.reversed_address(name + suffix)
        assert found is None or found


@given(st.binary(max_size=200))
def test_only_the_answer_to_our_question_counts(reply: bytes) -> None:
    query = parse_query(dns.question("example.org", ident=4711))
    genuine = message.answer(query, [], 512)
    assert message.answers_to(genuine, 4711, query.question)
    assert not message.answers_to(genuine, 4712, query.question)
    assert not message.answers_to(message.answer(parse_query(dns.question("b.org")), [], 512),
                                  7, query.question)  # fmt: skip
    message.answers_to(reply, 4711, query.question)
