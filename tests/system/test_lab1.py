"""LAB1: one interactive container through its whole life, then the same detached."""

from harness.clients import Cli
from harness.engine import Engine
from harness.names import PROMPT, Names
from harness.terminal import leave
from harness.waiting import until


def test_lab1_interactive(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("lab1")
    with cli.tty("run", "-it", "--name", name, "ubuntu", "/bin/bash") as terminal:
        terminal.expect(PROMPT, 60)
        terminal.line("echo mine > /root/note; exit")
        assert terminal.wait() == 0
    assert cli.ok("ps", "-q") == ""
    assert cli.ok("restart", name) == name
    assert engine.api.state(name)["Running"] is True
    with cli.tty("attach", name) as terminal:
        terminal.line("")
        terminal.expect(PROMPT)
        terminal.line("cat /root/note")
        terminal.expect(r"^mine$")
        terminal.expect(PROMPT)
        leave(terminal)
    assert engine.api.state(name)["Running"] is True
    assert cli.ok("stop", "-t", "1", name) == name
    assert engine.api.state(name)["Running"] is False
    assert cli.ok("rm", name) == name
    assert name not in cli.ok("ps", "-a")


def test_lab1_detached(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("lab1")
    cli.ok("run", "-dit", "--name", name, "ubuntu", "/bin/bash", timeout_s=60)
    with cli.tty("attach", name) as terminal:
        terminal.line("")
        terminal.expect(PROMPT)
        terminal.line("exit 4")
        assert terminal.wait() == 4
    assert engine.api.state(name)["ExitCode"] == 4
    assert cli.ok("start", name) == name
    with cli.tty("attach", "--detach-keys", "ctrl-x,x", name) as terminal:
        terminal.line("")
        terminal.expect(PROMPT)
        leave(terminal, "\x18x")
    assert engine.api.state(name)["Running"] is True
    assert cli.ok("stop", "-t", "0", name) == name
    assert cli.ok("rm", name) == name


def test_start_with_attach_and_terminal(cli: Cli, names: Names) -> None:
    name = names("a")
    cli.ok("create", "-it", "--name", name, "ubuntu", "bash", timeout_s=60)
    with cli.tty("start", "-ai", name) as terminal:
        terminal.expect(PROMPT)
        terminal.line("exit 6")
        assert terminal.wait() == 6


def test_window_size_follows_the_terminal(cli: Cli, names: Names) -> None:
    with cli.tty("run", "-it", "--rm", "ubuntu", "bash", rows=33, columns=101) as terminal:
        terminal.expect(PROMPT, 60)

        def size() -> str:
            terminal.line("stty size")
            return terminal.expect(r"^\d+ \d+$").group(0)

        until("the window is that of the terminal", lambda: size() == "33 101")
        terminal.resize(44, 120)
        until("the window has the new size", lambda: size() == "44 120")
        terminal.line("exit 0")
        assert terminal.wait() == 0
