"""Logs that rotate while they are read: no line is lost, none comes twice."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from harness.clients import Cli
from harness.engine import KIND, Engine
from harness.names import Names
from harness.waiting import until

COUNT = 30_000
ours_only = pytest.mark.skipif(KIND != "teu", reason="the peer loses lines here")


def options(size: str, files: int, compress: bool) -> list[str]:
    words = [f"max-size={size}", f"max-file={files}", f"compress={str(compress).lower()}"]
    return [part for word in words for part in ("--log-opt", word)]


def numbers(text: bytes) -> list[int]:
    return [int(line) for line in text.split()]


def follow(cli: Cli, name: str) -> "subprocess.Popen[bytes]":
    return cli.spawn("logs", "-f", name)


@ours_only
@pytest.mark.parametrize("compress", [False, True])
def test_followed_and_read_while_it_rotates(engine: Engine, names: Names, compress: bool) -> None:
    """A followed log that rotates every 2000 lines, and reads of the whole of it meanwhile."""
    cli, name = engine.cli("teu"), names("a")
    command = ["busybox", "sh", "-c", f"seq 1 {COUNT // 2}; sleep 1; seq {COUNT // 2 + 1} {COUNT}"]
    cli.ok("run", "-d", "--name", name, *options("150k", 100, compress), *command)
    with follow(cli, name) as follower:
        assert follower.stdout is not None
        while True:
            ended = engine.api.state(name)["Status"] == "exited"
            read = numbers(cli.run("logs", name).out.encode())
            assert read == list(range(1, len(read) + 1))
            if ended:
                break
        assert numbers(follower.stdout.read()) == list(range(1, COUNT + 1))
        assert follower.wait(20) == 0
    assert len(read) == COUNT
    for tail in (1, 1999, 2500, 20_000):
        got = numbers(cli.ok("logs", "--tail", str(tail), name).encode())
        assert got == list(range(COUNT - tail + 1, COUNT + 1))
    log = Path(engine.api.inspect(name)["LogPath"])
    rotated = sorted(path.name for path in log.parent.glob(f"{log.name}*"))
    assert len(rotated) > 10
    if compress:
        until("all are compressed", lambda: not list(log.parent.glob(f"{log.name}.*[0-9]")))


def test_the_oldest_lines_go(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("a")
    cli.ok("run", "--name", name, *options("100k", 2, False), "busybox", "seq", "1", str(COUNT))
    read = numbers(cli.ok("logs", name).encode())
    assert read == list(range(read[0], COUNT + 1))
    assert 0 < len(read) < COUNT
    log = Path(engine.api.inspect(name)["LogPath"])
    sizes = [path.stat().st_size for path in log.parent.glob(f"{log.name}*")]
    assert len(sizes) == 2
    assert max(sizes) < 200_000


@ours_only
def test_the_end_of_a_large_log_comes_at_once(engine: Engine, names: Names) -> None:
    """1 GiB, most of it a hole: what is read of it would take seconds."""
    cli, name = engine.cli("teu"), names("a")
    cli.ok("run", "--name", name, "--log-opt", "max-size=4g", "busybox", "seq", "1", "100")
    log = Path(engine.api.inspect(name)["LogPath"])
    lines = log.read_bytes()
    with log.open("r+b") as file:
        file.seek(1 << 30)
        file.write(b"\n" + lines)
    began = time.monotonic()
    assert numbers(cli.ok("logs", "--tail", "3", name).encode()) == [98, 99, 100]
    assert time.monotonic() - began < 1
    os.truncate(log, 0)


def test_a_log_that_is_copied_on_for_a_server(cli: Cli, engine: Engine, names: Names) -> None:
    """The copy of a remote driver rotates too: 5 compressed files of 20 MiB, or as asked."""
    name = names("a")
    address = ["--log-driver", "syslog", "--log-opt", "syslog-address=udp://127.0.0.1:9"]
    small = ["--log-opt", "cache-max-size=50k", "--log-opt", "cache-max-file=2"]
    cli.ok("run", "--name", name, *address, *small, "busybox", "seq", "1", "5000")
    read = numbers(cli.ok("logs", name).encode())
    assert read == list(range(read[0], 5001))
    if engine.kind == "teu":  # the peer's copy has more in a file
        assert len(read) < 5000
