"""`logs` requests on files: order, tail, rotation, following, clients that go."""

import contextlib
import gzip
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from teu.shim.logfile import LogFile, compress
from teu.shim.logsource import LogFiles
from teu.shim.reader import LogReader

LIMIT_S = 10.0


def line(text: str, at_s: int = 0, stream: str = "stdout") -> bytes:
    stamp = f"2024-01-01T00:{at_s // 60:02}:{at_s % 60:02}.000000000Z"
    entry = {"log": text, "stream": stream, "time": stamp}
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def lines(numbers: range) -> bytes:
    return b"".join(line(f"{number}\n", number) for number in numbers)


def numbers(text: bytes) -> list[int]:
    return [int(word) for word in text.split()]


@contextlib.contextmanager
def reading(path: Path, **request: Any) -> Iterator[socket.socket]:
    """A reader in a thread; yields the client's end."""
    ours, theirs = socket.socketpair()
    request = {"path": str(path), "tail": -1, "multiplexed": False, **request}
    thread = threading.Thread(target=LogReader(request, [theirs.detach()]).run)
    thread.start()
    ours.settimeout(LIMIT_S)
    with ours:
        yield ours
    thread.join(LIMIT_S)
    assert not thread.is_alive(), "the reader did not end after its client had gone"


def to_end(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(1 << 16), b""))


def read(path: Path, **request: Any) -> bytes:
    with reading(path, **request) as client:
        return to_end(client)


def receive(client: socket.socket, expected: bytes) -> None:
    got = b""
    while len(got) < len(expected):
        got += client.recv(1 << 16)
    assert got == expected


@pytest.fixture
def rotated(tmp_path: Path) -> Path:
    """Lines 0 to 29 over three files, the oldest compressed."""
    path = tmp_path / "log"
    (tmp_path / "log.2.gz").write_bytes(gzip.compress(lines(range(10))))
    (tmp_path / "log.1").write_bytes(lines(range(10, 20)))
    path.write_bytes(lines(range(20, 30)))
    (tmp_path / "log.3.gz.tmp").write_bytes(b"half a file")
    (tmp_path / "logs").write_bytes(lines(range(90, 99)))
    return path


def test_all_files_in_order(rotated: Path) -> None:
    assert numbers(read(rotated)) == list(range(30))


@pytest.mark.parametrize("tail", [0, 1, 9, 10, 11, 20, 25, 30, 31, 1000])
def test_tail_reaches_back_over_files(rotated: Path, tail: int) -> None:
    assert numbers(read(rotated, tail=tail)) == list(range(max(0, 30 - tail), 30))


def test_tail_of_a_file_with_long_and_many_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    block = b"".join(line(f"{number} {'x' * (number % 7 * 20_000)}\n") for number in range(60))
    path.write_bytes(block)
    for tail in (1, 2, 3, 30, 59, 60):
        got = read(path, tail=tail)
        assert [int(text.split()[0]) for text in got.splitlines()] == list(range(60 - tail, 60))


def test_tail_of_a_big_file_reads_only_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open(path, "wb") as file:
        file.truncate(1 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + lines(range(100)))
    start = time.monotonic()
    assert numbers(read(path, tail=10)) == list(range(90, 100))
    assert time.monotonic() - start < 1.0


def test_since_and_until(rotated: Path) -> None:
    base = 1_704_067_200_000_000_000
    got = read(rotated, since_ns=base + 5 * 10**9, until_ns=base + 22 * 10**9)
    assert numbers(got) == list(range(5, 23))


def test_a_plain_file_wins_while_it_is_being_compressed(rotated: Path) -> None:
    (rotated.parent / "log.1.gz").write_bytes(gzip.compress(lines(range(10, 20))))
    assert numbers(read(rotated)) == list(range(30))


def test_an_unfinished_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(lines(range(3)) + b'{"log":"torn')
    assert numbers(read(path)) == [0, 1, 2]


def test_no_file_is_no_output(tmp_path: Path) -> None:
    assert read(tmp_path / "log") == b""


def test_an_unreadable_log_says_so_in_band(tmp_path: Path) -> None:
    (tmp_path / "log.1.gz").write_bytes(b"this is not gzip")
    (tmp_path / "log").write_bytes(b"")
    assert read(tmp_path / "log").startswith(b"Error grabbing logs: ")


def test_chunked_framing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line("hello\n"))
    assert read(path, http_chunked=True) == b"6\r\nhello\n\r\n0\r\n\r\n"


# Following.


def test_follow_until_the_exit_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogFile({"path": str(path)}, pytest.fail)
    log.write(1, b"one\n")
    with reading(path, follow=True, exit_directory=str(tmp_path)) as client:
        receive(client, b"one\n")
        log.write(1, b"two\nhal")
        receive(client, b"two\n")
        log.write(1, b"f\nlast")
        receive(client, b"half\n")
        log.close()
        (tmp_path / ".exit.json.tmp").touch()
        (tmp_path / ".exit.json.tmp").rename(tmp_path / "exit.json")
        assert to_end(client) == b"last"


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("max_file", [2, 5])
def test_follow_over_rotation(tmp_path: Path, compress: bool, max_file: int) -> None:
    path = tmp_path / "log"
    options = {"path": str(path), "max_size": 2000, "max_file": max_file, "compress": compress}
    log = LogFile(options, pytest.fail)
    log.write(1, b"start\n")
    with reading(path, follow=True, exit_directory=str(tmp_path)) as client:
        receive(client, b"start\n")
        for number in range(300):  # about 12 rotations, each seen before the next
            log.write(1, b"%d\n" % number)
            receive(client, b"%d\n" % number)
        log.close()
        (tmp_path / "exit.json").touch()
        assert to_end(client) == b""


def test_follow_catches_up_over_several_rotations_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogFile({"path": str(path), "max_size": 1000, "max_file": 9}, pytest.fail)
    log.write(1, b"0\n")
    with reading(path, follow=True, exit_directory=str(tmp_path)) as client:
        receive(client, b"0\n")
        log.write(1, b"".join(b"%d\n" % number for number in range(1, 60)))
        log.close()
        (tmp_path / "exit.json").touch()
        assert numbers(to_end(client)) == list(range(1, 60))


def test_follow_a_log_that_is_emptied_in_place(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogFile({"path": str(path), "max_size": 500, "max_file": 1}, pytest.fail)
    log.write(1, b"start\n")
    with reading(path, follow=True, exit_directory=str(tmp_path)) as client:
        receive(client, b"start\n")
        for number in range(40):
            log.write(1, b"%d\n" % number)
            receive(client, b"%d\n" % number)
    log.close()


def test_follow_with_tail_zero_gives_only_what_is_new(rotated: Path) -> None:
    (rotated.parent / "gone").mkdir()
    with reading(rotated, follow=True, tail=0, exit_directory=str(rotated.parent)) as client:
        deadline = time.monotonic() + LIMIT_S
        with open(rotated, "ab") as file:
            got = b""
            while not got:  # until the reader has looked, what is appended may still count as old
                assert time.monotonic() < deadline
                file.write(line("new\n"))
                file.flush()
                client.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    got = client.recv(1 << 16)
        assert set(got.split()) == {b"new"}


def test_follow_a_log_that_does_not_exist_yet(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with reading(path, follow=True, exit_directory=str(tmp_path)) as client:
        log = LogFile({"path": str(path)}, pytest.fail)
        log.write(1, b"hello\n")
        receive(client, b"hello\n")
        log.close()


def test_follow_of_a_stopped_container_ends_at_once(rotated: Path) -> None:
    (rotated.parent / "exit.json").touch()
    got = read(rotated, follow=True, exit_directory=str(rotated.parent))
    assert numbers(got) == list(range(30))


def test_follow_ends_when_the_container_is_removed(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    path = tmp_path / "log"
    path.write_bytes(lines(range(2)))
    with reading(path, follow=True, exit_directory=str(directory)) as client:
        receive(client, b"0\n1\n")
        directory.rmdir()
        assert to_end(client) == b""


def test_follow_ends_at_until(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(lines(range(2)))
    until_ns = time.time_ns() + 50_000_000
    with reading(path, follow=True, until_ns=until_ns, exit_directory=str(tmp_path)) as client:
        assert numbers(to_end(client)) == [0, 1]
    assert time.time_ns() >= until_ns


def test_a_follower_ends_when_its_client_goes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(lines(range(2)))
    with reading(path, follow=True, exit_directory=str(tmp_path)) as client:
        receive(client, b"0\n1\n")


def test_a_file_that_is_compressed_while_it_is_looked_for(tmp_path: Path) -> None:
    """Between listing and opening PATH.1 becomes PATH.1.gz: it is looked for again."""
    log = tmp_path / "log"
    log.write_bytes(b"new\n")
    rotated = tmp_path / "log.1"
    rotated.write_bytes(b"old\n")
    files = LogFiles(str(log))
    listed = os.listdir

    def compressed_then_listed(directory: str) -> list[str]:
        names = listed(directory)
        if rotated.exists():
            compress(str(rotated))
        return names

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "listdir", compressed_then_listed)
        parts = files.open_all()
    assert [b"".join(part.blocks()) for part in parts] == [b"old\n", b"new\n"]
    for part in parts:
        part.close()
