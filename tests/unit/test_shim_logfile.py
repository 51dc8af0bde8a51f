"""The log writer's files: rotation, compression, a failing disk."""

import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from teu.shim.logfile import LogFile, compress


def open_log(path: Path, errors: list[str] | None = None, **options: Any) -> LogFile:
    return LogFile({"path": str(path), **options}, (errors if errors is not None else []).append)


def texts(data: bytes) -> list[str]:
    return [json.loads(line)["log"] for line in data.splitlines()]


def content(path: Path) -> str:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return "".join(texts(data))


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.005)


def test_appends_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for part in (b"one\n", b"two"):
        log = open_log(path)
        log.write(1, part)
        log.close()
    assert content(path) == "one\ntwo"
    assert path.stat().st_mode & 0o777 == 0o640


def test_streams_keep_their_own_unfinished_lines(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log")
    for kind, part in ((1, b"out"), (2, b"err"), (1, b"put\n"), (2, b"or\n")):
        log.write(kind, part)
    log.close()
    assert texts((tmp_path / "log").read_bytes()) == ["output\n", "error\n"]


def test_rotation_keeps_the_newest_files_and_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = open_log(path, max_size=1000, max_file=3)
    text = "".join(f"line {number:05}\n" for number in range(100))
    log.write(1, text.encode())
    log.close()
    names = sorted(os.listdir(tmp_path))
    assert names == ["log", "log.1", "log.2"]
    kept = content(tmp_path / "log.2") + content(tmp_path / "log.1") + content(path)
    assert text.endswith(kept)
    for old in ("log.1", "log.2"):
        assert 1000 <= (tmp_path / old).stat().st_size < 1100


def test_one_file_is_emptied_in_place(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = open_log(path, max_size=500, max_file=1)
    inode = path.stat().st_ino
    for number in range(50):
        log.write(1, b"%d\n" % number)
    log.close()
    assert os.listdir(tmp_path) == ["log"]
    assert path.stat().st_ino == inode
    assert content(path).endswith("49\n")
    assert path.stat().st_size < 600


def test_rotated_files_are_compressed_and_keep_their_time(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = open_log(path, max_size=300, max_file=3, compress=True)
    for number in range(20):
        log.write(1, b"%04d\n" % number)
    log.close()
    wait_for(tmp_path / "log.1.gz")
    wait_for(tmp_path / "log.2.gz")
    kept = "".join(content(tmp_path / name) for name in ("log.2.gz", "log.1.gz", "log"))
    assert kept.endswith("0019\n")
    assert [int(number) for number in kept.split()] == list(range(20 - len(kept.split()), 20))


def test_compress_keeps_the_modification_time(tmp_path: Path) -> None:
    path = tmp_path / "log.1"
    path.write_bytes(b"data" * 1000)
    os.utime(path, ns=(1, 1_700_000_000_123_456_789))
    compress(str(path))
    assert os.listdir(tmp_path) == ["log.1.gz"]
    assert (tmp_path / "log.1.gz").stat().st_mtime_ns == 1_700_000_000_123_456_789


def test_a_full_disk_drops_output_says_so_once_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    errors: list[str] = []
    log = open_log(path, errors)
    log.write(1, b"before\n")
    write = os.write

    def full(fd: int, data: Any) -> int:
        if len(data) > 10:
            return write(fd, data[:10])  # first a part, then nothing
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        log.write(1, b"x" * 40 + b"\n")
        patch.setattr(os, "write", lambda fd, data: full(fd, b""))
        log.write(1, b"lost too\n")
    log.write(1, b"after\n")
    log.close()
    assert content(path) == "before\nafter\n"
    assert len(errors) == 1
    assert "No space left on device" in errors[0]


def test_a_rotation_that_fails_is_tried_again(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    errors: list[str] = []
    log = open_log(directory / "log", errors, max_size=100, max_file=2)
    log.write(1, b"a" * 60 + b"\n")
    moved = directory.rename(tmp_path / "elsewhere")
    log.write(1, b"lost\n")
    moved.rename(directory)
    log.write(1, b"kept\n")
    log.close()
    assert len(errors) == 1
    assert content(directory / "log") == "kept\n"


def test_a_log_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_log(tmp_path / "nowhere" / "log")
