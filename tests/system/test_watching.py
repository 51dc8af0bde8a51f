"""What is seen of running containers: stats under a known load, top, and waiting for their end."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names
from harness.waiting import PATIENCE, until

V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
_BURN = ["sh", "-c", "while :; do :; done"]


def cpu_time_s(pid: int) -> float:
    """What the kernel counted for the process's control group."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "cpuacct" in controllers:
            return int(Path(f"/sys/fs/cgroup/cpuacct{path}/cpuacct.usage").read_text()) / 1e9
        if number == "0" and V2:
            stat = Path(f"/sys/fs/cgroup{path}/cpu.stat").read_text()
            return int(stat.split("usage_usec ")[1].split()[0]) / 1e6
    raise AssertionError("no CPU controller")


def test_cpu_percentage_under_a_known_load(cli: Cli, engine: Engine, names: Names) -> None:
    """A loop that may use a quarter of a CPU, and gets what the kernel says (on a busy machine
    less)."""
    cli.ok("run", "-d", "--name", names("a"), "--cpus", "0.25", "busybox", *_BURN)
    pid = engine.api.state(names("a"))["Pid"]

    def is_right() -> bool:
        began, used = time.monotonic(), cpu_time_s(pid)
        out = cli.ok("stats", "--no-stream", "--format", "{{.CPUPerc}}", names("a"))
        percent = 100 * (cpu_time_s(pid) - used) / (time.monotonic() - began)
        shown = float(out.rstrip("%"))
        return shown < 40 and 0.6 * percent < shown < 1.6 * percent

    until("the percentage is right", is_right, timeout_s=20)


def test_stats_show_memory_pids_and_network(cli: Cli, names: Names) -> None:
    script = "head -c 20m /dev/zero | tail -c 20m | sleep 1000 & sleep 1000 & wait"
    cli.ok("run", "-d", "--name", names("a"), "-m", "64m", "busybox", "sh", "-c", script)
    words = "{{.Name}}|{{.MemUsage}}|{{.MemPerc}}|{{.NetIO}}|{{.BlockIO}}|{{.PIDs}}|{{.Container}}"

    def row() -> list[str]:
        return cli.ok("stats", "--no-stream", "--format", words, names("a")).split("|")

    until("the memory is used", lambda: float(row()[2].rstrip("%")) > 25, timeout_s=20)
    name, memory, _, network, block, pids, container = row()
    assert (name, container) == (names("a"), names("a"))
    assert re.fullmatch(r"2\d(\.\d+)?MiB / 64MiB", memory)
    assert re.fullmatch(r"\d[\d.]*k?B / \d[\d.]*k?B", network)
    assert re.fullmatch(r"\d[\d.]*[kM]?B / \d[\d.]*[kM]?B", block)
    assert int(pids) >= 4


def test_a_stream_of_stats(engine: Engine, names: Names) -> None:
    """Each sample carries the one before; the stream ends with the container's removal."""
    cli = engine.cli("docker")
    cli.ok("run", "-d", "--name", names("a"), "busybox", *_BURN)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20 * PATIENCE)
        sock.connect(str(engine.socket))
        sock.sendall(f"GET /containers/{names('a')}/stats HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        with sock.makefile("rb") as stream:
            while stream.readline() != b"\r\n":
                pass
            first, second = (json.loads(stream.readline()) for _ in range(2))
            cli.ok("rm", "-f", names("a"))
            stream.read()
    assert second["preread"] == first["read"]
    assert second["precpu_stats"] == first["cpu_stats"]
    used = [s["cpu_stats"]["cpu_usage"]["total_usage"] for s in (first, second)]
    assert 0 < used[0] < used[1]
    assert isinstance(second["blkio_stats"]["io_service_bytes_recursive"], list)


def test_stats_of_what_does_not_run(engine: Engine, names: Names) -> None:
    cli = engine.cli("docker")
    cli.ok("create", "--name", names("a"), "busybox", "true")
    shown = engine.api.get(f"/containers/{names('a')}/stats", stream=0)
    assert shown["read"].startswith("0001-01-01")
    assert shown["cpu_stats"]["cpu_usage"]["total_usage"] == 0
    words = ["--no-stream", "--format", "{{.Name}} {{.CPUPerc}}"]
    out = cli.ok("stats", *words, names("a"))
    assert out.endswith(("0.00%", "--"))


@pytest.mark.parametrize(
    ("args", "titles"),
    [
        ([], "UID PID PPID C STIME TTY TIME CMD"),
        (["aux"], "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
        (["-eo", "pid,comm"], "PID COMMAND"),
        (["-eo", "user,pid,args"], "USER PID COMMAND"),
    ],
)
def test_top_with_the_arguments_of_ps(cli: Cli, names: Names, args: list[str], titles: str) -> None:
    cli.ok("run", "-d", "--name", names("a"), "busybox", "sleep", "1234")
    cli.ok("exec", "-d", names("a"), "sleep", "4321")

    def table() -> list[str]:
        return cli.ok("top", names("a"), *args).splitlines()

    # The runtime answers an exec a moment before the program is executed.
    until("both are sleeping", lambda: sum("sleep" in line for line in table()) == 2)
    lines = table()
    assert lines[0].split() == titles.split()
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("args", "said"), [(["-eo", "comm"], "PID"), (["--no-such-option"], "ps: "), (["'"], "")]
)
def test_top_with_arguments_that_ps_refuses(
    cli: Cli, names: Names, args: list[str], said: str
) -> None:
    cli.ok("run", "-d", "--name", names("a"), "busybox", "sleep", "1000")
    assert said in cli.fails(1, "top", names("a"), *args)


# --- waiting --------------------------------------------------------------------------------------


@contextmanager
def waiting(engine: Engine, name: str, condition: str) -> Iterator[list[Any]]:
    """Waits in the background; the list gets the answer."""
    answers: list[Any] = []

    def wait() -> None:
        reply = engine.api.request("POST", f"/containers/{name}/wait", condition=condition)
        answers.append(reply.json())

    thread = threading.Thread(target=wait)
    thread.start()
    yield answers
    thread.join(30)


def test_conditions_to_wait_for(engine: Engine, names: Names) -> None:
    cli, name = engine.cli("docker"), names("a")
    cli.ok("create", "--name", name, "busybox", "sh", "-c", "exit 5")
    at_once = engine.api.request("POST", f"/containers/{name}/wait", condition="not-running")
    assert at_once.json()["StatusCode"] == 0
    with waiting(engine, name, "next-exit") as next_exit, waiting(engine, name, "removed") as gone:
        cli.ok("start", name)
        until("the exit is told", lambda: next_exit)
        assert not gone
        cli.ok("rm", name)
        until("the removal is told", lambda: gone)
    assert next_exit[0]["StatusCode"] == 5
    assert gone[0]["StatusCode"] == 5
    cli.ok("create", "--name", name, "busybox", "true")
    reply = engine.api.request("POST", f"/containers/{name}/wait", condition="someday")
    assert reply.status == 400
    assert 'invalid condition: "someday"' in reply.json()["message"]
