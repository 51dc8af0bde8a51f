"""Sizes, durations, instants, ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teu import clock, ids, units
from teu.errors import InvalidParameter


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("512", 512), ("512b", 512), ("1k", 1024), ("1K", 1024), ("1kb", 1024),
        ("1KiB", 1024), ("64m", 64 << 20), ("1.5g", 3 << 29), ("2 GB", 2 << 30), ("1t", 1 << 40),
        ("-1", -1),
    ],
)  # fmt: skip
def test_sizes(text, size):
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "1x", "1ib", "1 2", "one", "1mm", "0x10", "1e3"])
def test_bad_sizes(text):
    with pytest.raises(ValueError, match="invalid size"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("1s", 1), ("1m30s", 90), ("1.5h", 5400), ("300ms", 0.3), ("-2s", -2), (".5s", 0.5)],
)
def test_durations(text, seconds):
    assert units.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "s", "1x", "1s x", "--1s", "1s1"])
def test_bad_durations(text):
    with pytest.raises(ValueError, match="invalid duration"):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (1234567, "1.23MB"), (77_800_000, "77.8MB")],
)
def test_human_size(size, text):
    assert units.human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"),
        (119, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"),
        (3600, "About an hour"), (7200, "2 hours"), (86400 * 2, "2 days"),
        (86400 * 14, "2 weeks"), (86400 * 61, "2 months"), (86400 * 800, "2 years"),
    ],
)  # fmt: skip
def test_human_duration(seconds, text):
    assert units.human_duration(seconds) == text


@given(st.integers(min_value=1, max_value=2**62))
def test_instants_round_trip(instant_ns):
    assert clock.parse_rfc3339(clock.format_ns(instant_ns)) == instant_ns


@pytest.mark.parametrize(
    ("text", "instant_ns"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T01:00:01+01:00", 10**9),
        ("1970-01-01", 0),
        ("1970-01-01T00:00:00.5", 5 * 10**8),
        (clock.ZERO, 0),
    ],
)
def test_instants(text, instant_ns):
    assert clock.parse_rfc3339(text) == instant_ns


@pytest.mark.parametrize("text", ["", "now", "1970", "1970-13-01", "1970-01-01T25:00:00Z"])
def test_bad_instants(text):
    with pytest.raises(ValueError, match=r"."):
        clock.parse_rfc3339(text)


def test_ids_are_never_all_digits_in_short_form():
    made = {ids.new_id() for _ in range(200)}
    assert len(made) == 200
    assert all(len(i) == 64 and ids.is_hex(i) and not i[:12].isdigit() for i in made)


@pytest.mark.parametrize("name", ["a", "", "-a", "a b", "a/b", "é", "../x", "a" + chr(0)])
def test_bad_names(name):
    with pytest.raises(InvalidParameter, match="Invalid container name"):
        ids.check_name(name)


def test_names_lose_their_slash():
    assert ids.check_name("/web_1.x-y") == "web_1.x-y"


def test_matching_ids_tells_one_from_several():
    objects = {"ab1": 1, "ab2": 2, "cd": 3}
    assert ids.matching_ids(objects, "c") == ["cd"]
    assert len(ids.matching_ids(objects, "ab")) == 2
    assert ids.matching_ids(objects, "x") == []
