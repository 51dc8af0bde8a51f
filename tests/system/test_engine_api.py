"""The Engine API's endpoints and versions, one by one, as the specification has them."""

import base64
import contextlib
import http.server
import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from harness.engine import Engine
from harness.names import Names
from harness.waiting import PATIENCE, until

NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
    "this node to swarm and try again."
)

# --- what the engine is not -----------------------------------------------------------------------


SWARM = {
    "GET": "swarm swarm/unlockkey nodes services tasks secrets configs nodes/x services/x tasks/x"
    " services/x/logs tasks/x/logs secrets/x configs/x",
    "POST": "swarm/update swarm/unlock nodes/x/update services/create services/x/update"
    " secrets/create configs/create secrets/x/update configs/x/update",
    "DELETE": "nodes/x services/x secrets/x configs/x",
}


@pytest.mark.parametrize("method", list(SWARM))
def test_swarm_endpoints_answer_as_outside_of_a_swarm(engine: Engine, method: str) -> None:
    for path in SWARM[method].split():
        body = {} if method == "POST" else None
        reply = engine.api.request(method, f"/{path}", body, version=1)
        assert (reply.status, reply.json()["message"]) == (503, NO_MANAGER), path


def test_swarms_are_refused(engine: Engine) -> None:
    if engine.kind == "dockerd":
        pytest.skip("it would make one")
    for path in ("/swarm/init", "/swarm/join"):
        reply = engine.api.request("POST", path, {"ListenAddr": "127.0.0.1:2377"})
        assert reply.status == 501
        assert "one host" in reply.json()["message"]
    reply = engine.api.request("POST", "/swarm/leave")
    assert (reply.status, reply.json()["message"]) == (503, "This node is not part of a swarm")
    assert engine.api.get("/info")["Swarm"]["LocalNodeState"] == "inactive"


def test_there_are_no_plugins(engine: Engine) -> None:
    assert engine.api.get("/plugins") == []
    for method, path in (
        ("GET", "/plugins/a/b/json"),
        ("POST", "/plugins/a/b/disable"),
        ("DELETE", "/plugins/a/b"),
    ):
        reply = engine.api.request(method, path)
        assert (reply.status, reply.json()["message"]) == (404, 'plugin "a/b" not found')


def test_a_session_needs_an_upgrade(engine: Engine) -> None:
    reply = engine.api.request("POST", "/session")
    assert (reply.status, reply.json()["message"]) == (400, "no upgrade proto in request")


# --- what clients read first ----------------------------------------------------------------------


def test_ping_version_and_info_tell_what_clients_decide_by(engine: Engine) -> None:
    headers = engine.api.request("GET", "/_ping").headers
    version, info = engine.api.get("/version"), engine.api.get("/info")
    assert headers["api-version"] == version["ApiVersion"]
    if engine.kind == "teu":
        assert (headers["builder-version"], headers["swarm"]) == ("1", "inactive")
        assert (version["ApiVersion"], version["MinAPIVersion"]) == ("1.51", "1.24")
    assert {c["Name"] for c in version["Components"]} >= {"Engine"}
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    assert info["CgroupVersion"] == ("2" if unified else "1")
    assert info["CgroupDriver"] in ("cgroupfs", "systemd")
    assert (info["Driver"], info["OSType"]) == ("overlay2", "linux")
    assert dict(info["DriverStatus"])["Backing Filesystem"]
    assert info["NCPU"] == os.cpu_count()


def test_info_counts_those_who_listen_to_events(engine: Engine) -> None:
    def listeners() -> int:
        return int(engine.api.get("/info")["NEventsListener"])

    before = listeners()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(engine.socket))
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        until("somebody listens", lambda: listeners() == before + 1)
    until("nobody does any more", lambda: listeners() == before)


def test_disk_usage_by_type(engine: Engine, names: Names) -> None:
    everything = engine.api.get("/system/df")
    assert set(everything) >= {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"}
    if engine.kind == "dockerd":
        pytest.skip("this docker daemon is too old for the types")
    assert set(engine.api.get("/system/df", type="volume")) == {"Volumes"}
    assert set(engine.api.get("/system/df", type=["image", "container"])) == {
        "LayersSize",
        "Images",
        "Containers",
    }
    assert engine.api.request("GET", "/system/df", type="shoe").status == 400
    assert "BuilderSize" in engine.api.get("/v1.40/system/df", type="shoe")


def test_disk_usage_counts_logs(engine: Engine, names: Names) -> None:
    if engine.kind == "dockerd":
        pytest.skip("Docker does not count them")
    command = ["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x"]
    body = {"Image": "busybox", "Cmd": command}
    ident = engine.api.request("POST", "/containers/create", body, name=names("a")).json()["Id"]
    engine.api.request("POST", f"/containers/{ident}/start")
    engine.api.request("POST", f"/containers/{ident}/wait")
    (row,) = (
        row
        for row in engine.api.get("/system/df", type="container")["Containers"]
        if row["Id"] == ident
    )
    assert row["SizeLogs"] > 300_000
    assert row["SizeRw"] >= row["SizeLogs"]


# --- versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "first"),
    [
        ("/plugins", "1.25"),
        ("/secrets", "1.25"),
        ("/configs", "1.30"),
        ("/system/df", "1.25"),
    ],
)
def test_endpoints_begin_with_a_version(engine: Engine, path: str, first: str) -> None:
    if engine.kind == "dockerd":
        pytest.skip("it does not look at the version here")
    major, _, minor = first.partition(".")
    assert engine.api.request("GET", f"/v{major}.{int(minor) - 1}{path}").status == 404
    assert engine.api.request("GET", f"/v{first}{path}").status in (200, 503)


CREATE_GATES: list[tuple[str, dict[str, Any], Any]] = [
    ("1.24", {"HostConfig": {"AutoRemove": True}}, ("HostConfig.AutoRemove", False)),
    ("1.25", {"HostConfig": {"AutoRemove": True}}, ("HostConfig.AutoRemove", True)),
    ("1.39", {}, ("HostConfig.IpcMode", "shareable")),
    ("1.40", {}, ("HostConfig.IpcMode", "private")),
    ("1.41", {"HostConfig": {"ConsoleSize": [3, 4]}}, ("HostConfig.ConsoleSize", [0, 0])),
    ("1.42", {"HostConfig": {"ConsoleSize": [3, 4]}}, ("HostConfig.ConsoleSize", [3, 4])),
    ("1.42", {"HostConfig": {"Annotations": {"a": "b"}}}, ("HostConfig.Annotations", None)),
    ("1.43", {"HostConfig": {"Annotations": {"a": "b"}}}, ("HostConfig.Annotations", {"a": "b"})),
    ("1.51", {"HostConfig": {"PidsLimit": -1}}, ("HostConfig.PidsLimit", None)),
]


@pytest.mark.parametrize(("version", "asked", "shown"), CREATE_GATES)
def test_create_for_old_clients(
    engine: Engine, names: Names, version: str, asked: dict[str, Any], shown: tuple[str, Any]
) -> None:
    if engine.kind == "dockerd":
        pytest.skip("this docker daemon speaks 1.41 at most")
    body = {"Image": "busybox", **asked}
    reply = engine.api.request("POST", f"/v{version}/containers/create", body, name=names("a"))
    assert reply.status == 201, reply
    value = engine.api.inspect(reply.json()["Id"])
    for part in shown[0].split("."):
        value = value.get(part)
    assert value == shown[1]


@pytest.mark.parametrize(
    ("version", "asked", "said"),
    [
        (
            "1.43",
            {"NetworkingConfig": {"EndpointsConfig": {"bridge": {}, "other": {}}}},
            "Container cannot be created with multiple network endpoints: bridge, other",
        ),
        (
            "1.44",
            {"HostConfig": {"Mounts": [{"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {"Subpath": "x"}}]}},
            "VolumeOptions.Subpath needs API v1.45 or newer",
        ),
        (
            "1.47",
            {"HostConfig": {"Mounts": [{"Type": "image", "Source": "busybox", "Target": "/v"}]}},
            'Mount type "Image" needs API v1.48 or newer',
        ),
        (
            "1.44",
            {
                "MacAddress": "02:00:00:00:00:01",
                "NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": "02:00:00:00:00:02"}}},
            },
            "the container-wide MAC address must match the endpoint-specific MAC address",
        ),
    ],
)  # fmt: skip
# ruff: noqa: E501  (a table is read by its columns)
def test_create_refuses_what_the_version_has_not(
    engine: Engine, version: str, asked: dict[str, Any], said: str
) -> None:
    if engine.kind == "dockerd":
        pytest.skip("this docker daemon speaks 1.41 at most")
    body = {"Image": "busybox", **asked}
    reply = engine.api.request("POST", f"/v{version}/containers/create", body)
    assert reply.status == 400, reply
    assert said in reply.json()["message"]


@pytest.mark.parametrize("version", ["1.43", "1.44"])
def test_the_containers_own_mac_address(engine: Engine, names: Names, version: str) -> None:
    if engine.kind == "dockerd":
        pytest.skip("this docker daemon speaks 1.41 at most")
    command = ["cat", "/sys/class/net/eth0/address"]
    body = {"Image": "busybox", "Cmd": command, "MacAddress": "02:42:ac:11:00:99"}
    reply = engine.api.request("POST", f"/v{version}/containers/create", body, name=names("a"))
    assert bool(reply.json()["Warnings"]) == (version == "1.44")
    ident = reply.json()["Id"]
    engine.api.request("POST", f"/containers/{ident}/start")
    engine.api.request("POST", f"/containers/{ident}/wait")
    log = engine.api.request("GET", f"/containers/{ident}/logs", stdout=1).body
    assert log[8:] == b"02:42:ac:11:00:99\n"


def test_start_takes_no_body(engine: Engine, names: Names) -> None:
    body = {"Image": "busybox", "Cmd": ["true"]}
    ident = engine.api.request("POST", "/containers/create", body, name=names("a")).json()["Id"]
    reply = engine.api.request("POST", f"/containers/{ident}/start", {"Binds": ["/:/host"]})
    assert reply.status == 400
    assert "non-empty request body was deprecated" in reply.json()["message"]
    assert engine.api.request("POST", f"/containers/{ident}/start", {}).status == 204


def test_untagged_images_for_old_clients(engine: Engine, names: Names) -> None:
    if engine.kind == "dockerd":
        pytest.skip("this docker daemon speaks 1.41 at most")
    body = {"Image": "busybox", "Cmd": ["true"]}
    ident = engine.api.request("POST", "/containers/create", body, name=names("a")).json()["Id"]
    image = engine.api.request("POST", "/commit", {}, container=ident, comment=names("a")).json()

    def row(version: str) -> Any:
        rows = engine.api.get(f"/v{version}/images/json", all=1)
        return next(row for row in rows if row["Id"] == image["Id"])

    assert (row("1.42")["RepoTags"], row("1.42")["RepoDigests"]) == (
        ["<none>:<none>"],
        ["<none>@<none>"],
    )
    assert (row("1.43")["RepoTags"], row("1.43")["RepoDigests"]) == ([], [])
    assert row("1.43")["VirtualSize"] == row("1.43")["Size"]
    assert "VirtualSize" not in row("1.44")


def test_stats_of_one_moment_is_no_stream(engine: Engine, names: Names) -> None:
    body = {"Image": "busybox", "Cmd": ["sleep", "100"]}
    ident = engine.api.request("POST", "/containers/create", body, name=names("a")).json()["Id"]
    if engine.kind == "teu":
        reply = engine.api.request("GET", f"/containers/{ident}/stats", **{"one-shot": 1})
        assert reply.status == 400
        assert "cannot have stream=true and one-shot=true" in reply.json()["message"]
    moment = engine.api.get(f"/containers/{ident}/stats", stream=0, **{"one-shot": 1})
    assert moment["precpu_stats"]["cpu_usage"]["total_usage"] == 0


# --- attach over a WebSocket ----------------------------------------------------------------------


class WebSocket:
    """Just enough of RFC 6455 for a test: one frame a message, short ones masked."""

    def __init__(self, engine: Engine, target: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20 * PATIENCE)
        self.sock.connect(str(engine.socket))
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock.sendall(
            f"GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            "Origin: http://localhost\r\n\r\n".encode()
        )
        self.stream = self.sock.makefile("rb")
        self.status = int(self.stream.readline().split()[1])
        while self.stream.readline() != b"\r\n":
            pass

    def send(self, data: bytes, kind: int = 2) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        self.sock.sendall(bytes([0x80 | kind, 0x80 | len(data)]) + mask + masked)

    def receive(self) -> tuple[int, bytes]:
        """(opcode, payload) of one frame."""
        first, length = self.stream.read(2)
        if length == 126:
            (length,) = struct.unpack(">H", self.stream.read(2))
        return first & 15, self.stream.read(length)

    def until_end(self) -> tuple[set[int], bytes]:
        kinds, data = set(), b""
        while True:
            kind, payload = self.receive()
            if kind == 8:
                return kinds, data
            kinds.add(kind)
            data += payload

    def close(self) -> None:
        self.stream.close()
        self.sock.close()


@contextlib.contextmanager
def websocket(engine: Engine, target: str) -> Iterator[WebSocket]:
    ws = WebSocket(engine, target)
    try:
        yield ws
    finally:
        ws.close()


def start_cat(engine: Engine, name: str, **more: Any) -> str:
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "echo begin; read a; echo got $a; echo bad >&2"],
            "OpenStdin": True, **more}  # fmt: skip
    reply = engine.api.request("POST", "/containers/create", body, name=name)
    ident: str = reply.json()["Id"]
    return ident


@pytest.mark.parametrize(("version", "opcode"), [("1.27", 1), ("1.41", 2), ("1.51", 2)])
def test_attach_over_a_websocket(engine: Engine, names: Names, version: str, opcode: int) -> None:
    if engine.kind == "dockerd" and version == "1.51":
        pytest.skip("this docker daemon speaks 1.41 at most")
    ident = start_cat(engine, names("a"))
    engine.api.request("POST", f"/containers/{ident}/start")
    query = "stream=1&stdin=1&stdout=1&stderr=1&logs=1"
    with websocket(engine, f"/v{version}/containers/{ident}/attach/ws?{query}") as ws:
        assert ws.status == 101
        assert ws.receive() == (opcode, b"begin\n")
        ws.send(b"it\n")
        kinds, data = ws.until_end()
    assert kinds == {opcode}
    assert sorted(data.splitlines()) == [b"bad", b"got it"]


def test_a_websocket_before_the_start(engine: Engine, names: Names) -> None:
    ident = start_cat(engine, names("a"))
    target = f"/containers/{ident}/attach/ws?stream=1&stdin=1&stdout=1"
    with websocket(engine, target) as ws:
        assert ws.status == 101
        engine.api.request("POST", f"/containers/{ident}/start")
        assert ws.receive() == (2, b"begin\n")
        ws.send(b"text\n", kind=1)
        assert ws.receive() == (2, b"got text\n")
        ws.until_end()


def test_a_websocket_that_goes_away_detaches(engine: Engine, names: Names) -> None:
    ident = start_cat(engine, names("a"))
    engine.api.request("POST", f"/containers/{ident}/start")
    with websocket(engine, f"/containers/{ident}/attach/ws?stream=1&stdout=1&logs=1") as ws:
        assert ws.receive()[1] == b"begin\n"
    assert engine.api.state(ident)["Running"] is True


def test_attach_refuses_before_it_upgrades(engine: Engine, names: Names) -> None:
    """A paused container takes no clients: an ordinary error, not a stream that ends."""
    ident = start_cat(engine, names("a"))
    engine.api.request("POST", f"/containers/{ident}/start")
    engine.api.request("POST", f"/containers/{ident}/pause")
    for method, path in (("POST", "attach"), ("GET", "attach/ws")):
        reply = engine.api.request(method, f"/containers/{ident}/{path}", stream=1, stdout=1)
        assert reply.status == 409, reply
        assert "is paused, unpause the container before attach" in reply.json()["message"]
    engine.api.request("POST", f"/containers/{ident}/unpause")
    reply = engine.api.request("GET", f"/containers/{ident}/attach/ws", stream=1)
    assert reply.status == 400  # no handshake


# --- auth -----------------------------------------------------------------------------------------


def login(engine: Engine, address: str, user: str, password: str) -> Any:
    body = {"username": user, "password": password, "serveraddress": address}
    return engine.api.request("POST", "/auth", body)


def test_login_with_a_registry_that_asks_nothing(engine: Engine) -> None:
    reply = login(engine, engine.registry, "anybody", "anything")
    assert (reply.status, reply.json()["Status"]) == (200, "Login Succeeded")


class Guarded(http.server.BaseHTTPRequestHandler):
    """The front door of a registry with one user."""

    def do_GET(self) -> None:
        known = base64.b64encode(b"ann:secret").decode()
        allowed = self.headers.get("Authorization") == f"Basic {known}"
        self.send_response(200 if allowed else 401)
        if not allowed:
            self.send_header("WWW-Authenticate", 'Basic realm="guarded"')
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_login_is_checked(engine: Engine) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        assert login(engine, address, "ann", "secret").status == 200
        reply = login(engine, f"http://{address}/v1/", "ann", "wrong")
        assert reply.status == 401
        assert "401 Unauthorized" in reply.json()["message"]
        assert login(engine, address, "ann", "secret").status == 200
        server.shutdown()


def test_login_with_nobody_there(engine: Engine) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        reply = login(engine, f"127.0.0.1:{closed.getsockname()[1]}", "ann", "secret")
    assert reply.status in (500, 503)
    assert "connection refused" in reply.json()["message"]


# --- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["docker", "teu"])
def test_a_link_is_removed_by_its_name(engine: Engine, names: Names, client: str) -> None:
    cli = engine.cli(client)
    cli.ok("run", "-d", "--name", names("db"), "busybox", "sleep", "1000")
    links = ["--link", f"{names('db')}:one", "--link", f"{names('db')}:two"]
    cli.ok("run", "-d", "--name", names("web"), *links, "busybox", "sleep", "1000")
    cli.ok("rm", "--link", f"{names('web')}/one")
    (left,) = engine.api.inspect(names("web"))["HostConfig"]["Links"]
    assert left.endswith("two")
    said = cli.fails(1, "rm", "--link", f"{names('web')}/nosuch")
    assert "nosuch" in said
    assert engine.api.state(names("web"))["Running"] is True
