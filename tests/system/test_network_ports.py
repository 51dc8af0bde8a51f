"""Published ports on the real kernel: who reaches them, who does not, clashes, restarts."""

import asyncio
import os
import socket
import time
from collections.abc import Callable

import pytest

from netlab import (
    HOST,
    OUTSIDE,
    UPLINK,
    Container,
    Lab,
    ask,
    listener,
    nft,
    serving,
    sh,
    unreachable,
    wait_until,
)
from teu.errors import EngineError, InvalidParameter
from teu.model.network import NetworkCreate
from teu.network.errors import NotConnected, PortTaken
from teu.network.service import REPAIR_DELAY_S, Live

FORWARD_DROP = "{ type filter hook forward priority filter; policy drop; }"


@pytest.mark.parametrize("bridge_netfilter", ["0", "1"])
def test_everybody_reaches_a_published_port(bridge_netfilter: str) -> None:
    async def scenario(lab: Lab) -> None:
        sh("sysctl", "-qw", f"net.bridge.bridge-nf-call-iptables={bridge_netfilter}")
        one, two = await lab.start("one"), await lab.start("two")
        shown = await one.publish({"80/tcp": ":8080"})
        assert shown == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}
        with one.serve(80):
            assert lab.from_outside(lambda: ask(HOST, 8080)) == OUTSIDE  # the client's own address
            assert ask(HOST, 8080) == HOST
            assert ask("127.0.0.1", 8080) == "172.17.0.1"
            assert ask("127.0.0.5", 8080) == "172.17.0.1"
            assert ask("172.17.0.1", 8080) == "172.17.0.1"
            assert two.ask(HOST, 8080) == "172.17.0.1"
            assert two.ask("172.17.0.1", 8080) == "172.17.0.1"
            assert one.ask(HOST, 8080) == "172.17.0.1"  # itself
        await one.release()
        assert lab.from_outside(lambda: unreachable(HOST, 8080))
        assert unreachable("127.0.0.1", 8080)

    Lab().run(scenario)


def test_udp() -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start()
        assert unreachable("127.0.0.1", 5353, kind="udp")  # leaves a connection in conntrack
        await one.publish({"53/udp": ":5353", "53/tcp": ":5353"})
        with one.serve(53, kind="udp"):
            assert lab.from_outside(lambda: ask(HOST, 5353, kind="udp")) == OUTSIDE
            assert ask("127.0.0.1", 5353, kind="udp") == "172.17.0.1"
            assert one.ask(HOST, 5353, kind="udp") == "172.17.0.1"

    Lab().run(scenario)


def test_a_udp_client_that_goes_on_sending_reaches_the_next_container() -> None:
    async def scenario(lab: Lab) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((HOST, 5353))
            client.settimeout(0.1)

            def answered() -> bool:
                try:
                    client.send(b"?")
                    return client.recv(100) == HOST.encode()
                except OSError:
                    return False

            assert not answered()
            for _ in range(2):
                one = await lab.start()
                await lab.start()  # so that the next one gets another address
                await one.publish({"53/udp": ":5353"})
                with one.serve(53, kind="udp"):
                    wait_until(answered)
                await one.release()

    Lab().run(scenario)


def test_published_on_loopback_is_really_loopback_only() -> None:
    async def scenario(lab: Lab) -> None:
        one, two = await lab.start(), await lab.start()
        await one.publish({"80/tcp": "127.0.0.1:8080", "80/udp": "127.0.0.1:8080"})
        with one.serve(80) as seen:
            assert ask("127.0.0.1", 8080) == "172.17.0.1"
            del seen[:]
            assert lab.from_outside(lambda: unreachable(HOST, 8080))
            assert two.cannot_reach("172.17.0.1", 8080)
            assert seen == []

    Lab().run(scenario)


def test_the_hosts_loopback_is_closed_to_packets_from_the_wire() -> None:
    """A neighbour, or a container, that sends packets for 127.0.0.1 to us (CVE-2020-8558)."""

    async def scenario(lab: Lab) -> None:
        one, two = await lab.start(), await lab.start()
        await one.publish({"80/udp": "127.0.0.1:8080", "81/udp": ":8081"})
        lab.from_outside(lambda: _route_loopback_to(HOST, "far0"))
        two.inside(lambda: _route_loopback_to("172.17.0.1", "eth0"))
        local = serving(lambda: listener(9000, "udp", "127.0.0.1"), "udp")
        with one.serve(80, kind="udp") as on_80, one.serve(81, kind="udp") as on_81, local as seen:
            for port in (8080, 8081, 9000):
                assert two.cannot_reach("127.0.0.1", port, kind="udp")
                lab.from_outside(lambda port=port: unreachable("127.0.0.1", port, kind="udp"))
            assert (on_80, on_81, seen) == ([], [], [])
            for port in (8080, 8081, 9000):
                assert ask("127.0.0.1", port, kind="udp")

    Lab().run(scenario)


def _route_loopback_to(gateway: str, link: str) -> None:
    sh("sysctl", "-qw", f"net.ipv4.conf.{link}.route_localnet=1")
    sh("ip", "route", "delete", "local", "127.0.0.1", "table", "local")
    sh("ip", "route", "delete", "local", "127.0.0.0/8", "table", "local")
    sh("ip", "route", "add", "127.0.0.0/8", "via", gateway, "dev", link)


def test_one_address_and_several_bindings() -> None:
    async def scenario(lab: Lab) -> None:
        sh("ip", "address", "add", "198.51.100.9/24", "dev", UPLINK)
        one, two = await lab.start(), await lab.start()
        shown = await one.publish({"80/tcp": f"{HOST}:8080,127.0.0.1:8081,:8082"})
        assert [b["HostPort"] for b in shown["80/tcp"]] == ["8080", "8081", "8082"]
        await two.publish({"80/tcp": "198.51.100.9:8080"})
        with one.serve(80) as first, two.serve(80) as second:
            assert lab.from_outside(lambda: ask(HOST, 8080)) == OUTSIDE
            assert (len(first), len(second)) == (1, 0)
            assert lab.from_outside(lambda: ask("198.51.100.9", 8080)) == OUTSIDE
            assert (len(first), len(second)) == (1, 1)
            assert lab.from_outside(lambda: unreachable("198.51.100.9", 8081))

    Lab().run(scenario)


def test_ranges_random_ports_and_publish_all() -> None:
    async def scenario(lab: Lab) -> None:
        sh("sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40003")
        one, two = await lab.start(), await lab.start()
        first = await one.publish({"80/tcp": ":9000-9001"})
        second = await two.publish({"80/tcp": ":9000-9001"})
        assert first["80/tcp"][0]["HostPort"] == "9000"
        assert second["80/tcp"][0]["HostPort"] == "9001"
        with serving(lambda: listener(40001)):
            shown = await one.publish(
                {"81/tcp": "", "82/tcp": ":40000"}, exposed=["83/tcp", "81/tcp"], publish_all=True
            )
        ports = {key: [binding["HostPort"] for binding in shown[key]] for key in shown}
        assert ports == {
            "80/tcp": ["9000"], "81/tcp": ["40002"], "82/tcp": ["40000"], "83/tcp": ["40003"],
        }  # fmt: skip
        only_exposed = await two.publish({}, exposed=["90/tcp"])
        assert only_exposed["90/tcp"] == []
        await two.publish({"91/tcp": ""})  # 40001 is free again
        with pytest.raises(PortTaken):
            await two.publish({"92/tcp": ""})

    Lab().run(scenario)


def test_a_clash_names_the_holder_and_undoes_the_rest() -> None:
    async def scenario(lab: Lab) -> None:
        one, two = await lab.start("web"), await lab.start("other")
        await one.publish({"80/tcp": ":8080"})
        before = lab.published()
        with pytest.raises(PortTaken) as clash:
            await two.publish({"80/tcp": ":8090", "81/tcp": ":8080"})
        assert clash.value.message.startswith(
            "driver failed programming external connectivity on endpoint other ("
        )
        assert clash.value.message.endswith(
            "): Bind for 0.0.0.0:8080 failed: port is already allocated (by container web)"
        )
        assert lab.published() == before
        with serving(lambda: listener(8090)):  # free again
            with pytest.raises(PortTaken, match=r"0\.0\.0\.0:8090/tcp: address already in use"):
                await two.publish({"80/tcp": ":8090"})
            with pytest.raises(PortTaken, match=rf"process {os.getpid()} \("):
                await two.publish({"80/tcp": "127.0.0.1:8090"})
        with serving(lambda: listener(8091, "udp"), "udp"), pytest.raises(PortTaken, match="udp"):
            await two.publish({"80/udp": ":8091"})
        await one.release()
        await two.publish({"81/tcp": ":8080"})  # the next one gets it

    Lab().run(scenario)


def test_nobody_takes_a_published_port_from_us() -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start()
        await one.publish({"80/tcp": ":8080", "80/udp": ":8080"})
        for kind in ("tcp", "udp"):
            for address in ("", "127.0.0.1", HOST):
                with pytest.raises(OSError, match="in use"):
                    listener(8080, kind, address)
        await one.release()
        listener(8080).close()

    Lab().run(scenario)


def test_a_port_in_time_wait_can_be_published() -> None:
    async def scenario(lab: Lab) -> None:
        with listener(8080) as server, socket.create_connection(("127.0.0.1", 8080)) as client:
            accepted, _ = server.accept()
            accepted.close()  # the server closes first: its side stays in TIME_WAIT
            client.recv(1)
        assert "TIME-WAIT" in sh("ss", "-tan")
        one = await lab.start()
        await one.publish({"80/tcp": ":8080"})
        with one.serve(80):
            assert ask("127.0.0.1", 8080) == "172.17.0.1"
        with pytest.raises(OSError, match="in use"):
            listener(8080)

    Lab().run(scenario)


@pytest.mark.parametrize(
    ("key", "binding"),
    [
        ("80/tcp", ":70000"),
        ("80/tcp", ":-1"),
        ("80/tcp", ":9-8"),
        ("80/tcp", ":x"),
        ("80/icmp", ":80"),
        ("0/tcp", ":80"),
        ("eighty", ":80"),
        ("80/tcp", "300.1.1.1:80"),
        ("80/tcp", "[::1]:80"),
        ("80/tcp", "203.0.113.77:80"),
    ],
)
def test_bad_ports_are_refused(key: str, binding: str) -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start()
        with pytest.raises(InvalidParameter):
            await one.publish({key: binding})
        assert lab.published() == []

    Lab().run(scenario)


def test_publishing_needs_an_endpoint_and_rules() -> None:
    async def scenario(lab: Lab) -> None:
        stranger = Container(lab, "a" * 64, "stranger")
        with pytest.raises(NotConnected):
            await stranger.publish({"80/tcp": ":8080"})

    async def without_rules(lab: Lab) -> None:
        one, two = await lab.start(), await lab.start()
        with one.serve(80):
            assert two.ask(one.ip, 80) == two.ip
        with pytest.raises(EngineError, match="iptables=false"):
            await one.publish({"80/tcp": ":8080"})
        assert nft("list", "ruleset") == ""

    Lab().run(scenario)
    Lab(iptables=False).run(without_rules)


def test_a_restart_of_the_daemon_disturbs_nobody() -> None:
    async def scenario(lab: Lab) -> None:
        nft("add", "rule", "inet", "teu", "user", "ip", "saddr", "203.0.113.1", "drop")
        one, gone = await lab.start("one"), await lab.start("gone")
        await one.publish({"80/tcp": ":8080", "81/udp": "127.0.0.1:8081"})
        await gone.publish({"80/tcp": ":9090"})
        before = lab.published()
        with one.serve(80), socket.create_connection(("127.0.0.1", 8080)) as through:
            assert through.recv(20) == b"172.17.0.1"
            await lab.restart()
            assert lab.published() == before
            assert ask("127.0.0.1", 8080) == "172.17.0.1"
            await lab.service.restore([Live(one.id, "renamed")])
            await lab.service.reap({one.id})
            assert len(lab.published()) == 2
            assert ask("127.0.0.1", 8080) == "172.17.0.1"
            assert lab.from_outside(lambda: ask(HOST, 8080)) == OUTSIDE
        assert os.listdir(lab.exec_root / "netns") == [one.id]
        two = await lab.start("two")
        assert two.ip == "172.17.0.3"
        with pytest.raises(PortTaken, match="by container renamed"):
            await two.publish({"80/tcp": ":8080"})
        with pytest.raises(OSError, match="in use"):
            listener(8080)
        await two.publish({"80/tcp": ":9090"})
        assert "203.0.113.1" in nft("list", "chain", "inet", "teu", "user")
        nft("flush", "chain", "inet", "teu", "user")

    Lab().run(scenario)


def test_a_port_lost_while_the_daemon_was_away_is_told_not_fatal() -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start("one")
        await one.publish({"80/tcp": ":8080"})
        await lab.close()
        with listener(8080):
            await lab.open()
            await lab.service.restore([Live(one.id, "one")])
        two = await lab.start("two")
        with pytest.raises(PortTaken, match="by container one"):
            await two.publish({"80/tcp": ":8080"})

    Lab().run(scenario)


def test_flushed_rules_come_back() -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start("one")
        await one.publish({"80/tcp": ":8080"})
        two = await lab.start("two")
        with one.serve(80):
            for damage in (["flush", "ruleset"], ["delete", "table", "inet", "teu"]):
                nft(*damage)
                assert unreachable("127.0.0.1", 8080)
                await two.publish({"80/tcp": ""})
                assert ask("127.0.0.1", 8080) == "172.17.0.1"
            nft("flush", "ruleset")
            await two.release()
            assert ask("127.0.0.1", 8080) == "172.17.0.1"

    Lab().run(scenario)


def test_publishing_is_fast() -> None:
    async def scenario(lab: Lab) -> None:
        durations = []
        for number in range(15):
            one = await lab.start(f"c{number}")
            began = time.perf_counter()
            await one.publish({"80/tcp": "", "443/tcp": ""})
            durations.append(time.perf_counter() - began)
        assert sorted(durations)[3] < 0.012  # about 1 ms on a quiet machine

    Lab().run(scenario)


def test_ports_under_churn() -> None:
    async def scenario(lab: Lab) -> None:
        async def cycle(number: int) -> None:
            for _ in range(5):
                one = await lab.start(f"c{number}")
                await one.publish({"80/tcp": f":{8000 + number}", "81/udp": ""})
                await one.release()

        await asyncio.gather(*(cycle(number) for number in range(10)))
        assert lab.published() == []
        assert lab.service.endpoints(lab.service.get("bridge").id) == []

    Lab().run(scenario)


@pytest.mark.parametrize(
    "damage",
    [
        "flush ruleset",
        "flush table inet teu",
        "delete table inet teu",
        "flush chain inet teu to-teu0",
    ],
)
def test_a_flush_is_repaired_within_two_seconds(damage: str) -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start("one")
        await one.publish({"80/tcp": ":8080"})
        before = nft("list", "table", "inet", "teu")
        nft(*damage.split())
        assert nft("list", "ruleset") != before
        await until(lambda: nft("list", "ruleset") == before)
        with one.serve(80):
            assert ask("127.0.0.1", 8080) == "172.17.0.1"

    Lab().run(scenario)


def test_repairs_do_not_answer_our_own_changes() -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start("one")
        await one.publish({"80/tcp": ":8080"})
        handles = nft("-a", "list", "chain", "inet", "teu", "forward")
        await lab.service.create(NetworkCreate(name="other"))
        await lab.service.remove("other")
        await one.release()
        nft("add", "table", "ip", "foreign")
        nft("add", "chain", "ip", "foreign", "some")
        nft("delete", "table", "ip", "foreign")
        await asyncio.sleep(2 * REPAIR_DELAY_S)
        assert nft("-a", "list", "chain", "inet", "teu", "forward") == handles

    Lab().run(scenario)


def test_foreign_tables_are_left_alone_and_a_dropping_one_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.close()
        nft("add", "table", "ip", "filter")
        nft("add", "chain", "ip", "filter", "FORWARD", FORWARD_DROP)
        nft("add", "chain", "ip", "filter", "DOCKER-USER")
        nft("add", "rule", "ip", "filter", "FORWARD", "jump", "DOCKER-USER")
        before = nft("list", "table", "ip", "filter")
        await lab.open()
        assert "chain ip filter FORWARD drops forwarded packets" in caplog.text
        assert len(lab.service.warnings) == 1
        one = await lab.start()
        await one.publish({"80/tcp": ":8080"})
        with one.serve(80):
            assert lab.from_outside(lambda: unreachable(HOST, 8080))
            assert nft("list", "table", "ip", "filter") == before
            for side in ("iifname", "oifname"):  # what the warning says
                nft("insert", "rule", "ip", "filter", "DOCKER-USER", side, "teu0", "accept")
            assert lab.from_outside(lambda: ask(HOST, 8080)) == OUTSIDE
        nft("delete", "table", "ip", "filter")
        nft("add", "table", "ip", "other")
        nft("add", "chain", "ip", "other", "gate", FORWARD_DROP)
        await until(lambda: "ip other gate" in str(lab.service.warnings))
        nft("add", "chain", "ip", "other", "gate", "{ policy accept; }")
        await until(lambda: lab.service.warnings == [])
        nft("delete", "table", "ip", "other")

    Lab().run(scenario)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 2
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
