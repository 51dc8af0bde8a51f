"""Whatever is killed, nothing is lost: daemon, zygote, shim."""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from harness.shims import Box, alive, client, eventually, run
from harness.waiting import until
from teu.errors import Conflict, DeadlineExceeded
from teu.runtime.logs import LogRequest
from teu.runtime.orphan import LOST
from teu.runtime.shim import ExitStatus, LaunchSpec, Shim, ShimService

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path)
    yield box
    box.close()


class Daemon:
    """harness.shim_daemon in a process of its own."""

    def __init__(self, step: str, spec: LaunchSpec) -> None:
        path = spec.directory / "spec.json"
        path.write_bytes(msgspec.json.encode(spec, enc_hook=str))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harness.shim_daemon", step, str(path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )

    def said(self, word: str) -> str:
        """The next line that starts with `word`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(word):
                return line.strip()
        raise AssertionError(f"the daemon ended without {word!r}")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)


async def finished(shim: Shim) -> ExitStatus:
    async with asyncio.timeout(20):
        return await shim.wait()


async def adopted(service: ShimService, spec: LaunchSpec) -> Shim:
    found = await service.adopt(spec.directory)
    assert isinstance(found, Shim), found
    return found


# The daemon.


def test_a_running_container_is_adopted_with_its_log_and_input(box: Box) -> None:
    spec = box.spec(["echo before; cat; exit 8"], open_stdin=True, stdin_once=True)
    daemon = Daemon("launch", spec)
    pid = int(daemon.said("launched").split()[1])
    daemon.kill()

    async def scenario(service: ShimService) -> None:
        recorded: list[int] = []
        found = await service.adopt(
            spec.directory, on_exit=lambda status: recorded.append(status.exit_code)
        )
        assert isinstance(found, Shim)
        assert (found.pid, found.id) == (pid, spec.id)
        peer, attached = client(stdin=True)
        await found.attach(attached)
        await peer.send(b"after\n")
        peer.half_close()
        assert await peer.to_end() == b"after\n"
        assert recorded == [8]
        assert (await finished(found)).exit_code == 8
        assert box.logged(spec.id) == "before\nafter\n"
        peer.close()

    run(box, scenario)


def test_an_end_without_a_daemon_is_on_disk(box: Box) -> None:
    spec = box.spec(["sleep 0.3; echo unseen; exit 6"])
    daemon = Daemon("launch", spec)
    daemon.said("launched")
    daemon.kill()
    until("the exit is recorded", (spec.directory / "exit.json").exists)

    async def scenario(service: ShimService) -> None:
        status = await service.adopt(spec.directory)
        assert isinstance(status, ExitStatus)
        assert (status.exit_code, status.error) == (6, "")
        assert box.logged(spec.id) == "unseen\n"

    run(box, scenario)


def test_a_daemon_that_dies_instead_of_acknowledging(box: Box) -> None:
    spec = box.spec(["sleep 0.2; exit 3"])
    daemon = Daemon("unhearing", spec)
    daemon.said("exit 3")
    shim_pid = box.shim_pid(spec.id)
    daemon.kill()
    until("the shim goes on to its end", lambda: not alive(shim_pid))

    async def scenario(service: ShimService) -> None:
        status = await service.adopt(spec.directory)
        assert isinstance(status, ExitStatus)
        assert status.exit_code == 3

    run(box, scenario)


def slow_runtime(box: Box) -> str:
    """crun after a moment, so that the daemon can be killed in the middle of a start."""
    path = box.base / "slow-crun"
    path.write_text('#!/bin/sh\ntouch "$0.runs"\nsleep 0.5\nexec crun "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_a_start_is_completed_after_its_daemon_died(box: Box) -> None:
    spec = box.spec(["echo up; sleep 1000"])
    spec.runtime[0] = slow_runtime(box)
    daemon = Daemon("launch", spec)
    until("the runtime runs", (box.base / "slow-crun.runs").exists)
    daemon.kill()

    async def scenario(service: ShimService) -> None:
        found = await adopted(service, spec)  # waits for the end of the start
        assert alive(found.pid)
        assert found.started_ns > 0
        await eventually("its output is logged", lambda: box.logged(spec.id) == "up\n")
        os.kill(found.pid, signal.SIGKILL)
        assert (await finished(found)).exit_code == 137

    run(box, scenario)


def test_a_start_that_fails_after_its_daemon_died_leaves_nothing(box: Box) -> None:
    spec = box.spec(["nope"])
    spec.runtime[0] = slow_runtime(box)
    daemon = Daemon("launch", spec)
    until("the runtime runs", (box.base / "slow-crun.runs").exists)
    daemon.kill()

    async def scenario(service: ShimService) -> None:
        assert await service.adopt(spec.directory) is None
        assert set(os.listdir(spec.directory)) == {"config.json", "spec.json", "log"}

    run(box, scenario)


@pytest.mark.parametrize("seed", range(6))
def test_a_daemon_killed_at_any_moment_of_a_launch(box: Box, seed: int) -> None:
    delay_s = random.Random(seed).uniform(0, 0.03)
    spec = box.spec(["echo up; sleep 1000"])
    daemon = Daemon("launch", spec)
    daemon.said("forked")
    time.sleep(delay_s)  # the moment is what is tested
    daemon.kill()

    async def scenario(service: ShimService) -> None:
        found = None
        for _ in range(50):  # the shim may not listen yet; a daemon takes longer to start again
            found = await service.adopt(spec.directory)
            if found is not None:
                break
            await asyncio.sleep(0.01)
        if found is None:
            assert not (spec.directory / "state.json").exists()
            return
        assert isinstance(found, Shim)
        os.kill(found.pid, signal.SIGKILL)
        assert (await finished(found)).exit_code == 137

    run(box, scenario)


def test_an_exec_is_found_again_running_and_ended(box: Box) -> None:
    spec = box.spec(["sleep", "1000"])
    first = Daemon("launch", spec)
    first.said("launched")
    first.kill()
    second = Daemon("exec", spec)
    pid = int(second.said("exec").split()[1])
    second.kill()

    async def scenario(service: ShimService) -> None:
        found = await adopted(service, spec)
        process = found.execs["late"]
        assert process.pid == pid
        assert await process.wait() == 9
        os.kill(found.pid, signal.SIGKILL)
        await finished(found)

    run(box, scenario)


def test_an_exec_that_ended_unseen_is_told_to_the_next_daemon(box: Box) -> None:
    spec = box.spec(["sleep", "1000"])
    first = Daemon("launch", spec)
    first.said("launched")
    second = Daemon("exec", spec)
    pid = int(second.said("exec").split()[1])
    second.kill()
    first.kill()
    until("the exec ends", lambda: not alive(pid))

    async def scenario(service: ShimService) -> None:
        found = await adopted(service, spec)
        assert await found.execs["late"].wait() == 9
        os.kill(found.pid, signal.SIGKILL)
        await finished(found)

    run(box, scenario)


def test_nothing_there_is_none(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        assert await service.adopt(box.base / "no such directory") is None
        assert await service.adopt(box.base) is None

    run(box, scenario)


def test_nonsense_on_the_shims_socket_does_not_disturb_it(box: Box) -> None:
    packets = [
        b"{",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"{}",
        b'{"op":"fly","id":1}',
        b'{"op":"resize","id":2}',
        b'{"op":"attach","id":3,"exec":"","clients":[{}]}',
        b'{"op":"attach","id":4,"exec":"none","clients":[]}',
        b'{"op":"launch","id":5}',
        b'{"op":"exec","id":6,"exec":7}',
        b'{"op":"ack"}',
        b'{"op":"ack","seq":"x"}',
        b'{"op":["state"],"id":8}',
        b'{"op":"exec","id":9,"exec":"e","process":5,"tty":false,"stdin":false,"size":null,'
        b'"timeout_s":5,"clients":[]}',
        b"x" * 100_000,
    ]

    async def scenario(service: ShimService) -> None:
        spec = box.spec(["cat"], open_stdin=True, stdin_once=True)
        shim = await service.launch(spec, [])
        for _ in range(2):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
                fd = os.open(spec.directory, os.O_PATH)
                stranger.connect(f"/proc/self/fd/{fd}/shim.sock")
                os.close(fd)
                for packet in packets:
                    with contextlib.suppress(BrokenPipeError):
                        stranger.send(packet)
                socket.send_fds(stranger, [b"{}"], [0, 1])
        peer, attached = client(stdin=True)
        await shim.attach(attached)
        await peer.send(b"fine\n")
        peer.half_close()
        assert await peer.to_end() == b"fine\n"
        assert (await finished(shim)).exit_code == 0
        assert not (spec.directory / "fault.json").exists()
        peer.close()

    run(box, scenario)


# The zygote.


def test_a_killed_zygote_is_replaced_and_running_containers_do_not_notice(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        peer, attached = client(stdin=True)
        spec = box.spec(["cat"], open_stdin=True, stdin_once=True)
        shim = await service.launch(spec, [attached])
        for _ in range(3):
            killed = service.zygote_pid
            os.kill(killed, signal.SIGKILL)
            other = await service.launch(box.spec(["exit 2"]), [])
            assert service.zygote_pid != killed
            assert (await finished(other)).exit_code == 2
        await peer.send(b"still here\n")
        peer.half_close()
        assert await peer.to_end() == b"still here\n"
        assert (await finished(shim)).exit_code == 0
        peer.close()

    run(box, scenario)


def test_a_zygote_that_hangs_is_an_error_in_time(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(service: ShimService) -> None:
        os.kill(service.zygote_pid, signal.SIGSTOP)
        monkeypatch.setattr("teu.runtime.shim.CALL_LIMIT_S", 0.2)
        try:
            with pytest.raises(DeadlineExceeded, match="did not answer"):
                await service.launch(box.spec(["true"], timeout_s=0.2), [])
        finally:
            os.kill(service.zygote_pid, signal.SIGCONT)

    run(box, scenario)


def test_closing_the_service_leaves_shims_and_ends_the_zygote(box: Box) -> None:
    spec = box.spec(["sleep", "1000"])
    pids: list[int] = []

    async def first(service: ShimService) -> None:
        await service.launch(spec, [])
        pids.append(service.zygote_pid)

    async def second(service: ShimService) -> None:
        found = await adopted(service, spec)
        os.kill(found.pid, signal.SIGKILL)
        assert (await finished(found)).exit_code == 137

    run(box, first)
    assert not alive(pids[0])
    run(box, second)


# The shim.


def test_a_killed_shim_ends_its_container_with_255(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        recorded: list[ExitStatus] = []
        peer, attached = client()
        spec = box.spec(["trap '' HUP PIPE; echo up; sleep 1000"])
        shim = await service.launch(spec, [attached], on_exit=recorded.append)
        process = await shim.exec(box.exec_spec(shim, ["sleep", "1000"]), [])
        await peer.read(b"up\n")
        os.kill(box.shim_pid(shim.id), signal.SIGKILL)
        status = await finished(shim)
        assert status.exit_code == LOST
        assert "shim was killed" in status.error
        assert recorded == [status]
        assert not alive(shim.pid)
        assert await process.wait() == LOST
        assert json.loads((spec.directory / "exit.json").read_text())["exit_code"] == LOST
        assert await peer.to_end() == b""
        peer.close()

    run(box, scenario)


def test_a_shim_killed_while_no_daemon_was_there(box: Box) -> None:
    spec = box.spec(["trap '' HUP; sleep 1000"])
    daemon = Daemon("launch", spec)
    pid = int(daemon.said("launched").split()[1])
    daemon.kill()
    os.kill(box.shim_pid(spec.id), signal.SIGKILL)

    async def scenario(service: ShimService) -> None:
        await eventually("the shim is gone", lambda: not alive(box.shim_pid(spec.id)))
        status = await service.adopt(spec.directory)
        assert isinstance(status, ExitStatus)
        assert (status.exit_code, alive(pid)) == (LOST, False)

    run(box, scenario)


def test_a_reused_pid_is_not_killed(box: Box) -> None:
    bystander = subprocess.Popen(["sleep", "1000"])
    try:
        directory = box.base / "gone"
        directory.mkdir()
        state = {"pid": bystander.pid, "pid_started": 1, "shim_pid": 1}
        (directory / "state.json").write_text(json.dumps(state))

        async def scenario(service: ShimService) -> None:
            status = await service.adopt(directory)
            assert isinstance(status, ExitStatus)
            assert status.exit_code == LOST

        run(box, scenario)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_shim_that_drops_a_daemon_is_found_again(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        shim = await service.launch(box.spec(["sleep", "1000"]), [])
        shim._channel.close()
        await eventually("reconnected", lambda: not shim._channel.closed)
        with pytest.raises(Conflict, match="resize"):
            await shim.resize(1, 1)
        os.kill(shim.pid, signal.SIGKILL)
        assert (await finished(shim)).exit_code == 137

    run(box, scenario)


# Logs through the service.


def test_following_a_log_to_the_containers_end(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        spec = box.spec(["for i in 1 2 3; do echo $i; sleep 0.05; done; echo e >&2"])
        shim = await service.launch(spec, [])
        peer, attached = client()
        request = LogRequest(
            path=str(box.log(shim.id)),
            exit_directory=str(spec.directory),
            follow=True,
            multiplexed=False,
        )
        await service.read_logs(request, attached.fd)
        assert await peer.to_end() == b"1\n2\n3\ne\n"
        await finished(shim)
        peer.close()

    run(box, scenario)


def test_a_follower_ends_when_the_shim_was_lost(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        spec = box.spec(["echo up; sleep 1000"])
        shim = await service.launch(spec, [])
        peer, attached = client()
        request = LogRequest(
            path=str(box.log(shim.id)),
            exit_directory=str(spec.directory),
            follow=True,
            multiplexed=False,
        )
        await service.read_logs(request, attached.fd)
        await peer.read(b"up\n")
        os.kill(box.shim_pid(shim.id), signal.SIGKILL)
        assert await peer.to_end() == b""
        await finished(shim)
        peer.close()

    run(box, scenario)
