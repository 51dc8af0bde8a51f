"""Every flag of `run`, seen from inside the container or from outside."""

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names
from harness.waiting import until

# What is asked, what is run, and what is then printed (a regular expression for the whole).
SEEN_INSIDE = [
    ("env", ["-e", "A=1", "--env", "B=two words"], "echo $A $B", "1 two words"),
    ("env-is-unset-by-name", ["-e", "NOT_SET_ANYWHERE"], "echo ${NOT_SET_ANYWHERE-none}", "none"),
    ("workdir", ["-w", "/etc"], "pwd", "/etc"),
    ("workdir-is-made", ["--workdir=/made/deep"], "pwd", "/made/deep"),
    ("user", ["-u", "33"], "id -u; id -g", "33\n33"),
    ("user-and-group", ["-u", "33:44"], "id -u; id -g", "33\n44"),
    ("user-by-name", ["--user", "www"], "id -un; echo $HOME", "www\n/home"),
    ("group-add", ["-u", "1000:1000", "--group-add", "extra", "--group-add=99"], "id -G", "1000 44 99"),
    ("supplementary-groups", ["-u", "www"], "id -G", "33 44"),
    ("hostname", ["-h", "box"], "hostname; cat /etc/hostname; grep -c box /etc/hosts", "box\nbox\n1"),
    ("domainname", ["--hostname=box", "--domainname=example.org"], "hostname -f", r"box\.example\.org"),
    ("tmpfs", ["--tmpfs", "/t:size=1m,mode=1770"], "stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'", "1770\n1024"),
    ("tmpfs-mount", ["--mount", "type=tmpfs,dst=/t,tmpfs-size=2m"], "df -k /t | tail -1 | awk '{print $2}'", "2048"),
    ("shm-size", ["--shm-size", "3m"], "df -k /dev/shm | tail -1 | awk '{print $2}'", "3072"),
    ("shm-default", [], "df -k /dev/shm | tail -1 | awk '{print $2}'", "65536"),
    ("read-only", ["--read-only"], "touch /x 2>&1; touch /dev/shm/x && echo shm", "touch: /x: Read-only file system\nshm"),
    ("read-only-with-tmpfs", ["--read-only", "--tmpfs", "/t"], "touch /t/x && echo ok", "ok"),
    ("init", ["--init"], "cat /proc/1/comm; cat /proc/self/comm", r"(docker-init|tini|catatonit|teu-init|init)\ncat"),
    ("sysctl", ["--sysctl", "net.ipv4.ip_forward=0"], "cat /proc/sys/net/ipv4/ip_forward", "0"),
    ("oom-score-adj", ["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj", "500"),
    ("expose", ["--expose", "99"], "echo ok", "ok"),
    ("cap-add", ["--cap-drop=ALL", "--cap-add=NET_RAW"], "grep CapEff /proc/self/status", r"CapEff:\s+0*2000"),
    ("entrypoint", ["--entrypoint", "echo"], None, "hello there"),
    ("ipc-private", ["--ipc=private"], "ls /dev/shm", ""),
    ("tty", ["-t"], "tty", "/dev/pts/0|/dev/console"),
    ("terminal-has-TERM", ["-t"], "echo $TERM", "xterm"),
    ("no-tty", [], "tty", "not a tty"),
    ("stdin-is-empty", [], "cat", ""),
    ("cgroupns", ["--cgroupns=private"], "cat /proc/self/cgroup | tail -1", r"0::/|\d+:.*:/.*"),
    ("hosts", ["--add-host", "a:192.0.2.1", "--add-host", "b=192.0.2.2"], "grep 192.0.2 /etc/hosts", r"192\.0\.2\.1\s+a\n192\.0\.2\.2\s+b"),
    ("network-alias-of-localhost", [], "grep -c localhost /etc/hosts", "[12]"),
    ("path", [], "echo $PATH", "/bin:/sbin"),
    ("home", [], "echo $HOME", "/root"),
    ("umask-and-cwd", [], "umask; pwd", "0022\n/"),
    ("no-inherited-descriptors", [], "ls /proc/self/fd", "0\n1\n2\n3"),
    ("mac-address", ["--mac-address", "02:42:ac:11:aa:bb"], "cat /sys/class/net/eth0/address", "02:42:ac:11:aa:bb"),
    ("privileged-capabilities", [], "grep CapEff /proc/self/status", r"CapEff:\s+00000000a80425fb"),
]  # fmt: skip
# ruff: noqa: E501  (a table is read by its columns)


@pytest.mark.parametrize(
    ("options", "script", "expected"),
    [row[1:] for row in SEEN_INSIDE],
    ids=[row[0] for row in SEEN_INSIDE],
)
def test_seen_inside(
    cli: Cli, engine: Engine, options: list[str], script: str | None, expected: str
) -> None:
    if engine.kind == "dockerd" and "b=192.0.2.2" in options:
        options = ["--add-host", "a:192.0.2.1", "--add-host", "b:192.0.2.2"]
    if engine.kind == "dockerd" and "--mac-address" in options:
        pytest.skip("this docker daemon is too old for --mac-address of this client")
    command = ["sh", "-c", script] if script else ["hello", "there"]
    out = cli.run("run", "--rm", *options, "busybox", *command).out
    assert re.fullmatch(expected, out.replace("\r\n", "\n").removesuffix("\n")), out


@pytest.mark.parametrize("code", [0, 1, 42, 125, 126, 127, 255])
def test_exit_codes_are_the_commands_own(cli: Cli, code: int) -> None:
    assert cli.run("run", "--rm", "busybox", "sh", "-c", f"exit {code}").code == code


@pytest.mark.parametrize("signal", ["KILL", "TERM", "SEGV"])
def test_exit_code_of_a_signal(cli: Cli, signal: str) -> None:
    script = f"sh -c 'kill -{signal} $$'; exit $?"
    number = {"KILL": 9, "TERM": 15, "SEGV": 11}[signal]
    assert cli.run("run", "--rm", "busybox", "sh", "-c", script).code == 128 + number


def test_streams_are_apart(cli: Cli) -> None:
    done = cli.run("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.out, done.err) == ("out\n", "err\n")
    only = cli.run("run", "--rm", "-a", "stderr", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (only.out, only.err) == ("", "err\n")


def test_big_output_is_complete(cli: Cli, names: Names) -> None:
    command = ["busybox", "sh", "-c", "seq 1 200000"]
    expected = "".join(f"{number}\n" for number in range(1, 200001))
    assert cli.run("run", "--name", names("a"), *command).out == expected
    assert cli.run("logs", names("a")).out == expected


def test_binary_output_is_untouched(cli: Cli) -> None:
    script = 'i=0; while [ $i -lt 256 ]; do printf "\\\\$(printf %03o $i)"; i=$((i+1)); done'
    process = cli.spawn("run", "--rm", "busybox", "sh", "-c", script)
    out, _ = process.communicate(timeout=60)
    assert out == bytes(range(256))


def test_env_file_and_label_file(cli: Cli, engine: Engine, names: Names, tmp_path: Path) -> None:
    env = tmp_path / "env"
    env.write_text("# comment\nX=from file\n\nY=\n")
    labels = tmp_path / "labels"
    labels.write_text("from=file\nno-value-is-left-out\n")
    files = ["--env-file", str(env), "--label-file", str(labels), "-l", "own=label"]
    out = cli.ok("run", "--name", names("a"), *files, "busybox", "sh", "-c", "echo $X-${Y-unset}-")
    assert out == "from file--"
    assert engine.api.inspect(names("a"))["Config"]["Labels"] == {
        "from": "file",
        "own": "label",
    }


def test_bind_mounts(cli: Cli, engine: Engine, names: Names, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("host\n")
    bind = f"{tmp_path}:/data"
    script = "cat /data/file; echo inside > /data/new"
    assert cli.ok("run", "--rm", "-v", bind, "busybox", "sh", "-c", script) == "host"
    assert (tmp_path / "new").read_text() == "inside\n"
    done = cli.run("run", "--rm", "-v", f"{bind}:ro", "busybox", "touch", "/data/x")
    assert "Read-only file system" in done.err
    mount = f"type=bind,source={tmp_path},target=/data,readonly"
    done = cli.run("run", "--name", names("a"), "--mount", mount, "busybox", "touch", "/data/x")
    assert "Read-only file system" in done.err
    (point,) = engine.api.inspect(names("a"))["Mounts"]
    assert (point["Type"], point["Source"], point["Destination"], point["RW"]) == (
        "bind",
        str(tmp_path),
        "/data",
        False,
    )


def test_a_bind_mounts_source_is_made(cli: Cli, tmp_path: Path) -> None:
    made = tmp_path / "not" / "yet"
    cli.ok("run", "--rm", "-v", f"{made}:/data", "busybox", "touch", "/data/x")
    assert (made / "x").exists()


def test_a_single_file_is_mounted(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("mine\n")
    bind = f"{tmp_path}/conf:/etc/conf:ro"
    assert cli.ok("run", "--rm", "-v", bind, "busybox", "cat", "/etc/conf") == "mine"


def test_volumes_keep_their_data(cli: Cli, engine: Engine, names: Names) -> None:
    volume = names("data")
    cli.ok("run", "--rm", "-v", f"{volume}:/d", "busybox", "sh", "-c", "echo kept > /d/f")
    assert cli.ok("run", "--rm", "-v", f"{volume}:/d:ro", "busybox", "cat", "/d/f") == "kept"
    mount = f"type=volume,src={volume},dst=/d"
    assert cli.ok("run", "--rm", "--mount", mount, "busybox", "cat", "/d/f") == "kept"
    assert engine.api.request("GET", f"/volumes/{volume}").status == 200


def test_anonymous_volumes_go_with_rm(cli: Cli, engine: Engine, names: Names) -> None:
    def volumes() -> set[str]:
        return {row["Name"] for row in engine.api.get("/volumes")["Volumes"] or []}

    before = volumes()
    cli.ok("run", "--rm", "-v", "/anonymous", "busybox", "touch", "/anonymous/x")
    until("the volume is gone", lambda: volumes() == before)
    cli.ok("run", "--name", names("a"), "-v", "/anonymous", "busybox", "true")
    assert len(volumes() - before) == 1
    cli.ok("rm", names("a"))
    assert len(volumes() - before) == 1
    cli.ok("run", "--name", names("b"), "-v", "/anonymous", "busybox", "true")
    cli.ok("rm", "-v", names("b"))
    assert len(volumes() - before) == 1


def test_volumes_take_what_the_image_has_there(cli: Cli, names: Names) -> None:
    out = cli.ok("run", "--rm", "-v", f"{names('etc')}:/etc", "busybox", "cat", "/etc/passwd")
    assert "www:x:33" in out


def test_volumes_from(cli: Cli, names: Names) -> None:
    cli.ok(
        "run", "--name", names("a"), "-v", "/shared", "busybox", "sh", "-c", "echo x > /shared/f"
    )
    out = cli.ok("run", "--rm", "--volumes-from", names("a"), "busybox", "cat", "/shared/f")
    assert out == "x"


def test_cidfile(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "cid"
    printed = cli.ok("run", "-d", "--cidfile", str(path), "busybox", "true")
    assert path.read_text() == printed
    assert "container id file" in cli.fails(125, "run", "--cidfile", str(path), "busybox").lower()


def test_labels_and_annotations_are_shown(cli: Cli, engine: Engine, names: Names) -> None:
    options = ["--label", "a=b", "-l", "c", "--stop-signal", "SIGUSR1", "--stop-timeout", "3"]
    cli.ok("create", "--name", names("a"), *options, "busybox", "true")
    config = engine.api.inspect(names("a"))["Config"]
    assert config["Labels"] == {"a": "b", "c": ""}
    assert (config["StopSignal"], config["StopTimeout"]) == ("SIGUSR1", 3)


def test_stop_signal_and_timeout_are_used(cli: Cli, engine: Engine, names: Names) -> None:
    script = "trap 'exit 11' USR1; echo set; while :; do usleep 20000; done"
    options = ["--stop-signal", "SIGUSR1", "--stop-timeout", "60"]
    cli.ok("run", "-d", "--name", names("a"), *options, "busybox", "sh", "-c", script)
    until("the trap is set", lambda: "set" in cli.ok("logs", names("a")))
    cli.ok("stop", names("a"))
    assert engine.api.state(names("a"))["ExitCode"] == 11
    cli.ok("run", "-d", "--name", names("b"), "--stop-timeout", "1", "busybox", "sleep", "1000")
    assert 0.9 < cli.run("stop", names("b")).took_s < 6


def test_restart_on_failure_counts(cli: Cli, engine: Engine, names: Names) -> None:
    option = "--restart=on-failure:2"
    cli.ok("run", "-d", "--name", names("a"), option, "busybox", "sh", "-c", "echo run; exit 5")
    until(
        "it was tried three times",
        lambda: (
            engine.api.state(names("a"))["Status"] == "exited"
            and engine.api.inspect(names("a"))["RestartCount"] == 2
        ),
    )
    assert cli.ok("logs", names("a")).split() == ["run"] * 3
    assert engine.api.state(names("a"))["ExitCode"] == 5


def test_restart_always_ends_at_stop(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("a")
    cli.ok("run", "-d", "--name", name, "--restart=always", "busybox", "sleep", "0.2")
    until("it was restarted", lambda: engine.api.inspect(name)["RestartCount"] >= 1)
    cli.ok("stop", "-t", "1", name)
    assert engine.api.state(name)["Status"] == "exited"


def test_rm_takes_it_away_when_it_ends(cli: Cli, engine: Engine, names: Names) -> None:
    ident = cli.ok("run", "-d", "--rm", "--name", names("a"), "busybox", "sleep", "0.3")
    until("it is gone", lambda: ident not in engine.api.container_ids())
    cli.ok("create", "--name", names("a"), "busybox", "true")


def test_pull_always(cli: Cli) -> None:
    done = cli.run("run", "--rm", "--pull=always", "busybox", "echo", "ok")
    assert (done.code, done.out) == (0, "ok\n")
    assert "Status: Image is up to date for busybox:latest" in done.err


def test_platform_of_this_machine(cli: Cli) -> None:
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "amd64")
    out = cli.ok("run", "--rm", f"--platform=linux/{arch}", "busybox", "echo", "ok")
    assert out == "ok"


@pytest.mark.parametrize("driver", ["none", "local", "json-file"])
def test_log_drivers(cli: Cli, engine: Engine, names: Names, driver: str) -> None:
    name = names("a")
    out = cli.ok("run", "--name", name, "--log-driver", driver, "busybox", "echo", "said")
    assert out == "said"
    assert engine.api.inspect(name)["HostConfig"]["LogConfig"]["Type"] == driver
    if driver == "none":
        assert re.search("(?i)does not support reading", cli.fails(1, "logs", name))
    else:
        assert cli.ok("logs", name) == "said"


def test_logs_rotate(cli: Cli, engine: Engine, names: Names) -> None:
    options = ["--log-opt", "max-size=20k", "--log-opt", "max-file=2"]
    cli.ok("run", "--name", names("a"), *options, "busybox", "seq", "1", "5000")
    lines = cli.ok("logs", names("a")).split()
    assert lines == [str(number) for number in range(int(lines[0]), 5001)]
    assert 1 < int(lines[0]) < 5000
    path = Path(engine.api.inspect(names("a"))["LogPath"])
    if path.name:
        kept = [each.stat().st_size for each in path.parent.glob(f"{path.name}*")]
        assert len(kept) == 2
        assert max(kept) < 25_000


def test_signals_are_passed_on(cli: Cli, names: Names) -> None:
    script = "trap 'exit 33' TERM; echo set; while :; do usleep 20000; done"
    process = cli.spawn("run", "--name", names("a"), "busybox", "sh", "-c", script)
    until("the trap is set", lambda: "set" in cli.run("logs", names("a")).out)
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 33


def test_a_killed_client_leaves_its_container(cli: Cli, engine: Engine, names: Names) -> None:
    process = cli.spawn("run", "--name", names("a"), "clock")
    until("the clock ticks", lambda: "tick 2 " in cli.run("logs", names("a")).out)
    process.kill()
    process.communicate()
    assert engine.api.state(names("a"))["Running"] is True
    seen = len(cli.ok("logs", names("a")))
    until("the clock still ticks", lambda: len(cli.ok("logs", names("a"))) > seen)


def test_attach_flags_of_create_and_start(cli: Cli, names: Names) -> None:
    cli.ok("create", "--name", names("a"), "busybox", "sh", "-c", "echo out; echo err >&2; exit 6")
    done = cli.run("start", "-a", names("a"))
    assert (done.code, done.out, done.err) == (6, "out\n", "err\n")


def test_inspect_is_the_same_everywhere(cli: Cli, engine: Engine, names: Names) -> None:
    cli.ok("run", "-d", "--name", names("a"), "busybox", "sleep", "1000")
    (shown,) = json.loads(cli.ok("inspect", names("a")))
    assert shown["Id"] == engine.api.inspect(names("a"))["Id"]
    assert shown["Name"] == f"/{names('a')}"
    assert (
        cli.ok("inspect", "-f", "{{.State.Status}} {{.Config.Image}}", names("a"))
        == "running busybox"
    )
    assert cli.ok("inspect", "-f", "{{json .Config.Cmd}}", names("a")) == '["sleep","1000"]'
    assert cli.ok("container", "inspect", "--format", "{{.Path}}", names("a")) == "sleep"


def test_stdin_of_many_megabytes(cli: Cli) -> None:
    data = os.urandom(1 << 20) * 5
    process = cli.spawn("run", "-i", "--rm", "busybox", "md5sum", stdin=subprocess.PIPE)
    out, _ = process.communicate(data, timeout=60)
    assert out.split()[0].decode() == hashlib.md5(data).hexdigest()


def test_detach_keys_are_plain_bytes_without_a_terminal(cli: Cli, names: Names) -> None:
    """ctrl-p ctrl-q detaches a person at a terminal, not a file that happens to contain it."""
    data = b"before\x10\x11after\n"
    done = cli.run("run", "-i", "--rm", "busybox", "cat", stdin=data)
    assert done.out.encode() == data
    cli.ok("run", "-d", "--name", names("a"), "busybox", "sleep", "1000")
    assert cli.run("exec", "-i", names("a"), "cat", stdin=data).out.encode() == data
