"""Compose projects on the real engine: what `teu compose` changes, and what it leaves alone."""

import json
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.clients import Cli, Result
from harness.engine import Engine
from harness.names import Names
from harness.registry import free_port
from harness.waiting import until


class Project:
    """A directory with a compose.yaml, and `teu compose` for it."""

    def __init__(self, cli: Cli, directory: Path, name: str) -> None:
        self.cli = cli
        self.directory = directory
        self.name = name

    def write(self, services: str, top: str = "") -> None:
        (self.directory / "compose.yaml").write_text(f"services:\n{services}\n{top}\n")

    def run(self, *words: str, stdin: bytes | None = None) -> Result:
        file = str(self.directory / "compose.yaml")
        return self.cli.run("compose", "-f", file, "-p", self.name, *words, stdin=stdin)

    def ok(self, *words: str) -> str:
        done = self.run(*words)
        assert done.code == 0, done
        return done.out

    def ids(self, service: str) -> dict[str, str]:
        """Name -> id of a service's containers, running ones first."""
        rows = self.ok("ps", "-a", "--format", "json", service).splitlines()
        return {row["Name"]: row["ID"] for row in map(json.loads, rows)}

    def state(self, name: str) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.cli.ok("inspect", name))[0]
        return shown


@pytest.fixture
def project(engine: Engine, tmp_path: Path, names: Names) -> Iterator[Project]:
    project = Project(engine.cli("teu"), tmp_path, names("p"))
    yield project
    project.run("down", "-v", "--remove-orphans", "-t", "0")


SLEEP = "{image: busybox, init: true, command: sleep 100000}"


class TestUp:
    def test_makes_everything_and_down_leaves_nothing(self, project: Project) -> None:
        port = free_port()
        (project.directory / "www").mkdir()
        (project.directory / "www/index.html").write_text("hello\n")
        project.write(
            f"""
  web:
    image: busybox
    init: true
    command: httpd -f -h /www
    ports: ["127.0.0.1:{port}:80"]
    volumes: ["./www:/www:ro", "data:/data"]
    networks: [front]
    depends_on: [api]
  api: {{image: busybox, init: true, command: sleep 100000, networks: [front, back]}}
""",
            "networks: {front: , back: {internal: true}}\nvolumes: {data: }",
        )
        project.ok("up", "-d")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
            assert page.read() == b"hello\n"
        out = project.ok(
            "exec", "-T", "web", "sh", "-c", "ping -c1 -W2 api >/dev/null && echo found"
        )
        assert out == "found\n"
        labels = project.state(f"{project.name}-web-1")["Config"]["Labels"]
        assert labels["com.docker.compose.project"] == project.name
        assert labels["com.docker.compose.depends_on"] == "api:service_started:false"
        project.ok("down", "-v", "-t", "0")
        left = project.cli.ok(
            "ps", "-aq", "--filter", f"label=com.docker.compose.project={project.name}"
        )
        assert left == ""
        assert project.name not in project.cli.ok("network", "ls") + project.cli.ok("volume", "ls")

    def test_twice_changes_nothing(self, project: Project) -> None:
        project.write(f"  a: {SLEEP}\n  b: {SLEEP}")
        project.ok("up", "-d")
        before = project.ids("a") | project.ids("b")
        assert project.ok("up", "--dry-run").count("keep") == 2
        project.ok("up", "-d")
        assert project.ids("a") | project.ids("b") == before

    def test_only_what_changed_is_made_anew(self, project: Project) -> None:
        project.write(f"  a: {SLEEP}\n  b: {SLEEP}")
        project.ok("up", "-d")
        a, b = project.ids("a"), project.ids("b")
        project.write(f"  a: {SLEEP}\n  b: {SLEEP[:-1]}, environment: {{NEW: 1}}}}")
        plan = project.ok("up", "--dry-run")
        assert f"~ {project.name}-b-1  recreate: its configuration has changed" in plan
        project.ok("up", "-d", "-t", "0")
        assert project.ids("a") == a
        assert project.ids("b").keys() == b.keys()
        assert project.ids("b") != b

    def test_a_failure_leaves_the_old_container_running(self, project: Project) -> None:
        project.write(f"  a: {SLEEP}")
        project.ok("up", "-d")
        before = project.ids("a")
        project.write(
            "  a: {image: busybox, command: sleep 100000, volumes: ['/dev/null:relative']}"
        )
        failed = project.run("up", "-d")
        assert failed.code != 0
        assert project.ids("a") == before
        assert project.state(f"{project.name}-a-1")["State"]["Running"]

    def test_scales_up_and_down(self, project: Project) -> None:
        project.write(f"  a: {SLEEP}")
        project.ok("up", "-d", "--scale", "a=3")
        first = project.ids("a")
        assert sorted(first) == [f"{project.name}-a-{n}" for n in (1, 2, 3)]
        project.ok("scale", "a=2")
        assert project.ids("a").items() <= first.items()
        assert len(project.ids("a")) == 2

    def test_waits_for_health(self, project: Project) -> None:
        project.write(
            """
  a:
    image: busybox
    init: true
    command: sh -c "sleep 0.5; touch /ready; sleep 100000"
    healthcheck: {test: test -e /ready, interval: 200ms}
  b:
    image: busybox
    init: true
    command: sleep 100000
    depends_on: {a: {condition: service_healthy}}
  c: {image: busybox, command: "true"}
  d:
    image: busybox
    init: true
    command: sleep 100000
    depends_on: {c: {condition: service_completed_successfully}}
"""
        )
        project.ok("up", "-d")
        a, b = (project.state(f"{project.name}-{s}-1")["State"] for s in ("a", "b"))
        assert a["Health"]["Status"] == "healthy"
        assert a["StartedAt"] < b["StartedAt"]
        ended = project.state(f"{project.name}-c-1")["State"]
        started = project.state(f"{project.name}-d-1")["State"]
        assert ended["FinishedAt"] < started["StartedAt"]

    def test_a_dependency_that_fails(self, project: Project) -> None:
        project.write(
            f"""
  a: {{image: busybox, command: "false"}}
  b: {SLEEP[:-1]}, depends_on: {{a: {{condition: service_completed_successfully}}}}}}
"""
        )
        failed = project.run("up", "-d")
        assert failed.code == 1
        assert "didn't complete successfully: exit 1" in failed.err
        assert project.ids("b") == {}

    def test_orphans(self, project: Project) -> None:
        project.write(f"  a: {SLEEP}\n  b: {SLEEP}")
        project.ok("up", "-d")
        project.write(f"  a: {SLEEP}")
        project.ok("up", "-d")
        assert project.ids("b")
        project.ok("up", "-d", "--remove-orphans")
        assert project.ids("b") == {}

    def test_twice_at_once(self, project: Project) -> None:
        project.write(f"  a: {SLEEP}\n  b: {SLEEP}")
        runs = [threading.Thread(target=project.run, args=("up", "-d")) for _ in range(2)]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        project.ok("up", "-d")
        assert len(project.ids("a")) == len(project.ids("b")) == 1

    def test_in_the_foreground(self, project: Project) -> None:
        project.write(
            """
  a: {image: busybox, command: sh -c "echo from a; exit 3"}
  b: {image: busybox, init: true, command: sh -c "echo from b; sleep 100000"}
"""
        )
        done = project.run("up", "--exit-code-from", "a", "-t", "0")
        assert done.code == 3
        assert f"{project.name}-a-1  | from a" in done.out
        assert not project.state(f"{project.name}-b-1")["State"]["Running"]


class TestSecrets:
    def test_owner_and_mode_are_applied(self, project: Project) -> None:
        (project.directory / "file.txt").write_text("from a file")
        project.write(
            """
  a:
    image: busybox
    init: true
    command: sleep 100000
    secrets: [plain, {source: owned, target: mine, uid: "10", gid: "20", mode: 0440}]
    configs: [{source: text, target: /etc/text.conf}]
""",
            "secrets: {plain: {file: ./file.txt}, owned: {file: ./file.txt}}\n"
            "configs: {text: {content: 'key = 1'}}",
        )
        project.ok("up", "-d")
        script = "cat /run/secrets/plain; stat -c ' %u %g %a' /run/secrets/mine; cat /etc/text.conf"
        out = project.ok("exec", "-T", "a", "sh", "-c", script)
        assert out == "from a file 10 20 440\nkey = 1"


class TestOthers:
    def test_run_once(self, project: Project) -> None:
        project.write(
            f"  a: {SLEEP}\n  b: {SLEEP[:-1]}, depends_on: [a], environment: {{A: file}}}}"
        )
        out = project.run(
            "run", "--rm", "-T", "-e", "B=here", "b", "sh", "-c", "echo $A $B; exit 4"
        )
        assert (out.code, out.out) == (4, "file here\n")
        assert project.ids("a")
        assert project.ids("b") == {}

    def test_logs_and_lists(self, project: Project) -> None:
        project.write(
            """
  a: {image: busybox, init: true, command: sh -c "echo one; echo two; sleep 100000"}
  b: {image: busybox, command: echo three}
"""
        )
        project.ok("up", "-d")
        until("b has ended", lambda: not project.state(f"{project.name}-b-1")["State"]["Running"])
        logs = project.ok("logs")
        assert f"{project.name}-a-1  | one\n{project.name}-a-1  | two\n" in logs
        assert f"{project.name}-b-1  | three\n" in logs
        assert project.ok("logs", "--no-log-prefix", "--tail", "1", "a") == "two\n"
        assert project.ok("ps", "--services") == "a\n"
        assert project.ok("ps", "-a", "--services") == "a\nb\n"
        assert "Exited (0)" in project.ok("ps", "-a")
        assert f"{project.name} " in project.ok("ls")
        assert "busybox" in project.ok("images")
        assert "sleep 100000" in project.ok("top", "a")

    def test_stop_start_kill_rm(self, project: Project) -> None:
        project.write(f"  a: {SLEEP}\n  b: {SLEEP[:-1]}, depends_on: [a]}}")
        project.ok("up", "-d")
        project.ok("stop", "-t", "0")
        a, b = (project.state(f"{project.name}-{s}-1")["State"] for s in ("a", "b"))
        assert b["FinishedAt"] < a["FinishedAt"]
        project.ok("start")
        project.ok("pause", "a")
        assert project.state(f"{project.name}-a-1")["State"]["Paused"]
        project.ok("unpause", "a")
        project.ok("kill", "b")
        until("b is dead", lambda: not project.state(f"{project.name}-b-1")["State"]["Running"])
        project.ok("rm", "-f", "b")
        assert project.ids("b") == {}

    def test_copies(self, project: Project, tmp_path: Path) -> None:
        project.write(f"  a: {SLEEP}")
        project.ok("up", "-d")
        (tmp_path / "here").write_text("content")
        project.ok("cp", str(tmp_path / "here"), "a:/there")
        project.ok("cp", "a:/there", str(tmp_path / "back"))
        assert (tmp_path / "back").read_text() == "content"

    def test_builds(self, project: Project) -> None:
        (project.directory / "Dockerfile").write_text(
            "FROM busybox\nARG WHAT\nRUN echo $WHAT > /what\n"
        )
        project.write(
            "  a: {build: {context: ., args: {WHAT: built}}, init: true, command: sleep 100000}"
        )
        project.ok("up", "-d", "--build")
        assert project.ok("exec", "-T", "a", "cat", "/what") == "built\n"
        project.ok("down", "--rmi", "local", "-t", "0")
        assert f"{project.name}-a" not in project.cli.ok("images")

    @pytest.mark.parametrize(
        ("words", "status", "text"),
        [
            (["up", "nosuch"], 1, "no such service: nosuch"),
            (["up", "--build", "--no-build"], 1, "incompatible"),
            (["up", "--scale", "a=x"], 1, "invalid scale specifier"),
            (["exec", "-T", "a", "true"], 1, 'service "a" is not running'),
            (["port", "a", "80"], 1, "no container found"),
            (["down", "--rmi", "some"], 1, "invalid value for --rmi"),
            (["nosuch"], 1, "unknown command"),
        ],
    )
    def test_bad_commands(self, project: Project, words: list[str], status: int, text: str) -> None:
        project.write(f"  a: {SLEEP}")
        done = project.run(*words)
        assert (done.code, text in done.err) == (status, True), done

    def test_a_wrong_file(self, project: Project) -> None:
        project.write("  a: {image: busybox, prots: [80]}")
        done = project.run("up", "-d")
        assert done.code == 15
        assert (
            'compose.yaml:2: services.a.prots is not known here; did you mean "ports"?' in done.err
        )


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="needs docker-compose (Debian)")
def test_the_older_docker_compose_works_on_our_socket(
    engine: Engine, tmp_path: Path, names: Names
) -> None:
    (tmp_path / "docker-compose.yml").write_text(
        "version: '3'\nservices:\n  a: {image: busybox, init: true, command: sleep 100000}\n"
    )
    cli = engine.cli("teu")
    words = ["docker-compose", "-p", names("old").replace("-", "")]
    try:
        subprocess.run([*words, "up", "-d"], cwd=tmp_path, env=cli.env, check=True)
        assert words[2] in cli.ok("compose", "ls")
    finally:
        subprocess.run([*words, "down", "-t", "0"], cwd=tmp_path, env=cli.env, check=True)
