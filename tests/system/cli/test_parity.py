"""The same words to `teu` and to Docker 28's client: same requests, same texts, same status.

`lines/*.txt` hold one command line each. What may differ: waits (only one of the clients needs
them), checks that Docker makes before a request whose answer says the same, and the program's
name.
"""

import io
import json
import shlex
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cliharness import ID, Cli, FakeDaemon, Request

LINES = Path(__file__).parent / "lines"


def lines(name: str) -> list[str]:
    return (LINES / f"{name}.txt").read_text().splitlines()


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """What the lines name."""
    (tmp_path / "labels").write_text("la=b\n# c\n\nld\n")
    (tmp_path / "variables").write_text("a=b\n# c\n\n  d=e\nHOME\nTEU_NOT_THERE\n")
    (tmp_path / "spaces").write_text("A B=1\n")
    (tmp_path / "profile.json").write_text('{ "defaultAction": "SCMP_ACT_ALLOW",\n "x": [1] }')


Sent = tuple[str, str, str, Any]


def sent_by(cli: Cli, daemon: FakeDaemon, words: list[str], folder: Path) -> tuple[Any, ...]:
    """Status, error text, and requests of one run; the folder is as before afterwards."""
    before = set(folder.iterdir())
    daemon.requests.clear()
    daemon.running.clear()
    done = cli(*words)
    for path in set(folder.iterdir()) - before:
        path.unlink()
    requests = [comparable(request) for request in daemon.requests if matters(request)]
    text = done.stderr.decode().replace("teu", "docker").strip()
    return done.returncode, text, sorted(requests, key=repr)


def matters(request: Request) -> bool:
    return not request.path.endswith(("/_ping", "/wait", "/info")) and not (
        request.method == "GET" and request.path.startswith("/containers/")
        and request.path.endswith("/json")
    )  # fmt: skip


def comparable(request: Request) -> Sent:
    query = {name: sorted(map(plain, values)) for name, values in request.query.items()}
    body: Any = request.body
    if request.body[:1] == b"{":
        body = json.loads(request.body)
        if request.path.endswith("/update"):
            body = {name: value for name, value in body.items() if value}
        elif isinstance(body.get("HostConfig"), dict):
            # Docker's client shuffles these.
            body["HostConfig"]["Binds"] = sorted(body["HostConfig"]["Binds"] or ())
            body["Env"] = sorted(body["Env"] or ())
    elif request.method == "PUT":
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            body = archive.getnames()
    auth = request.headers.get("x-registry-auth", "")
    path = request.path.replace(ID, "a")  # a name that was looked up first
    return request.method, path, auth, json.dumps([query, body], default=repr, sort_keys=True)


def plain(text: str) -> str:
    """JSON in a parameter with its keys in order."""
    return json.dumps(json.loads(text), sort_keys=True) if text[:1] == "{" else text


@pytest.mark.parametrize("line", lines("run"))
def test_run_and_create(
    line: str, cli: Cli, docker: Cli, daemon: FakeDaemon, tmp_path: Path
) -> None:
    words = shlex.split(line)
    assert sent_by(cli, daemon, words, tmp_path) == sent_by(docker, daemon, words, tmp_path)


@pytest.mark.parametrize("line", lines("commands"))
def test_other_commands(
    line: str, cli: Cli, docker: Cli, daemon: FakeDaemon, tmp_path: Path
) -> None:
    words = shlex.split(line)
    assert sent_by(cli, daemon, words, tmp_path) == sent_by(docker, daemon, words, tmp_path)


@pytest.mark.parametrize("line", lines("usage"))
def test_wrong_usage(line: str, cli: Cli, docker: Cli) -> None:
    words = shlex.split(line)
    ours, theirs = cli(*words), docker(*words)
    assert ours.returncode == theirs.returncode
    assert ours.stderr.decode().replace("teu", "docker").strip() == theirs.stderr.decode().strip()
