"""Frames, HTTP framing, JSON, keys: everything that reads bytes from elsewhere."""

import itertools
import os
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teu.cli.client import encode_query, escape
from teu.cli.config import ClientConfig
from teu.cli.endpoint import parse, resolve
from teu.cli.frames import Demultiplexer
from teu.cli.grammar import Parser
from teu.cli.http1 import Connection, ProtocolError
from teu.cli.jsontext import dumps, loads
from teu.cli.main import GLOBAL_FLAGS
from teu.cli.progress import bar
from teu.cli.session import Failure
from teu.cli.terminal import KeyWatch, parse_detach_keys

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def frame(stream: int, data: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=20),
    st.lists(st.integers(0, 2000), max_size=10),
)
def test_demultiplexing_keeps_bytes_and_order(
    frames: list[tuple[int, bytes]], places: list[int]
) -> None:
    written: list[tuple[int, bytes]] = []
    demultiplexer = Demultiplexer(lambda stream, data: written.append((stream, data)))
    for piece in cut(b"".join(frame(*one) for one in frames), places):
        demultiplexer.feed(piece)
    expected = b"".join(bytes((stream,)) * len(data) for stream, data in frames)
    assert b"".join(bytes((stream,)) * len(data) for stream, data in written) == expected
    assert b"".join(data for _, data in written) == b"".join(data for _, data in frames)


def test_frames_that_arrive_together_are_one_write() -> None:
    written: list[tuple[int, bytes]] = []
    demultiplexer = Demultiplexer(lambda stream, data: written.append((stream, data)))
    demultiplexer.feed(frame(1, b"a") + frame(1, b"b") + frame(2, b"c") + frame(1, b"d"))
    assert written == [(1, b"ab"), (2, b"c"), (1, b"d")]


def test_daemon_errors_in_the_stream_fail() -> None:
    demultiplexer = Demultiplexer(lambda *_: None)
    with pytest.raises(Failure, match="error from daemon in stream: log is gone"):
        demultiplexer.feed(frame(3, b"log is gone\n"))
    with pytest.raises(Failure, match="Unrecognized input header: 72"):
        Demultiplexer(lambda *_: None).feed(b"HTTP/1.1 hello")


def answer(pieces: list[bytes], method: str = "GET") -> tuple[int, bytes, bool]:
    """What the client makes of an answer that arrives in `pieces`."""
    ours, theirs = socket.socketpair()

    def write() -> None:
        try:
            for piece in pieces:
                theirs.sendall(piece)
            theirs.shutdown(socket.SHUT_WR)
        except BrokenPipeError:
            pass  # the reader has seen enough

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with ours:
            response = Connection(ours).read_response(method)
            return response.status, response.read(), response.reusable
    finally:
        writer.join(10)
        theirs.close()


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=8), st.lists(st.integers(0, 900)))
def test_chunked_bodies(chunks: list[bytes], places: list[int]) -> None:
    body = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\nT: 1\r\n\r\n"
    assert answer(cut(raw, places)) == (200, b"".join(chunks), True)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", (200, b"hi", True)),
        (b"HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", (200, b"", True)),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", (200, b"until the end", False)),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", True)),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx",
         (201, b"x", True)),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
         (200, b"x", False)),
    ],
)  # fmt: skip
def test_bodies(raw: bytes, expected: tuple[int, bytes, bool]) -> None:
    assert answer([raw]) == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi",
    ],
)
def test_broken_answers(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        answer([raw])


def test_a_head_without_end_is_refused() -> None:
    with pytest.raises(ProtocolError, match="no end"):
        answer([b"HTTP/1.1 200 OK\r\n" + b"x" * (1 << 21)])


@given(JSON)
def test_json_round_trip(value: object) -> None:
    assert loads(dumps(value)) == value
    assert loads(f" {dumps(value)}\r\n".encode()) == value


@pytest.mark.parametrize("text", ["", "{", "[1,]", "x", '{"a":1} x', "nul"])
def test_bad_json(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        loads(text)


def test_queries() -> None:
    query = {"a": True, "b": False, "c": None, "d": "x/y z", "e": ["1", "ü"], "f": 0, "g": ""}
    assert encode_query(query) == "?a=1&d=x%2Fy%20z&e=1&e=%C3%BC&f=0&g="
    assert encode_query(None) == encode_query({"a": None}) == ""
    assert escape("../x?y") == "..%2Fx%3Fy"


@pytest.mark.parametrize(
    ("keys", "value"),
    [("ctrl-p,ctrl-q", b"\x10\x11"), ("a", b"a"), ("ctrl-@,z", b"\0z"), ("CTRL-[", b"\x1b")],
)
def test_detach_keys(keys: str, value: bytes) -> None:
    assert parse_detach_keys(keys) == value


@pytest.mark.parametrize("keys", ["", "ctrl-", "ctrl-ab", "foo", "a,,b", "ctrl-1"])
def test_bad_detach_keys(keys: str) -> None:
    with pytest.raises(ValueError, match="Unknown character"):
        parse_detach_keys(keys)


@given(
    st.text(alphabet="abc", min_size=1, max_size=4),
    st.text(alphabet="abcd", max_size=30),
    st.lists(st.integers(0, 30), max_size=5),
)
def test_key_watch_finds_the_first_occurrence(keys: str, typed: str, places: list[int]) -> None:
    watch = KeyWatch(keys.encode())
    passed, found = b"", False
    for piece in cut(typed.encode(), places):
        if not found:
            data, found = watch.feed(piece)
            passed += data
    before, sequence, _ = typed.partition(keys)
    assert found == bool(sequence)
    if found:
        assert passed.decode() == before
    else:
        held = typed[len(passed) :]
        assert typed.startswith(passed.decode())
        assert keys.startswith(held), "only the beginning of the sequence is held back"


def globals_of(*words: str) -> Parser:
    parser = Parser(GLOBAL_FLAGS, interspersed=False)
    parser.parse(words)
    return parser


@pytest.fixture(autouse=True)
def no_docker_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: "os.PathLike[str]") -> None:
    for name in list(os.environ):
        if name.startswith(("DOCKER_", "TEU_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_CONFIG", os.fspath(tmp_path))


def endpoint(*words: str) -> tuple[str, str, int, bool]:
    options = globals_of(*words).options
    found = resolve(options, ClientConfig(options))
    return found.url, found.address, found.port, found.tls is not None


def test_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    assert endpoint("-H", "unix:///x")[:2] == ("unix:///x", "/x")
    assert endpoint("-H", "/x")[:2] == ("unix:///x", "/x")
    assert endpoint("-H", "host") == ("tcp://host:2375", "host", 2375, False)
    assert endpoint("-H", "tcp://[::1]:99") == ("tcp://[::1]:99", "::1", 99, False)
    assert endpoint("--tlsverify", "-H", "tcp://h") == ("tcp://h:2376", "h", 2376, True)
    monkeypatch.setenv("DOCKER_HOST", "unix:///d")
    assert endpoint()[0] == "unix:///d"
    monkeypatch.setenv("TEU_HOST", "unix:///t")
    assert endpoint()[0] == "unix:///t"
    assert endpoint("-H", "unix:///h")[0] == "unix:///h"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["-H", "a", "-H", "b"], "Specify only one -H"),
        (["-H", "bogus://x"], "invalid bind address format: bogus://x"),
        (["-H", "tcp://x:99999"], "invalid port"),
        (["-H", "a", "-c", "b"], "cannot specify both --host and --context"),
        (["-c", "nosuch"], 'context "nosuch": context not found'),
    ],
)
def test_bad_endpoints(words: list[str], problem: str) -> None:
    with pytest.raises(Failure, match=problem):
        endpoint(*words)


def test_contexts(tmp_path: "os.PathLike[str]") -> None:
    import hashlib

    folder = os.path.join(tmp_path, "contexts", "meta", hashlib.sha256(b"far").hexdigest())
    os.makedirs(folder)
    with open(os.path.join(folder, "meta.json"), "w") as file:
        file.write('{"Name":"far","Endpoints":{"docker":{"Host":"tcp://far:1"}}}')
    assert endpoint("-c", "far")[0] == "tcp://far:1"
    with open(os.path.join(tmp_path, "config.json"), "w") as file:
        file.write('{"currentContext":"far"}')
    assert endpoint()[0] == "tcp://far:1"
    assert endpoint("-c", "default")[1].startswith("/")


def test_default_endpoint_is_our_socket() -> None:
    assert parse("").address in ("/run/teu.sock", "/var/run/docker.sock")


@pytest.mark.parametrize(
    ("detail", "columns", "text"),
    [
        ({}, 200, ""),
        ({"current": 1024}, 200, " 1.024kB"),
        ({"current": 50, "total": 100}, 80, "     50B/100B"),
        ({"current": 5, "total": 3}, 80, "      5B"),
        ({"current": 2, "total": 4, "units": "s"}, 80, "     2 s/4 s"),
        ({"current": 1, "total": 2, "hidecounts": True}, 200, f"[{'=' * 25}>{' ' * 25}] "),
    ],
)
def test_progress_bars(detail: dict[str, object], columns: int, text: str) -> None:
    assert bar(detail, columns).rstrip() == text.rstrip()
