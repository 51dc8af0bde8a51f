"""The log's line format, against JSON and against Go's rules, and back to text."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teu.shim.decode import Renderer, unescape
from teu.shim.encode import PARTIAL_BYTES, LineEncoder, escape, stamp

AWKWARD = [
    b"plain\n",
    b"",
    b"\n",
    b"\n\n\n",
    b'say "hi" \\ back\\\\slash\n',
    b"<b>&amp;</b>\n",
    b"tab\tcr\r\nesc\x1b[0m nul\x00 del\x7f\n",
    "ünïcode € 𝄞\n".encode(),
    "line\u2028para\u2029\n".encode(),
    b"\xff\xfe bad \xc3 cut \xe2\x82 \xed\xa0\x80 surrogate \xf5\n",
    b'{"log":"x\\n","stream":"stderr","time":"2020-01-01T00:00:00Z"}\n',
    rb"\u003c \udc80 \ufffd \n literal" + b"\n",
    b"no newline at the end",
]
chunks = st.lists(st.binary(max_size=60) | st.sampled_from(AWKWARD), max_size=12)


def entries(encoded: bytes) -> list[dict[str, str]]:
    return [json.loads(line) for line in encoded.splitlines()]


def encode_all(chunks: list[bytes], kind: int = 1) -> bytes:
    encoder = LineEncoder(kind, {})
    return b"".join(
        [*(block for chunk in chunks for block in encoder.encode(chunk)), encoder.finish()]
    )


def go_decode(data: bytes) -> str:
    """Go's utf8.DecodeRune in a loop: one U+FFFD for each byte that starts no valid rune."""
    out = []
    at = 0
    while at < len(data):
        for size in (1, 2, 3, 4):
            try:
                out.append(data[at : at + size].decode())
            except UnicodeDecodeError:
                continue
            break
        else:
            size = 1
            out.append("\ufffd")
        at += size
    return "".join(out)


@pytest.mark.parametrize("text", AWKWARD)
def test_an_entry_is_json_that_gives_the_text_back(text: bytes) -> None:
    assert "".join(entry["log"] for entry in entries(encode_all([text]))) == go_decode(text)


@given(chunks)
def test_chunks_become_lines_wherever_they_are_cut(parts: list[bytes]) -> None:
    got = entries(encode_all(parts))
    whole = go_decode(b"".join(parts))
    assert "".join(entry["log"] for entry in got) == whole
    assert all(entry["log"].endswith("\n") for entry in got[:-1])
    assert all(entry["log"].count("\n") <= 1 for entry in got)


def test_the_exact_line() -> None:
    encoder = LineEncoder(2, {"b": "2<", "a": "1"})
    line = b"".join(encoder.encode(b'a"<\r\t\x01\n'))
    head, _, time = line.partition(b',"time":"')
    assert head == (
        b'{"log":"a\\"\\u003c\\r\\u0009\\u0001\\n","stream":"stderr",'
        b'"attrs":{"a":"1","b":"2\\u003c"}'
    )
    assert len(time) == len(b'2023-11-14T22:13:20.123456789Z"}\n')


def test_a_time_has_nine_digits_in_utc() -> None:
    assert stamp(1_700_000_000_000_000_001) == b"2023-11-14T22:13:20.000000001Z"


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        (b"x" * PARTIAL_BYTES, [PARTIAL_BYTES]),
        (b"x" * PARTIAL_BYTES + b"\n", [PARTIAL_BYTES, 1]),
        (b"x" * (PARTIAL_BYTES - 1) + b"\n", [PARTIAL_BYTES]),
        (b"x" * 40_000 + b"\nshort\n", [PARTIAL_BYTES, PARTIAL_BYTES, 7233, 6]),
        (b"ab\n" + b"x" * 20_000, [3, PARTIAL_BYTES, 3616]),
    ],
)
@pytest.mark.parametrize("step", [1 << 20, 1000])
def test_a_long_line_is_cut_as_docker_does(text: bytes, sizes: list[int], step: int) -> None:
    got = entries(encode_all([text[at : at + step] for at in range(0, len(text), step)]))
    assert [len(entry["log"]) for entry in got] == sizes


def test_long_lines_among_many_short_ones() -> None:
    text = b"a\n" * 20_000 + b"y" * 50_000 + b"\n" + b"b\n" * 20_000
    got = entries(encode_all([text]))
    assert "".join(entry["log"] for entry in got).encode() == text
    assert max(len(entry["log"]) for entry in got) == PARTIAL_BYTES


@given(st.binary())
def test_escape_has_no_raw_quote_and_keeps_newlines(text: bytes) -> None:
    escaped = escape(text)
    assert escaped.count(b"\n") == text.count(b"\n")
    assert json.loads(b'"' + escaped.replace(b"\n", b"\\n") + b'"') == go_decode(text)


@given(st.text())
def test_unescape_reads_what_any_json_encoder_writes(text: str) -> None:
    for ascii_only in (True, False):
        inside = json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode(errors="surrogatepass")
        expected = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
        if ascii_only or expected == text:
            assert unescape(inside).decode() == expected


def test_unescape_of_odd_escapes() -> None:
    assert unescape(rb"\/ \b \f \u00e9 \ud834\udd1e \ud834 \\u003c \\\\n") == (
        "/ \b \f é 𝄞 \ufffd \\u003c \\\\n".encode()
    )


# Rendering.


def render(block: bytes, **request: object) -> bytes:
    return Renderer({"multiplexed": False, **request}).render(block)


def frames(data: bytes) -> list[tuple[int, bytes]]:
    out = []
    while data:
        kind, size = struct.unpack(">BxxxL", data[:8])
        out.append((kind, data[8 : 8 + size]))
        data = data[8 + size :]
    return out


def line(text: str, stream: str = "stdout", time: str = "2024-01-01T00:00:00.000000001Z") -> bytes:
    return (
        json.dumps({"log": text, "stream": stream, "time": time}, separators=(",", ":")).encode()
        + b"\n"
    )


@given(chunks)
def test_rendering_undoes_encoding(parts: list[bytes]) -> None:
    block = encode_all(parts)
    expected = go_decode(b"".join(parts)).encode()
    assert render(block) == expected
    assert render(block, since_ns=1) == expected


def test_each_entry_has_a_frame_where_asked() -> None:
    block = line("a\n") + line("b\n") + line("c\n", "stderr") + line("d\n")
    got = frames(render(block, multiplexed=True, by_line=True))
    assert got == [(1, b"a\n"), (1, b"b\n"), (2, b"c\n"), (1, b"d\n")]
    one_stream = line("a\\\n") + line("\u00fe\n") + line("part") + line("\n")
    got = frames(render(one_stream, multiplexed=True, by_line=True))
    assert got == [(1, b"a\\\n"), (1, "\u00fe\n".encode()), (1, b"part"), (1, b"\n")]


def test_runs_of_one_stream_are_joined() -> None:
    block = line("a\n") + line("b\n") + line("c\n", "stderr") + line("d\n")
    got = frames(render(block, multiplexed=True))
    assert got == [(1, b"a\nb\n"), (2, b"c\n"), (1, b"d\n")]
    assert frames(render(block, multiplexed=True, stdout=False)) == [(2, b"c\n")]
    assert render(block, stderr=False) == b"a\nb\nd\n"


def test_only_stderr() -> None:
    assert frames(render(line("x\n", "stderr"), multiplexed=True)) == [(2, b"x\n")]


def test_timestamps_have_nine_digits_whatever_docker_dropped() -> None:
    block = line("a\n", time="2024-01-01T00:00:00.12Z") + line("b\n", time="2024-01-01T00:00:01Z")
    assert render(block, timestamps=True) == (
        b"2024-01-01T00:00:00.120000000Z a\n2024-01-01T00:00:01.000000000Z b\n"
    )


def test_since_and_until_include_their_instants() -> None:
    block = b"".join(line(f"{n}\n", time=f"2024-01-01T00:00:0{n}.5Z") for n in range(5))
    start = 1_704_067_200_500_000_000
    got = render(block, since_ns=start + 10**9, until_ns=start + 3 * 10**9)
    assert got == b"1\n2\n3\n"
    assert render(block, since_ns=start + 10**9 + 1) == b"2\n3\n4\n"


def test_details_show_attributes() -> None:
    encoder = LineEncoder(1, {"z": "a b", "env": "x=y"})
    block = b"".join(encoder.encode(b"hello\n"))
    assert render(block, details=True) == b"env=x%3Dy,z=a+b hello\n"
    assert render(block) == b"hello\n"
    assert render(line("none\n"), details=True) == b" none\n"


def test_broken_and_foreign_lines() -> None:
    block = (
        line("first\n")
        + b"\0\0\0\0\n"
        + b'{"log":"torn\n'
        + b'{"time": "2024-01-01T00:00:00Z", "stream": "stderr", "log": "other \\"order\\"\\n"}\n'
        + b'{"log":5,"stream":"stdout","time":"2024-01-01T00:00:00Z"}\n'
        + b'{"log":"x","stream":"stdin","time":"2024-01-01T00:00:00Z"}\n'
        + line("last\n")
    )
    got = frames(render(block, multiplexed=True))
    assert got == [(1, b"first\n"), (2, b'other "order"\n'), (1, b"last\n")]


@given(st.binary(max_size=200))
def test_garbage_never_raises(garbage: bytes) -> None:
    render(garbage + b"\n")
    render(line("ok\n") + garbage + b"\n", timestamps=True, details=True)
