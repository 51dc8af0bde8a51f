"""What runs after a new start of the daemon, and of the machine."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
import urllib.request

import pytest

from harness.clients import Cli
from harness.engine import KIND, Engine, mounts_below
from harness.names import Names
from harness.registry import free_port
from harness.waiting import until

pytestmark = pytest.mark.skipif(KIND != "teu", reason="reaches into our database")
SLEEP = ["busybox", "sleep", "100000"]


@pytest.fixture
def client(private_engine: Engine) -> Cli:
    return private_engine.cli("teu")


def reboot(engine: Engine, *networks: str) -> None:
    """As if the machine had lost power: no process, no mount, nothing in /run, another boot id."""
    pids = [engine.api.state(id)["Pid"] for id in engine.api.container_ids()]
    bridges = [f"br-{engine.api.get(f'/networks/{name}')['Id'][:12]}" for name in networks]
    engine.kill()
    for pid in {*engine.processes(), *filter(None, pids)}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until("all is dead", lambda: not engine.processes())
    for point in sorted(mounts_below(engine.root), reverse=True):
        subprocess.run(["umount", "-l", point], check=True)
    shutil.rmtree(engine.exec_root)
    for bridge in bridges:
        subprocess.run(["ip", "link", "del", bridge], check=True)
    database = sqlite3.connect(engine.data_root / "teu.db")
    with database:
        database.execute("UPDATE container SET record = json_set(record, '$.boot_id', 'before')")
    database.close()
    engine.start()


def statuses(engine: Engine, names: Names, *which: str) -> list[str]:
    return [engine.api.state(names(what))["Status"] for what in which]


def make_policies(cli: Cli, names: Names) -> None:
    """One container of each policy, and one of each that was stopped."""
    for policy in ("no", "always", "unless-stopped", "on-failure"):
        cli.ok("run", "-d", "--name", names(policy), "--restart", policy, *SLEEP)
        cli.ok("run", "-d", "--name", names(f"s-{policy}"), "--restart", policy, *SLEEP)
        cli.ok("stop", "-t", "0", names(f"s-{policy}"))


POLICIES = ("no", "always", "unless-stopped", "on-failure")
STOPPED = tuple(f"s-{policy}" for policy in POLICIES)


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_a_new_daemon(private_engine: Engine, client: Cli, names: Names, how: str) -> None:
    """What ran runs on; `always` is started even if it was stopped, the others are not."""
    engine = private_engine
    make_policies(client, names)
    before = [engine.api.state(names(policy))["Pid"] for policy in POLICIES]
    getattr(engine, how)()
    engine.start()
    assert [engine.api.state(names(policy))["Pid"] for policy in POLICIES] == before
    until("`always` runs", lambda: statuses(engine, names, "s-always") == ["running"])
    assert statuses(engine, names, *STOPPED) == ["exited", "running", "exited", "exited"]


def test_a_new_boot(private_engine: Engine, client: Cli, names: Names) -> None:
    engine = private_engine
    make_policies(client, names)
    reboot(engine)
    wanted = [name for name in (*POLICIES, *STOPPED) if name not in ("no", "s-no")]
    running = {"always", "unless-stopped", "on-failure", "s-always"}
    until(
        "all that must run runs",
        lambda: statuses(engine, names, *running) == ["running"] * len(running),
    )
    for what in wanted:
        expected = "running" if what in running else "exited"
        assert statuses(engine, names, what) == [expected], what
    assert statuses(engine, names, "no") == ["exited"]
    assert engine.api.state(names("no"))["ExitCode"] == 255
    assert client.ok("exec", names("always"), "echo", "alive") == "alive"


def test_addresses_ports_and_order_after_a_boot(
    private_engine: Engine, client: Cli, names: Names
) -> None:
    """A fixed address is not taken by whoever comes first; who joins waits for its host."""
    engine, port, network = private_engine, free_port(), names("net")
    subnet = f"10.143.{engine.slot.number}"
    client.ok("network", "create", "--subnet", f"{subnet}.0/29", network)
    policy = ["--restart", "always"]
    page = "echo page > /index.html; exec httpd -f -p 80 -h /"
    for what in ("x1", "x2"):  # they get .2 and .3, then give them back
        client.ok("run", "-d", "--name", names(what), "--network", network, *policy, *SLEEP)
    for what in ("x1", "x2"):
        client.ok("stop", "-t", "0", names(what))
    client.ok(
        "run", "-d", "--name", names("web"), "--network", network, "--ip", f"{subnet}.2",
        "-p", f"{port}:80", *policy, "busybox", "sh", "-c", page,
    )  # fmt: skip
    client.ok("run", "-d", "--name", names("in"), "--network", f"container:{names('web')}",
              *policy, *SLEEP)  # fmt: skip
    reboot(engine, network)
    all_of_them = ("x1", "x2", "web", "in")
    until("all run", lambda: statuses(engine, names, *all_of_them) == ["running"] * 4)
    networks = engine.api.inspect(names("web"))["NetworkSettings"]["Networks"]
    assert networks[network]["IPAddress"] == f"{subnet}.2"

    def served() -> bool:
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=1).read() == b"page\n"
        return False

    until("the port is published", served)
    shown = client.ok("exec", names("in"), "ip", "addr", "show", "eth0")
    assert f"{subnet}.2/" in shown
    for what in all_of_them:
        client.ok("rm", "-f", names(what))
    client.ok("network", "rm", network)


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_a_delay_goes_on(private_engine: Engine, client: Cli, names: Names, how: str) -> None:
    """The restart that was waited for comes, and the delays do not begin anew."""
    engine, name = private_engine, names("a")
    client.ok("run", "-d", "--name", name, "--restart", "on-failure:9", "busybox", "false")
    until("some restarts", lambda: engine.api.inspect(name)["RestartCount"] >= 6)
    until("it waits", lambda: engine.api.state(name)["Restarting"])
    before = engine.api.inspect(name)["RestartCount"]
    began = time.monotonic()
    getattr(engine, how)()
    assert time.monotonic() - began < 5  # a stop does not wait for the delay
    engine.start()
    until("it goes on", lambda: engine.api.inspect(name)["RestartCount"] > before)
    client.ok("stop", name)
    assert engine.api.state(name)["Status"] == "exited"
    engine.kill()
    engine.start()
    assert statuses(engine, names, "a") == ["exited"]
