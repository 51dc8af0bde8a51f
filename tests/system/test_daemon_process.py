"""The daemon's process: sockets, TLS, locks, signals, the service manager. The engine is a fake."""

import http.client
import json
import os
import pwd
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from daemon_process import (
    LIMIT_S,
    Authority,
    Daemon,
    UnixConnection,
    ask,
    free_port,
    notify_socket,
    wait_for,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the daemon needs root")


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="teud-") as path:  # short: a socket's path is limited
        yield Path(path)


@pytest.fixture
def daemon(root: Path) -> Iterator[Daemon]:
    daemon = Daemon(root)
    yield daemon
    daemon.end()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("tls") / "ca")
    authority.issue("server", "serverAuth")
    authority.issue("client", "clientAuth")
    return authority


def tls_flags(authority: Authority) -> list[str]:
    place = authority.root
    return [
        f"--tlscacert={place}/ca.pem", f"--tlscert={place}/server.pem",
        f"--tlskey={place}/server-key.pem",
    ]  # fmt: skip


class TestLife:
    def test_serves_and_stops_without_a_trace(self, daemon: Daemon) -> None:
        daemon.start()
        assert daemon.process is not None
        assert daemon.ping() == "OK"
        assert daemon.pidfile.read_text() == f"{daemon.process.pid}\n"
        facts = daemon.socket.stat()
        assert stat.S_IMODE(facts.st_mode) == 0o660
        assert facts.st_uid == 0
        assert stat.S_IMODE((daemon.root / "data").stat().st_mode) == 0o710
        assert os.readlink(f"/proc/{daemon.process.pid}/cwd") == "/"
        assert daemon.stop() == 0
        assert not daemon.socket.exists()
        assert not daemon.pidfile.exists()
        assert 'level=info msg="Daemon shutdown complete"' in daemon.log()

    def test_killed_and_started_again(self, daemon: Daemon) -> None:
        daemon.start()
        daemon.signal(signal.SIGKILL)
        daemon.wait()
        assert daemon.socket.exists()
        assert daemon.pidfile.exists()
        daemon.start()
        assert daemon.ping() == "OK"

    def test_clients_that_come_early_wait_for_the_recovery(self, daemon: Daemon) -> None:
        daemon.spawn(FAKE_START_S="0.5")
        wait_for(daemon.socket.exists, "the socket")
        daemon.logged("engine starts")
        assert "engine started" not in daemon.log()
        assert daemon.ping() == "OK"
        assert "engine started" in daemon.log()

    def test_stop_during_the_recovery(self, daemon: Daemon) -> None:
        daemon.spawn(FAKE_START_S="60")
        daemon.logged("engine starts")
        assert daemon.stop() == 0
        assert "engine stopped" in daemon.log()
        assert not daemon.socket.exists()

    def test_a_start_that_fails_leaves_nothing(self, daemon: Daemon) -> None:
        assert "the fake engine was told to fail" in daemon.refused(FAKE_FAIL="1")
        assert not daemon.socket.exists()
        assert not daemon.pidfile.exists()

    def test_stop_ends_streams_and_has_a_deadline(self, daemon: Daemon) -> None:
        daemon.start("--shutdown-timeout=1", FAKE_STOP_S="60")
        stream = UnixConnection(daemon.socket)
        stream.request("GET", "/forever")
        answer = stream.getresponse()
        assert answer.read(6) == b"begun\n"
        begun = time.monotonic()
        assert daemon.stop() == 0
        assert 1 <= time.monotonic() - begun < 6
        assert "work under way did not end in time" in daemon.log()
        assert "stream cancelled" in daemon.log()
        stream.close()

    def test_second_signal_leaves_at_once(self, daemon: Daemon) -> None:
        daemon.start(FAKE_STOP_S="60")
        daemon.signal(signal.SIGTERM)
        daemon.logged("containers keep running")
        begun = time.monotonic()
        daemon.signal(signal.SIGINT)
        assert daemon.wait() == 1
        assert time.monotonic() - begun < 5

    def test_handler_is_cancelled_when_its_client_leaves(self, daemon: Daemon) -> None:
        daemon.start()
        stream = UnixConnection(daemon.socket)
        stream.request("GET", "/forever")
        stream.getresponse().read(6)
        stream.close()
        assert stream.sock is None
        daemon.logged("stream cancelled")

    def test_stacks_on_request(self, daemon: Daemon) -> None:
        daemon.start()
        stream = UnixConnection(daemon.socket)
        stream.request("GET", "/forever")
        stream.getresponse().read(6)
        daemon.signal(signal.SIGUSR1)
        daemon.logged("stacks written to")
        [file] = (daemon.root / "exec").glob("stacks-*.log")
        assert "thread MainThread:" in file.read_text()
        assert "in _forever" in file.read_text()
        stream.close()
        assert daemon.ping() == "OK"

    def test_long_headers_are_taken(self, daemon: Daemon) -> None:
        daemon.start()
        connection = UnixConnection(daemon.socket)
        connection.request("GET", "/_ping", headers={"X-Registry-Config": "a" * 100_000})
        assert connection.getresponse().status == 200
        connection.close()

    def test_log_as_json(self, daemon: Daemon) -> None:
        daemon.start("--log-format=json")
        daemon.stop()
        lines = [json.loads(line) for line in daemon.log().splitlines()]
        assert {"time", "level", "msg"} == set(lines[0])


class TestOnlyOne:
    def test_second_on_the_same_data_root(self, daemon: Daemon, root: Path) -> None:
        daemon.start()
        assert daemon.process is not None
        other = Daemon(root)
        other.log_path, other.socket = root / "log2", root / "s2.sock"
        said = other.refused(f"--exec-root={root}/exec2", f"--pidfile={root}/pid2")
        assert f"{root}/data is in use by another daemon (pid {daemon.process.pid})" in said
        assert daemon.ping() == "OK"
        assert not other.socket.exists()

    def test_second_on_the_same_exec_root(self, daemon: Daemon, root: Path) -> None:
        daemon.start()
        other = Daemon(root)
        other.log_path, other.socket = root / "log2", root / "s2.sock"
        said = other.refused(f"--data-root={root}/data2", f"--pidfile={root}/pid2")
        assert f"{root}/exec is in use by another daemon" in said
        assert daemon.pidfile.exists()

    def test_pid_file_of_a_living_process(self, daemon: Daemon) -> None:
        daemon.pidfile.write_text(str(os.getpid()))
        said = daemon.refused()
        assert f"process with PID {os.getpid()} is still running" in said
        assert daemon.pidfile.read_text() == str(os.getpid())

    @pytest.mark.parametrize("text", ["", "rubbish", "4194300", "99999999999"])
    def test_pid_file_of_nobody(self, daemon: Daemon, text: str) -> None:
        daemon.pidfile.write_text(text)
        daemon.start()
        assert daemon.ping() == "OK"

    def test_pid_file_older_than_the_process_of_that_number(self, daemon: Daemon) -> None:
        daemon.pidfile.write_text(str(os.getpid()))
        os.utime(daemon.pidfile, (1_000_000_000, 1_000_000_000))
        daemon.start()
        assert daemon.ping() == "OK"

    def test_dockers_data_root_is_left_alone(self, daemon: Daemon, root: Path) -> None:
        (root / "data/image").mkdir(parents=True)
        (root / "data/engine-id").touch()
        assert "is the data root of a Docker daemon" in daemon.refused()
        assert sorted(path.name for path in (root / "data").iterdir()) == ["engine-id", "image"]

    def test_data_root_that_cannot_be_made(self, daemon: Daemon, root: Path) -> None:
        (root / "data").touch()
        assert f"cannot use {root}/data as data-root" in daemon.refused()


class TestUnixSocket:
    def test_somebody_elses_socket_is_left_alone(self, daemon: Daemon) -> None:
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(daemon.socket))
            other.listen()
            assert "address already in use by another daemon" in daemon.refused()
            assert daemon.socket.exists()

    def test_something_else_at_the_path_is_left_alone(self, daemon: Daemon) -> None:
        daemon.socket.write_text("precious")
        assert "something else than a socket is there" in daemon.refused()
        assert daemon.socket.read_text() == "precious"

    def test_only_the_own_socket_is_removed(self, daemon: Daemon) -> None:
        daemon.start()
        daemon.socket.unlink()
        daemon.socket.write_text("precious")
        assert daemon.stop() == 0
        assert daemon.socket.read_text() == "precious"

    def test_places_that_cannot_be(self, daemon: Daemon, root: Path) -> None:
        said = daemon.refused(f"-Hunix://{root}/none/s.sock")
        assert f"can't create unix socket {root}/none/s.sock: no such file or directory" in said
        assert "at most 107 bytes" in daemon.refused(f"-Hunix://{root}/{'x' * 108}")
        assert "group nosuchgroup not found" in daemon.refused("--group=nosuchgroup")

    def test_all_or_nothing(self, daemon: Daemon, root: Path) -> None:
        daemon.refused(f"-Hunix://{root}/a.sock", f"-Hunix://{root}/none/b.sock")
        assert not (root / "a.sock").exists()

    def test_group_by_number(self, daemon: Daemon) -> None:
        daemon.start("--group=4242")
        assert daemon.socket.stat().st_gid == 4242


class TestTcp:
    def test_plain_tcp_has_to_be_asked_for(self, daemon: Daemon) -> None:
        said = daemon.refused("-Htcp://127.0.0.1:2375")
        assert "refusing to listen on tcp://127.0.0.1:2375 without TLS" in said
        assert "--tls=false" in said

    def test_plain_tcp(self, daemon: Daemon) -> None:
        port = free_port()
        daemon.start(f"-Htcp://127.0.0.1:{port}", f"-Hunix://{daemon.socket}", "--tls=false")
        assert ask(http.client.HTTPConnection("127.0.0.1", port)) == "OK"
        assert daemon.ping() == "OK"
        assert "Binding to IP address without --tlsverify is insecure" in daemon.log()

    def test_port_in_use(self, daemon: Daemon) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            said = daemon.refused(f"-Htcp://127.0.0.1:{port}", "--tls=false")
        assert f"listen tcp 127.0.0.1:{port}: bind: address already in use" in said

    def test_address_of_another_machine(self, daemon: Daemon) -> None:
        said = daemon.refused("-Htcp://192.0.2.1:2375", "--tls=false")
        assert "listen tcp 192.0.2.1:2375: cannot assign requested address" in said

    def test_mutual_tls(self, daemon: Daemon, authority: Authority, root: Path) -> None:
        port = free_port()
        daemon.start(f"-Htcp://127.0.0.1:{port}", "--tlsverify", *tls_flags(authority))

        def over(context: ssl.SSLContext) -> str:
            return ask(http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=5))

        mine = authority.root / "client.pem", authority.root / "client-key.pem"
        assert over(authority.client_context(mine)) == "OK"
        refused = (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)
        with pytest.raises(refused):
            over(authority.client_context(None))
        stranger = Authority(root / "other").issue("client", "clientAuth")
        with pytest.raises(refused):
            over(authority.client_context(stranger))
        with pytest.raises((*refused, http.client.BadStatusLine)):
            ask(http.client.HTTPConnection("127.0.0.1", port, timeout=5))
        old = authority.client_context(mine)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert over(old) == "OK"

    def test_server_tls_without_client_certificates(
        self, daemon: Daemon, authority: Authority
    ) -> None:
        port = free_port()
        daemon.start(f"-Htcp://127.0.0.1:{port}", "--tlsverify=false", *tls_flags(authority))
        context = authority.client_context(None)
        assert ask(http.client.HTTPSConnection("127.0.0.1", port, context=context)) == "OK"
        assert "Binding to IP address without --tlsverify is insecure" in daemon.log()

    def test_certificates_that_cannot_be(self, daemon: Daemon, authority: Authority) -> None:
        host, place = "-Htcp://127.0.0.1:2376", authority.root
        missing = daemon.refused(host, "--tlsverify", f"--tlscert={place}/none.pem")
        assert f'Could not load X509 key pair (cert: "{place}/none.pem"' in missing
        wrong = [*tls_flags(authority)[:2], f"--tlskey={place}/client-key.pem"]
        assert "the key is of another certificate" in daemon.refused(host, "--tlsverify", *wrong)
        no_ca = ["--tlscacert=/none.pem", *tls_flags(authority)[1:]]
        said = daemon.refused(host, "--tlsverify", *no_ca)
        assert 'could not read CA certificate "/none.pem": no such file' in said


def run_activated(daemon: Daemon, sockets: list[socket.socket], *flags: str) -> None:
    """Starts it the way systemd does: descriptors from 3 on, and LISTEN_PID of the process."""
    shell = 'i=3; for fd in $FDS; do eval "exec $i<&$fd"; i=$((i+1)); done; '
    shell += 'export LISTEN_PID=$$ LISTEN_FDS=$((i-3)); exec "$@"'
    fds = [sock.fileno() + 100 for sock in sockets]
    for sock, fd in zip(sockets, fds, strict=True):
        os.dup2(sock.fileno(), fd, inheritable=True)
    if not daemon.file.exists():
        daemon.file.write_text("{}")
    with daemon.log_path.open("ab") as log:
        daemon.process = subprocess.Popen(
            ["bash", "-c", shell, "sh", *daemon.command(*daemon.places(), *flags)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=fds,
            env=os.environ | {"FDS": " ".join(map(str, fds))},
        )  # fmt: skip
    for fd in fds:
        os.close(fd)


class TestPassedSockets:
    @pytest.fixture
    def unix(self, daemon: Daemon) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(daemon.socket))
            sock.listen()
            yield sock

    @pytest.mark.parametrize("flags", [[], ["-Hfd://"], ["-Hfd://3"], ["-H", "fd://*"]])
    def test_is_served(self, daemon: Daemon, unix: socket.socket, flags: list[str]) -> None:
        run_activated(daemon, [unix], *flags)
        assert daemon.ping() == "OK"
        daemon.logged("completed initialization")
        assert daemon.stop() == 0
        assert daemon.socket.exists()  # it is the service manager's

    def test_beside_hosts_of_the_file(self, daemon: Daemon, unix: socket.socket) -> None:
        mine = daemon.root / "mine.sock"
        daemon.file.write_text(json.dumps({"hosts": [f"unix://{mine}", f"unix://{daemon.socket}"]}))
        run_activated(daemon, [unix])
        daemon.logged("completed initialization")
        assert daemon.ping() == ask(UnixConnection(mine)) == "OK"

    def test_one_of_several(self, daemon: Daemon, unix: socket.socket) -> None:
        with socket.create_server(("127.0.0.1", 0)) as tcp:
            run_activated(daemon, [tcp, unix], "-Hfd://4", "--tls=false")
            assert daemon.ping() == "OK"
            tcp.close()
            daemon.logged("completed initialization")
            assert "API listen on tcp" not in daemon.log()

    def test_plain_tcp_has_to_be_asked_for(self, daemon: Daemon) -> None:
        with socket.create_server(("127.0.0.1", 0)) as tcp:
            run_activated(daemon, [tcp], "-Hfd://")
            assert daemon.wait() == 1
        assert "without TLS" in daemon.log()

    def test_what_does_not_listen_is_refused(self, daemon: Daemon) -> None:
        with socket.socket(socket.AF_UNIX) as idle:
            run_activated(daemon, [idle], "-Hfd://")
            assert daemon.wait() == 1
        assert "descriptor 3, passed by the service manager, is not a listening" in daemon.log()

    def test_none_passed(self, daemon: Daemon, unix: socket.socket) -> None:
        assert "no sockets found via socket activation" in daemon.refused("-Hfd://")
        run_activated(daemon, [unix], "-Hfd://7")
        assert daemon.wait() == 1
        assert "too few socket activated files" in daemon.log()

    def test_variables_of_another_process(self, daemon: Daemon) -> None:
        daemon.start(LISTEN_PID="1", LISTEN_FDS="1")
        assert daemon.ping() == "OK"


class TestServiceManager:
    def test_is_told(self, daemon: Daemon) -> None:
        path = daemon.root / "notify"
        with notify_socket(path) as told:
            daemon.start(NOTIFY_SOCKET=str(path))
            assert told() == "STATUS=recovering state"
            assert told().startswith("READY=1\n")
            daemon.signal(signal.SIGHUP)
            assert told().startswith("RELOADING=1\nMONOTONIC_USEC=")
            assert told().startswith("READY=1\n")
            daemon.signal(signal.SIGTERM)
            assert told() == "STOPPING=1"
        assert daemon.wait() == 0

    def test_that_does_not_listen_is_no_trouble(self, daemon: Daemon) -> None:
        daemon.start(NOTIFY_SOCKET=str(daemon.root / "nobody"))
        assert daemon.ping() == "OK"


class TestReload:
    def reload(self, daemon: Daemon, text: str, until: str) -> None:
        daemon.file.write_text(text)
        daemon.signal(signal.SIGHUP)
        daemon.logged(until)

    def test_takes_what_can_change(self, daemon: Daemon) -> None:
        daemon.file.write_text('{"labels": ["a=b"], "mtu": 1500}')
        daemon.start()
        self.reload(
            daemon, '{"labels": ["c=d"], "mtu": 1400, "debug": true}',
            'msg="Reloaded configuration: debug, log-level, labels"',
        )  # fmt: skip
        assert "the option mtu has changed; it takes effect at the next start" in daemon.log()
        config = daemon.config()
        assert (config["labels"], config["mtu"], config["debug"]) == (["c=d"], 1500, True)

    @pytest.mark.parametrize("text", ["{", '{"labelz": []}', '{"labels": ["x"]}', '{"mtu": "x"}'])
    def test_broken_file_changes_nothing(self, daemon: Daemon, text: str) -> None:
        daemon.file.write_text('{"labels": ["a=b"]}')
        daemon.start()
        self.reload(daemon, text, "reload refused, the old configuration holds")
        assert daemon.config()["labels"] == ["a=b"]
        self.reload(daemon, '{"labels": ["n=m"]}', "Reloaded configuration: labels")
        assert daemon.config()["labels"] == ["n=m"]


class TestCommand:
    def say(
        self, *words: str, user: int | None = None, env: dict[str, str] | None = None
    ) -> tuple[int, str, str]:
        done = subprocess.run(
            Daemon(Path("/")).command(*words), check=False, capture_output=True, text=True,
            timeout=LIMIT_S, user=user, env=env,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def test_version_help_and_validate(self, root: Path) -> None:
        code, out, _ = self.say("--version")
        assert code == 0
        assert out.startswith("teud version ")
        code, out, _ = self.say("--help")
        assert (code, out.splitlines()[0]) == (0, "Usage:  teud [OPTIONS]")
        (root / "f").write_text("{}")
        code, _, err = self.say("--validate", f"--config-file={root}/f")
        assert (code, err) == (0, "configuration OK\n")
        (root / "f").write_text('{"a": 1}')
        code, _, err = self.say("--validate", f"--config-file={root}/f")
        assert code == 1
        assert "don't match any configuration option: a" in err

    def test_bad_command_lines(self) -> None:
        assert self.say("--nope")[::2] == (1, "unknown flag: --nope\nSee 'teud --help'.\n")
        code, _, err = self.say("extra")
        assert code == 1
        assert err.startswith('"teud" accepts no arguments: extra')

    def test_called_dockerd(self) -> None:
        env = os.environ | {"FAKE_ARGV0": "/usr/bin/dockerd"}
        assert self.say("--version", env=env)[1].startswith("Docker version 28.")

    def test_needs_root(self) -> None:
        nobody = pwd.getpwnam("nobody").pw_uid
        probe = [sys.executable, "-c", "import teu.daemon.main"]
        if subprocess.run(probe, user=nobody, check=False, capture_output=True).returncode:
            pytest.skip("others than root cannot read this interpreter or the sources")
        code, _, err = self.say(user=nobody)
        assert code == 1
        assert "teud needs to be started with root privileges" in err
