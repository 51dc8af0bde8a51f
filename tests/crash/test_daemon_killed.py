"""`kill -9` of the daemon under ten running containers: nothing is lost."""

import contextlib
import http.client
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names
from harness.registry import free_port
from harness.terminal import Terminal
from harness.waiting import until

pytestmark = pytest.mark.engine_options(dockerd=("--live-restore",))

WRITER = "i=0; while :; do i=$((i + 1)); echo line $i; usleep 3000; done"
FAST_WRITER = "seq 1 3000000 | while read i; do echo line $i; done"
ENDING = (
    "echo waiting; until [ -e /signal/{file} ]; do usleep 20000; done; echo ending; exit {code}"
)


@pytest.fixture(params=["docker", "teu"])
def client(private_engine: Engine, request: pytest.FixtureRequest) -> Cli:
    """A client of the engine that this test kills."""
    return private_engine.cli(request.param)


class Ten:
    """The ten containers, by what they do."""

    def __init__(self, cli: Cli, engine: Engine, names: Names, signal: Path) -> None:
        self.cli, self.engine, self.names, self.signal = cli, engine, names, signal
        self.port = free_port()
        for what in ("idle1", "idle2"):
            self._run(what, "busybox", "sleep", "100000")
        self._run("terminal1", "busybox", "sh", options=["-it"])
        self._run("terminal2", "busybox", "sh", options=["-it"])
        self._run("writer", "busybox", "sh", "-c", WRITER)
        self._run("fast-writer", "busybox", "sh", "-c", FAST_WRITER)
        web = "echo page > /index.html; exec httpd -f -p 80 -h /"
        self._run("web", "busybox", "sh", "-c", web, options=["-p", f"{self.port}:80"])
        self._run_ending("ends7", 7)
        self._run_ending("ends0", 0)
        self._run_ending("ends-rm", 3, options=["--rm"])
        self.before = {name: engine.api.state(name) for name in self.all}

    @property
    def all(self) -> list[str]:
        idle = ("idle1", "idle2", "terminal1", "terminal2")
        return [self.names(w) for w in (*idle, "writer", "fast-writer", "web", "ends7", "ends0")]

    def _run(self, what: str, image: str, *command: str, options: Any = ()) -> None:
        self.cli.ok("run", "-d", "--name", self.names(what), *options, image, *command)

    def _run_ending(self, what: str, code: int, options: Any = ()) -> None:
        command = ENDING.format(file=what, code=code)
        more = ["-v", f"{self.signal}:/signal", *options]
        self._run(what, "busybox", "sh", "-c", command, options=more)
        self.engine.known_ids.add(self.engine.api.inspect(self.names(what))["Id"])


@pytest.fixture
def ten(client: Cli, private_engine: Engine, names: Names, tmp_path: Path) -> Ten:
    return Ten(client, private_engine, names, tmp_path)


def test_ten_containers_live_on(ten: Ten, client: Cli, private_engine: Engine) -> None:
    engine, names = private_engine, ten.names
    with client.tty("attach", names("terminal1")) as terminal:
        _type(terminal, "word=kept; echo now-$word", "^now-kept$")
    written = _last_line(client, names("writer"))
    engine.kill()
    _end_while_nobody_looks(ten)
    until("the web server answers without a daemon", lambda: _page(engine, ten.port))
    engine.start()

    rows = client.ok("ps", "-a", "--format", "{{.Names}}").splitlines()
    assert sorted(rows) == sorted(ten.all)  # the one with --rm has ended, and is gone
    after = {name: engine.api.state(name) for name in ten.all}
    for name in set(ten.all) - {names("ends7"), names("ends0")}:
        for key in ("Status", "Pid", "StartedAt"):
            assert after[name][key] == ten.before[name][key], (name, key)
    _check_ended(ten, after)
    _check_logs(ten, client, written)
    with client.tty("attach", names("terminal1")) as terminal:
        _type(terminal, "echo is-$word", "^is-kept$")
    with client.tty("attach", names("terminal2")) as terminal:
        _type(terminal, "exit 9", "")
        assert terminal.wait() == 9
    until("the page is served", lambda: _page(engine, ten.port))
    assert client.ok("exec", names("idle1"), "echo", "exec works") == "exec works"
    assert client.ok("stop", "-t", "0", names("idle1")) == names("idle1")
    assert client.ok("wait", names("idle1")) == "137"
    assert client.ok("start", names("ends7")) == names("ends7")
    assert client.ok("wait", names("ends7")) == "7"  # its signal is still there
    client.ok("restart", "-t", "0", names("web"))
    until("the page is served again", lambda: _page(engine, ten.port))


def _end_while_nobody_looks(ten: Ten) -> None:
    """Lets three containers end; waits until their processes are gone."""
    for what in ("ends7", "ends0", "ends-rm"):
        (ten.signal / what).touch()
    pids = [ten.before[ten.names(what)]["Pid"] for what in ("ends7", "ends0")]
    until(
        "the containers have ended",
        lambda: not any(_alive(pid) for pid in pids),
    )


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _check_ended(ten: Ten, after: dict[str, dict[str, Any]]) -> None:
    for what, code in (("ends7", 7), ("ends0", 0)):
        state = after[ten.names(what)]
        assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", code, 0)
        assert state["FinishedAt"] > state["StartedAt"]
        if ten.engine.kind == "teu":  # docker loses what is written while it is not there
            assert ten.cli.ok("logs", ten.names(what)).split() == ["waiting", "ending"]


def _check_logs(ten: Ten, cli: Cli, written: int) -> None:
    """No line of the writers is missing or doubled, from before, between and after."""
    for what in ("writer", "fast-writer"):
        lines = cli.ok("logs", ten.names(what)).splitlines()
        assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]
    assert _last_line(cli, ten.names("writer")) > written
    until("the writer's log goes on", lambda: _last_line(cli, ten.names("writer")) > written + 100)


def _last_line(cli: Cli, name: str) -> int:
    lines = cli.ok("logs", "--tail", "1", name).split()
    return int(lines[1]) if lines else 0


def _type(terminal: Terminal, text: str, answer: str) -> None:
    terminal.line("")
    terminal.expect("# ")
    terminal.line(text)
    if answer:
        terminal.expect(answer)


def _page(engine: Engine, port: int) -> bool:
    if engine.kind == "dockerd" and not engine.running():
        return True  # its proxies die with it
    try:
        with urllib.request.urlopen(f"http://{engine.gateway}:{port}/", timeout=5) as reply:
            return bool(reply.read() == b"page\n")
    except OSError:
        return False


@pytest.mark.parametrize("delay_ms", [0, 5, 15, 30, 60])
def test_killed_in_the_middle_of_a_start(
    private_engine: Engine, names: Names, delay_ms: int
) -> None:
    """The container is as before or as after; either way it can be started and removed."""
    engine = private_engine
    made = engine.api.request(
        "POST",
        "/containers/create",
        {"Image": "busybox", "Cmd": ["sleep", "100000"], "HostConfig": {"PidMode": ""}},
        name=names("a"),
    )
    container = made.json()["Id"]
    engine.known_ids.add(container)
    thread = threading.Thread(target=_try_start, args=(engine, container))
    thread.start()
    thread.join(delay_ms / 1000)
    engine.kill()
    thread.join()
    engine.start()
    state = engine.api.state(container)
    assert state["Status"] in ("created", "running"), state
    if state["Status"] == "running":
        assert _alive(state["Pid"])
    reply = engine.api.request("POST", f"/containers/{container}/start")
    assert reply.status == (304 if state["Status"] == "running" else 204), reply
    assert engine.api.request("POST", f"/containers/{container}/stop", t=0).status == 204
    assert engine.api.state(container)["ExitCode"] == 137


def _try_start(engine: Engine, container: str) -> None:
    # The daemon is gone in the middle of it, as it should be.
    with contextlib.suppress(OSError, http.client.HTTPException):
        engine.api.request("POST", f"/containers/{container}/start")


def test_sigterm_leaves_containers_running(private_engine: Engine, names: Names) -> None:
    engine = private_engine
    cli = engine.cli("docker")
    cli.ok("run", "-d", "--name", names("a"), "busybox", "sh", "-c", WRITER)
    before = engine.api.state(names("a"))
    assert engine.terminate() == 0
    assert _alive(before["Pid"])
    assert not engine.socket.exists() or engine.kind == "dockerd"
    engine.start()
    assert engine.api.state(names("a")) == before
    lines = cli.ok("logs", names("a")).splitlines()
    assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]


def test_restart_policy_is_kept_over_a_kill(
    private_engine: Engine, names: Names, tmp_path: Path
) -> None:
    """What ended while no daemon was there is started again by the next one."""
    engine = private_engine
    cli = engine.cli("docker")
    script = "echo begun; until [ -e /signal/go ]; do usleep 20000; done; rm /signal/go; exit 4"
    command = ["sh", "-c", script]
    options = ["--restart=always", "-v", f"{tmp_path}:/signal"]
    cli.ok("run", "-d", "--name", names("a"), *options, "busybox", *command)
    pid = engine.api.state(names("a"))["Pid"]
    engine.kill()
    (tmp_path / "go").touch()
    until("the container has ended", lambda: not _alive(pid))
    engine.start()
    until("it runs again", lambda: engine.api.state(names("a"))["Running"], 20)
    assert engine.api.state(names("a"))["Pid"] != pid
    until("it has begun twice", lambda: cli.ok("logs", names("a")).split() == ["begun"] * 2)


def test_a_second_daemon_is_refused(private_engine: Engine) -> None:
    engine = private_engine
    first = engine.process
    assert first
    size = engine.log.stat().st_size
    engine.launch()
    second = engine.process
    assert second
    engine.process = first
    code = until(
        "the second daemon ends", lambda: (second.poll() is not None) and str(second.returncode)
    )
    assert code != "0"
    assert engine.log.read_bytes()[size:].strip()
    assert first.poll() is None
    assert engine.api.alive()
