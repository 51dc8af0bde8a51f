"""`kill -9` of the daemon between doing and saying: what the next one makes of execs and pauses."""

import contextlib
import subprocess
from pathlib import Path

import pytest

from harness.engine import Engine
from harness.names import Names
from harness.waiting import until


@pytest.fixture
def engine(private_engine: Engine) -> Engine:
    if private_engine.kind != "teu":
        pytest.skip("Docker forgets its execs")
    return private_engine


def runs(words: str) -> bool:
    """Whether a process of this machine has these words on its command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if words.encode() in (entry / "cmdline").read_bytes():
                    return True
    return False


def test_execs_are_known_to_the_next_daemon(engine: Engine, names: Names) -> None:
    """One that goes on, and one that ended while there was no daemon."""
    name = names("a")
    cli = engine.cli("docker")
    cli.ok("run", "-d", "--name", name, "busybox", "sh", "-c", "mkdir -m 777 /go; sleep 1000")
    inspected = engine.api.inspect(name)
    directory = Path(f"/proc/{inspected['State']['Pid']}/root/go")

    def begin(end: str, code: int) -> str:
        script = f"while [ ! -e /go/{end} ]; do usleep 20000; done; exit {code}"
        body = {"Cmd": ["sh", "-c", script], "User": "33", "AttachStdout": True, "Tty": True}
        ident: str = engine.api.request("POST", f"/containers/{name}/exec", body).json()["Id"]
        reply = engine.api.request("POST", f"/exec/{ident}/start", {"Detach": True})
        assert reply.status == 200, reply
        return ident

    first, last = names("first"), names("last")
    ended, lasting = begin(first, 7), begin(last, 8)
    engine.kill()
    (directory / first).touch()
    until("it has ended", lambda: not runs(first))
    engine.start()
    shown = engine.api.get(f"/exec/{ended}/json")
    assert (shown["Running"], shown["ExitCode"]) == (False, 7)
    shown = engine.api.get(f"/exec/{lasting}/json")
    assert (shown["Running"], shown["ExitCode"]) == (True, None)
    process = shown["ProcessConfig"]
    assert (process["entrypoint"], process["user"], process["tty"]) == ("sh", "33", True)
    assert engine.api.inspect(name)["ExecIDs"] == [lasting]
    assert engine.api.request("POST", f"/exec/{lasting}/resize?h=10&w=20").status == 200
    assert engine.api.request("POST", f"/exec/{lasting}/start", {}).status == 409
    (directory / last).touch()
    until("its end is seen", lambda: engine.api.get(f"/exec/{lasting}/json")["ExitCode"] == 8)
    assert engine.api.inspect(name)["ExecIDs"] is None
    assert not list((engine.exec_root / "containers" / inspected["Id"]).glob("exec-*"))


@pytest.mark.parametrize("frozen", [True, False])
def test_a_pause_that_was_not_recorded(engine: Engine, names: Names, frozen: bool) -> None:
    """The daemon dies between freezing, or thawing, and saying so."""
    name = names("a")
    cli = engine.cli("docker")
    cli.ok("run", "-d", "--name", name, "busybox", "sleep", "1000")
    ident = engine.api.inspect(name)["Id"]
    if not frozen:
        cli.ok("pause", name)
    engine.kill()
    verb = "pause" if frozen else "resume"
    root = engine.exec_root / "runtimes" / "crun"
    subprocess.run(["crun", "--root", str(root), verb, ident], check=True)
    engine.start()
    assert engine.api.state(name)["Paused"] is frozen
    cli.ok("unpause" if frozen else "pause", name)
    cli.ok("rm", "-f", name)


def test_a_commit_s_pause_ends_with_the_daemon(engine: Engine, names: Names) -> None:
    name = names("a")
    cli = engine.cli("docker")
    script = "head -c 200m /dev/urandom > /big; exec sleep 1000"
    cli.ok("run", "-d", "--name", name, "busybox", "sh", "-c", script)
    until("the file is there", lambda: cli.run("exec", name, "pidof", "sleep").code == 0)
    commit = cli.spawn("commit", name)
    until("it is paused", lambda: engine.api.state(name)["Paused"])
    engine.kill()
    commit.communicate()
    engine.start()
    assert engine.api.state(name)["Status"] == "running"
    assert cli.ok("exec", name, "echo", "awake") == "awake"
