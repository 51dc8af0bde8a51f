"""Detach keys in a client's input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teu.shim.keys import DetachKeys

KEYS = b"\x10\x11"


def feed(keys: bytes, chunks: list[bytes]) -> tuple[bytes, bool]:
    parser = DetachKeys(keys)
    forwarded = b""
    for chunk in chunks:
        part, detached = parser.feed(chunk)
        forwarded += part
        if detached:
            return forwarded, True
    return forwarded + parser.flush(), False


@pytest.mark.parametrize(
    ("chunks", "forwarded", "detached"),
    [
        ([b"abc"], b"abc", False),
        ([b"abc\x10\x11"], b"abc", True),
        ([b"abc\x10", b"\x11def"], b"abc", True),
        ([b"\x10", b"x\x11"], b"\x10x\x11", False),
        ([b"\x10"], b"\x10", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x11\x10"], b"\x11\x10", False),
    ],
)
def test_default_keys(chunks: list[bytes], forwarded: bytes, detached: bool) -> None:
    assert feed(KEYS, chunks) == (forwarded, detached)


def test_a_partial_sequence_is_held_until_it_is_decided() -> None:
    parser = DetachKeys(KEYS)
    assert parser.feed(b"a\x10") == (b"a", False)
    assert parser.feed(b"b") == (b"\x10b", False)


def test_without_keys_everything_is_forwarded_at_once() -> None:
    assert DetachKeys(b"").feed(b"\x10\x11") == (b"\x10\x11", False)


@given(
    st.binary(min_size=1, max_size=4).map(lambda keys: bytes(code % 3 for code in keys)),
    st.lists(st.binary(max_size=5).map(lambda data: bytes(code % 3 for code in data))),
)
def test_found_wherever_the_input_is_cut(keys: bytes, chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    before, found, _ = data.partition(keys)
    assert feed(keys, chunks) == (before, bool(found))
