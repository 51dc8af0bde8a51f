"""What goes through `run`, `exec`, `attach`, `logs`: bytes, ends, signals, statuses."""

import grp
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from cliharness import ID, MULTIPLEXED, Cli, FakeDaemon, Request


def frame(stream: int, data: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def says(daemon: FakeDaemon, *frames: bytes) -> None:
    """The container writes `frames` when it has started, and ends."""

    def attach(request: Request) -> None:
        request.upgrade()
        assert daemon.running.wait(10)
        request.sock.sendall(b"".join(frames))
        request.sock.shutdown(socket.SHUT_RDWR)

    daemon.on(r"POST /containers/.*/attach", attach)


def echoes(daemon: FakeDaemon, prefix: bytes = b"") -> list[bytes]:
    """The container sends its whole stdin back, in one frame, when stdin ends."""
    received: list[bytes] = []

    def attach(request: Request) -> None:
        request.upgrade()
        data = b""
        while piece := request.reader.read1(1 << 16):
            data += piece
        received.append(data)
        request.sock.sendall(frame(1, prefix + data))
        request.sock.shutdown(socket.SHUT_RDWR)

    daemon.on(r"POST /(containers/.*/attach|exec/.*/start)", attach)
    return received


def lives_until_killed(daemon: FakeDaemon) -> None:
    """The container runs until it gets a TERM, then exits with 5."""

    def attach(request: Request) -> None:
        request.upgrade()
        daemon.wait_for(r"POST /containers/.*/kill")
        request.sock.shutdown(socket.SHUT_RDWR)

    daemon.on(r"POST /containers/.*/attach", attach)
    daemon.exit_code = 5


def ignores_everything(daemon: FakeDaemon) -> None:
    """The container runs until its client is gone."""

    def attach(request: Request) -> None:
        request.upgrade()
        request.reader.read()

    daemon.on(r"POST /containers/.*/attach", attach)


def test_streams_come_apart_and_the_status_is_the_containers(cli: Cli, daemon: FakeDaemon) -> None:
    says(daemon, frame(1, b"out\n"), frame(2, b"err\n"), frame(1, b"more\n"))
    daemon.exit_code = 7
    done = cli("run", "x")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\nmore\n", b"err\n")


def test_requests_of_a_foreground_run(cli: Cli, daemon: FakeDaemon) -> None:
    assert cli("run", "--rm", "x").returncode == 0
    sent = [f"{request.method} {request.path}" for request in daemon.requests]
    base = f"POST /containers/{ID}"
    assert sent[0] == "POST /containers/create"
    assert set(sent[1:3]) == {f"{base}/attach", f"{base}/wait"}
    assert sent[3:] == [f"{base}/start"]
    assert daemon.matching(r".*/wait")[0].query == {"condition": ["removed"]}


def test_start_waits_until_attach_and_wait_are_registered(cli: Cli, daemon: FakeDaemon) -> None:
    def late(request: Request) -> None:
        with pytest.raises(TimeoutError):
            daemon.wait_for(r"POST .*/start", timeout_s=0.3)
        request.reply(200, {"StatusCode": 3})

    daemon.on(r"POST .*/wait", late)
    assert cli("run", "x").returncode == 3


def test_detached_run_prints_the_id(cli: Cli, daemon: FakeDaemon) -> None:
    done = cli("run", "-d", "x")
    assert (done.returncode, done.stdout) == (0, f"{ID}\n".encode())
    assert [request.path for request in daemon.requests] == [
        "/containers/create", f"/containers/{ID}/start"
    ]  # fmt: skip


def test_end_of_stdin_reaches_the_container(cli: Cli, daemon: FakeDaemon) -> None:
    received = echoes(daemon)
    done = cli("run", "-i", "x", "cat", stdin=b"hi\n")
    assert (done.returncode, done.stdout, received) == (0, b"hi\n", [b"hi\n"])


def test_large_input_and_output_cross(cli: Cli, daemon: FakeDaemon) -> None:
    data = os.urandom(3_000_000)
    echoes(daemon)
    assert cli("run", "-i", "x", "cat", stdin=data).stdout == data


def test_output_is_read_while_input_is_blocked(cli: Cli, daemon: FakeDaemon) -> None:
    """A container that writes before it reads must not hang a client with much to send."""
    out, data = os.urandom(2_000_000), bytes(2_000_000)

    def attach(request: Request) -> None:
        request.upgrade()
        request.sock.sendall(frame(1, out))
        assert len(request.reader.read()) == len(data)
        request.sock.shutdown(socket.SHUT_RDWR)

    daemon.on(r"POST .*/attach", attach)
    assert cli("run", "-i", "x", stdin=data).stdout == out


def test_closed_stdin_is_an_empty_one(cli: Cli, daemon: FakeDaemon) -> None:
    received = echoes(daemon)
    line = f"exec {cli.program} run -i x <&-"
    done = subprocess.run(
        ["sh", "-c", line], env=cli.environment, capture_output=True, timeout=20, check=False
    )
    assert (done.returncode, received) == (0, [b""]), done.stderr


def test_throughput(cli: Cli, daemon: FakeDaemon) -> None:
    """400 MB/s is the target; a loaded machine gets a fourth of that here."""
    piece, count = frame(1, bytes(32 * 1024)) * 8, 400

    def attach(request: Request) -> None:
        request.upgrade()
        assert daemon.running.wait(10)
        for _ in range(count):
            request.sock.sendall(piece)
        request.sock.shutdown(socket.SHUT_RDWR)

    daemon.on(r"POST .*/attach", attach)
    started = time.monotonic()
    process = cli.start("run", "x", stdout=subprocess.DEVNULL)
    assert process.wait(20) == 0
    rate = 32 * 1024 * 8 * count / (time.monotonic() - started)
    assert rate > 100e6, f"{rate / 1e6:.0f} MB/s"


def test_reader_that_goes_away_ends_the_client_by_sigpipe(cli: Cli, daemon: FakeDaemon) -> None:
    says(daemon, *[frame(1, bytes(30_000))] * 50)
    process = cli.start("run", "x", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(20) == -signal.SIGPIPE
    process.stderr.close()


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ('exec: "/x": stat /x: no such file or directory', 127),
        ('exec: "/x": permission denied', 126),
        ('exec: "/": is a directory', 126),
        ("no space left on device", 125),
    ],
)
def test_failed_starts(cli: Cli, daemon: FakeDaemon, reason: str, status: int) -> None:
    daemon.on(r"POST .*/start", lambda r: r.reply(400, {"message": reason}))
    done = cli("run", "--rm", "x")
    assert done.returncode == status
    expected = f"teu: Error response from daemon: {reason}\n\nRun 'teu run --help' for more"
    assert done.stderr.decode().startswith(expected)


def test_signals_go_to_the_container(cli: Cli, daemon: FakeDaemon) -> None:
    lives_until_killed(daemon)
    process = cli.start("run", "x")
    daemon.wait_for(r"POST .*/start")
    assert daemon.running.wait(10)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 5
    assert daemon.matching(r".*/kill")[0].query == {"signal": ["TERM"]}


def test_signals_before_the_start_are_kept(cli: Cli, daemon: FakeDaemon) -> None:
    lives_until_killed(daemon)

    def slow_start(request: Request) -> None:
        process.send_signal(signal.SIGINT)
        with pytest.raises(TimeoutError):
            daemon.wait_for(r".*/kill", timeout_s=0.3)
        request.reply(204)

    daemon.on(r"POST .*/start", slow_start)
    process = cli.start("run", "x")
    assert process.wait(20) == 5
    assert daemon.matching(r".*/kill")[0].query == {"signal": ["INT"]}


def test_without_proxy_a_signal_ends_the_client_only(cli: Cli, daemon: FakeDaemon) -> None:
    ignores_everything(daemon)
    process = cli.start("run", "--sig-proxy=false", "x", stderr=subprocess.DEVNULL)
    assert daemon.running.wait(10)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == -signal.SIGTERM
    assert not daemon.matching(r".*/kill")


def test_third_interrupt_gives_up(cli: Cli, daemon: FakeDaemon) -> None:
    ignores_everything(daemon)
    process = cli.start("run", "x", stderr=subprocess.PIPE)
    assert daemon.running.wait(10)
    for count in (1, 2):
        process.send_signal(signal.SIGINT)
        daemon.wait_for(r"POST .*/kill", count)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert (process.returncode, b"forcefully exiting" in error) == (1, True)


def test_exec(cli: Cli, daemon: FakeDaemon) -> None:
    echoes(daemon, b"got ")
    daemon.exit_code = 4
    done = cli("exec", "-i", "x", "cat", stdin=b"in")
    assert (done.returncode, done.stdout) == (4, b"got in")
    assert daemon.matching(r"POST /exec/.*/start")[0].json == {"Detach": False, "Tty": False}


def test_old_daemon_is_spoken_to_in_its_version(cli: Cli, daemon: FakeDaemon) -> None:
    def old(request: Request) -> None:
        if request.version != "1.41":
            text = "client version 1.51 is too new. Maximum supported API version is 1.41"
            request.sock.sendall(_old_answer(400, f'{{"message":"{text}"}}'))
        else:
            request.sock.sendall(_old_answer(201, f'{{"Id":"{ID}"}}'))

    daemon.on(r"POST /containers/create", old)
    done = cli("create", "x")
    assert (done.returncode, done.stdout) == (0, f"{ID}\n".encode()), done.stderr
    done = cli("create", "--annotation", "a=b", "x")
    assert done.returncode == 1
    assert done.stderr.decode().strip() == (
        '"--annotation" requires API version 1.43, but the Docker daemon API version is 1.41'
    )


def _old_answer(status: int, body: str) -> bytes:
    return (
        f"HTTP/1.1 {status} X\r\nApi-Version: 1.41\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def test_missing_image_is_pulled_once(cli: Cli, daemon: FakeDaemon) -> None:
    def create(request: Request) -> None:
        if daemon.matching(r"POST /images/create"):
            request.reply(201, {"Id": ID, "Warnings": ["careful"]})
        else:
            request.reply(404, {"message": "No such image: x:latest"})

    def pull(request: Request) -> None:
        progress = b'{"status":"Pulling from library/x","id":"latest"}\r\n{"status":"Done"}\r\n'
        request.reply(200, progress)

    daemon.on(r"POST /containers/create", create)
    daemon.on(r"POST /images/create", pull)
    done = cli("run", "-d", "x")
    assert done.returncode == 0
    assert done.stdout == f"{ID}\n".encode()
    assert done.stderr.decode().splitlines() == [
        "Unable to find image 'x:latest' locally", "latest: Pulling from library/x", "Done",
        "WARNING: careful",
    ]  # fmt: skip
    daemon.requests.clear()
    done = cli("run", "-d", "--pull", "never", "x")
    assert done.returncode == 125
    assert not daemon.matching(r"POST /images")


def test_cidfile_is_written_or_not_there(cli: Cli, daemon: FakeDaemon, tmp_path: Path) -> None:
    path = str(tmp_path / "cid")
    assert cli("run", "-d", "--cidfile", path, "x").returncode == 0
    assert Path(path).read_text() == ID
    assert cli("run", "-d", "--cidfile", path, "x").returncode == 125
    os.unlink(path)
    daemon.on(r"POST /containers/create", lambda r: r.reply(409, {"message": "in use"}))
    assert cli("run", "-d", "--cidfile", path, "x").returncode == 125
    assert not os.path.exists(path)


def test_logs_follow_the_content_type(cli: Cli, daemon: FakeDaemon) -> None:
    def framed(request: Request) -> None:
        request.reply(200, frame(1, b"a\n") + frame(2, b"b\n"), MULTIPLEXED)

    daemon.on(r"GET .*/logs", framed)
    done = cli("logs", "x")
    assert (done.stdout, done.stderr) == (b"a\n", b"b\n")
    raw = "Content-Type: application/vnd.docker.raw-stream\r\n"
    daemon.on(r"GET .*/logs", lambda r: r.reply(200, b"\1\0\0\0raw", raw))
    assert cli("logs", "x").stdout == b"\1\0\0\0raw"
    assert len(daemon.requests) == 2, "no inspect was needed"


@pytest.mark.parametrize("words", [["ps"], ["logs", "x"], ["run", "x"], ["events"], ["pull", "x"]])
def test_daemon_that_hangs_up_is_reported(cli: Cli, daemon: FakeDaemon, words: list[str]) -> None:
    daemon.on(r".*", lambda r: r.sock.shutdown(socket.SHUT_RDWR))
    done = cli(*words)
    assert done.returncode == (125 if words[0] == "run" else 1)
    assert b"closed before the answer was complete" in done.stderr
    assert b"Traceback" not in done.stderr


def test_nonsense_from_the_daemon_is_reported(cli: Cli, daemon: FakeDaemon) -> None:
    daemon.on(r"POST /containers/create", lambda r: r.reply(201, b"{nonsense"))
    done = cli("create", "x")
    assert done.returncode == 1
    assert b"sent bad JSON" in done.stderr
    daemon.on(r"POST /containers/create", lambda r: r.reply(201, {}))
    done = cli("create", "x")
    assert done.returncode == 1
    assert b"internal error: KeyError: 'Id'" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Traceback" in cli("-D", "create", "x").stderr


def test_no_daemon(cli: Cli) -> None:
    cli.environment["DOCKER_HOST"] = "unix:///nowhere/teu.sock"
    done = cli("ps")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[0] == (
        "Cannot connect to the Docker daemon at unix:///nowhere/teu.sock. "
        "Is the docker daemon running?"
    )
    assert b"Start it with" in done.stderr
    assert cli("run", "x").returncode == 125


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_no_permission_names_the_group(cli: Cli, daemon: FakeDaemon, tmp_path: Path) -> None:
    group = next(entry for entry in grp.getgrall() if entry.gr_gid not in (0, 65534))
    os.chmod(daemon.path, 0o660)
    os.chown(daemon.path, 0, group.gr_gid)
    for folder in (tmp_path, *tmp_path.parents):
        mode = os.stat(folder).st_mode
        os.chmod(folder, mode | 0o011)
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); os.setgroups([]); os.setgid(65534); "
        "os.setuid(65534); from teu.cli.main import main; sys.exit(main(['teu', 'ps']))"
    )
    source = Path(__file__).parents[3] / "src"
    done = subprocess.run(
        ["/usr/bin/python3", "-c", code, str(source)], env=cli.environment,
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "permission denied while trying to connect" in done.stderr
    assert f"usermod -aG {group.gr_name} " in done.stderr
