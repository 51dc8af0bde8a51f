"""Requests as no well-behaved client sends them: an answer in JSON, soon, and then the end."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from harness.engine import KIND, Engine
from harness.names import Names
from harness.waiting import PATIENCE

pytestmark = pytest.mark.skipif(KIND == "dockerd", reason="Docker leaves some without an answer")
_JSON = "Host: x\r\nContent-Type: application/json\r\n"


@contextmanager
def connection(engine: Engine) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20 * PATIENCE)
        sock.connect(str(engine.socket))
        yield sock


def everything(sock: socket.socket) -> bytes:
    """Until the daemon closes the connection."""
    received = b""
    while chunk := sock.recv(65536):
        received += chunk
    return received


def answered(received: bytes) -> tuple[int, Any]:
    """The status and the JSON of one answer."""
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"application/json" in head, received
    return int(head.split()[1]), json.loads(body)


def create_head(length: int) -> bytes:
    return f"POST /containers/create HTTP/1.1\r\n{_JSON}Content-Length: {length}\r\n\r\n".encode()


def test_a_body_that_is_cut_short(engine: Engine) -> None:
    with connection(engine) as sock:
        began = time.monotonic()
        sock.sendall(create_head(100) + b'{"Image":')
        sock.shutdown(socket.SHUT_WR)
        status, body = answered(everything(sock))
    assert (status, body["message"]) == (400, "the request's body was cut short")
    assert time.monotonic() - began < PATIENCE


def test_a_body_that_stops_arriving(engine: Engine) -> None:
    with connection(engine) as sock:
        began = time.monotonic()
        sock.sendall(create_head(100) + b'{"Image":')
        received = sock.recv(65536)
    assert answered(received)[0] == 400
    assert "stopped arriving" in answered(received)[1]["message"]
    assert time.monotonic() - began < 2 * PATIENCE


@pytest.mark.parametrize("length", [2**24 + 1, 2**62])
def test_a_body_of_absurd_size_is_not_waited_for(engine: Engine, length: int) -> None:
    with connection(engine) as sock:
        sock.sendall(create_head(length) + b"{")
        status, body = answered(sock.recv(65536))
    assert (status, body["message"]) == (400, "request body is too large (16 MiB at most)")


def test_broken_chunks(engine: Engine) -> None:
    head = f"POST /containers/create HTTP/1.1\r\n{_JSON}Transfer-Encoding: chunked\r\n\r\n"
    with connection(engine) as sock:
        sock.sendall(head.encode() + b'5\r\n{"Ima\r\nzz\r\n')
        assert answered(sock.recv(65536))[0] == 400


@pytest.mark.parametrize(
    "head",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_in_json(engine: Engine, head: bytes) -> None:
    with connection(engine) as sock:
        sock.sendall(head)
        status, body = answered(everything(sock))
    assert status == 400
    assert body["message"]


def test_a_client_that_ends_its_direction_gets_its_answer(engine: Engine) -> None:
    with connection(engine) as sock:
        sock.sendall(b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        status, body = answered(everything(sock))
    assert (status, body["OSType"]) == (200, "linux")


def test_a_half_closed_client_still_waits_for_an_exit(engine: Engine, names: Names) -> None:
    body = {"Image": "busybox", "Cmd": ["sleep", "1.5"]}
    container = engine.api.request("POST", "/containers/create", body, name=names("a")).json()["Id"]
    engine.api.request("POST", f"/containers/{container}/start")
    with connection(engine) as sock:
        head = f"POST /containers/{container}/wait HTTP/1.0\r\nHost: x\r\n\r\n"
        sock.sendall(head.encode())
        sock.shutdown(socket.SHUT_WR)
        status, said = answered(everything(sock))
    assert (status, said["StatusCode"]) == (200, 0)


def test_expect_100_continue(engine: Engine) -> None:
    body = b'{"Image":"nosuch"}'
    head = create_head(len(body)).replace(b"Host", b"Expect: 100-continue\r\nHost")
    with connection(engine) as sock:
        sock.sendall(head)
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert answered(sock.recv(65536))[0] == 404


# --- bodies as Go reads them ----------------------------------------------------------------------


def create(engine: Engine, body: bytes, **headers: str) -> tuple[int, Any]:
    sent = {"Content-Type": "application/json", **headers}
    reply = engine.api.request("POST", "/containers/create", body, headers=sent)
    return reply.status, reply.json()


def test_null_is_absent(engine: Engine) -> None:
    status, made = create(
        engine,
        b'{"Image":"busybox","Hostname":null,"Tty":null,"Env":null,"StopTimeout":null,'
        b'"HostConfig":{"Memory":null,"RestartPolicy":null,"LogConfig":{"Type":null}}}',
    )
    assert status == 201, made
    shown = engine.api.inspect(made["Id"])
    assert shown["Config"]["Hostname"] == made["Id"][:12]
    assert shown["HostConfig"]["RestartPolicy"]["Name"] in ("no", "")


def test_names_match_whatever_their_case(engine: Engine) -> None:
    status, made = create(
        engine,
        b'{"image":"busybox","LABELS":{"Kept":"As Is"},'
        b'"hostconfig":{"portbindings":{"80/tcp":[{"HostIP":"127.0.0.1","hostport":"0"}]}}}',
    )
    assert status == 201, made
    shown = engine.api.inspect(made["Id"])
    assert shown["Config"]["Labels"]["Kept"] == "As Is"
    binding = shown["HostConfig"]["PortBindings"]["80/tcp"]
    assert binding == [{"HostIp": "127.0.0.1", "HostPort": "0"}]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"Image":"busybox","HostConfig":{"Memory":123456789012345678901}}', "out of range"),
        (b'{"Image":"busybox","HostConfig":{"Memory":"64m"}}', "$.HostConfig.Memory"),
        (b'{"Image":"busybox","Cmd":[1]}', "$.Cmd"),
        (b'{"Image":"busybox","Labels":["a"]}', "$.Labels"),
        (b'{"Image":"busybox"} x', "trailing"),
        (b"[]", "Expected `object`"),
        pytest.param(b"[" * 100_000, "JSON", id="brackets"),
        pytest.param(b'{"a":' * 100 + b"1" + b"}" * 100, "nested too deeply", id="deep"),
        (b'{"Image":', "JSON"),
        (b"null", "config cannot be empty"),
    ],
)
def test_bodies_that_are_refused(engine: Engine, body: bytes, said: str) -> None:
    status, refused = create(engine, body)
    assert status == 400, refused
    assert said in refused["message"]


def test_bytes_that_are_no_text(engine: Engine) -> None:
    status, made = create(engine, b'{"Image":"busybox","Env":["A=\xff\xfe"]}')
    assert status == 201, made
    assert "A=\ufffd\ufffd" in engine.api.inspect(made["Id"])["Config"]["Env"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_must_say_that_it_is_json(engine: Engine, kind: str) -> None:
    """A web page cannot send that to a daemon without asking first."""
    headers = {"Content-Type": kind} if kind else {}
    reply = engine.api.request(
        "POST", "/containers/create", b'{"Image":"busybox"}', headers=headers
    )
    assert reply.status == 400
    assert "must be 'application/json'" in reply.json()["message"]


@pytest.mark.parametrize("value", ["x", "1_000", "9" * 25, "1.5", "٣"])
def test_numbers_in_the_query(engine: Engine, value: str) -> None:
    reply = engine.api.request("GET", "/containers/json", limit=value)
    assert reply.status == 400
    assert "strconv.Atoi" in reply.json()["message"]
