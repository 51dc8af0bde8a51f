"""Health checks with real probes: what ps, inspect and events show, and what is done about it."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.clients import Cli
from harness.engine import KIND, Engine
from harness.names import Names
from harness.waiting import until

FAST = ["--health-interval", "100ms", "--health-timeout", "5s"]
SLEEP = ["busybox", "sleep", "1000"]
ours_only = pytest.mark.skipif(KIND != "teu", reason="an extension, or newer than the peer")


def health(engine: Engine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.api.state(name).get("Health") or {}
    return found


def becomes(engine: Engine, name: str, status: str) -> dict[str, Any]:
    until(f"{name} is {status}", lambda: health(engine, name)["Status"] == status)
    return health(engine, name)


def actions(engine: Engine, name: str, since: float) -> list[str]:
    """All actions of the container's events since then."""
    reply = engine.api.request(
        "GET",
        "/events",
        since=f"{since:.9f}",
        until=f"{time.time():.9f}",
        filters=json.dumps({"container": [name]}),
    )
    return [json.loads(line)["Action"] for line in reply.body.splitlines()]


def test_healthy_unhealthy_and_back(cli: Cli, engine: Engine, names: Names) -> None:
    name, since = names("a"), time.time()
    check = ["--health-cmd", "echo looked; test ! -e /bad", "--health-retries", "2", *FAST]
    cli.ok("run", "-d", "--name", name, *check, *SLEEP)
    found = becomes(engine, name, "healthy")
    assert found["FailingStreak"] == 0
    assert (found["Log"][-1]["ExitCode"], found["Log"][-1]["Output"]) == (0, "looked\n")
    assert found["Log"][-1]["Start"] < found["Log"][-1]["End"]
    shown = cli.ok("ps", "--filter", f"name={name}", "--format", "{{.Status}}")
    assert shown.startswith("Up ")
    assert shown.endswith(" (healthy)")
    assert cli.ok("ps", "-q", "--filter", "health=healthy", "--filter", f"name={name}")
    cli.ok("exec", name, "touch", "/bad")
    found = becomes(engine, name, "unhealthy")
    assert found["FailingStreak"] >= 2
    assert not cli.ok("ps", "-q", "--filter", "health=healthy", "--filter", f"name={name}")
    assert "(unhealthy)" in cli.ok("ps", "--filter", "health=unhealthy")
    cli.ok("exec", name, "rm", "/bad")
    assert becomes(engine, name, "healthy")["FailingStreak"] == 0
    told = [a for a in actions(engine, name, since) if a.startswith("health_status")]
    assert told == ["health_status: healthy", "health_status: unhealthy", "health_status: healthy"]


def test_a_probe_is_told_as_an_exec(cli: Cli, engine: Engine, names: Names) -> None:
    name, since = names("a"), time.time()
    cli.ok("run", "-d", "--name", name, "--health-cmd", "true", *FAST, *SLEEP)
    becomes(engine, name, "healthy")
    told = actions(engine, name, since)
    first = told.index("exec_create: /bin/sh -c true")
    assert told[first : first + 3] == [
        "exec_create: /bin/sh -c true",
        "exec_start: /bin/sh -c true",
        "exec_die",
    ]


def test_starting_is_shown(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("a")
    cli.ok("create", "--name", name, "--health-cmd", "true", *SLEEP)
    assert "Health" not in engine.api.state(name)
    cli.ok("start", name)
    assert health(engine, name) == {"Status": "starting", "FailingStreak": 0, "Log": []}
    shown = cli.ok("ps", "--filter", "health=starting", "--format", "{{.Status}}")
    assert "(health: starting)" in shown
    assert name in cli.ok("ps", "-a", "--filter", "health=starting", "--format", "{{.Names}}")
    assert cli.ok("stop", "-t", "0", name) == name
    assert health(engine, name)["Status"] == "unhealthy"  # as Docker shows it


def test_no_check(cli: Cli, engine: Engine, names: Names) -> None:
    cli.ok("run", "-d", "--name", names("a"), "--no-healthcheck", *SLEEP)
    assert "Health" not in engine.api.state(names("a"))
    config = engine.api.inspect(names("a"))["Config"]
    assert config["Healthcheck"] == {"Test": ["NONE"]}
    assert cli.ok("ps", "-q", "--filter", "health=none", "--filter", f"name={names('a')}")


def test_output_is_cut_and_the_log_is_short(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("a")
    check = ["--health-cmd", "head -c 300000 /dev/zero | tr '\\0' x", *FAST]
    cli.ok("run", "-d", "--name", name, *check, *SLEEP)
    until("the log is full", lambda: len(health(engine, name)["Log"]) == 5)
    last = health(engine, name)["Log"][-1]
    assert (last["ExitCode"], last["Output"]) == (0, "x" * 4096 + "...")
    first = health(engine, name)["Log"][0]["Start"]
    until("the oldest goes", lambda: health(engine, name)["Log"][0]["Start"] != first)
    assert len(health(engine, name)["Log"]) == 5


def in_container(engine: Engine, name: str, word: str) -> list[str]:
    """Command lines of the container's processes that contain the word."""
    titles_and_rows = engine.api.get(f"/containers/{name}/top", ps_args="-eo pid,args")
    return [row[1] for row in titles_and_rows["Processes"] if word in row[1]]


def test_a_late_probe_is_killed_with_its_children(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("a")
    script = "echo slow; sleep 4321 & sleep 4321"
    check = ["--health-cmd", script, "--health-interval", "100ms", "--health-timeout", "300ms"]
    cli.ok("run", "-d", "--name", name, *check, "--health-retries", "1", *SLEEP)
    last = becomes(engine, name, "unhealthy")["Log"][-1]
    assert last["ExitCode"] == -1
    assert last["Output"].startswith("Health check exceeded timeout (300ms)")
    if engine.kind == "teu":  # the peer, an old one, forgets the output and leaves children
        assert last["Output"].endswith(": slow\n")
        until("seen without a probe", lambda: not in_container(engine, name, "4321"))


def test_a_command_that_is_not_there(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("a")
    body = {
        "Image": "busybox",
        "Cmd": ["sleep", "1000"],
        "Healthcheck": {"Test": ["CMD", "nothing"], "Interval": 100_000_000, "Retries": 1},
    }
    assert engine.api.request("POST", "/containers/create", body, name=name).status == 201
    cli.ok("start", name)
    last = becomes(engine, name, "unhealthy")["Log"][-1]
    assert last["ExitCode"] in (-1, 126, 127)
    assert "nothing" in last["Output"]


@ours_only
def test_the_start_period_forgives(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("a")
    period = ["--health-start-period", "1s", "--health-start-interval", "50ms"]
    check = ["--health-cmd", "exit 3", "--health-interval", "100ms", "--health-retries", "1"]
    began = time.monotonic()
    cli.ok("run", "-d", "--name", name, *check, *period, *SLEEP)
    until("some probes were made", lambda: len(health(engine, name)["Log"]) >= 3)
    if time.monotonic() - began < 0.9:
        assert (health(engine, name)["Status"], health(engine, name)["FailingStreak"]) == (
            "starting",
            0,
        )
    assert becomes(engine, name, "unhealthy")["Log"][-1]["ExitCode"] == 3
    assert time.monotonic() - began > 1


def test_inherited_from_the_image(cli: Cli, engine: Engine, names: Names) -> None:
    image = names("img").lower()
    cli.ok("create", "--name", names("base"), "busybox", "true")
    check = "HEALTHCHECK --interval=100ms --retries=7 CMD echo from image"
    cli.ok("commit", "-c", check, names("base"), image)
    try:
        cli.ok("run", "-d", "--name", names("a"), image, "sleep", "1000")
        found = becomes(engine, names("a"), "healthy")
        assert found["Log"][-1]["Output"] == "from image\n"
        options = ["--health-cmd", "echo mine", "--health-interval", "200ms"]
        cli.ok("run", "-d", "--name", names("b"), *options, image, "sleep", "1000")
        assert becomes(engine, names("b"), "healthy")["Log"][-1]["Output"] == "mine\n"
        config = engine.api.inspect(names("b"))["Config"]["Healthcheck"]
        assert (config["Retries"], config["Interval"]) == (7, 200_000_000)
        cli.ok("run", "-d", "--name", names("c"), "--no-healthcheck", image, "sleep", "1000")
        assert not health(engine, names("c"))
    finally:
        for what in "abc":
            cli.run("rm", "-f", names(what))
        cli.ok("rm", names("base"))
        cli.ok("rmi", image)


def test_a_pause_suspends_the_checks(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("a")
    cli.ok("run", "-d", "--name", name, "--health-cmd", "true", *FAST, *SLEEP)
    becomes(engine, name, "healthy")
    cli.ok("pause", name)
    assert health(engine, name)["Status"] == "unhealthy"
    cli.ok("unpause", name)
    becomes(engine, name, "healthy")


def test_bad_checks_are_refused(engine: Engine) -> None:
    def refused(check: dict[str, Any]) -> str:
        body = {"Image": "busybox", "Cmd": ["true"], "Healthcheck": check}
        reply = engine.api.request("POST", "/containers/create", body)
        assert reply.status == 400, reply
        message: str = reply.json()["message"]
        return message

    test = {"Test": ["CMD", "true"]}
    for field in ("Interval", "Timeout", "StartPeriod"):
        expected = f"{field} in Healthcheck cannot be less than 1ms"
        assert expected in refused(test | {field: 999_999})
    assert "Retries in Healthcheck cannot be negative" in refused(test | {"Retries": -1})
    reply = engine.api.request("GET", "/containers/json", filters='{"health":["ill"]}')
    assert reply.status == 400
    assert "invalid filter 'health=ill'" in reply.json()["message"].replace("health'", "health")


@ours_only
@pytest.mark.parametrize("action", ["kill", "restart", "stop"])
def test_action_on_failure(engine: Engine, names: Names, action: str) -> None:
    cli, name = engine.cli("teu"), names("a")
    check = ["--health-cmd", "test -e /good", "--health-retries", "1", *FAST, "--stop-timeout", "0"]
    cli.ok(
        "run", "-d", "--name", name, *check, "--health-on-failure", action, "busybox", "sh", "-c",
        "echo start; sleep 1000",
    )  # fmt: skip
    if action == "restart":
        until("it was restarted", lambda: cli.ok("logs", name).count("start") >= 2)
        cli.ok("rm", "-f", name)
        return
    until("it has ended", lambda: not engine.api.state(name)["Running"])
    assert engine.api.state(name)["ExitCode"] == 137
    assert engine.api.state(name)["Health"]["FailingStreak"] >= 1


@ours_only
def test_kill_on_failure_lets_the_restart_policy_decide(engine: Engine, names: Names) -> None:
    """Asked through Docker's client, which has no flag for it."""
    cli, name = engine.cli("docker"), names("a")
    asked = ["--annotation", "teu.health-on-failure=kill", "--restart", "always"]
    check = ["--health-cmd", "false", "--health-retries", "1", *FAST]
    cli.ok("run", "-d", "--name", name, *check, *asked, *SLEEP)
    until("it was started again", lambda: engine.api.inspect(name)["RestartCount"] >= 1)
    cli.ok("rm", "-f", name)


@ours_only
def test_an_unknown_action_is_refused(engine: Engine) -> None:
    said = engine.cli("teu").fails(125, "run", "--health-on-failure", "pray", "busybox", "true")
    assert "pray" in said
    assert "none, kill, restart, stop" in said


@ours_only
@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_health_survives_the_daemon(
    private_engine: Engine, names: Names, how: str, tmp_path: Path
) -> None:
    """Also a probe that was running then: it ends with the daemon's next start."""
    engine, cli, name = private_engine, private_engine.cli("teu"), names("a")
    until_ready = ["-v", f"{tmp_path}:/t", "--health-cmd", "test ! -e /t/hang || exec sleep 4322"]
    cli.ok("run", "-d", "--name", name, *until_ready, *FAST, "--health-timeout", "60s", *SLEEP)
    found = becomes(engine, name, "healthy")
    (tmp_path / "hang").touch()
    until("a probe hangs", lambda: in_container(engine, name, "4322"))
    getattr(engine, how)()
    (tmp_path / "hang").unlink()
    engine.start()
    after = health(engine, name)
    assert after["Status"] == "healthy"
    assert after["Log"][0]["Start"] >= found["Log"][0]["Start"]
    until("the hanging probe is gone", lambda: not in_container(engine, name, "4322"))
    last = after["Log"][-1]["End"]
    until("it is watched again", lambda: health(engine, name)["Log"][-1]["End"] > last)
    cli.ok("rm", "-f", name)


@pytest.fixture
def cpu_s(engine: Engine) -> Callable[[], float]:
    """CPU seconds that the daemon has used."""

    def used() -> float:
        fields = Path(f"/proc/{engine.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    return used


@ours_only
def test_probes_are_cheap_for_the_daemon(
    engine: Engine, names: Names, cpu_s: Callable[[], float]
) -> None:
    """Less than 5 ms of the daemon's time for each: 100 containers at 1 s need half a core."""
    cli, name = engine.cli("teu"), names("a")
    cli.ok(
        "run", "-d", "--name", name, "--health-cmd", "true", "--health-interval", "1ms",
        "-v", "/count", *SLEEP,
    )  # fmt: skip
    becomes(engine, name, "healthy")
    before, since = cpu_s(), time.time()
    time_limit = time.monotonic() + 1.5
    while time.monotonic() < time_limit:
        os.sched_yield()
        time.sleep(0.1)
    used = cpu_s() - before
    probes = actions(engine, name, since).count("exec_die")
    assert probes > 10
    assert used / probes < 0.005
