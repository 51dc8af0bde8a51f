"""Restart policies: delays, counts, stops in between, and what waiters see."""

import itertools
import json
import time

import pytest

from harness.clients import Cli
from harness.engine import KIND, Engine
from harness.names import Names
from harness.waiting import until

ours_only = pytest.mark.skipif(KIND != "teu", reason="better than the peer")


def count(engine: Engine, name: str) -> int:
    return int(engine.api.inspect(name)["RestartCount"])


def deaths(engine: Engine, name: str, since: float) -> list[float]:
    """The instants of the container's `die` events."""
    return [event["timeNano"] / 1e9 for event in events(engine, name, since, "die")]


def events(engine: Engine, name: str, since: float, *actions: str) -> list[dict[str, int]]:
    reply = engine.api.request(
        "GET",
        "/events",
        since=f"{since:.9f}",
        until=f"{time.time():.9f}",
        filters=json.dumps({"container": [name], "event": actions}),
    )
    return [json.loads(line) for line in reply.body.splitlines()]


def test_the_delay_doubles(cli: Cli, engine: Engine, names: Names) -> None:
    name, since = names("a"), time.time()
    cli.ok("run", "-d", "--name", name, "--restart", "always", "busybox", "false")
    until("it has died four times", lambda: len(deaths(engine, name, since)) >= 4)
    at = deaths(engine, name, since)
    gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert gaps[0] >= 0.1
    assert gaps[1] >= 0.2
    assert gaps[2] >= 0.4
    until("it is between two runs", lambda: engine.api.state(name)["Restarting"])
    state = engine.api.state(name)
    assert (state["Status"], state["Running"], state["ExitCode"]) == ("restarting", True, 1)
    assert "Restarting (1) " in cli.ok("ps", "--filter", f"name={name}", "--format", "{{.Status}}")
    assert cli.ok("ps", "-q", "--filter", "status=restarting", "--filter", f"name={name}")
    assert count(engine, name) == len(deaths(engine, name, since))
    said = cli.fails(1, "exec", name, "true")
    assert "is restarting, wait until the container is running" in said
    cli.ok("rm", "-f", name)


def test_on_failure_gives_up(cli: Cli, engine: Engine, names: Names) -> None:
    name, since = names("a"), time.time()
    cli.ok(
        "run", "-d", "--name", name, "--restart", "on-failure:2", "busybox", "sh", "-c", "exit 7"
    )
    until("it has given up", lambda: engine.api.state(name)["Status"] == "exited")
    assert (count(engine, name), engine.api.state(name)["ExitCode"]) == (2, 7)
    assert len(deaths(engine, name, since)) == 3
    cli.ok("start", name)
    until("it has given up again", lambda: len(deaths(engine, name, since)) == 6)
    until("it has given up", lambda: engine.api.state(name)["Status"] == "exited")
    assert count(engine, name) == 2


def test_on_failure_is_content_with_success(cli: Cli, engine: Engine, names: Names) -> None:
    cli.ok("run", "-d", "--name", names("a"), "--restart", "on-failure", "busybox", "true")
    assert cli.ok("wait", names("a")) == "0"
    assert (count(engine, names("a")), engine.api.state(names("a"))["Status"]) == (0, "exited")


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_stop_cancels_the_restart(cli: Cli, engine: Engine, names: Names, how: str) -> None:
    name, since = names("a"), time.time()
    cli.ok("run", "-d", "--name", name, "--restart", "unless-stopped", "busybox", "false")
    until("it waits long", lambda: count(engine, name) >= 4)
    until("it is between two runs", lambda: engine.api.state(name)["Restarting"])
    cli.ok(how, name)
    until("it has ended", lambda: engine.api.state(name)["Status"] == "exited")
    seen = len(deaths(engine, name, since))
    limit = time.monotonic() + 1
    while time.monotonic() < limit:
        assert engine.api.state(name)["Status"] == "exited"
        time.sleep(0.05)
    assert len(deaths(engine, name, since)) == seen


def test_who_waits_sees_the_exit_before_the_restart(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("a")
    script = "[ -e /x ] && exec sleep 1000; touch /x; sleep 0.5; exit 5"
    cli.ok("run", "-d", "--name", name, "--restart", "always", "busybox", "sh", "-c", script)
    assert cli.ok("wait", name) == "5"
    until("it runs again", lambda: engine.api.state(name)["Status"] == "running")
    assert count(engine, name) == 1
    cli.ok("rm", "-f", name)


def test_a_stopped_container_stays_so(cli: Cli, engine: Engine, names: Names) -> None:
    cli.ok("run", "-d", "--name", names("a"), "--restart", "always", "busybox", "sleep", "1000")
    cli.ok("stop", "-t", "0", names("a"))
    assert engine.api.state(names("a"))["Status"] == "exited"
    assert count(engine, names("a")) == 0


def test_update_changes_the_policy(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("a")
    script = "while [ ! -e /end ]; do usleep 20000; done; rm /end; exit 3"
    cli.ok("run", "-d", "--name", name, "busybox", "sh", "-c", script)
    cli.ok("update", "--restart", "on-failure:1", name)
    cli.ok("exec", name, "touch", "/end")
    until("it was restarted", lambda: count(engine, name) == 1)
    until("it runs", lambda: engine.api.state(name)["Status"] == "running")
    cli.ok("exec", name, "touch", "/end")
    until("it has given up", lambda: engine.api.state(name)["Status"] == "exited")


@ours_only
def test_a_long_run_resets_the_delay(engine: Engine, names: Names) -> None:
    """Ten seconds of life; seen as a short gap after it."""
    cli, name, since = engine.cli("teu"), names("a"), time.time()
    script = "[ -e /x ] && sleep 10.2; echo x >> /n; [ $(wc -l < /n) -ge 4 ] && touch /x; exit 1"
    cli.ok("run", "-d", "--name", name, "--restart", "always", "busybox", "sh", "-c", script)
    until("it lived long", lambda: len(deaths(engine, name, since)) >= 5, 20)
    until("it was started again", lambda: engine.api.state(name)["Status"] == "running")
    starts = [event["timeNano"] / 1e9 for event in events(engine, name, since, "start")]
    assert starts[-1] - deaths(engine, name, since)[-1] < 1.2  # without a reset 1.6
    cli.ok("rm", "-f", name)


def test_a_removal_wins_over_a_restart(cli: Cli, engine: Engine, names: Names) -> None:
    """Whatever comes first: in the end the container is gone."""
    for number in range(4):
        name = f"{names('a')}-{number}"
        cli.ok("run", "-d", "--name", name, "busybox", "sleep", "1000")
        with cli.spawn("restart", "-t", "0", name) as restart:
            time.sleep(0.01 * number)
            cli.ok("rm", "-f", name)
            restart.communicate(timeout=20)
        assert engine.api.request("GET", f"/containers/{name}/json").status == 404
