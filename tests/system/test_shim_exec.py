"""Processes beside a container's first one."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.shims import Box, client, eventually, of_stream, run
from teu.errors import Conflict
from teu.runtime.shim import ExitStatus, Shim, ShimService, StartFailed

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path)
    yield box
    box.close()


async def sleeper(box: Box, service: ShimService) -> Shim:
    return await service.launch(box.spec(["sleep", "1000"]), [])


async def end(shim: Shim) -> None:
    os.kill(shim.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        await shim.wait()


def test_output_input_and_exit_code(box: Box) -> None:
    recorded: list[int] = []

    async def scenario(service: ShimService) -> None:
        shim = await sleeper(box, service)
        peer, attached = client(stdin=True, multiplexed=True)
        spec = box.exec_spec(shim, ["cat; echo e >&2; exit 4"], open_stdin=True)
        process = await shim.exec(
            spec, [attached], on_exit=lambda status: recorded.append(status.exit_code)
        )
        assert process.pid > 0
        await peer.send(b"data")
        peer.half_close()
        data = await peer.to_end()
        assert recorded == [4], "recorded before the stream ended"
        assert (of_stream(data, 1), of_stream(data, 2)) == (b"data", b"e\n")
        assert await process.wait() == 4
        assert box.logged(shim.id) == ""
        peer.close()
        await end(shim)

    run(box, scenario)


def test_short_execs_in_a_row_and_at_once_lose_no_exit(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        shim = await sleeper(box, service)

        async def one(number: int) -> None:
            peer, attached = client()
            spec = box.exec_spec(shim, [f"echo {number}; exit {number}"])
            process = await shim.exec(spec, [attached])
            async with asyncio.timeout(20):
                assert await process.wait() == number
            assert await peer.to_end() == b"%d\n" % number
            peer.close()

        for number in range(30):
            await one(number)
        await asyncio.gather(*(one(number) for number in range(20)))
        assert shim.execs == {}
        await end(shim)

    run(box, scenario)


def test_terminal_resize_and_detach(box: Box) -> None:
    detached: list[str] = []

    async def scenario(service: ShimService) -> None:
        shim = await sleeper(box, service)
        shim.on_detached = detached.append
        peer, attached = client(stdin=True, detach_keys=b"\x10\x11")
        # crun's exec ignores consoleSize: the shim sets the size a moment after the start
        line = "until stty size | grep 22; do sleep 0.02; done; read x; stty size; read y; exit 3"
        spec = box.exec_spec(shim, [line], tty=True, open_stdin=True, console_size=(11, 22))
        process = await shim.exec(spec, [attached])
        await peer.read(b"11 22\r\n")
        await process.resize(5, 6)
        await peer.send(b"\n")
        await peer.read(b"5 6\r\n")
        await peer.send(b"\x10\x11")
        assert await peer.to_end() == b""
        await eventually("the daemon is told", lambda: detached == [spec.id])
        again, attached = client(stdin=True)
        await process.attach(attached)
        await again.send(b"\n")
        assert await process.wait() == 3
        await again.to_end()
        for each in (peer, again):
            each.close()
        with pytest.raises(Conflict):
            await process.resize(1, 1)
        await end(shim)

    run(box, scenario)


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["nope"], 127, "executable file not found in $PATH"),
        (["/bin/noexec"], 126, "permission denied"),
    ],
)
def test_a_command_that_cannot_run(box: Box, args: list[str], code: int, text: str) -> None:
    (box.rootfs / "bin/noexec").write_text("not executable")

    async def scenario(service: ShimService) -> None:
        shim = await sleeper(box, service)
        peer, attached = client()
        with pytest.raises(StartFailed, match="OCI runtime exec failed") as caught:
            await shim.exec(box.exec_spec(shim, args), [attached])
        assert caught.value.exit_code == code
        assert text in caught.value.message
        assert await peer.to_end() == b""
        peer.close()
        process = await shim.exec(box.exec_spec(shim, ["true"]), [])
        assert await process.wait() == 0
        await end(shim)

    run(box, scenario)


def test_an_exec_that_hangs_hits_its_deadline_and_the_container_goes_on(box: Box) -> None:
    runtime = box.base / "slow-exec"
    runtime.write_text(
        '#!/bin/sh\ncase "$*" in *" exec "*) exec sleep 1000;; esac\nexec crun "$@"\n'
    )
    runtime.chmod(0o755)

    async def scenario(service: ShimService) -> None:
        spec = box.spec(["sleep", "1000"])
        spec.runtime[0] = str(runtime)
        shim = await service.launch(spec, [])
        with pytest.raises(StartFailed, match="did not answer in time"):
            await shim.exec(box.exec_spec(shim, ["true"], timeout_s=0.3), [])
        os.kill(shim.pid, 0)
        await end(shim)

    run(box, scenario)


def test_the_containers_end_ends_its_execs(box: Box) -> None:
    recorded: list[ExitStatus] = []

    async def scenario(service: ShimService) -> None:
        shim = await sleeper(box, service)
        peer, attached = client()
        spec = box.exec_spec(shim, ["echo up; sleep 1000"])
        process = await shim.exec(spec, [attached], on_exit=recorded.append)
        await peer.read(b"up\n")
        await end(shim)
        async with asyncio.timeout(20):
            assert await process.wait() == 137
        assert await peer.to_end() == b""
        assert [status.exit_code for status in recorded] == [137]
        peer.close()
        with pytest.raises(Conflict):
            await shim.exec(box.exec_spec(shim, ["true"]), [])

    run(box, scenario)


def test_a_background_child_does_not_hold_the_exec_open(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        shim = await sleeper(box, service)
        peer, attached = client()
        process = await shim.exec(box.exec_spec(shim, ["echo hi; sleep 500 & exit 2"]), [attached])
        async with asyncio.timeout(5):
            assert await process.wait() == 2
            assert await peer.to_end() == b"hi\n"
        peer.close()
        await end(shim)

    run(box, scenario)


def test_many_execs_leave_no_memory_behind(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        shim = await sleeper(box, service)

        async def some(count: int) -> int:
            for _ in range(count):
                process = await shim.exec(box.exec_spec(shim, ["true"]), [])
                await process.wait()
            status = Path(f"/proc/{box.shim_pid(shim.id)}/status").read_text()
            return int(status.split("RssAnon:")[1].split()[0])

        before = await some(60)
        assert await some(120) - before < 200, "KiB"
        await end(shim)

    run(box, scenario)


def test_an_id_is_used_once(box: Box) -> None:
    async def scenario(service: ShimService) -> None:
        shim = await sleeper(box, service)
        spec = box.exec_spec(shim, ["sleep", "100"])
        await shim.exec(spec, [])
        with pytest.raises(StartFailed, match="in use"):
            await shim.exec(spec, [])
        await end(shim)

    run(box, scenario)
