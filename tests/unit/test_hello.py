"""The program of the built-in hello-world image: what it prints, and that its source builds it."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

import teu.image.hello

HOME = Path(teu.image.hello.__file__).parent
PROGRAM = HOME / "hello"
BINUTILS = "2.40"  # built the committed bytes; a newer linker may lay out the file differently

needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is for x86-64")


def binutils_version() -> str:
    answer = subprocess.run(["ld", "--version"], capture_output=True, text=True, check=True)
    return answer.stdout.splitlines()[0].rpartition(" ")[2]


@needs_x86
def test_prints_the_message_and_exits_zero() -> None:
    done = subprocess.run([PROGRAM], capture_output=True, env={}, check=True, timeout=5)
    assert done.stdout == (HOME / "message.txt").read_bytes()
    assert done.stderr == b""


@needs_x86
def test_fails_when_the_output_cannot_be_written() -> None:
    with open("/dev/full", "wb") as full:
        assert subprocess.run([PROGRAM], stdout=full, check=False, timeout=5).returncode == 1


@needs_x86
def test_writes_everything_to_a_pipe_that_takes_little_at_a_time() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, True)
    with subprocess.Popen([PROGRAM], stdout=writing) as process:
        os.close(writing)
        with open(reading, "rb", buffering=0) as stream:
            text = b"".join(iter(lambda: stream.read(7), b""))
        assert process.wait(timeout=5) == 0
    assert text == (HOME / "message.txt").read_bytes()


def test_message_says_what_people_look_for() -> None:
    text = (HOME / "message.txt").read_text()
    assert "Hello from teu!" in text
    assert "This message shows that your installation appears to be working correctly." in text
    assert max(map(len, text.splitlines())) <= 80


def test_is_a_small_static_program_that_anybody_may_run() -> None:
    assert PROGRAM.stat().st_size < 4096
    assert PROGRAM.stat().st_mode & 0o777 == 0o755
    assert b"ld-linux" not in PROGRAM.read_bytes()


@pytest.mark.skipif(not shutil.which("ld"), reason="no binutils here")
def test_rebuilding_gives_the_committed_bytes(tmp_path: Path) -> None:
    if platform.machine() != "x86_64" or not binutils_version().startswith(BINUTILS):
        pytest.skip(f"only binutils {BINUTILS} on x86-64 must reproduce the bytes")
    subprocess.run(["make", "-s", "-C", HOME, f"OUT={tmp_path}"], check=True, timeout=60)
    assert (tmp_path / "hello").read_bytes() == PROGRAM.read_bytes()
