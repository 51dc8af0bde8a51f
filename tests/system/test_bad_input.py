"""What people get wrong: a clear error, the right exit code, nothing left behind."""

# ruff: noqa: E501  (a table is read by its columns)

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names

NOBODY = 65534


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(engine: Engine) -> Iterator[None]:
    """A refused request makes no container, image, volume or network of any kind."""

    def objects() -> dict[str, set[str]]:
        return {
            "containers": engine.api.container_ids(),
            "images": {row["Id"] for row in engine.api.get("/images/json", all=1)},
            "volumes": {row["Name"] for row in engine.api.get("/volumes")["Volumes"] or []},
            "networks": {row["Id"] for row in engine.api.get("/networks")},
        }

    before = objects()
    yield
    assert objects() == before


# --- the daemon cannot be reached -------------------------------------------------------------


@pytest.mark.parametrize(("command", "code"), [(("ps",), 1), (("run", "busybox"), 125)])
def test_daemon_not_running(cli: Cli, tmp_path: Path, command: tuple[str, ...], code: int) -> None:
    away = cli.at(f"unix://{tmp_path}/no.sock")
    said = away.fails(code, *command)
    # Docker's words, which scripts look for, and for ours what to do next.
    assert re.search(r"(?i)cannot connect to the docker daemon at|failed to connect", said)
    assert f"{tmp_path}/no.sock" in said
    assert re.search(r"(?i)is the docker daemon running|start|no such file", said)


def test_socket_that_nobody_listens_on(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    said = cli.at(f"unix://{path}").fails(1, "ps")
    assert "Cannot connect to the Docker daemon" in said


def test_no_permission_on_the_socket(cli: Cli, engine: Engine) -> None:
    if engine.kind == "external":
        pytest.skip("the socket of a running engine may be open to all")
    said = cli.as_user(NOBODY).fails(1, "ps")
    assert "permission denied" in said.lower()
    assert str(engine.socket) in said.replace("%2F", "/")
    if cli.name == "teu":
        assert re.search(r"\bgroup\b.*\bdocker\b|\bdocker\b.*\bgroup\b|\bsudo\b", said, re.DOTALL)


# --- the command line -------------------------------------------------------------------------

COMMAND_LINES = [
    ("unknown-flag-of-run", ["run", "--nosuch", "busybox"], 125, "unknown flag: --nosuch"),
    ("unknown-flag-of-ps", ["ps", "--nosuch"], 125, "unknown flag: --nosuch"),
    ("unknown-short-flag", ["run", "-X", "busybox"], 125, "unknown shorthand flag: 'X' in -X"),
    ("unknown-command", ["nosuch"], 1, "(?i)unknown command|is not a docker command"),
    ("run-without-image", ["run"], 1, "requires at least 1 argument"),
    ("ps-with-argument", ["ps", "extra"], 1, "(?i)accepts no arguments|no argument"),
    ("flag-without-value", ["run", "--name"], 125, "flag needs an argument: --name"),
    ("bad-boolean", ["run", "--rm=maybe", "busybox"], 125, '(?i)invalid argument "maybe" for "--rm"'),
    ("bad-number", ["run", "--pids-limit=many", "busybox"], 125, '(?i)invalid argument "many" for'),
    ("bad-memory", ["run", "-m", "12q", "busybox"], 125, '(?i)invalid argument "12q" for "-m, --memory"'),
    ("tiny-memory", ["run", "-m", "4k", "busybox"], 125, "(?i)minimum memory limit.*6 ?MB"),
    ("swap-below-memory", ["run", "-m", "64m", "--memory-swap=32m", "busybox"], 125, "(?i)memoryswap|memory-swap|swap"),
    ("bad-cpus", ["run", "--cpus=lots", "busybox"], 125, '(?i)invalid argument "lots" for "--cpus"'),
    ("too-many-cpus", ["run", "--cpus=4000", "busybox"], 125, r"(?i)range of cpus is from 0\.01 to"),
    ("bad-cpuset", ["run", "--cpuset-cpus=x", "busybox"], 125, "(?i)cpuset"),
    ("absent-cpu", ["run", "--cpuset-cpus=500", "busybox"], 125, "(?i)cpu"),
    ("bad-port", ["run", "-p", "eighty:80", "busybox"], 125, "(?i)invalid.*port"),
    ("port-too-high", ["run", "-p", "99999:80", "busybox"], 125, "(?i)invalid.*port|99999"),
    ("bad-port-range", ["run", "-p", "8000-8002:80-81", "busybox"], 125, "(?i)invalid.*range|port"),
    ("bad-port-address", ["run", "-p", "1.2.3:80:80", "busybox"], 125, "(?i)invalid.*ip|address"),
    ("bad-protocol", ["run", "-p", "80:80/xyz", "busybox"], 125, "(?i)invalid proto"),
    ("bad-expose", ["run", "--expose=x", "busybox"], 125, "(?i)invalid"),
    ("volume-with-four-parts", ["run", "-v", "a:/b:ro:z:x", "busybox"], 125, "(?i)invalid (volume )?spec"),
    ("volume-to-a-relative-path", ["run", "-v", "/tmp:relative", "busybox"], 125, "(?i)invalid.*(absolute|path)"),
    ("volume-to-the-root", ["run", "-v", "/tmp:/", "busybox"], 125, r"(?i)destination can't be '/'"),
    ("volume-with-a-bad-mode", ["run", "-v", "/tmp:/x:fast", "busybox"], 125, "(?i)invalid (mode|volume)"),
    ("volume-with-a-bad-name", ["run", "-v", "b!d:/x", "busybox"], 125, "(?i)includes invalid characters"),
    ("mount-without-target", ["run", "--mount", "type=bind,src=/tmp", "busybox"], 125, "(?i)target is required|target"),
    ("mount-of-unknown-type", ["run", "--mount", "type=magic,dst=/x", "busybox"], 125, "(?i)mount type.*unknown|invalid"),
    ("mount-of-nothing", ["run", "--mount", "type=bind,src=/no/such,dst=/x", "busybox"], 125, "(?i)/no/such.*|does not exist"),
    ("bad-tmpfs-option", ["run", "--tmpfs", "/x:fast", "busybox"], 125, "(?i)tmpfs|fast"),
    ("bad-name", ["run", "--name", "a b", "busybox"], 125, r"(?i)invalid container name \(a b\)"),
    ("upper-case-image", ["run", "BusyBox"], 125, "(?i)repository name.*must be lowercase"),
    ("bad-image-name", ["run", "bus:y:box"], 125, "(?i)invalid reference format"),
    ("image-never-pulled", ["run", "--pull=never", "nosuch"], 125, "(?i)no such image: nosuch"),
    ("bad-pull", ["run", "--pull=sometimes", "busybox"], 125, "(?i)invalid pull option"),
    ("bad-restart", ["run", "--restart=perhaps", "busybox"], 125, "(?i)(invalid|unknown) restart policy"),
    ("restart-and-rm", ["run", "--rm", "--restart=always", "busybox"], 125, "(?i)conflicting options.*--rm"),
    ("bad-network-mix", ["run", "--network=host", "--network=none", "busybox"], 125, "(?i)network|conflict"),
    ("container-network-and-ports", ["run", "--network=container:x", "-p", "80", "busybox"], 125, "(?i)conflicting options|no such container"),
    ("bad-capability", ["run", "--cap-add=FLY", "busybox"], 125, "(?i)(invalid|unknown) cap"),
    ("bad-device", ["run", "--device=/dev/nosuch", "busybox"], None, "(?i)/dev/nosuch"),
    ("bad-ulimit", ["run", "--ulimit", "nofile=x", "busybox"], 125, "(?i)invalid"),
    ("unknown-ulimit", ["run", "--ulimit", "wings=1", "busybox"], 125, "(?i)invalid ulimit type"),
    ("bad-sysctl", ["run", "--sysctl", "kernel.nosuch=1", "busybox"], 125, "(?i)sysctl"),
    ("bad-log-driver", ["run", "--log-driver=paper", "busybox"], 125, "(?i)paper"),
    ("bad-log-option", ["run", "--log-opt=max-sise=1m", "busybox"], 125, "(?i)max-sise"),
    ("bad-runtime", ["run", "--runtime=nosuch", "busybox"], 125, "(?i)nosuch"),
    ("bad-signal", ["run", "--stop-signal=SIGNOPE", "busybox"], 125, "(?i)invalid signal: SIGNOPE"),
    ("bad-security-option", ["run", "--security-opt=seccomp=/no/such", "busybox"], 125, "(?i)/no/such"),
    ("bad-env-file", ["run", "--env-file=/no/such", "busybox"], 125, "(?i)/no/such"),
    ("bad-label-file", ["run", "--label-file=/no/such", "busybox"], 125, "(?i)/no/such"),
    ("bad-dns", ["run", "--dns=not-an-address", "busybox"], 125, "(?i)not-an-address"),
    ("bad-add-host", ["run", "--add-host=x", "busybox"], 125, "(?i)bad format for add-host"),
    ("bad-platform", ["run", "--platform=linux/vax", "busybox"], 125, "(?i)platform|vax"),
    ("bad-detach-keys", ["run", "-it", "--detach-keys=ctrl-oops", "busybox"], None, "(?i)oops|not a TTY|terminal"),
    ("unknown-user", ["run", "--user=nobody-here", "busybox", "true"], None, "(?i)unable to find user nobody-here"),
    ("unknown-group", ["run", "--group-add=no-group", "busybox", "true"], None, "(?i)unable to find group no-group"),
    ("bad-link", ["run", "--link=nobody:x", "busybox"], 125, "(?i)nobody|no such container"),
    ("tag-of-nothing", ["tag", "nosuch", "other"], 1, "(?i)no such image"),
    ("rmi-of-nothing", ["rmi", "nosuch"], 1, "(?i)no such image"),
    ("bad-format", ["ps", "--format", "{{.Nope"], 1, "(?i)template"),
    ("bad-filter", ["ps", "--filter", "colour=red"], 1, "(?i)invalid filter"),
    ("bad-filter-value", ["ps", "--filter", "status=asleep"], 1, "(?i)asleep"),
    ("bad-tail", ["logs", "--tail=x", "nosuch"], 1, "(?i)no such container|tail"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("args", "code", "pattern"),
    [row[1:] for row in COMMAND_LINES],
    ids=[row[0] for row in COMMAND_LINES],
)
def test_command_line(
    cli: Cli, engine: Engine, args: list[str], code: int | None, pattern: str
) -> None:
    """`--rm` takes away what docker leaves created when only the start fails."""
    if (
        args[0] == "run"
        and len(args) > 1
        and not ("--rm" in "".join(args) or "--restart" in "".join(args))
    ):
        args = ["run", "--rm", *args[1:]]
    done = cli.run(*args)
    assert done.code == code if code is not None else done.code in (1, 125, 126, 127), done
    assert re.search(pattern, done.err), done
    assert "Traceback" not in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    "command",
    ["start", "stop", "kill", "restart", "pause", "unpause", "rm", "logs", "attach", "wait", "top", "port", "inspect", "exec", "rename", "update"],
)  # fmt: skip
def test_unknown_container(cli: Cli, command: str) -> None:
    more = {"exec": ["true"], "rename": ["other"]}.get(command, [])
    before = ["-m", "64m"] if command == "update" else []
    said = cli.fails(1, command, *before, "nosuch", *more)
    assert re.search(r"(?i)no such (container|object): nosuch", said)


# --- commands that cannot be executed -----------------------------------------------------------

COMMANDS = [
    ("nosuch", 127, r"(?i)nosuch.*(not found|no such file)"),
    ("/no/such", 127, r"(?i)/no/such.*(not found|no such file)"),
    ("/etc/passwd", 126, r"(?i)/etc/passwd.*permission denied|permission denied"),
    ("/etc", 126, r"(?i)permission denied|is a directory"),
]


@pytest.mark.parametrize(("command", "code", "pattern"), COMMANDS)
def test_command_that_cannot_run(cli: Cli, command: str, code: int, pattern: str) -> None:
    said = cli.fails(code, "run", "--rm", "busybox", command)
    assert re.search(pattern, said)


def test_command_that_cannot_run_leaves_a_created_container(
    cli: Cli, engine: Engine, names: Names
) -> None:
    cli.fails(127, "run", "--name", names("a"), "busybox", "nosuch")
    state = engine.api.state(names("a"))
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("created", 127, 0)
    assert "nosuch" in state["Error"]
    cli.fails(1, "start", names("a"))
    cli.ok("rm", names("a"))


# --- things in use --------------------------------------------------------------------------------


def test_name_in_use(cli: Cli, engine: Engine, names: Names) -> None:
    holder = cli.ok("create", "--name", names("a"), "busybox", "true")
    said = cli.fails(125, "run", "--name", names("a"), "busybox", "true")
    assert f'The container name "/{names("a")}" is already in use by container "{holder}"' in said
    assert "You have to remove (or rename) that container" in said
    other = cli.ok("create", "busybox", "true")
    said = cli.fails(1, "rename", other, names("a"))
    assert "is already in use by container" in said
    cli.ok("rm", holder, other)


def test_port_in_use_by_a_container(cli: Cli, engine: Engine, names: Names) -> None:
    holder = cli.ok("run", "-d", "--name", names("holder"), "-p", "80", "busybox", "sleep", "100")
    port = cli.ok("port", names("holder"), "80").splitlines()[0].rpartition(":")[2]
    said = cli.fails(125, "run", "--rm", "-p", f"{port}:80", "busybox", "true")
    assert re.search(r"(?i)port is already allocated|address already in use", said)
    assert port in said
    if engine.kind == "teu":
        assert names("holder") in said or holder[:12] in said
    cli.ok("rm", "-f", holder)


def test_port_in_use_by_a_process(cli: Cli, engine: Engine, names: Names) -> None:
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        port = server.getsockname()[1]
        said = cli.fails(125, "run", "--rm", "-p", f"{port}:80", "busybox", "true")
        assert re.search(r"(?i)port is already allocated|address already in use", said)
        assert str(port) in said
        if engine.kind == "teu":
            assert re.search(rf"\b{os.getpid()}\b|python|pytest", said)
        # Without --rm the container stays, created, and starts once the port is free.
        cli.fails(125, "run", "-d", "--name", names("a"), "-p", f"{port}:80", "busybox", "true")
        assert engine.api.state(names("a"))["Status"] == "created"
    cli.ok("start", names("a"))
    cli.ok("wait", names("a"))
    cli.ok("rm", names("a"))


def test_limit_above_the_hosts(cli: Cli) -> None:
    """Above fs.nr_open, where not even CAP_SYS_RESOURCE helps."""
    most = int(Path("/proc/sys/fs/nr_open").read_text())
    done = cli.run("run", "--rm", "--ulimit", f"nofile={most * 2}", "busybox", "true")
    assert done.code in (125, 126), done
    assert re.search(r"(?i)rlimit|ulimit|nofile", done.err)


# --- states that do not allow it ----------------------------------------------------------------


def test_wrong_state(cli: Cli, engine: Engine, names: Names) -> None:
    ended, up = names("ended"), names("up")
    cli.ok("run", "--name", ended, "busybox", "true")
    cli.ok("run", "-d", "--name", up, "busybox", "sleep", "100")
    assert re.search("(?i)is not running", cli.fails(1, "exec", ended, "true"))
    assert re.search("(?i)is not running", cli.fails(1, "kill", ended))
    assert re.search("(?i)is not running", cli.fails(1, "pause", ended))
    assert re.search("(?i)is not running", cli.fails(1, "top", ended))
    assert re.search("(?i)cannot attach to a stopped container", cli.fails(1, "attach", ended))
    assert re.search("(?i)is not paused", cli.fails(1, "unpause", up))
    cli.ok("pause", up)
    assert re.search("(?i)is already paused", cli.fails(1, "pause", up))
    assert re.search("(?i)paused", cli.fails(1, "exec", up, "true"))
    assert re.search("(?i)paused", cli.fails(1, "start", up))
    assert re.search(r"(?i)invalid signal: NOPE", cli.fails(1, "kill", "-s", "NOPE", up))
    cli.ok("unpause", up)
    assert cli.ok("stop", ended) == ended  # nothing to do is no error
    cli.ok("rm", "-f", ended, up)


def test_exec_of_what_cannot_run(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("up")
    cli.ok("run", "-d", "--name", name, "busybox", "sleep", "100")
    # Before version 23 docker said 126 to both.
    assert cli.run("exec", name, "nosuch").code == (126 if engine.kind == "dockerd" else 127)
    assert cli.run("exec", name, "/etc/passwd").code == 126
    refused = cli.run("exec", "-u", "nobody-here", name, "true")
    assert refused.code != 0
    assert "unable to find user nobody-here" in refused.out + refused.err
    assert engine.api.state(name)["Running"] is True
    cli.ok("rm", "-f", name)


def test_terminal_asked_for_without_one(cli: Cli) -> None:
    done = cli.run("run", "-it", "--rm", "busybox", "true", stdin=b"x")
    assert done.code in (1, 125), done
    assert re.search(r"(?i)not a (tty|terminal)", done.err)


def test_one_of_many_fails_and_the_others_are_done(cli: Cli, engine: Engine, names: Names) -> None:
    ids = [cli.ok("create", "--name", names(str(number)), "busybox", "true") for number in (1, 2)]
    done = cli.run("rm", names("1"), "nosuch", names("2"))
    assert done.code == 1
    assert done.out.split() == [names("1"), names("2")]
    assert "No such container: nosuch" in done.err
    assert not set(ids) & engine.api.container_ids()
