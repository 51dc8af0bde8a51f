"""`teu network why`: every hop that can fail, named."""

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names
from harness.waiting import until


@pytest.fixture
def teu(engine: Engine) -> Cli:
    if engine.kind != "teu":
        pytest.skip("not Docker's")
    return engine.cli("teu")


def run(cli: Cli, name: str, network: str, *command: str) -> None:
    cli.ok(
        "run",
        "-d",
        "--name",
        name,
        "--network",
        network,
        "busybox",
        *(command or ("sleep", "9999")),
    )


def why(cli: Cli, sender: str, target: str) -> tuple[bool, str, str]:
    """(reaches, last hop, its text)"""
    done = cli.run("network", "why", sender, target)
    assert done.code in (0, 1), done
    head, *hops = done.out.splitlines()
    assert head.startswith("yes: " if done.code == 0 else "no: ")
    mark, hop, text = hops[-1].split(None, 2)
    assert mark == ("ok" if done.code == 0 else "no")
    return done.code == 0, hop, text


def test_yes_and_what_listens(teu: Cli, names: Names) -> None:
    net, web, db = names("net"), names("web"), names("db")
    teu.ok("network", "create", net)
    run(teu, web, net)
    run(teu, db, net, "sh", "-c", "httpd -p 5432; httpd -p 127.0.0.1:99; sleep 9999")
    until("it listens", lambda: why(teu, web, f"{db}:5432")[0])
    assert f"5432/tcp in {db}, at " in why(teu, web, f"{db}:5432")[2]
    assert why(teu, web, db)[:2] == (True, "rule")
    until("it listens", lambda: "127.0.0.1" in why(teu, web, f"{db}:99")[2])
    assert why(teu, web, f"{db}:99")[2].endswith(
        "listens only on 127.0.0.1: have it listen on 0.0.0.0"
    )
    reaches, hop, text = why(teu, web, f"{db}:80")
    assert (reaches, hop) == (False, "listens")
    assert text.startswith(f"nothing listens on 80/tcp in {db}")
    assert "5432/tcp" in text
    assert why(teu, web, f"{db}:5432/udp")[1] == "listens"


def test_names_that_are_not_there(teu: Cli, names: Names) -> None:
    net, other, web, db = names("net"), names("other"), names("web"), names("db")
    teu.ok("network", "create", net)
    teu.ok("network", "create", other)
    run(teu, web, net)
    assert why(teu, web, "nosuch")[1:] == (
        "name", f"no container is called nosuch, and no alias on network {net}",
    )  # fmt: skip
    run(teu, db, other)
    reaches, hop, text = why(teu, web, db)
    assert (reaches, hop) == (False, "name")
    assert f"teu network connect {other} {web}" in text
    teu.ok("stop", "-t0", db)
    assert why(teu, web, db)[2] == f"container {db} is not running: teu start {db}"
    assert "not running" in teu.fails(1, "network", "why", db, web)


def test_the_default_bridge_and_rules(teu: Cli, engine: Engine, names: Names) -> None:
    net, one, two, three = names("net"), names("one"), names("two"), names("three")
    teu.ok("network", "create", "--internal", net)
    run(teu, one, "bridge")
    run(teu, two, "bridge")
    run(teu, three, net)
    assert "the default bridge has no names" in why(teu, one, two)[2]
    address = engine.api.inspect(two)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert why(teu, one, address)[:2] == (True, "rule")
    assert why(teu, three, address)[:2] == (False, "route")
    inner = engine.api.inspect(three)["NetworkSettings"]["Networks"][net]["IPAddress"]
    reaches, hop, text = why(teu, one, f"{inner}:80")
    assert (reaches, hop) == (False, "rule")
    assert f"teu network connect {net} {one}" in text
    apart = names("apart")
    teu.ok("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", apart)
    teu.ok("network", "connect", apart, one)
    teu.ok("network", "connect", apart, two)
    assert "keeps its containers apart" in why(teu, one, two)[2]


@pytest.mark.parametrize("target", ["", ":80", "a:b", "a:0", "a:65536", "a:80/icmp", "a/tcp"])
def test_bad_targets(teu: Cli, names: Names, target: str) -> None:
    run(teu, names("one"), "bridge")
    assert "nvalid" in teu.fails(1, "network", "why", names("one"), target)
