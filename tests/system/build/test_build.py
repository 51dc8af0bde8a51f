"""What a build does beyond its Dockerfile: cache, cancel, progress, inputs, clean-up."""

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from harness import builds
from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names
from harness.waiting import until

FROM = "FROM busybox\n"


def context(dockerfile: str, **files: str) -> dict[str, tuple[bytes, int, str]]:
    named = {name.replace("__", "/"): (text.encode(), 0o644, "") for name, text in files.items()}
    return {"Dockerfile": (dockerfile.encode(), 0o644, ""), **named}


def build(engine: Engine, dockerfile: str, **query: object) -> builds.Outcome:
    return builds.build(engine.api, builds.context_tar(context(dockerfile)), **query)


def ran(outcome: builds.Outcome) -> list[str]:
    """The steps that were not cached, as they are shown."""
    lines = outcome.log.split("Step ")
    return [step.splitlines()[0] for step in lines if "Running in" in step]


def write(directory: Path, dockerfile: str, **files: str) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "Dockerfile").write_text(dockerfile)
    for name, text in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def no_steps_left(engine: Engine) -> bool:
    """No directory, mount or process of a step."""
    steps = engine.data_root / "build" / "steps"
    runs = engine.exec_root / "builds"
    mounts = [point for point in engine.mount_points() if "/build" in point]
    return not list(steps.iterdir()) and not list(runs.iterdir()) and not mounts


# --- cache ----------------------------------------------------------------------------------


def test_times_do_not_matter_contents_do(engine: Engine, names: Names) -> None:
    text = FROM + f"LABEL x={names('x')}\nCOPY a /a\nRUN echo {names('y')} && cat /a\n"
    files = context(text, a="one")
    first = builds.build(engine.api, builds.context_tar(files, mtime=1))
    again = builds.build(engine.api, builds.context_tar(files, mtime=2_000_000))
    assert (again.image, ran(again)) == (first.image, [])
    other = builds.build(engine.api, builds.context_tar(context(text, a="two")))
    assert other.image != first.image
    assert len(ran(other)) == 1


def test_results_are_shared_between_dockerfiles(engine: Engine, names: Names) -> None:
    command = f"RUN echo {names('shared')}\n"
    build(engine, FROM + "ENV A=1\nLABEL a=1\n" + command)
    assert ran(build(engine, FROM + command + "CMD x")) == ["2/3 : RUN echo " + names("shared")]
    assert not ran(build(engine, "FROM busybox AS other\nENV A=1\n" + command + "CMD x"))


def test_no_cache_runs_everything(engine: Engine, names: Names) -> None:
    text = FROM + f"RUN echo {names('x')}; cat /proc/uptime > /u\n"
    first = build(engine, text)
    assert build(engine, text).image == first.image
    assert len(ran(build(engine, text, nocache=1))) == 1


def test_a_changed_argument_is_explained(teu: Cli, tmp_path: Path, names: Names) -> None:
    where = write(tmp_path / "c", FROM + f"ARG V\nCOPY a /a\nRUN echo {names('x')} $V\n", a="1")
    teu.ok("build", "--build-arg", "V=1", str(where))
    shown = teu.ok("build", "--explain", "--build-arg", "V=2", str(where))
    assert "not cached: variable V changed" in shown
    (where / "a").write_text("2")
    shown = teu.ok("build", "--explain", "--build-arg", "V=2", str(where))
    assert "not cached: file a changed" in shown
    assert "not cached: the layers below changed" in shown


def test_prune_forgets_and_frees(engine: Engine, names: Names) -> None:
    engine.api.request("POST", "/build/prune", all=1)
    text = FROM + f"RUN echo {names('x')}; head -c 100000 /dev/zero > /big\n"
    done = build(engine, text)
    rows = engine.api.get("/system/df")["BuildCache"]
    assert [row["Size"] for row in rows] == [100000]
    assert rows[0]["Shared"]
    assert not rows[0]["InUse"]
    kept = engine.api.request("POST", "/build/prune").json()
    assert kept == {"CachesDeleted": None, "SpaceReclaimed": 0}, "an image has it"
    engine.api.request("DELETE", f"/images/{done.image}")
    gone = engine.api.request("POST", "/build/prune").json()
    assert gone["SpaceReclaimed"] == 100000
    assert engine.api.get("/system/df")["BuildCache"] == []
    assert len(ran(build(engine, text))) == 1
    bad = engine.api.request("POST", "/build/prune", filters='{"nope":["x"]}')
    assert (bad.status, bad.json()["message"]) == (400, "invalid filter 'nope'")


def test_source_date_epoch_makes_equal_images(engine: Engine, names: Names) -> None:
    text = FROM + f"WORKDIR /w\nRUN echo {names('x')} > /w/f\nCOPY a /a\n"
    tar = builds.context_tar(context(text, a="A"), mtime=1_900_000_000)
    query = {"nocache": 1, "buildargs": json.dumps({"SOURCE_DATE_EPOCH": "1000"})}
    first = builds.build(engine.api, tar, **query)
    second = builds.build(engine.api, tar, **query)
    assert first.image
    assert first.image == second.image
    assert engine.api.get(f"/images/{first.image}/json")["Created"].startswith(
        "1970-01-01T00:16:40"
    )
    bad = builds.build(engine.api, tar, buildargs=json.dumps({"SOURCE_DATE_EPOCH": "x"}))
    assert "SOURCE_DATE_EPOCH" in bad.error


# --- stages at the same time ----------------------------------------------------------------


def test_stages_run_at_the_same_time(engine: Engine, names: Names) -> None:
    """Each waits for the other's mark in a shared cache mount."""
    mount = f"--mount=type=cache,id={names('m')},target=/m"
    wait = "for i in $(seq 200); do [ -e /m/{} ] && exit 0; sleep 0.05; done; exit 1"
    text = (
        f"FROM busybox AS a\nRUN {mount} touch /m/a; {wait.format('b')}\n"
        f"FROM busybox AS b\nRUN {mount} touch /m/b; {wait.format('a')}\n"
        "FROM busybox\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n"
    )
    done = build(engine, text)
    assert done.image, done


def test_a_locked_cache_mount_has_one_user(engine: Engine, names: Names) -> None:
    mount = f"--mount=type=cache,id={names('m')},target=/m,sharing=locked"
    once = "test ! -e /m/in || exit 1; touch /m/in; sleep 0.3; rm /m/in"
    text = (
        f"FROM busybox AS a\nRUN {mount} : a; {once}\nFROM busybox AS b\nRUN {mount} : b; {once}\n"
        "FROM busybox\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n"
    )
    assert build(engine, text).image


def test_a_failure_ends_the_other_stages(engine: Engine) -> None:
    text = (
        "FROM busybox AS slow\nRUN sleep 60\nFROM busybox AS bad\nRUN sleep 0.3; exit 5\n"
        "FROM busybox\nCOPY --from=slow /x /a\nCOPY --from=bad /x /b\n"
    )
    begin = time.monotonic()
    done = build(engine, text)
    assert (done.code, "returned a non-zero code: 5" in done.error) == (5, True)
    assert time.monotonic() - begin < 20
    until("everything is taken down", lambda: no_steps_left(engine))


# --- ends before the end --------------------------------------------------------------------


def test_a_client_that_goes_away_cancels(engine: Engine) -> None:
    """The step is killed at once, and nothing of it stays."""
    body = builds.context_tar(context(FROM + "RUN echo begun; sleep 300\n"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(engine.socket))
        head = f"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        seen = b""
        client.settimeout(20)
        while b"begun" not in seen:
            seen += client.recv(4096)
    until("everything is taken down", lambda: no_steps_left(engine))
    assert not [p for p in _commands() if "sleep 300" in p]


def test_a_killed_daemon_leaves_nothing(private_engine: Engine, names: Names) -> None:
    engine = private_engine
    text = FROM + f"RUN echo {names('a')} > /a\nRUN echo {names('mark')}; sleep 301\n"
    body = builds.context_tar(context(text))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(engine.socket))
        head = f"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        seen = b""
        client.settimeout(20)
        while b"sleep 301" not in seen or names("mark").encode() + b"\\n" not in seen:
            seen += client.recv(4096)
        # The client goes on listening: only the kill ends the build.
        engine.kill()
    engine.start()
    until("everything is taken down", lambda: no_steps_left(engine))
    assert not [p for p in _commands() if "sleep 301" in p]
    assert not list((engine.data_root / "layers").glob("*.partial"))
    assert build(engine, FROM + "RUN true\n").image


def _commands() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    return found


# --- inputs ---------------------------------------------------------------------------------


def test_directory_and_stdin(cli: Cli, tmp_path: Path, names: Names) -> None:
    where = write(tmp_path / "c", FROM + "COPY sub/a /a\n", sub__a="A")
    tag = names("t")
    assert "Successfully tagged" in cli.ok("build", "-t", tag, str(where))
    assert cli.ok("run", "--rm", tag, "cat", "/a") == "A"
    text = (FROM + f"RUN echo from {names('stdin')}\n").encode()
    assert cli.ok("build", "-q", "-", stdin=text).startswith("sha256:")
    archive = builds.context_tar(context(FROM + "COPY a /a\n", a="x"))
    assert "Successfully built" in cli.ok("build", "-", stdin=archive)
    other = (FROM + "COPY sub/a /other\n").encode()
    cli.ok("build", "-t", tag, "-f", "-", str(where), stdin=other)
    assert cli.ok("run", "--rm", tag, "cat", "/other") == "A"


def test_bad_inputs(cli: Cli, tmp_path: Path) -> None:
    assert "not found" in cli.fails(1, "build", str(tmp_path / "nowhere"))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "Dockerfile" in cli.fails(1, "build", str(empty))
    assert "dockerfile parse error on line 1" in cli.fails(1, "build", "-", stdin=b"NOPE x\n")
    failing = (FROM + "RUN exit 7\n").encode()
    assert "non-zero code: 7" in cli.fails(7, "build", "-", stdin=failing)


def test_only_changes_are_sent(teu: Cli, engine: Engine, tmp_path: Path) -> None:
    """The second build of a large context sends little, and sees what changed."""
    where = write(tmp_path / "c", FROM + "COPY d /d\n", d__one="1", d__gone="g", unused="u")
    (where / "d" / "link").symlink_to("one")
    first = teu.ok("build", "-q", str(where))
    kept = next((engine.data_root / "build" / "contexts").glob("kept-*/tree/d/one")).parents[1]
    assert not (kept / "unused").exists(), "it is not needed"
    inode = (kept / "d" / "one").stat().st_ino
    assert teu.ok("build", "-q", str(where)) == first
    (where / "d" / "gone").unlink()
    (where / "d" / "two").write_text("2")
    second = teu.ok("build", "-q", str(where))
    assert second != first
    assert (kept / "d" / "one").stat().st_ino == inode
    tree = builds.tree_of(engine.api, second)
    assert sorted(p for p in tree if p.startswith("/d/")) == ["/d/link", "/d/one", "/d/two"]
    (where / "d" / "link").unlink()
    (where / "d" / "link").mkdir()
    (where / "d" / "link" / "file").write_text("now a directory")
    third = builds.tree_of(engine.api, teu.ok("build", "-q", str(where)))
    assert third["/d/link/file"].data == b"now a directory"


def test_secrets_stay_out(teu: Cli, engine: Engine, tmp_path: Path, names: Names) -> None:
    secret = f"the-secret-of-{names('s')}"
    (tmp_path / "s").write_text(secret)
    text = FROM + (
        "RUN --mount=type=secret,id=one cd /run/secrets; stat -c '%a %u' one; wc -c < one\n"
        "RUN --mount=type=secret,id=one,target=/s,mode=0440,uid=5 stat -c '%a %u' /s\n"
        "RUN --mount=type=secret,id=two,env=TOKEN echo ${#TOKEN}\n"
    )
    where = write(tmp_path / "c", text)
    said = teu.ok(
        "build", "--secret", f"id=one,src={tmp_path}/s", "--secret", f"id=two,src={tmp_path}/s",
        str(where),
    )  # fmt: skip
    assert "400 0" in said
    assert "440 5" in said
    assert said.count(str(len(secret))) >= 2
    needle = secret.encode()
    for root in (engine.data_root, engine.exec_root):
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert needle not in path.read_bytes(), path
    assert needle not in engine.log.read_bytes()
    err = teu.fails(1, "build", "--secret", "id=x,src=/no/such", str(where))
    assert "No such file" in err


def test_named_contexts(teu: Cli, tmp_path: Path, names: Names) -> None:
    extra = tmp_path / "extra"
    extra.mkdir()
    (extra / "f").write_text("from extra")
    where = write(tmp_path / "c", "FROM base\nCOPY --from=more f /f\n")
    tag = names("t")
    teu.ok(
        "build", "-t", tag, "--build-context", f"more={extra}",
        "--build-context", "base=docker-image://busybox", str(where),
    )  # fmt: skip
    assert teu.ok("run", "--rm", tag, "cat", "/f") == "from extra"


# --- things from elsewhere ------------------------------------------------------------------


class _Files(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/file.txt":
            body = b"fetched\n"
        elif self.path == "/context.tar":
            body = builds.context_tar(context(FROM + "COPY a /a\n", a="remote"))
        elif self.path == "/Dockerfile":
            body = (FROM + "ENV REMOTE=1\n").encode()
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Last-Modified", "Thu, 01 Jan 2015 00:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Files)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_add_of_a_url(engine: Engine, web: str) -> None:
    digest = "sha256:2f46fd8de0be4df0c3b5ac52ff6ffeaa5dc71f4a6dac4f0c5fbb7d1a5c5cb0f5"
    done = build(engine, f"FROM busybox\nADD {web}/file.txt /d/\nADD {web}/file.txt /named\n")
    tree = builds.tree_of(engine.api, done.image)
    assert tree["/d/file.txt"].data == tree["/named"].data == b"fetched\n"
    assert tree["/named"].info.mode == 0o600
    assert tree["/named"].info.mtime == 1420070400
    wrong = build(engine, f"FROM busybox\nADD --checksum={digest} {web}/file.txt /\n")
    assert "digest mismatch" in wrong.error
    missing = build(engine, f"FROM busybox\nADD {web}/nothing /x\n")
    assert "the server answered 404" in missing.error


def test_contexts_from_a_url(engine: Engine, cli: Cli, web: str) -> None:
    assert "Successfully built" in cli.ok("build", f"{web}/context.tar")
    image = cli.ok("build", "-q", f"{web}/Dockerfile")
    assert "REMOTE=1" in engine.api.get(f"/images/{image}/json")["Config"]["Env"]
    assert "404" in cli.fails(1, "build", f"{web}/nothing")


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[str]:
    repository = tmp_path / "repos" / "r.git"
    work = write(tmp_path / "work", FROM + "COPY a /a\n", a="v1", sub__b="B")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(work)]
    for words in (["init", "-qb", "main"], ["add", "."], ["commit", "-qm", "1"], ["tag", "v1"]):
        subprocess.run([*git, *words], check=True)
    (work / "a").write_text("v2")
    subprocess.run([*git, "commit", "-qam", "2"], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(repository)], check=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        ["git", "daemon", "--export-all", f"--base-path={tmp_path}/repos", "--listen=127.0.0.1",
         f"--port={port}", "--reuseaddr", str(tmp_path / "repos")],
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip

    def answers() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    until("git daemon answers", answers)
    yield f"git://127.0.0.1:{port}/r.git"
    server.terminate()
    server.wait()


def test_git(engine: Engine, git_server: str) -> None:
    done = build(engine, f"FROM busybox\nADD {git_server} /new/\nADD {git_server}#v1:sub /sub/\n")
    tree = builds.tree_of(engine.api, done.image)
    assert tree["/new/a"].data == b"v2"
    assert tree["/sub/b"].data == b"B"
    assert "/new/.git" not in tree
    remote = engine.api.request("POST", "/build", b"", remote=f"{git_server}#v1", timeout_s=60)
    image = builds.outcome(remote).image
    assert builds.tree_of(engine.api, image)["/a"].data == b"v1"
    bad = build(engine, f"FROM busybox\nADD {git_server}#nope /x/\n")
    assert "has no 'nope'" in bad.error


def test_credentials_that_make_no_sense(engine: Engine) -> None:
    reply = engine.api.request("POST", "/build", b"", headers={"X-Registry-Config": "%%%"})
    assert reply.status == 400


def test_a_body_that_is_no_archive(engine: Engine) -> None:
    outcome = builds.build(engine.api, b"this is not a tar archive" * 100)
    assert outcome.status == 400


def test_buildkit_is_refused_in_words(engine: Engine) -> None:
    reply = engine.api.request("POST", "/build", b"", version="2")
    assert reply.status == 400
    assert "DOCKER_BUILDKIT=0" in reply.json()["message"]


# --- warnings, failures ---------------------------------------------------------------------


def test_check(teu: Cli, tmp_path: Path) -> None:
    where = write(tmp_path / "c", "FROM busybox as x\nCMD y\nCOPY $NOPE /z\n")
    done = teu.run("build", "--check", str(where))
    assert done.code == 1
    assert "Check complete, 3 warnings have been found!" in done.out
    assert "WARNING: JSONArgsRecommended - https://" in done.out
    assert "   2 | >>> CMD y" in done.out
    good = write(tmp_path / "g", FROM)
    assert teu.ok("build", "--check", str(good)) == "Check complete, no warnings found."
    strict = write(tmp_path / "s", "# check=error=true\nFROM busybox as x\n")
    assert "lint violation found for rules: FromAsCasing" in teu.fails(1, "build", str(strict))


def test_secret_looking_names_are_warned_of(cli: Cli, tmp_path: Path) -> None:
    where = write(tmp_path / "c", FROM + "ENV DB_PASSWORD=x\n")
    said = cli.ok("build", str(where))
    assert "[Warning] SecretsUsedInArgOrEnv: Do not use ARG or ENV" in said


def test_a_failed_step_can_be_entered(
    teu: Cli, engine: Engine, tmp_path: Path, names: Names
) -> None:
    text = FROM + f"ENV WHO={names('x')}\nWORKDIR /w\nRUN echo here > f\nRUN cat f; exit 3\n"
    done = teu.run("build", str(write(tmp_path / "c", text)))
    assert done.code == 3
    failure = done.out.split("teu builder shell ")[1].split()[0]
    script = b"pwd; cat f; echo $WHO\n"
    seen = teu.ok("builder", "shell", failure, stdin=script)
    assert seen.splitlines()[-3:] == ["/w", "here", names("x")]
    assert teu.ok("builder", "shell", stdin=script).endswith(names("x"))
    assert "no failed build step" in teu.fails(1, "builder", "shell", "nope")
    with teu.tty("build", "--progress", "plain", str(tmp_path / "c")) as terminal:
        terminal.expect("ERROR")
        terminal.expect(">>> RUN cat f; exit 3")
        assert terminal.wait() == 3


def test_progress_at_a_terminal(teu: Cli, tmp_path: Path, names: Names) -> None:
    where = write(tmp_path / "c", FROM + f"RUN echo {names('x')}\n")
    with teu.tty("build", str(where), columns=100) as terminal:
        terminal.expect("Successfully built")
        assert terminal.wait() == 0
        assert re.search(r"\[\+\] Building .*FINISHED", terminal.seen)
        assert "=> [stage-0 2/2] RUN echo" in terminal.seen
    done = teu.run("build", "--progress", "rawjson", str(where))
    kinds = [json.loads(line)["kind"] for line in done.err.splitlines()]
    assert {"plan", "started", "cached", "done"} <= set(kinds)
    assert "invalid progress mode" in teu.fails(1, "build", "--progress", "x", str(where))


def test_a_daemon_that_stops_ends_its_builds(private_engine: Engine) -> None:
    body = builds.context_tar(context(FROM + "RUN echo begun; sleep 302\n"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(private_engine.socket))
        head = f"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        seen = b""
        client.settimeout(20)
        while b"begun" not in seen:
            seen += client.recv(4096)
        begin = time.monotonic()
        assert private_engine.terminate() == 0
        assert time.monotonic() - begin < 10
    assert not [p for p in _commands() if "sleep 302" in p]
    assert no_steps_left(private_engine)
    private_engine.start()


# --- networks -------------------------------------------------------------------------------


def test_commands_join_a_network(engine: Engine, cli: Cli, names: Names) -> None:
    network, server = names("n"), names("s")
    cli.ok("network", "create", network)
    cli.ok("run", "-d", "--name", server, "--network", network, "busybox", "sleep", "300")
    done = build(engine, FROM + f"RUN ping -c1 -W5 {server}\n", networkmode=network, nocache=1)
    assert done.image, done
    lost = build(engine, FROM + "RUN ls /sys/class/net && ls nope\n", networkmode="none")
    assert "lo" in lost.log.split()
    assert "eth0" not in lost.log
    unknown = build(engine, FROM + f"RUN true {names('x')}\n", networkmode="no-such-network")
    assert "no-such-network" in unknown.error


def test_platforms_that_do_not_exist(engine: Engine) -> None:
    refused = build(engine, FROM, platform="foobar")
    assert refused.status == 400
    assert "unknown operating system or architecture" in refused.error
