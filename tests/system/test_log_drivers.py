"""Log drivers with real servers: what they get, what `logs` shows, what a bad server does."""

import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.clients import Cli
from harness.engine import KIND, Engine
from harness.logservers import (
    DatagramServer,
    StreamServer,
    acknowledge,
    gelf_messages,
    unpack_all,
)
from harness.names import Names
from harness.registry import free_port
from harness.waiting import until
from system.daemon_process import Authority

ours_only = pytest.mark.skipif(KIND != "teu", reason="newer, or stricter, than the peer")
SAYS = ["busybox", "sh", "-c", "echo out; echo err >&2"]
Close = Callable[[Any], Any]


@pytest.fixture
def closing() -> Iterator[Close]:
    """Closes what it is given after the test."""
    servers: list[Any] = []
    yield lambda server: servers.append(server) or server
    for server in servers:
        server.close()


def run(cli: Cli, name: str, driver: str, *options: str, command: list[str] = SAYS) -> None:
    """Runs a container to its end with a log driver and `--log-opt`s."""
    words = [word for option in options for word in ("--log-opt", option)]
    cli.ok("run", "--name", name, "--log-driver", driver, *words, *command)


def logged(cli: Cli, name: str) -> set[str]:
    done = cli.run("logs", name)
    return {*done.out.splitlines(), *done.err.splitlines()}


# --- syslog -------------------------------------------------------------------------------------

STAMP = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
ZONE = r"(Z|[+-]\d\d:\d\d)"
HOST = re.escape(socket.gethostname())


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("", rf"<30>{STAMP} tagged\[\d+\]: out\n"),
        ("rfc3164", rf"<30>{STAMP} {HOST} tagged\[\d+\]: out\n"),
        ("rfc5424", rf"<30>1 {TIME}{ZONE} {HOST} tagged \d+ tagged - out\n"),
        ("rfc5424micro", rf"<30>1 {TIME}\.\d{{6}}{ZONE} {HOST} tagged \d+ tagged - out\n"),
    ],
)
def test_syslog_over_udp(cli: Cli, names: Names, closing: Close, form: str, pattern: str) -> None:
    server = closing(DatagramServer())
    address = f"syslog-address=udp://127.0.0.1:{server.port}"
    run(cli, names("a"), "syslog", address, "tag=tagged", f"syslog-format={form}")
    until("both lines have come", lambda: len(server.packets) == 2)
    out, err = sorted(server.packets, key=lambda packet: b"err" in packet)
    assert re.fullmatch(pattern, out.decode())
    assert re.fullmatch(pattern.replace("<30>", "<27>").replace("out", "err"), err.decode())
    assert logged(cli, names("a")) == {"out", "err"}


def test_syslog_over_tcp(cli: Cli, engine: Engine, names: Names, closing: Close) -> None:
    server = closing(StreamServer())
    address = f"syslog-address=tcp://127.0.0.1:{server.port}"
    run(cli, names("a"), "syslog", address, "syslog-facility=local3", "tag={{.Name}}/{{.ID}}")
    lines = server.lines(2)
    tag = f"{names('a')}/{engine.api.inspect(names('a'))['Id'][:12]}"
    assert {re.sub(r"\[\d+\]", "", line.decode()[21:]) for line in lines} == {
        f"{tag}: out",
        f"{tag}: err",
    }
    assert {line[:5] for line in lines} == {b"<158>", b"<155>"}


@pytest.mark.parametrize("kind", ["unix", "unixgram"])
def test_syslog_over_a_unix_socket(
    cli: Cli, names: Names, closing: Close, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    server = closing(StreamServer(path) if kind == "unix" else DatagramServer(path))
    run(cli, names("a"), "syslog", f"syslog-address={kind}://{path}")
    if kind == "unix":
        server.lines(2)
    else:
        until("both lines have come", lambda: len(server.packets) == 2)


def test_syslog_over_tls(cli: Cli, names: Names, closing: Close, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.root / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*authority.issue("server", "serverAuth"))
    certificate, key = authority.issue("client", "clientAuth")
    server = closing(StreamServer(tls=context))
    run(
        cli, names("a"), "syslog", f"syslog-address=tcp+tls://127.0.0.1:{server.port}",
        f"syslog-tls-ca-cert={authority.root}/ca.pem", f"syslog-tls-cert={certificate}",
        f"syslog-tls-key={key}", "syslog-format=rfc5424", "tag=t",
    )  # fmt: skip
    lines = server.lines(2)
    length, message = lines[0].split(b" ", 1)
    assert int(length) == len(message) + 1  # RFC 5425 counts; the newline is part of it
    assert message.startswith(b"<")


# --- gelf ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["", "gzip", "zlib", "none"])
def test_gelf_over_udp(
    cli: Cli, engine: Engine, names: Names, closing: Close, compression: str
) -> None:
    server = closing(DatagramServer())
    options = [f"gelf-address=udp://127.0.0.1:{server.port}", "env=COLOUR", "labels-regex=^team"]
    if compression:
        options.append(f"gelf-compression-type={compression}")
    script = (
        "echo out; head -c 9000 /dev/urandom | od -An -tx1 -v | tr -d ' \\n'; echo; echo err >&2"
    )
    command = [
        "-e",
        "COLOUR=blue",
        "-l",
        "team=a",
        "-l",
        "x=y",
        "--",
        "busybox",
        "sh",
        "-c",
        script,
    ]
    command.remove("--")
    run(cli, names("a"), "gelf", *options, "labels=x", command=command)
    wanted = 4  # the long line is cut at 16 KiB
    until("all has come", lambda: len(gelf_messages(server.packets)) == wanted)
    messages = gelf_messages(server.packets)
    assert max(len(packet) for packet in server.packets) <= 1420
    first = next(m for m in messages if m["short_message"] == "out")
    found = engine.api.inspect(names("a"))
    assert first.items() >= {
        "version": "1.1", "host": socket.gethostname(), "level": 6, "_container_id": found["Id"],
        "_container_name": names("a"), "_image_id": found["Image"], "_image_name": "busybox",
        "_command": f"sh -c {script}", "_tag": found["Id"][:12], "_COLOUR": "blue", "_team": "a",
        "_x": "y",
    }.items()  # fmt: skip
    assert abs(first["timestamp"] - time.time()) < 60
    assert next(m for m in messages if m["short_message"] == "err")["level"] == 3
    assert sorted(len(m["short_message"]) for m in messages)[-2:] == [1616, 16384]
    assert len(cli.run("logs", names("a")).out.splitlines()[1]) == 18000


def test_gelf_over_tcp(cli: Cli, names: Names, closing: Close) -> None:
    server = closing(StreamServer())
    run(cli, names("a"), "gelf", f"gelf-address=tcp://127.0.0.1:{server.port}")
    messages = [json.loads(part) for part in server.lines(2, b"\0")]
    assert {m["short_message"] for m in messages} == {"out", "err"}


# --- fluentd ------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_fluentd(
    cli: Cli, engine: Engine, names: Names, closing: Close, over: str, tmp_path: Path
) -> None:
    server = closing(StreamServer(tmp_path / "s" if over == "unix" else None))
    place = f"unix://{tmp_path}/s" if over == "unix" else f"127.0.0.1:{server.port}"
    options = [f"fluentd-address={place}", "tag=docker.{{.Name}}", "env=A"]
    command = ["-e", "A=b", *SAYS]
    run(cli, names("a"), "fluentd", *options, command=command)
    until("both have come", lambda: len(unpack_all(server.received)) == 2)
    found = engine.api.inspect(names("a"))
    by_source = {message[2]["source"]: message for message in unpack_all(server.received)}
    tag, instant, record = by_source["stdout"][:3]
    assert tag == f"docker.{names('a')}"
    assert abs(instant - time.time()) < 60
    assert record == {
        "container_id": found["Id"], "container_name": found["Name"], "source": "stdout",
        "log": "out", "A": "b",
    }  # fmt: skip
    assert by_source["stderr"][2]["log"] == "err"
    assert logged(cli, names("a")) == {"out", "err"}


def test_fluentd_precise_and_acknowledged(cli: Cli, names: Names, closing: Close) -> None:
    server = closing(StreamServer(answer=acknowledge))
    options = ["fluentd-request-ack=true", "fluentd-sub-second-precision=true"]
    options.append(f"fluentd-address=127.0.0.1:{server.port}")
    command = ["busybox", "sh", "-c", "head -c 20000 /dev/zero | tr '\\0' x; echo; echo end"]
    run(cli, names("a"), "fluentd", *options, command=command)
    until("all has come", lambda: len(unpack_all(server.received)) == 3)
    first, second, last = unpack_all(server.received)
    assert abs(first[1][0] + first[1][1] / 1e9 - time.time()) < 60
    assert first[2]["partial_message"] == second[2]["partial_message"] == "true"
    assert first[2]["partial_id"] == second[2]["partial_id"]
    assert (first[2]["partial_ordinal"], first[2]["partial_last"]) == ("1", "false")
    assert (second[2]["partial_ordinal"], second[2]["partial_last"]) == ("2", "true")
    assert "partial_id" not in last[2]


@ours_only
def test_fluentd_sends_again_what_was_not_acknowledged(
    engine: Engine, names: Names, closing: Close
) -> None:
    cli, port = engine.cli("teu"), free_port()
    deaf = StreamServer(port=port)
    options = [f"fluentd-address=127.0.0.1:{port}", "fluentd-request-ack=true"]
    options.append("fluentd-retry-wait=50ms")
    words = [word for option in options for word in ("--log-opt", option)]
    command = ["busybox", "sh", "-c", "seq 1 20; sleep 1000"]
    cli.ok("run", "-d", "--name", names("a"), "--log-driver", "fluentd", *words, *command)
    until("it has been sent", lambda: len(unpack_all(deaf.received)) == 20)
    deaf.close()
    server = closing(StreamServer(port=port, answer=acknowledge))
    until("it is sent again", lambda: len(unpack_all(server.received)) == 20)
    lines = [message[2]["log"] for message in unpack_all(server.received)]
    assert lines == [str(number) for number in range(1, 21)]
    cli.ok("rm", "-f", names("a"))


# --- servers that are not there, or slow --------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "option", "text"),
    [
        ("syslog", "syslog-address=tcp://127.0.0.1:{}",
         "dial tcp 127.0.0.1:{}: connect: connection refused"),
        ("gelf", "gelf-address=tcp://127.0.0.1:{}",
         "gelf: cannot connect to GELF endpoint: 127.0.0.1:{} dial tcp 127.0.0.1:{}: connect: "
         "connection refused"),
        ("fluentd", "fluentd-address=127.0.0.1:{}",
         "dial tcp 127.0.0.1:{}: connect: connection refused"),
        ("fluentd", "fluentd-address=unix:///nowhere/{}",
         "dial unix /nowhere/{}: connect: no such file or directory"),
        ("syslog", "syslog-address=udp://no-such-host.invalid:{}", "no-such-host.invalid"),
        ("journald", "tag=t", "journald is not enabled on this host"),
        ("json-file", "tag={{{{.Nothing}}}}", "template: log-tag:1"),
        ("json-file", "tag={{{{.Name", "template: log-tag:1: unclosed action"),
    ],
    ids=("syslog", "gelf", "fluentd", "unix", "name", "journald", "field", "template"),
)  # fmt: skip
def test_a_log_that_cannot_be_opened(
    cli: Cli, engine: Engine, names: Names, driver: str, option: str, text: str
) -> None:
    if driver == "journald" and Path("/run/systemd/journal/socket").exists():
        pytest.skip("journald runs here")
    port = free_port()
    words = ["--log-driver", driver, "--log-opt", option.format(port)]
    code = 127 if "no such file" in text else 125  # as Docker's client reads it
    said = cli.fails(code, "run", "--name", names("a"), *words, "busybox", "true")
    assert "failed to initialize logging driver: " in said
    assert text.format(port, port) in said
    assert engine.api.state(names("a"))["Status"] == "created"


@pytest.mark.parametrize(
    ("driver", "options", "text"),
    [
        ("json-file", {"foo": "1"}, "unknown log opt 'foo' for json-file log driver"),
        ("local", {"tag": "x"}, "unknown log opt 'tag' for log driver local"),
        ("syslog", {"foo": "1"}, "unknown log opt 'foo' for syslog log driver"),
        ("syslog", {"syslog-address": "foo"},
         "syslog-address should be in form proto://address, got foo"),
        ("syslog", {"syslog-address": "unix:///nope"}, "stat /nope: no such file or directory"),
        ("syslog", {"syslog-facility": "foo"}, "invalid syslog facility"),
        ("syslog", {"syslog-format": "foo"}, "Invalid syslog format"),
        ("syslog", {"cache-disabled": "x"}, "invalid value for option cache-disabled: x"),
        ("gelf", {}, "gelf-address is a required parameter"),
        ("gelf", {"gelf-address": "tcp://a"},
         "gelf: please provide gelf-address as proto://host:port"),
        ("gelf", {"gelf-address": "http://a:1"},
         "gelf-address should be in form proto://address, got http://a:1"),
        ("gelf", {"gelf-address": "tcp://a:1", "gelf-compression-type": "gzip"},
         "compression is only supported on UDP"),
        ("gelf", {"gelf-address": "udp://a:1", "gelf-compression-level": "77"},
         'unknown value "77" for log opt "gelf-compression-level" for gelf log driver'),
        ("gelf", {"gelf-address": "udp://a:1", "gelf-tcp-max-reconnect": "7"},
         '"gelf-tcp-max-reconnect" is only valid for TCP'),
        ("fluentd", {"fluentd-address": "a:b"},
         'invalid fluentd-address a:b: strconv.Atoi: parsing "b": invalid syntax'),
        ("fluentd", {"fluentd-buffer-limit": "x"}, "invalid size: 'x'"),
        ("fluentd", {"fluentd-async": "x"}, 'strconv.ParseBool: parsing "x": invalid syntax'),
        ("fluentd", {"fluentd-retry-wait": "y"}, 'time: invalid duration "y"'),
        ("journald", {"foo": "1"}, "unknown log opt 'foo' for journald log driver"),
        ("json-file", {"mode": "foo"}, "logger: logging mode not supported: foo"),
        ("json-file", {"max-buffer-size": "1m"},
         "logger: max-buffer-size option is only supported with 'mode=non-blocking'"),
        ("json-file", {"mode": "non-blocking", "max-buffer-size": "x"},
         "error parsing option max-buffer-size: invalid size: 'x'"),
    ],
)  # fmt: skip
def test_bad_options(engine: Engine, driver: str, options: dict[str, str], text: str) -> None:
    host = {"LogConfig": {"Type": driver, "Config": options}}
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
    reply = engine.api.request("POST", "/containers/create", body)
    assert (reply.status, reply.json()["message"]) == (400, text)


@ours_only
@pytest.mark.parametrize(
    ("driver", "options", "text"),
    [
        ("foo", {}, "logger: no log driver named 'foo' is registered"),
        ("json-file", {"max-size": "x"}, "invalid value for max-size: x: invalid size: 'x'"),
        ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("json-file", {"max-file": "x"}, 'strconv.Atoi: parsing "x": invalid syntax'),
        ("local", {"compress": "x"}, 'strconv.ParseBool: parsing "x": invalid syntax'),
        ("json-file", {"labels-regex": "("}, "error parsing regexp"),
        ("syslog", {"cache-max-file": "0"}, "cache-max-file cannot be less than 1"),
        ("syslog", {"syslog-address": "tcp://:99999"}, "99999"),
    ],
)
def test_what_docker_refuses_only_at_the_start(
    engine: Engine, driver: str, options: dict[str, str], text: str
) -> None:
    host = {"LogConfig": {"Type": driver, "Config": options}}
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
    reply = engine.api.request("POST", "/containers/create", body)
    assert reply.status == 400
    assert text in reply.json()["message"]


@ours_only
def test_a_server_that_comes_back_gets_every_line(
    engine: Engine, names: Names, closing: Close
) -> None:
    cli, port = engine.cli("teu"), free_port()
    before = StreamServer(port=port)
    words = ["--log-driver", "syslog", "--log-opt", f"syslog-address=tcp://127.0.0.1:{port}"]
    script = (
        "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo line $i; usleep 1000; "
        "[ $i -eq 700 ] && until [ -e /go ]; do usleep 10000; done; done; sleep 1000"
    )
    cli.ok("run", "-d", "--name", names("a"), *words, "busybox", "sh", "-c", script)
    before.lines(100)
    before.close()
    after = closing(StreamServer(port=port))
    cli.ok("exec", names("a"), "touch", "/go")
    until("the last line has come", lambda: b": line 1000\n" in after.received, 20)
    numbers = [
        int(line.rpartition(b" ")[2]) for line in (before.received + after.received).splitlines()
        if b": line " in line
    ]  # fmt: skip
    assert sorted(set(numbers)) == list(range(1, 1001))
    shown = cli.ok("logs", names("a")).splitlines()
    assert shown == [f"line {number}" for number in range(1, 1001)]
    cli.ok("rm", "-f", names("a"))


@ours_only
def test_a_slow_server_holds_the_output_back(engine: Engine, names: Names, closing: Close) -> None:
    """In blocking mode nothing is lost, and what waits in memory is bounded."""
    cli = engine.cli("teu")
    server = closing(StreamServer())
    server.reads = False
    words = ["--log-driver", "syslog", "--log-opt", f"syslog-address=tcp://127.0.0.1:{server.port}"]
    script = "seq 1000001 1200000; echo done; sleep 1000"
    cli.ok("run", "-d", "--name", names("a"), *words, "busybox", "sh", "-c", script)
    until("something was written", lambda: cli.ok("logs", "--tail", "1", names("a")))
    seen = [""]

    def stands() -> bool:
        seen.append(cli.ok("logs", "--tail", "1", names("a")))
        return seen[-1] == seen[-2]

    until("the output stands still", stands)
    assert "done" not in seen[-1]
    server.reads = True
    until("all lines have come", lambda: b": done\n" in server.received, 30)
    assert server.received.count(b"\n") == 200_001
    cli.ok("rm", "-f", names("a"))


@ours_only
def test_non_blocking_mode_drops_instead(engine: Engine, names: Names, closing: Close) -> None:
    """The container goes on; `logs` has everything."""
    cli = engine.cli("teu")
    server = closing(StreamServer())
    server.reads = False
    options = [f"syslog-address=tcp://127.0.0.1:{server.port}", "mode=non-blocking"]
    script = ["busybox", "sh", "-c", "seq 1000001 1200000; echo done"]
    run(cli, names("a"), "syslog", *options, "max-buffer-size=64k", command=script)
    assert engine.api.state(names("a"))["Status"] == "exited"
    assert cli.ok("logs", "--tail", "1", names("a")) == "done"
    assert len(cli.ok("logs", names("a")).splitlines()) == 200_001
    server.reads = True


@ours_only
def test_a_late_fluentd_is_waited_for(engine: Engine, names: Names, closing: Close) -> None:
    cli, port = engine.cli("teu"), free_port()
    options = [f"fluentd-address=127.0.0.1:{port}", "fluentd-async=true", "fluentd-retry-wait=50ms"]
    words = [word for option in options for word in ("--log-opt", option)]
    command = ["busybox", "sh", "-c", "echo early; sleep 1000"]
    cli.ok("run", "-d", "--name", names("a"), "--log-driver", "fluentd", *words, *command)
    until("it was written", lambda: cli.ok("logs", names("a")) == "early")
    server = closing(StreamServer(port=port))
    until("it has come", lambda: unpack_all(server.received))
    assert unpack_all(server.received)[0][2]["log"] == "early"
    cli.ok("rm", "-f", names("a"))


def test_without_a_copy_there_is_nothing_to_read(cli: Cli, names: Names, closing: Close) -> None:
    server = closing(DatagramServer())
    address = f"syslog-address=udp://127.0.0.1:{server.port}"
    run(cli, names("a"), "syslog", address, "cache-disabled=true")
    said = cli.fails(1, "logs", names("a"))
    assert "configured logging driver does not support reading" in said


def test_attributes_of_lines(cli: Cli, names: Names) -> None:
    options = ["labels=a,zz", "labels-regex=^le", "env=B", "env-regex=^C", "tag={{.ImageName}}!"]
    given = ["-l", "a=1", "-l", "left=2", "-l", "other=3", "-e", "B=4", "-e", "CC=5", "-e", "D=6"]
    run(cli, names("a"), "json-file", *options, command=[*given, "busybox", "echo", "x"])
    shown = cli.ok("logs", "--details", names("a"))
    assert shown == "B=4,CC=5,a=1,left=2,tag=busybox%21 x"


@ours_only
def test_bad_defaults_refuse_the_daemon_s_start(private_engine: Engine) -> None:
    engine = private_engine
    engine.terminate()
    engine.launch("--log-opt", "foo=1")
    assert engine.process is not None
    assert engine.process.wait(20) == 1
    wanted = "failed to set log opts: unknown log opt 'foo' for json-file log driver"
    assert wanted in engine.log_tail()
    engine.start("--log-opt", "max-size=1m", "--log-opt", "labels=a")
    cli = engine.cli("teu")
    cli.ok("create", "--name", "test-a", "busybox", "true")
    assert engine.api.inspect("test-a")["HostConfig"]["LogConfig"] == {
        "Type": "json-file",
        "Config": {"max-size": "1m", "labels": "a"},
    }
    cli.ok("create", "--name", "test-b", "--log-driver", "local", "busybox", "true")
    assert engine.api.inspect("test-b")["HostConfig"]["LogConfig"]["Config"] == {}
    for what in ("test-a", "test-b"):
        cli.ok("rm", what)
    engine.terminate()
    engine.start()
