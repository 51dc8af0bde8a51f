"""Copying between a process's pipes and its clients, step by step, without a process."""

import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from teu.shim import session as session_module
from teu.shim.loop import Loop
from teu.shim.session import Session, Stdio


class Stage:
    """A session whose process is played by the test: it writes to `out` and reads from `into`."""

    def __init__(self, **options: Any) -> None:
        self.loop = Loop()
        self.events: list[str] = []
        settings: dict[str, Any] = {
            "log": None,
            "tty": False,
            "open_stdin": True,
            "close_stdin": False,
        }
        self.session = Session(
            self.loop,
            **{**settings, **options},
            on_detached=lambda: self.events.append("detached"),
            on_closed=lambda: self.events.append("closed"),
        )
        out_read, self.out = os.pipe()
        self.into, in_write = os.pipe()
        self.stdio = Stdio(in_write, out_read, None)
        self.peers: list[socket.socket] = []

    def client(self, send_bytes: int = 0, **options: Any) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.peers.append(ours)
        ours.setblocking(False)
        fd = theirs.detach()
        self.session.attach(fd, {"stdout": True, "multiplexed": True, **options})
        if send_bytes:
            with socket.socket(fileno=os.dup(fd)) as theirs:
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
        return ours

    def step(self, times: int = 1) -> None:
        """Lets the session do what can be done now."""
        for _ in range(times):
            tick = self.loop.later(0.0, lambda: None)
            self.loop.run_once()
            tick.cancel()

    def open_frame(self) -> bytes:
        """Output of which a client that takes little has an open frame, the rest in the pipe."""
        for letter in b"ab":
            os.write(self.out, bytes((letter,)) * 60_000)
            self.step()
        return b"a" * 60_000 + b"b" * 60_000

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        self.step(3)
        for fd in (self.out, self.into):
            os.close(fd)
        self.session.drain(lambda: None)
        self.step(3)


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


def take(stage: Stage, peer: socket.socket) -> bytes:
    """All that arrives at a client while the session goes on."""
    data = b""
    quiet = 0
    while quiet < 3:
        stage.step()
        try:
            chunk = peer.recv(1 << 20)
        except BlockingIOError:
            quiet += 1
            continue
        if not chunk:
            break
        data += chunk
        quiet = 0
    return data


def payload(data: bytes) -> bytes:
    out = b""
    while data:
        kind, size = struct.unpack(">BxxxL", data[:8])
        assert kind == 1
        assert len(data) >= 8 + size, "a frame is cut off"
        out += data[8 : 8 + size]
        data = data[8 + size :]
    return out


def test_a_spliced_frame_never_overtakes_a_copied_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = stage.client(send_bytes=1)
    stage.session.connect(stage.stdio)
    os.write(stage.out, b"a" * 30_000)
    with monkeypatch.context() as patch:
        patch.setattr(session_module, "_readable_bytes", lambda _: 0)  # nothing to splice: copied
        stage.step()
    os.write(stage.out, b"b" * 30_000)  # ready first, then there is room for it
    got = peer.recv(1 << 20)
    assert payload(got + take(stage, peer)) == b"a" * 30_000 + b"b" * 30_000


def test_a_second_client_never_gets_the_rest_of_a_frame(stage: Stage) -> None:
    first = stage.client(send_bytes=1)
    stage.session.connect(stage.stdio)
    begun = stage.open_frame()
    second = stage.client()
    os.write(stage.out, b"c" * 5_000)
    assert payload(take(stage, first)) == begun + b"c" * 5_000
    assert payload(take(stage, second)) == b"c" * 5_000


def test_an_open_frame_is_completed_after_the_processs_end(stage: Stage) -> None:
    peer = stage.client(send_bytes=1)
    stage.session.connect(stage.stdio)
    begun = stage.open_frame()
    os.close(stage.out)
    stage.out = os.open(os.devnull, os.O_WRONLY)
    drained: list[bool] = []
    stage.session.drain(lambda: drained.append(True))
    assert drained == [True], "nobody is waited for"
    stage.session.finish()
    assert payload(take(stage, peer)) == begun


def test_a_client_that_vanishes_in_the_middle_of_a_frame_frees_the_others(stage: Stage) -> None:
    first = stage.client(send_bytes=1)
    stage.session.connect(stage.stdio)
    begun = stage.open_frame()
    second = stage.client()
    first.close()
    left = payload(take(stage, second))
    assert left
    assert begun.endswith(left)


def test_nothing_is_read_while_a_client_is_blocked(stage: Stage) -> None:
    stage.client(send_bytes=1)
    other = stage.client()
    stage.session.connect(stage.stdio)
    os.set_blocking(stage.out, False)
    written = 0
    for _ in range(100):
        try:
            written += os.write(stage.out, b"x" * 65_536)
        except BlockingIOError:
            break
        stage.step(2)
    assert written < 1 << 20
    assert len(payload(take(stage, other))) == 65_536


def test_input_of_a_vanished_client_is_delivered_before_its_end() -> None:
    stage = Stage(close_stdin=True)
    peer = stage.client(stdin=True)
    peer.send(b"last words")
    peer.close()
    stage.session.connect(stage.stdio)
    stage.step(5)
    assert os.read(stage.into, 100) == b"last words"
    assert os.read(stage.into, 100) == b""
    stage.close()


def test_input_waits_for_a_process_that_does_not_read(stage: Stage) -> None:
    first, second = stage.client(stdin=True), stage.client(stdin=True)
    stage.session.connect(stage.stdio)
    first.setblocking(True)
    for _ in range(3):
        first.send(b"1" * 60_000)
        stage.step(2)
    second.send(b"2")
    first.close()  # HUP must not spin the loop while its input waits
    stage.step(5)
    got = b""
    os.set_blocking(stage.into, False)
    while len(got) < 180_001:
        got += os.read(stage.into, 1 << 20)
        stage.step()
    assert got.count(b"1") == 180_000
    assert got.count(b"2") == 1


def test_clients_end_with_end_of_file_and_close_is_told_once(stage: Stage) -> None:
    peer = stage.client(stdin=True)
    stage.session.connect(stage.stdio)
    stage.session.drain(lambda: None)
    stage.session.finish()
    stage.step(2)
    assert peer.recv(1) == b""
    assert stage.events == []
    peer.send(b"unread input")
    peer.close()
    stage.step(3)
    assert stage.events == ["closed"]
    late = stage.client()
    late.setblocking(True)
    stage.step()
    assert late.recv(1) == b""
    late.close()
    stage.step(2)
    assert stage.events == ["closed"]


def test_a_client_that_does_not_close_is_dropped_after_its_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teu.shim.client.LINGER_S", 0.02)
    stage.client()
    stage.session.connect(stage.stdio)
    stage.session.drain(lambda: None)
    stage.session.finish()
    stage.loop.run_once()
    stage.step()
    assert stage.events == ["closed"]


def test_an_input_only_client_leaves_the_connection_open(stage: Stage) -> None:
    ours, theirs = socket.socketpair()
    shared = theirs.dup()
    stage.session.attach(theirs.detach(), {"stdin": True})
    stage.session.connect(stage.stdio)
    stage.session.drain(lambda: None)
    stage.session.finish()
    shared.send(b"rest of the log")
    assert ours.recv(100) == b"rest of the log"
    ours.close()
    shared.close()
