"""The course's first commands, as they are typed in the lesson."""

import re

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.names import PROMPT, Names
from harness.terminal import CTRL_C, DETACH, leave
from harness.waiting import PATIENCE, until

SHORT_ID = re.compile(r"[0-9a-f]{12}")
FULL_ID = re.compile(r"[0-9a-f]{64}")


def test_version(cli: Cli) -> None:
    assert re.fullmatch(
        r"\w+ version \d+\.\d+\.\d+\S*(, build \S+)?", cli.ok("--version"), re.IGNORECASE
    )


def test_hello_world(cli: Cli, engine: Engine) -> None:
    engine.api.request("DELETE", "/images/hello-world", force=1)
    done = cli.run("run", "hello-world")
    assert done.code == 0, done
    assert "Hello from Docker!" in done.out
    assert "Unable to find image 'hello-world:latest' locally" in done.err
    assert re.search(r"^latest: Pulling from library/hello-world$", done.err, re.MULTILINE)
    assert re.search(r"^[0-9a-f]{12}: (Pull complete|Already exists)$", done.err, re.MULTILINE)
    assert re.search(r"^Digest: sha256:[0-9a-f]{64}$", done.err, re.MULTILINE)
    assert "Status: Downloaded newer image for hello-world:latest" in done.err


def test_ps_ax_in_ubuntu(cli: Cli) -> None:
    lines = cli.ok("run", "ubuntu", "ps", "ax", timeout_s=60).splitlines()
    assert lines[0].split() == ["PID", "TTY", "STAT", "TIME", "COMMAND"]
    assert [line.split()[0] for line in lines[1:]] == ["1"]
    assert lines[1].endswith("ps ax")


def test_bash_typed_at_a_terminal_left_and_attached_again(cli: Cli, names: Names) -> None:
    with cli.tty("run", "-it", "--name", names("a"), "ubuntu", "/bin/bash") as terminal:
        terminal.expect(PROMPT, 60)
        terminal.line("ps ax | head -3; echo $((6 * 7))")
        terminal.expect(r"1 pts/0 +Ss +\S+ /bin/bash")
        terminal.expect(r"^42$")
        terminal.expect(PROMPT)
        terminal.line("word=kept")
        terminal.expect(PROMPT)
        terminal.send(DETACH)
        assert terminal.wait() == 0
    assert cli.ok("ps", "--format", "{{.Names}}: {{.Status}}").startswith(f"{names('a')}: Up")
    with cli.tty("attach", names("a")) as terminal:
        terminal.line("")
        terminal.expect(PROMPT)
        terminal.line("echo is-$word")
        terminal.expect(r"^is-kept$")
        terminal.line("exit 5")
        assert terminal.wait() == 5


def test_clock_in_the_foreground_ended_by_ctrl_c(cli: Cli, engine: Engine, names: Names) -> None:
    with cli.tty("run", "--name", names("clock"), "clock") as terminal:
        terminal.expect(r"tick 3 \d\d:\d\d:\d\d")
        terminal.send(CTRL_C)
        assert terminal.wait() == 0
    assert engine.api.state(names("clock"))["Status"] == "exited"


def test_clock_with_a_terminal_ended_by_ctrl_c(cli: Cli, engine: Engine, names: Names) -> None:
    with cli.tty("run", "-it", "--name", names("clock"), "clock") as terminal:
        terminal.expect(r"tick 3 \d\d:\d\d:\d\d")
        terminal.send(CTRL_C)
        assert terminal.wait() == 0
    assert engine.api.state(names("clock"))["Status"] == "exited"


def test_clock_in_the_background_read_by_logs(cli: Cli, engine: Engine, names: Names) -> None:
    printed = cli.ok("run", "-d", "--name", names("clock"), "clock")
    assert FULL_ID.fullmatch(printed)
    name = names("clock")
    until("the clock has ticked five times", lambda: "tick 5 " in cli.ok("logs", name))
    assert len(cli.ok("logs", "--tail", "3", printed[:12]).splitlines()) == 3
    with cli.tty("logs", "--tail", "1", "--follow", name) as terminal:
        first = int(terminal.expect(r"tick (\d+) ").group(1))
        terminal.expect(rf"tick {first + 2} ")
        terminal.send(CTRL_C)
        assert terminal.wait() in (0, 130)  # docker's exit code differs between its versions
    assert engine.api.state(name)["Running"] is True


def test_ps_and_its_options(cli: Cli, names: Names) -> None:
    assert cli.run("run", "--name", names("ended"), "busybox", "sh", "-c", "exit 3").code == 3
    running = cli.ok("run", "-d", "--name", names("up"), "clock")
    header, *rows = cli.ok("ps").splitlines()
    assert header.split() == [
        "CONTAINER",
        "ID",
        "IMAGE",
        "COMMAND",
        "CREATED",
        "STATUS",
        "PORTS",
        "NAMES",
    ]
    (row,) = rows
    assert row.startswith(running[:12])
    assert re.search(r'clock +"/bin/sh /clock\.sh" +\S.* ago +Up \S.* +' + names("up"), row)
    assert cli.ok("ps", "-q") == running[:12]
    both = cli.ok("ps", "-a").splitlines()[1:]
    assert names("up") in both[0]
    assert names("ended") in both[1]
    assert re.search(r"Exited \(3\) \S+.* ago", both[1])
    assert len(cli.ok("ps", "-aq").splitlines()) == 2
    assert names("up") in cli.ok("ps", "-l").splitlines()[1]
    cli.run("run", "--name", names("last"), "busybox", "true")
    assert names("last") in cli.ok("ps", "-l").splitlines()[1]
    assert SHORT_ID.fullmatch(cli.ok("ps", "-lq"))
    assert cli.ok("ps", "-q", "--no-trunc") == running


def test_kill_is_at_once_and_stop_takes_ten_seconds(cli: Cli, engine: Engine, names: Names) -> None:
    """The first process of a container ignores TERM unless it asks for it: only KILL ends it."""
    for name in ("killed", "stopped"):
        cli.ok("run", "-d", "--name", names(name), "busybox", "sleep", "1000")
    killed = cli.run("kill", names("killed"))
    assert (killed.code, killed.out.strip()) == (0, names("killed"))
    until("the container has ended", lambda: engine.api.state(names("killed"))["ExitCode"] == 137)
    assert killed.took_s < 2 * PATIENCE
    stopped = cli.run("stop", names("stopped"))
    assert (stopped.code, stopped.out.strip()) == (0, names("stopped"))
    assert 9.9 < stopped.took_s < 9.9 + 2 * PATIENCE
    assert engine.api.state(names("stopped"))["ExitCode"] == 137
    rows = cli.ok("ps", "-a", "--format", "{{.Names}} {{.Status}}").splitlines()
    assert all(" Exited (137) " in row for row in rows)


def test_stop_of_one_that_listens_to_term_is_fast(cli: Cli, engine: Engine, names: Names) -> None:
    cli.ok("run", "-d", "--name", names("clock"), "clock")
    until("the trap is set", lambda: "tick" in cli.ok("logs", names("clock")))
    assert cli.run("stop", names("clock")).took_s < 3 * PATIENCE
    state = engine.api.state(names("clock"))
    assert (state["Status"], state["ExitCode"]) == ("exited", 0)


def test_kill_with_another_signal(cli: Cli, engine: Engine, names: Names) -> None:
    script = "trap 'echo got-hup' HUP; trap 'exit 9' USR1; echo set; while :; do sleep 0.05; done"
    cli.ok("run", "-d", "--name", names("a"), "busybox", "sh", "-c", script)
    until("the traps are set", lambda: "set" in cli.ok("logs", names("a")))
    cli.ok("kill", "--signal", "HUP", names("a"))
    until("HUP has arrived", lambda: "got-hup" in cli.ok("logs", names("a")))
    cli.ok("kill", "-s", "SIGUSR1", names("a"))
    assert cli.ok("wait", names("a")) == "9"


def test_rm(cli: Cli, engine: Engine, names: Names) -> None:
    first = cli.ok("run", "-d", "--name", names("first"), "clock")
    second = cli.ok("create", "--name", names("second"), "busybox", "true")
    said = cli.fails(1, "rm", names("first"))
    assert re.search(r"(?i)error.*running.*(force remove)", said)
    assert engine.api.state(first)["Running"] is True
    assert cli.ok("rm", names("second")) == names("second")
    assert cli.ok("rm", "-f", first[:12]) == first[:12]
    assert not {first, second} & engine.api.container_ids()
    assert "No such container" in cli.fails(1, "rm", names("second"))
    cli.ok("run", "-d", "--name", names("first"), "clock")  # the name is free again


def test_two_clients_attached_to_one_container(cli: Cli, names: Names) -> None:
    cli.ok("run", "-dit", "--name", names("shared"), "ubuntu", "bash", timeout_s=60)
    with cli.tty("attach", names("shared")) as left, cli.tty("attach", names("shared")) as right:
        left.line("")
        left.expect(PROMPT)
        right.line("echo from-right-$((1 + 1))")
        left.expect(r"^from-right-2$")
        right.expect(r"^from-right-2$")
        left.line("echo from-left-$((2 + 2))")
        right.expect(r"^from-left-4$")
        leave(left)
        right.line("echo still-$((3 + 3))")
        right.expect(r"^still-6$")
        right.line("exit")
        assert right.wait() == 0


def test_start_and_restart(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("again")
    cli.ok("run", "--name", name, "busybox", "sh", "-c", "echo line >> /file; wc -l < /file")
    assert cli.ok("start", name) == name
    assert cli.ok("wait", name) == "0"
    assert cli.ok("start", "-a", name) == "3"
    assert cli.ok("logs", name).split() == ["1", "2", "3"]
    clock = names("clock")
    cli.ok("run", "-d", "--name", clock, "clock")
    until("the clock ticks", lambda: "tick" in cli.ok("logs", clock))
    before = engine.api.state(clock)
    assert cli.ok("restart", clock) == clock
    after = engine.api.state(clock)
    assert after["Running"] is True
    assert after["Pid"] != before["Pid"]
    assert after["StartedAt"] > before["StartedAt"]
    assert cli.ok("start", clock) == clock  # already running: no error


@pytest.mark.parametrize("text", ["hi", "two\nlines"])
def test_half_closed_stdin_ends_cat(cli: Cli, text: str) -> None:
    done = cli.run("run", "-i", "--rm", "busybox", "cat", stdin=f"{text}\n".encode())
    assert (done.code, done.out) == (0, f"{text}\n")


def test_start_streams_both_ways_without_a_terminal(cli: Cli, names: Names) -> None:
    cli.ok("create", "-i", "--name", names("upper"), "busybox", "tr", "a-z", "A-Z")
    assert cli.ok("start", "-ai", names("upper"), stdin=b"some words\n") == "SOME WORDS"
