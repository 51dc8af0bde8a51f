"""The same request to Docker and to ours, and the answers side by side.

The peer is Docker 20.10 (API 1.41), so all requests carry that version. What must be equal: status
codes, the fields of every object and their types, and the values that do not depend on chance.
What may differ is listed in `MAY_DIFFER`, with the reason.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.clients import Api, Reply
from harness.engine import Engine

V = "/v1.41"
NAME = "parity"

# Paths of fields (regular expressions, whole path) and why they differ.
MAY_DIFFER = {
    r".*\.HostConfig\.MaskedPaths.*": "the list has grown since the peer, and its order means nothing",
    r".*\.GraphDriver.*": "the storage is the engine's own",
    r"info\.(Containerd|ContainerdCommit|RuncCommit|InitCommit|InitBinary).*": "parts of docker",
    r"info\.(Driver|DriverStatus|Plugins|Runtimes|DefaultRuntime|Warnings|SecurityOptions).*": "parts",
    r"info\.(KernelMemory|KernelMemoryTCP|OomKillDisable|ClusterStore|ClusterAdvertise).*": "gone since",
    r"info\.(Swarm|RegistryConfig|Labels|HttpProxy|HttpsProxy|NoProxy|Isolation|DefaultAddressPools).*": "settings",
    r"info\.(ID|Images|NFd|NGoroutines|BridgeNf.*|LiveRestoreEnabled)": "each engine's own state",
    r"version\.(Components|Platform|GitCommit|GoVersion|BuildTime|Experimental).*": "who it is",
    r".*\.(KernelMemory|KernelMemoryTCP)": "removed from the API in 1.42",
    r".*\.VirtualSize": "removed from the API in 1.44",
    r"image\.(Container|ContainerConfig).*": "removed from the API in 1.45",
    r"network\.(Options|Containers|Labels).*": "docker's own bridge options",
    r".*\.Pid": "numbers of processes",
    r".*\.LogPath|.*\.(Hostname|Hosts|ResolvConf)Path": "each has its own directory",
    r".*\.HostConfig\.NetworkMode": "`default` is shown as `bridge` since 26",
    r".*\.HostConfig\.RestartPolicy\.Name": "an empty one is shown as `no` since 24",
    r".*\.HostConfig\.(Runtime|OomKillDisable)": "the runtime and the cgroup version decide",
    r"ended\.NetworkSettings\.Sandbox(ID|Key)": "cleared at the end since 25",
    r"history\.Created": "the fixture does not say when its layers were made",
}  # fmt: skip
# ruff: noqa: E501  (a table is read by its columns)


@pytest.fixture(scope="session")
def peer(lab_registry: str) -> Iterator[Engine]:
    """Docker, beside ours."""
    if not shutil.which("dockerd"):
        pytest.skip("no dockerd on this machine to compare with")
    docker = Engine(lab_registry, "dockerd")
    try:
        docker.start()
        docker.api.request("POST", "/images/create", fromImage="busybox", tag="latest")
        yield docker
    finally:
        docker.close()


Case = Callable[[Api], Any]

BODY = {
    "Image": "busybox",
    "Cmd": ["sh", "-c", "echo out; exit 3"],
    "Env": ["A=1"],
    "Labels": {"a": "b"},
    "ExposedPorts": {"99/tcp": {}},
    "HostConfig": {
        "Memory": 64 << 20,
        "NanoCpus": 500_000_000,
        "PidsLimit": 50,
        "Tmpfs": {"/t": "size=1m"},
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 0},
        "CapAdd": ["NET_ADMIN"],
        "ExtraHosts": ["x:192.0.2.1"],
        "Ulimits": [{"Name": "nofile", "Soft": 99, "Hard": 100}],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
    },
}


def _create(api: Api, body: Any = BODY) -> str:
    reply = api.request("POST", f"{V}/containers/create", body, name=NAME)
    assert reply.status == 201, reply
    return str(reply.json()["Id"])


def _ended(api: Api) -> str:
    ident = _create(api, BODY | {"HostConfig": {}})
    assert api.request("POST", f"{V}/containers/{ident}/start").status == 204
    assert api.request("POST", f"{V}/containers/{ident}/wait").json()["StatusCode"] == 3
    return ident


def _running(api: Api) -> str:
    ident = _create(api, BODY | {"Cmd": ["sleep", "1000"], "HostConfig": {}})
    assert api.request("POST", f"{V}/containers/{ident}/start").status == 204
    return ident


def _exec_inspect(api: Api) -> Any:
    ident = _running(api)
    body = {"Cmd": ["sh", "-c", "exit 4"], "AttachStdout": True, "Env": ["B=2"], "User": "33"}
    made = api.request("POST", f"{V}/containers/{ident}/exec", body).json()
    api.request("POST", f"{V}/exec/{made['Id']}/start", {"Detach": False})
    return api.get(f"{V}/exec/{made['Id']}/json")


CASES: dict[str, Case] = {
    "version": lambda api: api.get(f"{V}/version"),
    "info": lambda api: api.get(f"{V}/info"),
    "created": lambda api: api.get(f"{V}/containers/{_create(api)}/json"),
    "created-bare": lambda api: api.get(f"{V}/containers/{_create(api, {'Image': 'busybox'})}/json"),
    "running": lambda api: api.get(f"{V}/containers/{_running(api)}/json"),
    "ended": lambda api: api.get(f"{V}/containers/{_ended(api)}/json"),
    "list": lambda api: [_running(api), api.get(f"{V}/containers/json")][1],
    "list-all": lambda api: [_ended(api), api.get(f"{V}/containers/json", all=1)][1],
    "list-size": lambda api: [_ended(api), api.get(f"{V}/containers/json", all=1, size=1)][1],
    "exec": _exec_inspect,
    "top": lambda api: api.get(f"{V}/containers/{_running(api)}/top"),
    "changes": lambda api: api.get(f"{V}/containers/{_ended(api)}/changes"),
    "image": lambda api: api.get(f"{V}/images/busybox/json"),
    "images": lambda api: api.get(f"{V}/images/json", filters='{"reference":["busybox"]}'),
    "history": lambda api: api.get(f"{V}/images/busybox/history"),
    "network": lambda api: api.get(f"{V}/networks/bridge"),
    "networks": lambda api: sorted(row["Name"] for row in api.get(f"{V}/networks")),
    "volumes": lambda api: api.get(f"{V}/volumes"),
    "ping": lambda api: _interesting(api.request("GET", "/_ping")),
}  # fmt: skip


def _interesting(reply: Reply) -> dict[str, Any]:
    kept = ("content-type", "ostype", "docker-experimental", "cache-control", "pragma")
    return {"status": reply.status, "body": reply.body.decode()} | {
        key: value for key, value in reply.headers.items() if key in kept
    }


@pytest.mark.parametrize("name", CASES)
def test_the_same_fields(engine: Engine, peer: Engine, name: str) -> None:
    theirs = _answer(peer, CASES[name])
    ours = _answer(engine, CASES[name])
    differences = [
        line
        for line in _compare(name, theirs, ours)
        if not any(re.fullmatch(path, line.partition(":")[0]) for path in MAY_DIFFER)
    ]
    assert not differences, "\n".join(differences)


def _answer(engine: Engine, case: Case) -> Any:
    engine.api.request("DELETE", f"/containers/{NAME}", force=1, v=1)
    try:
        return case(engine.api)
    finally:
        engine.api.request("DELETE", f"/containers/{NAME}", force=1, v=1)


def _compare(path: str, theirs: Any, ours: Any) -> Iterator[str]:
    """Lines `PATH: what differs`; fields that only ours has are fine, a newer API has more."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key, value in theirs.items():
            if key in ours:
                yield from _compare(f"{path}.{key}", value, ours[key])
            else:
                yield f"{path}.{key}: missing here, there {value!r}"
    elif isinstance(theirs, list) and isinstance(ours, list):
        if theirs and not ours:
            yield f"{path}: empty here, there {theirs!r}"
        for one, other in zip(theirs, ours, strict=False):
            yield from _compare(path, one, other)
    elif _kind(theirs) != _kind(ours) or (not _by_chance(theirs, ours) and theirs != ours):
        yield f"{path}: here {ours!r}, there {theirs!r}"


def _kind(value: Any) -> str:
    return (
        "number"
        if isinstance(value, int | float) and not isinstance(value, bool)
        else type(value).__name__
    )


_CHANCE = re.compile(
    r"[0-9a-f]{12,64}|sha256:[0-9a-f]{64}|\d{4}-\d\d-\d\dT.*|10\.14\d\.\d+\.\d+(/\d+)?"
    r"|([0-9a-f]{2}:){5}[0-9a-f]{2}|/tmp/tt.*|.*(seconds?|minute).*|[\d.]+(-\w+)*.*"
)


def _by_chance(theirs: Any, ours: Any) -> bool:
    """Numbers and strings that differ from run to run: ids, times, addresses, places."""
    if _kind(theirs) == "number":
        return bool(theirs > 1000 and ours > 1000)
    return (
        isinstance(theirs, str)
        and _CHANCE.fullmatch(theirs) is not None
        and _CHANCE.fullmatch(ours) is not None
    )


# --- statuses and texts of errors ---------------------------------------------------------------

# What the peer says, and what docker says since.
WORDED_ANEW = {
    "invalid reference format: repository name must be lowercase": "must be lowercase",
    "invalid restart policy x": "invalid restart policy: unknown policy x;",
}
ERRORS: list[tuple[str, str, Any]] = [
    ("GET", "/containers/nosuch/json", None),
    ("GET", "/images/nosuch/json", None),
    ("GET", "/networks/nosuch", None),
    ("GET", "/volumes/nosuch", None),
    ("GET", "/exec/nosuch/json", None),
    ("GET", "/nosuch", None),
    ("POST", "/containers/create", {"Image": "nosuch"}),
    ("POST", "/containers/create", {"Image": "BAD"}),
    ("POST", "/containers/create?name=a%20b", {"Image": "busybox"}),
    ("POST", "/containers/create", {}),
    ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Memory": 5}}),
    ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"NanoCpus": -1}}),
    ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"NetworkMode": "container:"}}),
    ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Binds": ["x"]}}),
    ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Binds": ["/a:b"]}}),
    ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Mounts": [{"Type": "x"}]}}),
    ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"RestartPolicy": {"Name": "x"}}}),
    ("POST", "/containers/nosuch/start", None),
    ("POST", "/containers/nosuch/stop", None),
    ("POST", "/containers/nosuch/kill", None),
    ("POST", "/containers/nosuch/wait", None),
    ("POST", "/containers/nosuch/exec", {"Cmd": ["x"]}),
    ("POST", "/containers/nosuch/rename?name=x", None),
    ("DELETE", "/containers/nosuch", None),
    ("DELETE", "/images/nosuch", None),
    ("DELETE", "/volumes/nosuch", None),
    ("DELETE", "/networks/nosuch", None),
    ("DELETE", "/networks/bridge", None),
    ("POST", "/images/nosuch/tag?repo=x", None),
    ("POST", "/images/busybox/tag?repo=BAD", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body"), ERRORS, ids=[f"{n}{row[1]}" for n, row in enumerate(ERRORS)]
)
def test_the_same_errors(engine: Engine, peer: Engine, method: str, path: str, body: Any) -> None:
    theirs = peer.api.request(method, V + path, body)
    ours = engine.api.request(method, V + path, body)
    if theirs.status == 500 and ours.status == 400:
        return  # newer ones know whose fault it is, and say so in their own words
    assert ours.status == theirs.status, (ours, theirs)
    if theirs.body and theirs.headers["content-type"].startswith("application/json"):
        message, expected = _plain(ours.json()["message"]), _plain(theirs.json()["message"])
        newer = WORDED_ANEW.get(expected, expected)
        assert newer in message or message in newer


def _plain(message: str) -> str:
    """Without what newer Docker words differently: case and quotes."""
    return re.sub(r'["\'`]', "", message).lower().strip()
