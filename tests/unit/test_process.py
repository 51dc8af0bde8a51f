"""Starting programs: output, input, deadlines, cancels, descriptors; on asyncio and on uvloop."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from teu.sys import process
from teu.sys.process import (
    CommandFailed,
    CommandNotStarted,
    CommandTimedOut,
    Completed,
    run,
    spawn_daemon_child,
)

Runner = Callable[[Callable[[], Awaitable[Any]]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def on_loop(request: pytest.FixtureRequest) -> Runner:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    factory().close()  # the first loop of a process opens descriptors for good

    def execute(work: Callable[[], Awaitable[Any]]) -> Any:
        before = _open_fds()
        with asyncio.Runner(loop_factory=factory) as runner:

            async def main() -> Any:
                return await work()

            result = runner.run(main())
        assert _open_fds() == before
        return result

    return execute


def _open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def sh(script: str, **options: Any) -> Awaitable[Completed]:
    return run(["/bin/sh", "-c", script], timeout_s=10, **options)


def test_output_and_status(on_loop: Runner) -> None:
    done = on_loop(lambda: sh("echo out; echo err >&2; exit 3", check=False))
    assert done == Completed(3, b"out\n", b"err\n")


def test_input_larger_than_a_pipe_comes_back(on_loop: Runner) -> None:
    data = os.urandom(1 << 20)
    done = on_loop(lambda: run(["cat"], timeout_s=10, stdin=data))
    assert done.stdout == data


def test_no_input_is_end_of_file(on_loop: Runner) -> None:
    assert on_loop(lambda: run(["cat"], timeout_s=10)).stdout == b""


def test_program_that_does_not_read_its_input(on_loop: Runner) -> None:
    assert on_loop(lambda: run(["true"], timeout_s=10, stdin=b"x" * (1 << 20))).returncode == 0


def test_minimal_environment_and_default_signals(on_loop: Runner) -> None:
    done = on_loop(lambda: sh("env; grep SigIgn /proc/self/status"))
    lines = done.stdout.decode().splitlines()
    assert not any(line.startswith(("HOME=", "USER=")) for line in lines)
    assert any(line.startswith("PATH=/usr/local/sbin") for line in lines)
    assert int(lines[-1].split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0


def test_failure_names_command_and_words(on_loop: Runner) -> None:
    with pytest.raises(CommandFailed) as caught:
        on_loop(lambda: sh("echo 'it broke' >&2; exit 7"))
    assert caught.value.completed.returncode == 7
    assert "exit status 7: it broke" in caught.value.message
    assert "/bin/sh -c" in caught.value.message


def test_death_by_signal_is_named(on_loop: Runner) -> None:
    with pytest.raises(CommandFailed, match="was killed by SIGKILL"):
        on_loop(lambda: sh("kill -9 $$"))


@pytest.mark.parametrize("argv", [["/no/such/program", "x"], ["no-such-program-on-the-path"]])
def test_missing_program(on_loop: Runner, argv: list[str]) -> None:
    with pytest.raises(CommandNotStarted, match="No such file or directory"):
        on_loop(lambda: run(argv, timeout_s=1))


def test_not_executable(on_loop: Runner, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    with pytest.raises(CommandNotStarted, match="Permission denied"):
        on_loop(lambda: run([str(tmp_path / "plain")], timeout_s=1))


def test_deadline_kills(on_loop: Runner, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    with pytest.raises(CommandTimedOut, match=r"did not end within 0\.2 s"):
        on_loop(lambda: run(["sh", "-c", f"echo $$ > {pidfile}; exec sleep 60"], timeout_s=0.2))
    assert _gone(int(pidfile.read_text()))


def test_deadline_kills_what_ignores_term_and_its_children(
    on_loop: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "TERM_LIMIT_S", 0.1)
    pidfile = tmp_path / "pid"
    script = f"trap '' TERM; sleep 60 & echo $! > {pidfile}; wait; wait"
    with pytest.raises(CommandTimedOut):
        on_loop(lambda: run(["sh", "-c", script], timeout_s=0.3))
    child = int(pidfile.read_text())
    _wait_for(lambda: _is_zombie_or_gone(child), "the grandchild was not killed")


def _is_zombie_or_gone(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True


def test_cancel_kills_waits_and_goes_on(on_loop: Runner, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"

    async def work() -> int:
        task = asyncio.ensure_future(sh(f"echo $$ > {pidfile}; exec sleep 60"))
        deadline = time.monotonic() + 5
        while not (pidfile.exists() and pidfile.read_text().endswith("\n")):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)
        task.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return int(pidfile.read_text())

    assert _gone(on_loop(work))


def test_a_daemon_left_behind_is_not_waited_for(on_loop: Runner) -> None:
    started = time.monotonic()
    done = on_loop(lambda: sh("echo first; sleep 30 & echo $!"))
    assert time.monotonic() - started < 5
    first, pid = done.stdout.split()
    os.kill(int(pid), signal.SIGKILL)
    assert first == b"first"


def test_endless_output_is_stopped(on_loop: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "OUTPUT_LIMIT_BYTES", 1 << 20)
    with pytest.raises(process.SystemFailure, match="printed more than 1 MiB"):
        on_loop(lambda: run(["cat", "/dev/zero"], timeout_s=10))


def test_only_named_descriptors_are_inherited(on_loop: Runner, tmp_path: Path) -> None:
    kept = os.open(tmp_path, os.O_RDONLY)
    leaky = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(leaky, True)
    try:
        done = on_loop(lambda: sh("ls /proc/$$/fd", pass_fds=[kept]))
    finally:
        os.close(kept)
        os.close(leaky)
    numbers = {int(word) for word in done.stdout.split()}
    assert kept in numbers
    assert leaky not in numbers


def test_many_at_once(on_loop: Runner) -> None:
    async def work() -> list[Completed]:
        return await asyncio.gather(*(sh(f"echo {n}") for n in range(20)))

    results = on_loop(work)
    assert [int(done.stdout) for done in results] == list(range(20))


def test_daemon_child_gets_descriptors_and_is_waited_for(on_loop: Runner) -> None:
    async def work() -> tuple[bytes, int, int]:
        reader, writer = os.pipe()
        program = f"import os; os.write({writer}, b'%d' % os.getsid(0)); raise SystemExit(5)"
        child = spawn_daemon_child([sys.executable, "-ISc", program], pass_fds=[writer])
        os.close(writer)
        codes = await asyncio.gather(child.wait(), child.wait())
        said = os.read(reader, 100)
        os.close(reader)
        assert codes[0] == codes[1] == child.returncode == await child.wait()
        return said, child.pid, codes[0]

    said, pid, code = on_loop(work)
    assert int(said) == pid  # a session of its own
    assert code == 5


def test_daemon_child_can_be_stopped(on_loop: Runner) -> None:
    async def work() -> int:
        child = spawn_daemon_child(["sleep", "60"])
        code = await child.stop()
        child.signal_group(signal.SIGTERM)  # after the end: nothing happens
        return code

    assert on_loop(work) == -signal.SIGTERM


def test_daemon_child_missing() -> None:
    with pytest.raises(CommandNotStarted):
        spawn_daemon_child(["/no/such/program"])


def test_long_arguments_are_cut_in_messages() -> None:
    assert len(process.shown(["echo", "x" * 5000])) < 300
