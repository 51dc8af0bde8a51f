"""`events`: what is told of every change, history and live in one stream, filters."""

import json
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from harness.clients import Cli
from harness.engine import KIND, Engine
from harness.names import Names
from harness.terminal import leave
from harness.waiting import until

ours_only = pytest.mark.skipif(KIND != "teu", reason="newer, or better, than the peer")
Told = dict[str, Any]


def events(engine: Engine, since: float, until_s: float = 0, **filters: list[str]) -> list[Told]:
    """What was told from then until now."""
    query: dict[str, Any] = {"since": f"{since:.9f}", "until": f"{until_s or time.time():.9f}"}
    reply = engine.api.request("GET", "/events", **query, filters=json.dumps(filters))
    assert reply.status == 200, reply
    return [json.loads(line) for line in reply.body.splitlines()]


def words(told: list[Told]) -> list[str]:
    """`Type Action` of each, without what only the peer or only we tell at that place."""
    return [f"{event['Type']} {event['Action']}" for event in told]


def of(engine: Engine, since: float, id: str) -> list[Told]:
    """The events of a container, and those of others that name it."""
    return [
        event
        for event in events(engine, since)
        if id in (event["Actor"]["ID"], event["Actor"]["Attributes"].get("container"))
    ]


def test_a_whole_life(cli: Cli, engine: Engine, names: Names, tmp_path: Path) -> None:
    since, name = time.time(), names("a")
    labels = ["-l", "team=blue"]
    id = cli.ok("create", "--name", names("old"), *labels, "busybox", "sleep", "1000")
    cli.ok("start", names("old"))
    cli.ok("rename", names("old"), name)
    cli.ok("pause", name)
    cli.ok("unpause", name)
    cli.ok("exec", name, "true")
    cli.ok("top", name)
    cli.ok("cp", f"{name}:/etc/hostname", str(tmp_path / "x"))
    cli.ok("cp", str(tmp_path / "x"), f"{name}:/tmp/")
    cli.ok("export", "-o", str(tmp_path / "tar"), name)
    cli.ok("update", "--pids-limit", "99", name)
    cli.ok("kill", "-s", "USR1", name)
    cli.ok("restart", "-t", "0", name)
    cli.ok("kill", name)
    cli.ok("rm", name)
    told = of(engine, since, id)
    stop = ["container kill", "container kill", "container die", "network disconnect"]
    assert words(told) == [
        "container create", "network connect", "container start", "container rename",
        "container pause", "container unpause", "container exec_create: true ",
        "container exec_start: true ", "container exec_die", "container top",
        "container archive-path", "container extract-to-dir", "container export",
        "container update", "container kill", *stop, "container stop", "network connect",
        "container start", "container restart", *stop[1:], "container destroy",
    ]  # fmt: skip
    by_action = {event["Action"]: event for event in told}
    attributes = {"image": "busybox", "name": name, "team": "blue"}
    assert by_action["pause"]["Actor"] == {"ID": id, "Attributes": attributes}
    assert by_action["pause"]["status"] == "pause"
    assert (by_action["pause"]["id"], by_action["pause"]["from"]) == (id, "busybox")
    assert by_action["rename"]["Actor"]["Attributes"]["oldName"] == f"/{names('old')}"
    assert by_action["exec_die"]["Actor"]["Attributes"]["exitCode"] == "0"
    signals = [e["Actor"]["Attributes"]["signal"] for e in told if e["Action"] == "kill"]
    assert signals == ["10", "15", "9", "9"]
    died = by_action["die"]["Actor"]["Attributes"]
    assert died["exitCode"] == "137"
    if engine.kind == "teu":
        assert died["execDuration"] == "0"
    network = by_action["connect"]
    assert network["Actor"]["Attributes"] == {"container": id, "name": "bridge", "type": "bridge"}
    assert "status" not in network


def detach(engine: Engine, path: str, body: dict[str, Any]) -> None:
    """Attaches to a terminal without a client program, which would keep the keys for itself."""
    sent = json.dumps(body).encode()
    head = [f"POST {path} HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: tcp"]
    head += ["Content-Type: application/json", f"Content-Length: {len(sent)}", "", ""]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(engine.api.socket_path)
        connection.sendall("\r\n".join(head).encode() + sent)
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(4096)
        connection.sendall(b"echo ready\n")
        while b"\nready" not in received.replace(b"\r", b"\n"):
            received += connection.recv(4096)
        connection.sendall(b"\x10\x11")
        while connection.recv(4096):
            pass


def test_attach_resize_and_detach(cli: Cli, engine: Engine, names: Names) -> None:
    since, name = time.time(), names("a")
    cli.ok("run", "-dit", "--name", name, "busybox", "sh")
    with cli.tty("attach", name) as terminal:
        terminal.line("")
        terminal.expect("# ")
        leave(terminal)
    detach(engine, f"/containers/{name}/attach?stream=1&stdin=1&stdout=1", {})
    asked = {"AttachStdin": True, "AttachStdout": True, "Tty": True, "Cmd": ["sh"]}
    made = engine.api.request("POST", f"/containers/{name}/exec", asked).json()
    detach(engine, f"/exec/{made['Id']}/start", {"Tty": True})
    kinds = ["attach", "detach", "exec_detach"]

    def told() -> list[Told]:
        return events(engine, since, container=[name], event=kinds)

    expected = ["attach", "attach", "detach", "exec_detach"]
    if engine.kind != "teu":
        expected.pop()  # the peer takes it for an error
    until("all is told", lambda: [event["Action"] for event in told()] == expected)
    if engine.kind == "teu":
        assert told()[3]["Actor"]["Attributes"]["execID"] == made["Id"]
    sizes = [e["Actor"]["Attributes"] for e in events(engine, since, event=["resize"])]
    assert any(size["height"] == "24" and size["width"] == "80" for size in sizes)
    cli.ok("rm", "-f", name)


def test_images(cli: Cli, engine: Engine, names: Names, tmp_path: Path) -> None:
    since, image = time.time(), names("i").lower()
    cli.ok("create", "--name", names("a"), "-l", "team=red", "busybox", "true")
    container = engine.api.inspect(names("a"))
    id = cli.ok("commit", "-m", "why", names("a"), image)
    cli.ok("tag", image, f"{image}:2")
    cli.ok("save", "-o", str(tmp_path / "tar"), f"{image}:latest")
    cli.ok("rmi", f"{image}:2")
    cli.ok("rm", names("a"))
    cli.ok("rmi", image)
    cli.ok("load", "-i", str(tmp_path / "tar"))
    cli.ok("rmi", image)
    told = [event for event in events(engine, since) if id in json.dumps(event)]
    wanted = [event for event in told if event["Action"] != "delete" or event["id"] == id]
    assert [event["Action"] for event in wanted] == [
        "tag", "commit", "tag", "save", "untag", "untag", "delete", "load", "untag", "delete",
    ]  # fmt: skip
    assert wanted[0]["Actor"] == {
        "ID": id,
        "Attributes": {"name": f"{image}:latest", "team": "red"},
    }
    assert wanted[1]["Actor"]["ID"] == container["Id"]
    facts = {"comment": "why", "imageID": id, "imageRef": f"{image}:latest"}
    assert wanted[1]["Actor"]["Attributes"].items() >= facts.items()
    assert wanted[2]["Actor"]["Attributes"]["name"] == f"{image}:2"
    assert wanted[4]["Actor"]["Attributes"]["name"] == id


def test_volumes_and_networks(cli: Cli, engine: Engine, names: Names) -> None:
    since = time.time()
    volume, network = names("v"), names("n")
    cli.ok("volume", "create", volume)
    cli.ok("network", "create", network)
    mounts = ["-v", f"{volume}:/v:ro", "-v", "/anonymous"]
    id = cli.ok("run", "-d", "--network", network, *mounts, "busybox", "sleep", "1000")
    cli.ok("rm", "-fv", id)
    cli.ok("volume", "rm", volume)
    until("the network is free", lambda: cli.run("network", "rm", network).code == 0)
    told = [e for e in events(engine, since, type=["volume"]) if e["Actor"]["ID"] == volume]
    actions = [event["Action"] for event in told]
    assert actions[0] == "create"
    assert actions[-3:] == ["mount", "unmount", "destroy"]
    mounted = told[-3]["Actor"]["Attributes"]
    assert mounted == {
        "container": id, "destination": "/v", "driver": "local", "propagation": "",
        "read/write": "false",
    }  # fmt: skip
    others = [e for e in events(engine, since, type=["volume"]) if e["Actor"]["ID"] != volume]
    mine = {e["Actor"]["ID"] for e in others if e["Actor"]["Attributes"].get("container") == id}
    anonymous = [e["Action"] for e in others if e["Actor"]["ID"] in mine]
    assert anonymous == ["create", "mount", "unmount", "destroy"]
    told = events(engine, since, network=[network])
    assert [e["Action"] for e in told] == ["create", "connect", "disconnect", "destroy"]
    assert told[1]["Actor"]["Attributes"] == {"container": id, "name": network, "type": "bridge"}


def test_prunes(cli: Cli, engine: Engine) -> None:
    since = time.time()
    filters = ["--filter", "label=nobody-has-this", "-f"]
    for what in ("container", "image", "volume", "network"):
        cli.ok(what, "prune", *filters)
    told = [e for e in events(engine, since, event=["prune"]) if e["Type"] != "builder"]
    assert [event["Type"] for event in told] == ["container", "image", "volume", "network"]
    assert told[0]["Actor"] == {"ID": "", "Attributes": {"reclaimed": "0"}}
    assert "id" not in told[0]


def test_filters(cli: Cli, engine: Engine, names: Names) -> None:
    since, name = time.time(), names("a")
    id = cli.ok("run", "-d", "--name", name, "-l", "a=b", "-l", "c", "busybox", "sleep", "1000")
    cli.ok("exec", name, "true")
    cli.ok("rm", "-f", name)

    def chosen(**filters: list[str]) -> list[str]:
        return [e["Action"] for e in of_container(events(engine, since, **filters))]

    def of_container(told: list[Told]) -> list[Told]:
        return [
            e for e in told
            if id in (e["Actor"]["ID"], e["Actor"]["Attributes"].get("container"))
        ]  # fmt: skip

    assert chosen(container=[name], event=["create", "die"]) == ["create", "die"]
    assert chosen(container=[id[:12]], event=["exec_create"]) == ["exec_create: true "]
    assert chosen(label=["a=b"], event=["start"]) == ["start"]
    assert chosen(label=["a=b", "c"], event=["start"], type=["container"]) == ["start"]
    assert chosen(label=["a=b", "d"]) == []
    assert chosen(image=["busybox"], event=["destroy"], container=[name]) == ["destroy"]
    assert chosen(image=["busybox:nosuch"], container=[name]) == []
    assert chosen(type=["network"], event=["connect"], network=["bridge"]) == ["connect"]
    assert chosen(scope=["swarm"], container=[name]) == []
    assert chosen(type=["image"], container=[name]) == []
    if engine.kind == "teu":  # the peer, an old one, takes any name
        reply = engine.api.request("GET", "/events", filters='{"nosuch":["x"]}', until=1)
        assert (reply.status, reply.json()["message"]) == (400, "invalid filter 'nosuch'")
    reply = engine.api.request("GET", "/events", since=2, until=1)
    assert reply.status == 400


@pytest.mark.parametrize("since", [True, False])
def test_no_event_is_lost_or_told_twice(
    cli: Cli, engine: Engine, names: Names, since: bool
) -> None:
    """A listener that comes in the middle of many changes, asking for the past or not."""
    name, began = names("a"), time.time()
    cli.ok("create", "--name", f"{name}-0", "busybox", "true")

    def rename() -> None:
        for number in range(150):
            new = f"{name}-{number + 1}"
            path = f"/containers/{name}-{number}/rename"
            assert engine.api.request("POST", path, name=new).status == 204

    worker = threading.Thread(target=rename)
    worker.start()
    past = ["--since", f"{began:.9f}"] if since else []
    options = ["--filter", "event=rename", "--format", "{{.Actor.Attributes.name}}"]
    with cli.spawn("events", *past, *options, stdin=subprocess.DEVNULL) as listener:
        worker.join()
        assert listener.stdout is not None
        seen = []
        for line in listener.stdout:
            if line.startswith(name.encode()):
                seen.append(int(line.rpartition(b"-")[2]))
            if seen and seen[-1] == 150:
                break
            if not since and worker.is_alive() is False and not seen:
                break
        listener.kill()
    assert seen == list(range(seen[0], 151))
    if since:
        assert seen[0] == 1


@ours_only
def test_the_past_survives_the_daemon(private_engine: Engine, names: Names) -> None:
    engine, cli, since = private_engine, private_engine.cli("teu"), time.time()
    cli.ok("create", "--name", names("a"), "busybox", "true")
    before = events(engine, since)
    engine.kill()
    engine.start()
    cli.ok("rm", names("a"))
    after = events(engine, since)
    assert after[: len(before)] == before
    assert words(after)[-1] == "container destroy"


def test_a_reload_is_told(private_engine: Engine) -> None:
    since = time.time()
    assert private_engine.process is not None
    private_engine.process.send_signal(signal.SIGHUP)
    told = until("it is told", lambda: events(private_engine, since, type=["daemon"]))
    assert told[0]["Action"] == "reload"
    facts = told[0]["Actor"]["Attributes"]
    assert facts["max-concurrent-downloads"] == "3"
    assert facts["debug"] == "false"
    assert {"name", "labels", "registry-mirrors", "default-runtime"} <= facts.keys()
