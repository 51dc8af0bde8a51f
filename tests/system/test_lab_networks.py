"""The lesson on networks: none, host, the default bridge, another container's."""

import ipaddress
import re
from pathlib import Path

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names
from harness.waiting import until


def test_none_has_only_loopback(cli: Cli) -> None:
    out = cli.ok("run", "--rm", "--network=none", "busybox", "ip", "-o", "addr")
    assert {line.split()[1] for line in out.splitlines()} == {"lo"}
    assert (
        cli.run("run", "--rm", "--network=none", "busybox", "ping", "-c1", "-W1", "10.0.0.1").code
        != 0
    )
    assert cli.ok("run", "--rm", "--network", "none", "busybox", "ip", "route") == ""


def test_host_shows_the_hosts_links(cli: Cli) -> None:
    inside = cli.ok("run", "--rm", "--network=host", "busybox", "ls", "/sys/class/net").split()
    assert "eth0" in inside or "lo" in inside
    assert set(inside) >= {"lo"} | {
        link.name
        for link in Path("/sys/class/net").iterdir()
        if not link.name.startswith(("veth", "tt"))
    }
    host_name = Path("/proc/sys/kernel/hostname").read_text().strip()
    assert cli.ok("run", "--rm", "--network=host", "busybox", "hostname") == host_name


def test_bridge_gives_an_address_a_route_and_names(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("a")
    full = cli.ok("run", "-d", "--name", name, "busybox", "sleep", "1000")
    network = engine.api.inspect(name)["NetworkSettings"]["Networks"]["bridge"]
    address, gateway = network["IPAddress"], network["Gateway"]
    if engine.kind != "external":
        assert gateway == engine.gateway
        assert ipaddress.ip_address(address) in ipaddress.ip_network(f"{gateway}/24", strict=False)
    shown = cli.ok("exec", name, "ip", "-o", "-4", "addr", "show", "eth0")
    assert f"inet {address}/{network['IPPrefixLen']} " in shown
    assert f"default via {gateway} dev eth0" in cli.ok("exec", name, "ip", "route")
    assert cli.ok("exec", name, "hostname") == full[:12]
    hosts = cli.ok("exec", name, "cat", "/etc/hosts")
    assert re.search(rf"^{re.escape(address)}\s+{full[:12]}$", hosts, re.MULTILINE)
    assert re.search(r"^127\.0\.0\.1\s+localhost$", hosts, re.MULTILINE)
    assert "nameserver" in cli.ok("exec", name, "cat", "/etc/resolv.conf")
    assert cli.ok("exec", name, "cat", "/sys/class/net/eth0/address") == network["MacAddress"]


def test_containers_on_the_bridge_reach_each_other(cli: Cli, engine: Engine, names: Names) -> None:
    cli.ok("run", "-d", "--name", names("a"), "busybox", "sleep", "1000")
    address = engine.api.inspect(names("a"))["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    cli.ok("run", "--rm", "busybox", "ping", "-c", "1", "-W", "5", address)


def test_container_mode_shares_the_network(cli: Cli, names: Names) -> None:
    cli.ok("run", "-d", "--name", names("a"), "busybox", "nc", "-ll", "-p", "99", "-e", "cat")
    shared = ["run", "--rm", "-i", "--network", f"container:{names('a')}", "busybox"]
    command = ["nc", "127.0.0.1", "99"]
    until(
        "the other container's server answers on loopback",
        lambda: cli.run(*shared, *command, stdin=b"ping\n").out == "ping\n",
    )


def test_dns_options_reach_resolv_conf(cli: Cli) -> None:
    out = cli.ok(
        *("run", "--rm", "--dns", "192.0.2.53", "--dns-search", "example.org"),
        *("--add-host", "other:192.0.2.7", "busybox", "cat", "/etc/resolv.conf", "/etc/hosts"),
    )
    assert "nameserver 192.0.2.53" in out
    assert "search example.org" in out
    assert re.search(r"^192\.0\.2\.7\s+other$", out, re.MULTILINE)


@pytest.mark.parametrize("network", ["nowhere", "container:nobody"])
def test_unknown_network_is_refused(cli: Cli, engine: Engine, network: str) -> None:
    before = engine.api.container_ids()
    said = cli.fails(125, "run", "--rm", f"--network={network}", "busybox", "true")
    assert re.search(r"(?i)not found|no such container", said)
    assert engine.api.container_ids() == before
