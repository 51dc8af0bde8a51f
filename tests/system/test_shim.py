"""Real containers through real shims: starting, ending, stdio, exec."""

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.shims import Box, Peer, alive, client, eventually, frames, of_stream, run
from teu.errors import Conflict, DeadlineExceeded
from teu.runtime.shim import Client, ExitStatus, LogTarget, Shim, ShimService, StartFailed

KEYS = b"\x10\x11"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path)
    yield box
    box.close()


async def finished(shim: Shim) -> ExitStatus:
    async with asyncio.timeout(20):
        return await shim.wait()


# Ends.


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("sh -c 'kill -TERM $$'; exit $?", 143),
    ],
)
def test_exit_codes(box: Box, line: str, code: int) -> None:
    async def scenario(service: ShimService) -> None:
        before = time.time_ns()
        spec = box.spec([line])
        shim = await service.launch(spec, [])
        status = await finished(shim)
        assert (status.exit_code, status.oom_killed, status.error) == (code, False, "")
        assert before < shim.started_ns < status.finished_ns < time.time_ns()
        recorded = json.loads((spec.directory / "exit.json").read_text())
        assert recorded["exit_code"] == code
        assert recorded["finished_ns"] == status.finished_ns

    run(box, scenario)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_death_by_signal(box: Box, number: signal.Signals) -> None:
    async def scenario(service: ShimService) -> None:
        peer, attached = client()
        line = "trap 'exit 143' TERM; echo ready; sleep 100 & wait"
        shim = await service.launch(box.spec([line]), [attached])
        await peer.read(b"ready\n")
        peer.close()
        os.kill(shim.pid, number)
        assert (await finished(shim)).exit_code == 128 + number

    run(box, scenario)


def test_pid_and_start_time_are_those_of_the_container(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        shim = await service.launch(box.spec(["sleep", "100"]), [])
        path = Path(f"/proc/{shim.pid}/stat")
        # The runtime returns when the process is about to execute its program.
        await eventually("it sleeps", lambda: "(sleep)" in path.read_text())
        stat = path.read_text()
        assert int(stat.rsplit(")", 1)[1].split()[19]) == shim.pid_started
        os.kill(shim.pid, signal.SIGKILL)
        await finished(shim)

    run(box, scenario)


def test_out_of_memory_is_reported(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        spec = box.spec(["head -c 200000000 /dev/zero | tail; exit 9"], memory=16 << 20)
        status = await finished(await service.launch(spec, []))
        assert status.oom_killed

    run(box, scenario)


def test_the_shim_ends_and_leaves_only_its_records(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        spec = box.spec(["true"])
        shim = await service.launch(spec, [])
        await finished(shim)
        pid = box.shim_pid(shim.id)
        await eventually("the shim ends", lambda: not alive(pid))
        assert sorted(os.listdir(spec.directory)) == [
            "config.json",
            "exit.json",
            "log",
            "state.json",
        ]

    run(box, scenario)


def test_a_shim_holds_nothing_of_its_daemon(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        shim = await service.launch(box.spec(["sleep", "100"]), [])
        pid = box.shim_pid(shim.id)
        names = {
            int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")
        }
        assert {names[fd] for fd in (0, 1, 2)} == {"/dev/null"}
        kinds = sorted(name.split(":")[0] for fd, name in names.items() if fd > 2)
        kinds = [kind for kind in kinds if kind != "/memfd"]  # the runtimes' programs
        assert kinds == sorted(
            ["socket"] * 2  # the daemon's connection, the listener
            + ["pipe"] * 4  # stdout, stderr, both ends of the wake-up pipe
            + ["anon_inode", str(box.directory(shim.id)), str(box.log(shim.id))]
        )
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert os.getsid(pid) == pid
        os.kill(shim.pid, signal.SIGKILL)
        await finished(shim)

    run(box, scenario)


def test_200_short_containers_in_a_row_and_20_at_once(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        async def one(number: int) -> None:
            peer, attached = client()
            line = f"echo {number}; exit {number % 100}"
            shim = await service.launch(box.spec([line]), [attached])
            assert (await finished(shim)).exit_code == number % 100
            assert await peer.to_end() == b"%d\n" % number
            peer.close()
            box.remove(shim.id)

        for number in range(200):
            await one(number)
        await asyncio.gather(*(one(number) for number in range(20)))

    run(box, scenario)


# Starts that fail.


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["nope"], 127, 'exec: "nope": executable file not found in $PATH'),
        (["/no/such"], 127, 'exec: "/no/such": stat /no/such: no such file or directory'),
        (["/bin/noexec"], 126, "permission denied"),
        (["/tmp"], 126, "permission denied"),
    ],
)
@pytest.mark.parametrize("tty", [False, True])
def test_a_command_that_cannot_run(
    box: Box, args: list[str], code: int, text: str, tty: bool
) -> None:
    (box.rootfs / "bin/noexec").write_text("not executable")

    async def scenario(service: ShimService) -> None:
        peer, attached = client()
        spec = box.spec(args, tty=tty)
        with pytest.raises(StartFailed, match="OCI runtime create failed") as caught:
            await service.launch(spec, [attached])
        assert caught.value.exit_code == code
        assert text in caught.value.message
        assert await peer.to_end() == b""  # the runtime's words are not the container's output
        await eventually(
            "no file is left",
            lambda: set(os.listdir(spec.directory)) <= {"config.json", "log"},
        )
        assert await service.adopt(spec.directory) is None
        peer.close()

    run(box, scenario)


def test_a_runtime_that_is_not_there(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        with pytest.raises(StartFailed, match=r"/no/runtime: No such file") as caught:
            await service.launch(box.spec(["true"], runtime=["/no/runtime"]), [])
        assert caught.value.exit_code == 125

    run(box, scenario)


def test_a_bad_bundle_reports_the_runtimes_words(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        spec = box.spec(["true"])
        (spec.bundle / "config.json").write_text("{")
        with pytest.raises(StartFailed, match="parse") as caught:
            await service.launch(spec, [])
        assert caught.value.exit_code == 125

    run(box, scenario)


def test_a_log_that_cannot_be_opened(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        spec = box.spec(["true"], log=LogTarget("/no/where/log"))
        with pytest.raises(StartFailed, match="/no/where/log") as caught:
            await service.launch(spec, [])
        assert caught.value.exit_code == 125

    run(box, scenario)


def test_a_runtime_that_hangs_is_killed_at_the_deadline(box: Box) -> None:
    runtime = box.base / "hang"
    runtime.write_text("#!/bin/sh\nsetsid sleep 1234.5 &\necho $! > $0.pid\nsleep 1234.5\n")
    runtime.chmod(0o755)

    async def scenario(service: ShimService) -> None:
        spec = box.spec(["true"], runtime=[str(runtime)], timeout_s=0.5)
        start = time.monotonic()
        with pytest.raises(StartFailed, match="did not answer in time") as caught:
            await service.launch(spec, [])
        assert 0.4 < time.monotonic() - start < 5
        assert caught.value.exit_code == 125
        left = int(Path(f"{runtime}.pid").read_text())
        await eventually("what the runtime left is dead", lambda: not alive(left))

    run(box, scenario)


def test_a_terminal_that_never_comes(box: Box) -> None:
    runtime = box.base / "liar"
    runtime.write_text("#!/bin/sh\nexit 0\n")
    runtime.chmod(0o755)

    async def scenario(service: ShimService) -> None:
        with pytest.raises(StartFailed, match="no usable pid file"):
            await service.launch(box.spec(["true"], tty=True, runtime=[str(runtime)]), [])

    run(box, scenario)


def test_a_shim_that_does_not_answer_hits_the_callers_deadline(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        shim = await service.launch(box.spec(["sleep", "100"]), [])
        pid = box.shim_pid(shim.id)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(DeadlineExceeded):
                await shim.call("resize", {"exec": "", "height": 1, "width": 1}, timeout_s=0.2)
        finally:
            os.kill(pid, signal.SIGCONT)
        os.kill(shim.pid, signal.SIGKILL)
        await finished(shim)

    run(box, scenario)


# Stdio.


def test_stdout_and_stderr_are_framed_and_logged(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        peer, attached = client(multiplexed=True)
        shim = await service.launch(box.spec(["echo out; echo err >&2; exit 3"]), [attached])
        assert (await finished(shim)).exit_code == 3
        data = await peer.to_end()
        assert (of_stream(data, 1), of_stream(data, 2)) == (b"out\n", b"err\n")
        lines = [json.loads(line) for line in box.log(shim.id).read_bytes().splitlines()]
        assert {(line["stream"], line["log"]) for line in lines} == {
            ("stdout", "out\n"),
            ("stderr", "err\n"),
        }
        peer.close()

    run(box, scenario)


def test_without_open_stdin_it_is_dev_null(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        peer, attached = client(stdin=True)
        shim = await service.launch(box.spec(["cat; echo done"]), [attached])
        assert await peer.to_end() == b"done\n"
        assert (await finished(shim)).exit_code == 0
        peer.close()

    run(box, scenario)


@pytest.mark.parametrize("driver", ["json-file", "none"])
@pytest.mark.parametrize("multiplexed", [False, True])
def test_binary_round_trip_with_half_closed_stdin(box: Box, driver: str, multiplexed: bool) -> None:
    data = os.urandom(1 << 20) * 8 + b"end"

    async def scenario(service: ShimService) -> None:
        peer, attached = client(stdin=True, multiplexed=multiplexed)
        spec = box.spec(["cat"], open_stdin=True, stdin_once=True)
        spec.log.path = spec.log.path if driver == "json-file" else ""
        shim = await service.launch(spec, [attached])

        async def write() -> None:
            await peer.send(data)
            peer.half_close()

        got, _ = await asyncio.gather(peer.to_end(), write())
        if multiplexed:
            got = of_stream(got, 1)
        assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
        assert (await finished(shim)).exit_code == 0
        peer.close()

    run(box, scenario)


def test_stdin_stays_open_between_clients_unless_once(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        shim = await service.launch(box.spec(["cat"], open_stdin=True), [])
        for word in (b"one\n", b"two\n"):
            peer, attached = client(stdin=True)
            await shim.attach(attached)
            await peer.send(word)
            assert await peer.read(b"\n") == word
            peer.half_close()
            assert await peer.to_end() == b""  # Docker: its own end of input ends the client
            peer.close()
        os.kill(shim.pid, signal.SIGKILL)
        await finished(shim)
        assert box.logged(shim.id) == "one\ntwo\n"

    run(box, scenario)


def test_a_vanished_input_client_ends_stdin_once(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        peer, attached = client(stdin=True)
        shim = await service.launch(box.spec(["cat"], open_stdin=True, stdin_once=True), [attached])
        await peer.send(b"last words\n")
        peer.close()
        assert (await finished(shim)).exit_code == 0
        assert box.logged(shim.id) == "last words\n"

    run(box, scenario)


def test_a_process_that_closes_its_stdin_does_not_disturb(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        peer, attached = client(stdin=True)
        spec = box.spec(["exec <&-; sleep 0.2; echo fine"], open_stdin=True, stdin_once=True)
        shim = await service.launch(spec, [attached])
        got, _ = await asyncio.gather(peer.to_end(), peer.send(b"x" * 1_000_000))
        assert got == b"fine\n"
        assert (await finished(shim)).exit_code == 0
        peer.close()

    run(box, scenario)


def test_several_clients_get_the_same_and_may_all_type(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        first, attached = client(stdin=True, multiplexed=True)
        shim = await service.launch(box.spec(["cat"], open_stdin=True), [attached])
        second, attached = client(stdin=True)
        await shim.attach(attached)
        await first.send(b"one\n")
        assert await second.read(b"\n") == b"one\n"
        await second.send(b"two\n")
        assert await second.read(b"\n") == b"two\n"
        assert of_stream(await first.read(b"two\n"), 1) == b"one\ntwo\n"
        os.kill(shim.pid, signal.SIGKILL)
        for peer in (first, second):
            assert await peer.to_end() == b""
            peer.close()
        await finished(shim)

    run(box, scenario)


def test_a_client_of_one_stream_gets_only_that(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        out, out_client = client(stderr=False)
        err, err_client = client(stdout=False)
        spec = box.spec(["echo out; echo err >&2"])
        await finished(await service.launch(spec, [out_client, err_client]))
        assert (await out.to_end(), await err.to_end()) == (b"out\n", b"err\n")
        out.close()
        err.close()

    run(box, scenario)


@pytest.mark.parametrize("driver", ["json-file", "none"])
def test_a_slow_client_slows_the_container_in_bounded_memory(box: Box, driver: str) -> None:
    total = 8_000_000

    async def scenario(service: ShimService) -> None:
        slow, attached = client(multiplexed=True)
        spec = box.spec([f"yes teu | head -c {total}"])
        spec.log.path = spec.log.path if driver == "json-file" else ""
        shim = await service.launch(spec, [attached])
        await asyncio.sleep(0.3)
        assert not (spec.directory / "exit.json").exists(), "nobody read, so it cannot have ended"
        pid = box.shim_pid(shim.id)
        peak = int(Path(f"/proc/{pid}/status").read_text().split("RssAnon:")[1].split()[0])
        assert peak < 12_000, f"{peak} KiB"
        data = await slow.to_end()
        assert sum(len(payload) for _, payload in frames(data)) == total
        assert (await finished(shim)).exit_code == 0
        slow.close()

    run(box, scenario)


@pytest.mark.parametrize(("driver", "total"), [("json-file", 2_000_000), ("none", 40_000_000)])
def test_frames_stay_whole_when_the_socket_takes_little_at_a_time(
    box: Box, driver: str, total: int
) -> None:
    async def scenario(service: ShimService) -> None:
        peer, attached = client(multiplexed=True)
        with socket.socket(fileno=os.dup(attached.fd)) as theirs:
            spec = box.spec([f"yes | head -c {total}"])
            spec.log.path = spec.log.path if driver == "json-file" else ""
            shim = await service.launch(spec, [attached])
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        assert hashlib.sha256(of_stream(await peer.to_end(), 1)).digest() == expected
        assert (await finished(shim)).exit_code == 0
        peer.close()

    expected = hashlib.sha256(b"y\n" * (total // 2)).digest()
    run(box, scenario)


@pytest.mark.parametrize("driver", ["json-file", "none"])
def test_a_client_that_vanishes_while_it_blocks_lets_the_container_go_on(
    box: Box, driver: str
) -> None:
    async def scenario(service: ShimService) -> None:
        slow, attached = client()
        other, attached_too = client()
        spec = box.spec(["head -c 3000000 /dev/zero; echo end"])
        spec.log.path = spec.log.path if driver == "json-file" else ""
        shim = await service.launch(spec, [attached])
        await shim.attach(attached_too)
        await asyncio.sleep(0.1)
        slow.close()
        assert (await other.to_end()).endswith(b"\0end\n")
        assert (await finished(shim)).exit_code == 0
        other.close()

    run(box, scenario)


def test_the_end_is_recorded_while_a_client_still_has_to_read(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        slow, attached = client()
        shim = await service.launch(box.spec(["head -c 250000 /dev/zero; exit 5"]), [attached])
        assert (await finished(shim)).exit_code == 5
        assert len(await slow.to_end()) == 250_000
        slow.close()

    run(box, scenario)


def test_a_grandchild_that_holds_the_pipes_is_not_waited_for(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        peer, attached = client()
        line = "echo before; sleep 1234.25 & exit 6"
        shim = await service.launch(box.spec([line], host_pid=True), [attached])
        start = time.monotonic()
        assert (await finished(shim)).exit_code == 6
        assert time.monotonic() - start < 5
        assert await peer.to_end() == b"before\n"
        peer.close()

    try:
        run(box, scenario)
    finally:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if b"1234.25" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(int(pid), signal.SIGKILL)
            except OSError:
                continue


def test_a_full_disk_loses_the_log_but_disturbs_nobody(box: Box) -> None:
    disk = box.base / "tiny"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tiny", str(disk)], check=True)
    told: list[str] = []

    async def scenario(service: ShimService) -> None:
        peer, attached = client(stdin=True)
        spec = box.spec(["cat"], open_stdin=True, stdin_once=True)
        spec.log.path = str(disk / "log")
        shim = await service.launch(spec, [attached])
        shim.on_log_error = told.append
        for _ in range(4):
            await peer.send(b"x" * 50_000 + b"\n")
            await peer.read(b"\n")
        await eventually("the daemon is told", lambda: len(told) == 1)
        state = json.loads((spec.directory / "state.json").read_text())
        assert "No space left" in told[0]
        assert state["log_error"] == told[0]
        (disk / "log").write_bytes(b"")
        await peer.send(b"room again\n")
        peer.half_close()
        await peer.to_end()
        assert (await finished(shim)).exit_code == 0
        assert "room again" in (disk / "log").read_text()
        assert len(told) == 1
        peer.close()

    try:
        run(box, scenario)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_output_arrives_over_tcp_though_input_is_left_unread(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
        peer = Peer(ours)
        attached = Client(theirs.detach(), True, True, True, multiplexed=False)
        spec = box.spec(["head -c 1; head -c 300000 /dev/zero"], open_stdin=True, stdin_once=True)
        shim = await service.launch(spec, [attached])
        sending = asyncio.create_task(peer.send(b"y" * 3_000_000))
        assert await peer.to_end() == b"y" + bytes(300_000)
        assert (await finished(shim)).exit_code == 0
        peer.close()
        await asyncio.gather(sending, return_exceptions=True)

    run(box, scenario)


# Terminals.


def test_terminal_size_input_and_end(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        peer, attached = client(stdin=True)
        spec = box.spec(
            ["stty size; read x; stty size; exit 5"],
            tty=True,
            open_stdin=True,
            console_size=(33, 101),
        )
        shim = await service.launch(spec, [attached])
        await peer.read(b"33 101\r\n")
        await shim.resize(7, 9)
        await peer.send(b"\n")
        assert await peer.to_end() == b"\r\n7 9\r\n"
        assert (await finished(shim)).exit_code == 5
        peer.close()

    run(box, scenario)


def test_detach_keys_leave_the_container_running(box: Box) -> None:
    detached: list[str] = []

    async def scenario(service: ShimService) -> None:
        peer, attached = client(stdin=True, detach_keys=KEYS)
        spec = box.spec(["cat"], tty=True, open_stdin=True)
        shim = await service.launch(spec, [attached], on_detached=detached.append)
        await peer.send(b"a\x10b\n")
        assert b"a^Pb\r\n" in await peer.read(b"b\r\n")
        await peer.send(b"\x10")
        await peer.send(b"\x11")
        await peer.to_end()
        peer.close()
        await eventually("the daemon is told", lambda: detached == [""])
        again, attached = client(stdin=True, detach_keys=KEYS)
        await shim.attach(attached)
        await again.send(b"more\n")
        assert b"more\r\n" in await again.read(b"more\r\n")
        os.kill(shim.pid, signal.SIGKILL)
        assert (await finished(shim)).exit_code == 137
        again.close()

    run(box, scenario)


def test_detach_keys_are_data_without_a_terminal(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        peer, attached = client(stdin=True, detach_keys=KEYS)
        spec = box.spec(["cat"], open_stdin=True, stdin_once=True)
        shim = await service.launch(spec, [attached])
        await peer.send(b"a\x10\x11b")
        peer.half_close()
        assert await peer.to_end() == b"a\x10\x11b"
        await finished(shim)
        peer.close()

    run(box, scenario)


def test_a_shim_does_not_end_when_asked_to(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        shim = await service.launch(box.spec(["sleep", "1000"]), [])
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(box.shim_pid(shim.id), number)
        await shim.call("state", {})
        ignored = Path(f"/proc/{shim.pid}/status").read_text().split("SigIgn:")[1].split()[0]
        named = (1 << 31) - 1  # 32 and 33 are glibc's own; its posix_spawn ignores them
        assert int(ignored, 16) & named == 0, "containers start with default signals"
        os.kill(shim.pid, signal.SIGKILL)
        assert (await finished(shim)).exit_code == 137

    run(box, scenario)


def test_end_of_input_does_not_close_a_terminal(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        peer, attached = client(stdin=True)
        spec = box.spec(["cat"], tty=True, open_stdin=True, stdin_once=True)
        shim = await service.launch(spec, [attached])
        peer.half_close()
        await peer.to_end()
        peer.close()
        again, attached = client(stdin=True)
        await shim.attach(attached)
        await again.send(b"\x04")  # ^D at the terminal does
        assert (await finished(shim)).exit_code == 0
        again.close()

    run(box, scenario)


def test_resize_without_a_terminal_or_after_the_end(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        shim = await service.launch(box.spec(["sleep", "100"]), [])
        with pytest.raises(Conflict):
            await shim.resize(1, 1)
        os.kill(shim.pid, signal.SIGKILL)
        await finished(shim)
        await eventually("the shim ends", lambda: not alive(box.shim_pid(shim.id)))
        with pytest.raises(Conflict):
            await shim.resize(1, 1)

    run(box, scenario)


# What the hook sees.


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_exit_is_recorded_before_a_client_sees_the_end(box: Box, asynchronous: bool) -> None:
    recorded: list[int] = []

    async def slowly(status: ExitStatus) -> None:
        await asyncio.sleep(0.2)
        recorded.append(status.exit_code)

    async def scenario(service: ShimService) -> None:
        peer, attached = client()
        hook = slowly if asynchronous else lambda status: recorded.append(status.exit_code)
        shim = await service.launch(box.spec(["exit 4"]), [attached], on_exit=hook)
        assert await peer.to_end() == b""
        assert recorded == [4]
        await finished(shim)
        peer.close()

    run(box, scenario)


def test_a_failing_hook_delays_but_loses_nothing(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: ExitStatus) -> None:
        raise ValueError("the database is gone")

    async def scenario(service: ShimService) -> None:
        peer, attached = client()
        shim = await service.launch(box.spec(["exit 4"]), [attached], on_exit=fail)
        assert (await finished(shim)).exit_code == 4
        assert await peer.to_end() == b""
        peer.close()

    run(box, scenario)
    assert "recording an exit failed" in caplog.text
