"""The client at a real pseudo-terminal: raw mode and back, window size, keys, progress."""

import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator

import pytest

from cliharness import Cli, FakeDaemon, Request

LIMIT_S = 10


class Terminal:
    """A pseudo-terminal with the client as its session's leader."""

    def __init__(self, cli: Cli, *words: str) -> None:
        self.output = b""
        self.master, self.slave = os.openpty()
        self.resize(33, 101)
        # setsid --ctty: the terminal becomes the controlling one, so that ^C and resizes signal.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", cli.program, *words], env=cli.environment, cwd=cli.folder,
            stdin=self.slave, stdout=self.slave, stderr=self.slave,
        )  # fmt: skip
        self.pid = self.process.pid

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def is_raw(self) -> bool:
        local = termios.tcgetattr(self.slave)[3]
        return not local & (termios.ICANON | termios.ECHO | termios.ISIG)

    def until(self, condition: Callable[[], bool]) -> None:
        """Reads the screen until `condition` holds. Raises: TimeoutError with the screen."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"on the screen: {self.output!r}")
            if select.select([self.master], [], [], 0.02)[0]:
                self.output += os.read(self.master, 1 << 16)

    def shows(self, text: bytes) -> None:
        self.until(lambda: text in self.output)

    def status(self) -> int:
        """Waits for the end; the exit status, or the negative number of the signal."""
        self.until(lambda: self.process.poll() is not None)
        while select.select([self.master], [], [], 0.05)[0]:
            self.output += os.read(self.master, 1 << 16)
        return int(self.process.returncode)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


Open = Callable[..., Terminal]


@pytest.fixture
def terminal(cli: Cli) -> Iterator[Open]:
    opened: list[Terminal] = []

    def open_one(*words: str) -> Terminal:
        opened.append(Terminal(cli, *words))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def typed(daemon: FakeDaemon) -> bytearray:
    """A container with a terminal: says READY, echoes what is typed; `q` makes it exit."""
    received = bytearray()

    def attach(request: Request) -> None:
        request.upgrade()
        request.sock.sendall(b"READY\r\n")
        while data := request.reader.read1(1 << 16):
            received.extend(data)
            if b"q" in data:
                break
            request.sock.sendall(b"<" + data + b">")
        request.sock.shutdown(socket.SHUT_RDWR)

    daemon.on(r"POST /(containers/.*/attach|exec/.*/start)", attach)
    config = {"Tty": True, "OpenStdin": True}
    state = {"Running": True, "Paused": False, "Restarting": False}
    info = {"Id": "x", "Config": config, "State": state, "HostConfig": {}}
    daemon.on(r"GET /containers/[^/]+/json", lambda r: r.reply(200, info))
    return received


def test_keys_go_through_as_they_are(terminal: Open, daemon: FakeDaemon, typed: bytearray) -> None:
    daemon.exit_code = 9
    screen = terminal("run", "-it", "x", "sh")
    screen.shows(b"READY")
    screen.until(screen.is_raw)
    screen.type(b"a\x03\x1a\r\x04")
    screen.shows(b"<a\x03\x1a\r\x04>")
    screen.type(b"q")
    assert screen.status() == 9
    assert bytes(typed) == b"a\x03\x1a\r\x04q"
    assert not screen.is_raw()


def test_window_size_is_handed_on(terminal: Open, daemon: FakeDaemon, typed: bytearray) -> None:
    screen = terminal("run", "-it", "x")
    first = daemon.wait_for(r"POST /containers/.*/resize")[0]
    assert first.query == {"h": ["33"], "w": ["101"]}
    created = daemon.matching(r"POST /containers/create")[0].json
    assert created["HostConfig"]["ConsoleSize"] == [33, 101]
    screen.resize(50, 200)
    second = daemon.wait_for(r"POST /containers/.*/resize", 2)[1]
    assert second.query == {"h": ["50"], "w": ["200"]}
    screen.type(b"q")
    assert screen.status() == 0


def test_exec_has_its_own_window_size(terminal: Open, daemon: FakeDaemon, typed: bytearray) -> None:
    screen = terminal("exec", "-it", "x", "sh")
    daemon.wait_for(r"POST /exec/.*/resize")
    start = daemon.matching(r"POST /exec/.*/start")[0].json
    assert start == {"Detach": False, "Tty": True, "ConsoleSize": [33, 101]}
    screen.until(screen.is_raw)
    screen.type(b"q")
    assert screen.status() == 0
    assert not screen.is_raw()


@pytest.mark.parametrize(
    ("flags", "keys", "passed"),
    [
        ([], b"a\x10b\x10\x11", b"a\x10b"),
        ([], b"\x10\x10\x11", b"\x10"),
        (["--detach-keys", "ctrl-x"], b"\x10\x11\x18", b"\x10\x11"),
        (["--detach-keys=a,b"], b"aab", b"a"),
    ],
)
def test_detach_keys(
    terminal: Open, daemon: FakeDaemon, typed: bytearray,
    flags: list[str], keys: bytes, passed: bytes,
) -> None:  # fmt: skip
    screen = terminal("run", "-it", *flags, "x")
    screen.shows(b"READY")
    screen.until(screen.is_raw)
    for position in range(len(keys)):
        screen.type(keys[position : position + 1])
    assert screen.status() == 0
    assert bytes(typed) == passed
    assert not screen.is_raw()
    if flags:
        query = daemon.matching(r"POST .*/attach")[0].query
        assert query["detachKeys"] == [flags[-1].removeprefix("--detach-keys=")]


def test_attach_says_that_it_detached(terminal: Open, typed: bytearray) -> None:
    screen = terminal("attach", "x")
    screen.shows(b"READY")
    screen.until(screen.is_raw)
    screen.type(b"\x10\x11")
    assert screen.status() == 1
    assert screen.output.endswith(b"read escape sequence\r\n")


def test_start_attached(terminal: Open, typed: bytearray, daemon: FakeDaemon) -> None:
    daemon.exit_code = 3
    screen = terminal("start", "-ai", "x")
    screen.shows(b"READY")
    screen.type(b"q")
    assert screen.status() == 3
    assert bytes(typed) == b"q"


@pytest.mark.parametrize("name", ["TERM", "HUP", "INT", "QUIT"])
def test_terminal_is_given_back_when_a_signal_kills(
    terminal: Open, typed: bytearray, name: str
) -> None:
    number = signal.Signals[f"SIG{name}"]
    screen = terminal("run", "-it", "--sig-proxy=false", "x")
    screen.shows(b"READY")
    screen.until(screen.is_raw)
    os.kill(screen.pid, number)
    assert screen.status() == -number
    assert not screen.is_raw()


def test_signals_are_proxied_with_a_terminal_too(
    terminal: Open, typed: bytearray, daemon: FakeDaemon
) -> None:
    screen = terminal("run", "-it", "x")
    screen.shows(b"READY")
    os.kill(screen.pid, signal.SIGTERM)
    assert daemon.wait_for(r"POST .*/kill")[0].query == {"signal": ["TERM"]}
    screen.type(b"q")
    assert screen.status() == 0


def test_terminal_is_given_back_when_the_start_fails(
    terminal: Open, typed: bytearray, daemon: FakeDaemon
) -> None:
    daemon.on(r"POST .*/start", lambda r: r.reply(500, {"message": "no permission denied"}))
    screen = terminal("run", "-it", "x")
    assert screen.status() == 126
    assert b"no permission denied\r\n" in screen.output
    assert not screen.is_raw()


def test_terminal_is_given_back_when_the_daemon_goes_away(
    terminal: Open, daemon: FakeDaemon
) -> None:
    def attach(request: Request) -> None:
        request.upgrade()
        daemon.wait_for(r".*/resize")
        request.sock.shutdown(socket.SHUT_RDWR)

    def wait(request: Request) -> None:
        request.sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        daemon.wait_for(r".*/resize")
        request.sock.shutdown(socket.SHUT_RDWR)

    daemon.on(r"POST .*/attach", attach)
    daemon.on(r"POST .*/wait", wait)
    screen = terminal("run", "-it", "x")
    assert screen.status() == 125
    assert b"Traceback" not in screen.output
    assert not screen.is_raw()


@pytest.mark.parametrize(
    "words", [["run", "-it", "x"], ["exec", "-it", "x", "sh"], ["attach", "x"]]
)
def test_input_must_be_a_terminal(cli: Cli, typed: bytearray, words: list[str]) -> None:
    done = cli(*words)
    assert done.returncode == 1
    assert done.stderr.decode().strip() == "the input device is not a TTY"


def test_pull_redraws_its_lines(terminal: Open, daemon: FakeDaemon) -> None:
    lines = [
        '{"status":"Pulling from library/x","id":"latest"}',
        '{"status":"Pulling fs layer","progressDetail":{},"id":"aa"}',
        '{"status":"Pulling fs layer","progressDetail":{},"id":"bb"}',
        '{"status":"Downloading","progressDetail":{"current":50,"total":100},"id":"aa"}',
        '{"status":"Pull complete","progressDetail":{},"id":"aa"}',
        '{"status":"Status: Downloaded newer image for x:latest"}',
    ]
    body = "\r\n".join(lines).encode()
    daemon.on(r"POST /images/create", lambda r: r.reply(200, body))
    screen = terminal("pull", "x")
    assert screen.status() == 0
    text = screen.output.decode()
    assert "latest: Pulling from library/x\r\n\r\n\x1b[1A\x1b[2K\raa: Pulling fs layer " in text
    assert "\x1b[2A\x1b[2K\raa: Downloading      50B/100B" in text
    assert text.endswith("docker.io/library/x:latest\r\n")


def test_pull_without_a_terminal_prints_changes_only(cli: Cli, daemon: FakeDaemon) -> None:
    body = (
        b'{"status":"Pulling fs layer","progressDetail":{},"id":"aa"}\r\n'
        b'{"status":"Downloading","progressDetail":{"current":50,"total":100},"id":"aa"}\r\n'
        b'{"status":"Pull complete","progressDetail":{},"id":"aa"}\r\n'
        b'{"errorDetail":{"message":"disk is full"},"error":"disk is full"}\r\n'
    )
    daemon.on(r"POST /images/create", lambda r: r.reply(200, body))
    done = cli("pull", "x:1")
    assert done.returncode == 1
    assert done.stdout.decode().splitlines() == ["aa: Pulling fs layer", "aa: Pull complete"]
    assert done.stderr == b"disk is full\n"
