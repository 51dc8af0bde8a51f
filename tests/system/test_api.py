"""The Engine API itself: versions, bad requests, and what Docker's own Python client makes of it."""

import gc
import json
import re
import socket
import warnings
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound

from harness.engine import Engine
from harness.names import Names
from harness.waiting import PATIENCE, until


@pytest.fixture
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    with_timeout = docker.DockerClient(
        base_url=f"unix://{engine.socket}", version="auto", timeout=int(30 * PATIENCE)
    )
    yield with_timeout
    with_timeout.close()
    with warnings.catch_warnings(action="ignore"):  # it forgets to close what it streamed from
        gc.collect()


# --- versions and headers -------------------------------------------------------------------------


def test_ping_tells_who_answers(engine: Engine) -> None:
    reply = engine.api.request("GET", "/_ping")
    assert reply.body == b"OK"
    assert re.fullmatch(r"1\.\d+", reply.headers["api-version"])
    assert reply.headers["ostype"] == "linux"
    head = engine.api.request("HEAD", "/_ping")
    assert (head.status, head.body) == (200, b"")
    assert "no-cache" in reply.headers["cache-control"]


def test_versions_are_checked(engine: Engine) -> None:
    version = engine.api.get("/version")
    for path in (
        "/version",
        f"/v{version['ApiVersion']}/version",
        f"/v{version['MinAPIVersion']}/version",
    ):
        assert engine.api.get(path)["ApiVersion"] == version["ApiVersion"]
    reply = engine.api.request("GET", "/v1.99/version")
    assert reply.status == 400
    assert "client version 1.99 is too new" in reply.json()["message"]
    reply = engine.api.request("GET", "/v1.5/version")
    assert reply.status == 400
    assert b"client version 1.5 is too old" in reply.body


def test_info_counts(engine: Engine, names: Names) -> None:
    before = engine.api.get("/info")
    engine.api.request("POST", "/containers/create", {"Image": "busybox"}, name=names("a"))
    after = engine.api.get("/info")
    assert after["Containers"] == before["Containers"] + 1
    assert after["ContainersStopped"] == before["ContainersStopped"] + 1
    assert after["OSType"] == "linux"
    assert after["DockerRootDir"] == str(engine.data_root) or engine.kind == "external"


# --- bad requests ---------------------------------------------------------------------------------

BAD_REQUESTS: list[tuple[str, str, Any, int, str]] = [
    ("GET", "/nosuch", None, 404, "(?i)page not found"),
    ("GET", "/v1.41/nosuch", None, 404, "(?i)page not found"),
    ("GET", "/containers/nosuch/json", None, 404, "No such container: nosuch"),
    ("GET", "/images/nosuch/json", None, 404, "(?i)no such image: nosuch"),
    ("GET", "/networks/nosuch", None, 404, "(?i)network nosuch not found"),
    ("GET", "/volumes/nosuch", None, 404, "(?i)no such volume"),
    ("GET", "/exec/nosuch/json", None, 404, "(?i)no such exec"),
    ("POST", "/containers/create", b"{not json", 400, "(?i)invalid|json|character|decode"),
    ("POST", "/containers/create", {}, 400, "(?i)image|config|command|empty"),
    ("POST", "/containers/create", {"Image": 5}, 400, "(?i)image|string|unmarshal|str"),
    ("POST", "/containers/create", {"Image": "nosuch"}, 404, "(?i)no such image: nosuch"),
    ("POST", "/containers/create?name=!bad", {"Image": "busybox"}, 400, "(?i)invalid container name"),
    ("POST", "/containers/nosuch/start", None, 404, "No such container"),
    ("POST", "/containers/nosuch/exec", {"Cmd": ["x"]}, 404, "No such container"),
    ("DELETE", "/containers/nosuch", None, 404, "No such container"),
    ("GET", "/containers/json?filters={bad", None, 400, "(?i)invalid|json|filter|character"),
    ("GET", "/containers/json?limit=x", None, 400, "(?i)invalid|limit|x"),
    ("POST", "/images/create?fromImage=UPPER", None, 400, "(?i)invalid reference|lowercase"),
    ("POST", "/containers/prune?filters=[]", None, 400, "(?i)filter|json|invalid|unmarshal"),
]  # fmt: skip
# ruff: noqa: E501  (a table is read by its columns)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    BAD_REQUESTS,
    ids=[
        f"{row[0]}-{row[1].partition('?')[0].strip('/')}-{n}" for n, row in enumerate(BAD_REQUESTS)
    ],
)
def test_bad_requests(
    engine: Engine, method: str, path: str, body: Any, status: int, message: str
) -> None:
    before = engine.api.container_ids()
    headers = {"Content-Type": "application/json"} if isinstance(body, bytes) else None
    reply = engine.api.request(method, path, body, headers=headers)
    if engine.kind == "dockerd" and reply.status in (400, 500) and status == 400:
        status = reply.status  # older ones answered 500 to some of these
    assert reply.status == status, reply
    assert re.search(message, reply.json()["message"]), reply
    assert engine.api.container_ids() == before


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\x00\x01\x02\x03\r\n\r\n", id="binary"),
        pytest.param(b"GET / HTTP/9.9\r\n\r\n", id="version"),
        pytest.param(b"GET /_ping HTTP/1.1\r\nContent-Length: -5\r\n\r\n", id="negative-length"),
        pytest.param(b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", id="long-target"),
        pytest.param(
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{", id="cut"
        ),
    ],
)
def test_garbage_does_not_hurt(engine: Engine, raw: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(engine.socket))
        sock.sendall(raw)
        sock.shutdown(socket.SHUT_WR)
        try:
            while sock.recv(65536):
                pass
        except OSError:
            pass
    assert engine.api.alive()


def test_a_client_that_goes_away_while_it_waits(engine: Engine, names: Names) -> None:
    """The wait ends with its client; the container does not."""
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"]}
    container = engine.api.request("POST", "/containers/create", body, name=names("a")).json()["Id"]
    engine.api.request("POST", f"/containers/{container}/start")
    for _ in range(5):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(engine.socket))
            sock.sendall(f"POST /containers/{container}/wait HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert engine.api.state(container)["Running"] is True


# --- docker-py ------------------------------------------------------------------------------------


def test_python_client_runs_and_reads(client: docker.DockerClient, names: Names) -> None:
    assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
    with pytest.raises(ContainerError, match="exit status 3"):
        client.containers.run("busybox", ["sh", "-c", "exit 3"], remove=True)
    with pytest.raises(ImageNotFound):
        client.images.get("nosuch")
    with pytest.raises(NotFound):
        client.containers.get("nosuch")


def test_python_client_and_a_container_s_life(client: docker.DockerClient, names: Names) -> None:
    container = client.containers.create(
        "busybox", ["sh", "-c", "echo one; exec sleep 1000"], name=names("a")
    )
    assert container.status == "created"
    container.start()
    container.reload()
    assert container.status == "running"
    until("it has spoken", lambda: container.logs() == b"one\n")
    code, output = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True)
    assert (code, output) == (4, (b"out\n", b"err\n"))
    assert container.top()["Titles"]
    container.pause()
    container.unpause()
    container.rename(names("b"))
    assert [each.name for each in client.containers.list(filters={"name": names("b")})] == [
        names("b")
    ]
    with pytest.raises(APIError, match="409"):
        container.remove()
    container.stop(timeout=0)
    assert container.wait()["StatusCode"] == 137
    container.remove()
    with pytest.raises(NotFound):
        container.reload()


def test_python_client_follows_logs(client: docker.DockerClient, names: Names) -> None:
    container = client.containers.run("clock", name=names("a"), detach=True)
    seen = []
    stream = container.logs(stream=True, follow=True, timestamps=True)
    for line in stream:
        seen.append(line.decode())
        if len(seen) == 5:
            break
    stream.close()
    assert [line.split()[2] for line in seen] == ["1", "2", "3", "4", "5"]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ", line) for line in seen)


def test_events_of_a_life(engine: Engine, client: docker.DockerClient, names: Names) -> None:
    events = client.events(decode=True, filters={"container": names("a")})
    client.containers.run("busybox", "true", name=names("a"), remove=True)
    actions = []
    for event in events:
        assert event["Actor"]["Attributes"]["name"] == names("a")
        actions.append(event["Action"])
        if event["Action"] == "destroy":
            break
    events.close()
    assert [a for a in actions if a in ("create", "start", "die", "destroy")] == [
        "create",
        "start",
        "die",
        "destroy",
    ]


def test_attach_over_a_hijacked_connection(engine: Engine, names: Names) -> None:
    """Raw: the upgrade, frames of both streams, half-close."""
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", "echo err >&2; cat"],
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
    }
    container = engine.api.request("POST", "/containers/create", body, name=names("a")).json()["Id"]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20 * PATIENCE)
        sock.connect(str(engine.socket))
        target = f"/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1"
        head = "Host: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n"
        sock.sendall(f"POST {target} HTTP/1.1\r\n{head}\r\n".encode())
        stream = sock.makefile("rb")
        assert stream.readline() == b"HTTP/1.1 101 UPGRADED\r\n"
        while stream.readline() != b"\r\n":
            pass
        assert engine.api.request("POST", f"/containers/{container}/start").status == 204
        sock.sendall(b"to cat\n")
        sock.shutdown(socket.SHUT_WR)
        frames: dict[int, bytes] = {}
        while head8 := stream.read(8):
            frames[head8[0]] = frames.get(head8[0], b"") + stream.read(
                int.from_bytes(head8[4:], "big")
            )
        stream.close()
    assert frames == {1: b"to cat\n", 2: b"err\n"}
    assert engine.api.request("POST", f"/containers/{container}/wait").json()["StatusCode"] == 0


def test_wait_conditions(engine: Engine, names: Names) -> None:
    """`next-exit` is answered once the container has ended once more; headers come at once."""
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "exit 9"]}
    container = engine.api.request("POST", "/containers/create", body, name=names("a")).json()["Id"]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20 * PATIENCE)
        sock.connect(str(engine.socket))
        target = f"/v1.41/containers/{container}/wait?condition=next-exit"
        sock.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        stream = sock.makefile("rb")
        assert b"200" in stream.readline()
        engine.api.request("POST", f"/containers/{container}/start")
        rest = stream.read()
        stream.close()
    assert json.loads(re.findall(rb"\{.*\}", rest, re.DOTALL)[0])["StatusCode"] == 9


def test_list_and_inspect_agree(engine: Engine, names: Names) -> None:
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "Labels": {"a": "b"}}
    container = engine.api.request("POST", "/containers/create", body, name=names("a")).json()["Id"]
    engine.api.request("POST", f"/containers/{container}/start")
    (row,) = engine.api.get("/containers/json", filters=json.dumps({"id": [container]}))
    full = engine.api.inspect(container)
    assert row["Names"] == [full["Name"]]
    assert row["ImageID"] == full["Image"]
    assert row["State"] == full["State"]["Status"] == "running"
    assert row["Labels"] == full["Config"]["Labels"] == {"a": "b"}
    assert (
        row["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        == full["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    )


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"status": ["running"]}, 1),
        ({"status": ["exited"]}, 1),
        ({"status": ["running", "exited"]}, 2),
        ({"exited": ["3"]}, 1),
        ({"label": ["what=up"]}, 1),
        ({"label": ["what"]}, 2),
        ({"ancestor": ["busybox"]}, 2),
        ({"before": ["UP"]}, 1),
        ({"since": ["ENDED"]}, 1),
        ({"network": ["bridge"]}, 2),
        ({"name": ["up"]}, 1),
        ({"volume": ["/data"]}, 1),
        ({"publish": ["80"]}, 0),
        ({"expose": ["99"]}, 1),
        ({"health": ["none"]}, 2),
        ({"is-task": ["false"]}, 2),
    ],
)  # fmt: skip
def test_filters(engine: Engine, names: Names, filters: dict[str, list[str]], count: int) -> None:
    cli = engine.cli("docker")
    cli.run("run", "--name", names("ended"), "-l", "what=ended", "busybox", "sh", "-c", "exit 3")
    options = ["-l", "what=up", "-v", "/data", "--expose", "99"]
    cli.ok("run", "-d", "--name", names("up"), *options, "busybox", "sleep", "1000")
    places = {"UP": names("up"), "ENDED": names("ended"), "up": names("up")}
    asked = {key: [places.get(value, value) for value in values] for key, values in filters.items()}
    rows = engine.api.get("/containers/json", all=1, filters=json.dumps(asked))
    assert len(rows) == count, rows
