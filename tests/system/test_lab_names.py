"""The lesson on names: containers that find each other, and the files under /etc."""

import re

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names
from harness.waiting import until


@pytest.fixture
def network(cli: Cli, names: Names) -> str:
    """A user-defined network; removed with the rest by the engine's fixture."""
    cli.ok("network", "create", names("net"))
    return names("net")


def run(cli: Cli, name: str, network: str, *options: str) -> str:
    argv = ("run", "-d", "--name", name, "--network", network, *options, "busybox", "sleep", "1000")
    return cli.ok(*argv)


def lookup(cli: Cli, container: str, name: str) -> set[str]:
    """Addresses that a process in the container gets for a name; empty if there are none."""
    done = cli.run("exec", container, "nslookup", name)
    answer = done.out.partition("Name:")[2]
    return set(re.findall(r"^Address(?: \d+)?: (\S+)", answer, re.MULTILINE))


def address(engine: Engine, container: str, network: str) -> str:
    settings = engine.api.inspect(container)["NetworkSettings"]["Networks"][network]
    return str(settings["IPAddress"])


def test_containers_find_each_other(cli: Cli, engine: Engine, names: Names, network: str) -> None:
    one, two = names("one"), names("two")
    full = run(cli, one, network, "--network-alias", "web", "--hostname", "myhost")
    run(cli, two, network)
    ip = address(engine, one, network)
    for name in (one, "web", full[:12], "myhost", f"web.{network}", one.upper()):
        assert lookup(cli, two, name) == {ip}, name
    assert f"{one}.{network}" in cli.ok("exec", two, "nslookup", ip)
    assert "1 packets received" in cli.ok("exec", two, "ping", "-c1", "-W2", "web")
    cli.ok("rename", one, names("uno"))
    assert lookup(cli, two, names("uno")) == {ip}
    assert not lookup(cli, two, one)
    shown = engine.api.inspect(names("uno"))["NetworkSettings"]["Networks"][network]
    if engine.kind == "teu":
        assert shown["DNSNames"] == [names("uno"), "web", full[:12], "myhost"]
    cli.ok("rm", "-f", names("uno"))
    assert not lookup(cli, two, "web")


def test_resolv_conf_names_the_resolver(cli: Cli, names: Names, network: str) -> None:
    show = ("busybox", "cat", "/etc/resolv.conf")
    text = cli.ok("run", "--rm", "--network", network, *show)
    assert re.search(r"^nameserver 127\.0\.0\.11$", text, re.MULTILINE)
    assert "ndots:0" in text
    options = ("--dns", "192.0.2.9", "--dns-search", "example.org", "--dns-option", "ndots:3")
    text = cli.ok("run", "--rm", "--network", network, *options, *show)
    for line in ("nameserver 127.0.0.11", "search example.org", "options ndots:3"):
        assert line in text.splitlines()
    text = cli.ok("run", "--rm", *options, *show)
    assert "nameserver 192.0.2.9" in text.splitlines()
    assert cli.fails(125, "run", "--rm", "--dns", "nonsense", *show)


def test_a_running_container_is_plugged_in_and_out(
    cli: Cli, engine: Engine, names: Names, network: str
) -> None:
    one, two = names("one"), names("two")
    run(cli, one, "bridge")
    run(cli, two, network)
    cli.ok("network", "connect", "--alias", "late", network, one)
    ip = address(engine, one, network)
    assert lookup(cli, two, "late") == {ip}
    assert lookup(cli, one, two) == {address(engine, two, network)}
    assert f"{ip}\t" in cli.ok("exec", one, "cat", "/etc/hosts")
    assert "eth1" in cli.ok("exec", one, "ip", "addr")
    cli.ok("network", "disconnect", network, one)
    assert not lookup(cli, two, "late")
    assert f"{ip}\t" not in cli.ok("exec", one, "cat", "/etc/hosts")
    assert "eth1" not in cli.ok("exec", one, "ip", "addr")


def test_an_edited_resolv_conf_stays(cli: Cli, names: Names, network: str) -> None:
    one = names("one")
    run(cli, one, "bridge")
    cli.ok("exec", one, "sh", "-c", "sleep 0.1; echo nameserver 192.0.2.1 > /etc/resolv.conf")
    cli.ok("network", "connect", network, one)
    assert cli.ok("exec", one, "cat", "/etc/resolv.conf") == "nameserver 192.0.2.1"


def test_links_of_the_default_bridge(cli: Cli, engine: Engine, names: Names) -> None:
    db, web = names("db"), names("web")
    options = ("--expose", "6379", "-e", "SECRET=x y")
    cli.ok("run", "-d", "--name", db, *options, "busybox", "sleep", "1000")
    cli.ok("run", "-d", "--name", web, "--link", f"{db}:store", "busybox", "sleep", "1000")
    ip = address(engine, db, "bridge")
    assert f"PING store ({ip})" in cli.ok("exec", web, "ping", "-c1", "-W2", "store")
    env = cli.ok("exec", web, "cat", "/proc/1/environ").replace("\0", "\n").splitlines()
    assert f"STORE_PORT=tcp://{ip}:6379" in env
    assert f"STORE_PORT_6379_TCP_ADDR={ip}" in env
    assert "STORE_ENV_SECRET=x y" in env
    assert f"STORE_NAME=/{web}/store" in env
    # the address changes: /etc/hosts follows
    cli.ok("stop", "-t0", db)
    cli.ok("run", "-d", "--name", names("thief"), "busybox", "sleep", "1000")
    cli.ok("start", db)
    moved = address(engine, db, "bridge")
    assert moved != ip
    hosts = cli.ok("exec", web, "cat", "/etc/hosts").splitlines()
    assert f"{moved}\tstore" in hosts
    assert not [line for line in hosts if line.startswith(f"{ip}\tstore")]
    cli.ok("stop", "-t0", web, db)
    assert "non running container" in cli.fails(1, "start", web)


def test_links_of_a_user_defined_network(
    cli: Cli, engine: Engine, names: Names, network: str
) -> None:
    db, web = names("db"), names("web")
    run(cli, db, network)
    run(cli, web, network, "--link", f"{db}:store")
    assert lookup(cli, web, "store") == {address(engine, db, network)}
    assert not lookup(cli, db, "store")


def test_host_gateway(cli: Cli, engine: Engine, names: Names, network: str) -> None:
    hosts = cli.ok(
        "run", "--rm", "--network", network, "--add-host", "host.docker.internal:host-gateway",
        "busybox", "cat", "/etc/hosts",
    )  # fmt: skip
    if engine.kind == "teu":
        assert f"{engine.gateway}\thost.docker.internal" in hosts.splitlines()
    assert "host.docker.internal" in hosts


@pytest.mark.parametrize("client", ["docker"])
def test_names_while_the_daemon_is_dead(private_engine: Engine, names: Names, client: str) -> None:
    """Asked in the container's namespace, for there is no daemon to exec with."""
    cli = private_engine.cli(client)
    cli.ok("network", "create", names("net"))
    asking = "while :; do nslookup one >/tmp/x 2>&1 && cp /tmp/x /out/found; usleep 50000; done"
    found = private_engine.root / "found"
    mount = f"{private_engine.root}:/out"
    run(cli, names("one"), names("net"), "--network-alias", "one")
    cli.ok(
        "run", "-d", "--name", names("two"), "--network", names("net"), "-v", mount,
        "busybox", "sh", "-c", asking,
    )  # fmt: skip
    until("a name is resolved", found.exists)
    private_engine.kill()
    found.unlink(missing_ok=True)
    if private_engine.kind == "teu":
        until("names work without the daemon", found.exists)
    private_engine.start()
    found.unlink(missing_ok=True)
    until("names work again", found.exists)
    run(cli, names("three"), names("net"))
    assert lookup(cli, names("two"), names("three"))
