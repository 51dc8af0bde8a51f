"""LAB2: a web server in a container, reached from the host, looked at from inside."""

import socket
import subprocess
import threading
import urllib.request

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.names import PROMPT, Names
from harness.registry import free_port
from harness.terminal import Terminal
from harness.waiting import PATIENCE, until


def page(address: str) -> str:
    """The web server's first page; waits until it answers."""

    def fetch() -> str:
        try:
            with urllib.request.urlopen(f"http://{address}/", timeout=5) as reply:
                return str(reply.read().decode())
        except OSError:
            return ""

    return until(f"http://{address}/ answers", fetch)


def test_web_server_reached_at_its_bridge_address(cli: Cli, names: Names) -> None:
    name = names("web")
    cli.ok("run", "-d", "--name", name, "nginx", timeout_s=60)
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    address = cli.ok("inspect", "--format", template, name)
    assert "nginx" in page(address)
    with cli.tty("attach", "--sig-proxy=false", name) as log:
        _until_logged(log, address)
    assert cli.ok("ps", "--format", "{{.Names}}") == name
    until("the log is kept too", lambda: "GET / HTTP/1.1" in cli.ok("logs", name))
    with cli.tty("exec", "-it", name, "/bin/bash") as terminal:
        terminal.expect(PROMPT)
        terminal.line("cat /etc/os-release")
        terminal.expect(r'^PRETTY_NAME="Debian GNU/Linux 12')
        terminal.line("ps ax")
        terminal.expect(r"1 \?.*nginx: master process")
        terminal.line("exit")
        assert terminal.wait() == 0
    assert cli.ok("exec", name, "cat", "/proc/1/comm") == "nginx"


def _until_logged(log: Terminal, address: str) -> None:
    """Fetches until the attached client, which may still be connecting, sees one request."""

    def fetched() -> bool:
        page(address)
        try:
            return bool(log.expect(r"GET / HTTP/1\.1", 1))
        except AssertionError:
            return False

    until("attach shows the access log", fetched)


@pytest.mark.parametrize("form", ["HOST:80", "127.0.0.1:HOST:80", "80", "-P"])
def test_web_server_at_a_published_port(cli: Cli, engine: Engine, names: Names, form: str) -> None:
    name, port = names("web"), free_port()
    option = ["-P"] if form == "-P" else ["-p", form.replace("HOST", str(port))]
    cli.ok("run", "-d", "--name", name, *option, "nginx", timeout_s=60)
    shown = cli.ok("port", name, "80/tcp").splitlines()[0]
    if "HOST" in form:
        assert shown.endswith(f":{port}")
    port = int(shown.rpartition(":")[2])
    assert "nginx" in page(f"127.0.0.1:{port}")
    if form != "127.0.0.1:HOST:80" and engine.kind != "external":
        assert "nginx" in page(f"{engine.gateway}:{port}")
    assert f":{port}->80/tcp" in cli.ok("ps", "--format", "{{.Ports}}")
    cli.ok("rm", "-f", name)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)


def test_published_port_carries_many_bytes_both_ways(cli: Cli, names: Names) -> None:
    """An echo server, and a client that half-closes: nothing is cut off."""
    name, port = names("echo"), free_port()
    server = ["nc", "-ll", "-p", "7", "-e", "cat"]
    cli.ok("run", "-d", "--name", name, "-p", f"{port}:7", "busybox", *server)
    sent = bytes(range(256)) * 8000

    def exchange() -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as peer:
                peer.settimeout(10)
                threading.Thread(target=_send_all, args=(peer, sent), daemon=True).start()
                parts = []
                while data := peer.recv(1 << 16):
                    parts.append(data)
                return b"".join(parts)
        except OSError:
            return b""

    assert until("the server answers", exchange) == sent


def _send_all(peer: socket.socket, data: bytes) -> None:
    peer.sendall(data)
    peer.shutdown(socket.SHUT_WR)


def test_run_detached_with_a_terminal(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("dt")
    cli.ok("run", "-dt", "--name", name, "ubuntu", timeout_s=60)
    assert engine.api.inspect(name)["Config"]["Tty"] is True
    assert engine.api.state(name)["Running"] is True
    with cli.tty("exec", "-it", name, "/bin/bash") as terminal:
        terminal.expect(PROMPT)
        terminal.line("ps ax")
        terminal.expect(r"1 pts/0 .*bash")
        terminal.line("exit 3")
        assert terminal.wait() == 3
    assert engine.api.state(name)["Running"] is True


def test_exec_and_its_exit_codes(cli: Cli, names: Names) -> None:
    name = names("a")
    cli.ok("run", "-d", "--name", name, "-e", "FROM=run", "clock")
    assert cli.ok("exec", "-e", "MORE=exec", name, "sh", "-c", "echo $FROM $MORE") == "run exec"
    assert cli.ok("exec", "-w", "/etc", "-u", "33", name, "sh", "-c", "pwd; id -u") == "/etc\n33"
    assert cli.ok("exec", "-i", name, "cat", stdin=b"through\n") == "through"
    assert cli.run("exec", name, "sh", "-c", "echo err >&2; exit 8").code == 8
    assert cli.run("exec", name, "sh", "-c", "kill -9 $$").code == 137
    assert cli.ok("exec", "-d", name, "sh", "-c", "echo done > /flag") == ""
    until("the detached command ran", lambda: cli.run("exec", name, "cat", "/flag").code == 0)
    process = cli.spawn("exec", "-i", name, "cat", stdin=subprocess.PIPE)
    out, _ = process.communicate(b"x" * 300_000, timeout=20 * PATIENCE)
    assert len(out) == 300_000
