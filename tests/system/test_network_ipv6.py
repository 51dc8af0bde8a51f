"""IPv6 of bridge networks: addresses, the way out, published ports, isolation; gateway modes."""

import pytest

from netlab import HOST, HOST6, OUTSIDE, OUTSIDE6, Lab, ask, listener, serving, sh, unreachable
from teu.errors import InvalidParameter
from teu.model.config import EndpointIPAMConfig
from teu.model.network import IPAM, IPAMConfig, NetworkCreate
from teu.network.errors import AddressInUse
from teu.network.service import Live

SUBNET = "fd00:7::/64"
MODE4 = "com.docker.network.bridge.gateway_mode_ipv4"
MODE6 = "com.docker.network.bridge.gateway_mode_ipv6"


async def network(lab: Lab, name: str = "six", **asked: object) -> None:
    ipam = IPAM(config=[IPAMConfig(subnet=SUBNET)])
    request = NetworkCreate(name=name, **{"enable_ipv6": True, "ipam": ipam, **asked})  # type: ignore[arg-type]
    await lab.service.create(request)


def test_containers_reach_each_other_and_the_outside() -> None:
    async def scenario(lab: Lab) -> None:
        await network(lab)
        one, two = await lab.start("one", network="six"), await lab.start("two", network="six")
        settings = one.endpoints["six"]
        assert (one.ip6, two.ip6) == ("fd00:7::2", "fd00:7::3")
        assert (settings.ipv6_gateway, settings.global_ipv6_prefix_len) == ("fd00:7::1", 64)
        with one.serve(80):
            assert two.ask(one.ip6, 80) == two.ip6
            assert ask(one.ip6, 80) == "fd00:7::1"
        with serving(lambda: lab.from_outside(lambda: listener(53))):
            assert one.ask(OUTSIDE6, 53) == HOST6
            assert one.ask(OUTSIDE, 53) == HOST
        with serving(lambda: lab.from_outside(lambda: listener(53, "udp")), "udp"):
            assert one.ask(OUTSIDE6, 53, kind="udp") == HOST6

    Lab().run(scenario)


def test_the_default_bridge_has_none() -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start("one")
        assert "fe80" not in one.inside(lambda: sh("ip", "-6", "address", "show", "eth0"))
        await network(lab)
        await one.connect("six")
        shown = one.inside(lambda: sh("ip", "-6", "address", "show", "eth1"))
        assert "fd00:7::2/64" in shown
        assert "tentative" not in shown.partition("fd00:7::2")[2].partition("\n")[0]
        assert "default via fd00:7::1 dev eth1" in one.inside(lambda: sh("ip", "-6", "route"))
        assert "default via 172.17.0.1 dev eth0" in one.inside(lambda: sh("ip", "route"))

    Lab().run(scenario)


def test_the_default_bridge_has_it_when_the_configuration_says_so() -> None:
    async def scenario(lab: Lab) -> None:
        one, two = await lab.start("one"), await lab.start("two")
        assert one.ip6 == "fd00:9::2"
        with one.serve(80):
            assert two.ask(one.ip6, 80) == two.ip6
            await one.publish({"80/tcp": ":8080"})
            assert lab.from_outside(lambda: ask(HOST6, 8080)) == OUTSIDE6
        assert lab.service.get("bridge").enable_ipv6
        await one.release()
        await two.release()
        lab.config.ipv6 = False
        await lab.restart()
        assert len(lab.service.get("bridge").pools) == 1

    Lab(ipv6=True, fixed_cidr_v6="fd00:9::/64").run(scenario)


def test_published_ports() -> None:
    async def scenario(lab: Lab) -> None:
        await network(lab)
        one, two = await lab.start("one", network="six"), await lab.start("two", network="six")
        got = await one.publish({"80/tcp": ":8080", "53/udp": ":5353"}, network="six")
        shown = [{"HostIp": at, "HostPort": "8080"} for at in ("0.0.0.0", "::")]
        assert got["80/tcp"] == shown
        with one.serve(80):
            assert lab.from_outside(lambda: ask(HOST6, 8080)) == OUTSIDE6  # the client's own
            assert lab.from_outside(lambda: ask(HOST, 8080)) == OUTSIDE
            assert ask("127.0.0.1", 8080) == one.endpoints["six"].gateway
            with pytest.raises(ConnectionRefusedError):  # at once: clients go on to 127.0.0.1
                ask("::1", 8080)
            assert ask(HOST6, 8080)
            assert two.ask(HOST6, 8080) == "fd00:7::1"  # hairpin
            assert one.ask(HOST6, 8080) == "fd00:7::1"
        with one.serve(53, kind="udp"):
            assert lab.from_outside(lambda: ask(HOST6, 5353, kind="udp")) == OUTSIDE6
        await one.release()
        assert lab.published() == []
        assert lab.from_outside(lambda: unreachable(HOST6, 8080))

    Lab().run(scenario)


def test_published_at_one_address_only() -> None:
    async def scenario(lab: Lab) -> None:
        await network(lab)
        one = await lab.start("one", network="six")
        with pytest.raises(InvalidParameter, match=r"use 127\.0\.0\.1"):
            await one.publish({"80/tcp": "[::1]:8080"}, network="six")
        await one.publish({"80/tcp": "[2001:db8::1]:8081"}, network="six")
        with one.serve(80):
            assert lab.from_outside(lambda: ask(HOST6, 8081)) == OUTSIDE6
            assert unreachable(HOST, 8081)
        four = await lab.start("four")
        with pytest.raises(InvalidParameter, match="has no IPv6"):
            await four.publish({"80/tcp": "[2001:db8::1]:8090"})

    Lab().run(scenario)


def test_one_random_port_for_both() -> None:
    async def scenario(lab: Lab) -> None:
        await network(lab)
        one = await lab.start("one", network="six")
        taken = listener(32768, address="::")
        with taken:
            got = await one.publish({"80/tcp": ":", "81/tcp": ":0"}, network="six")
        for key in ("80/tcp", "81/tcp"):
            assert len({port["HostPort"] for port in got[key]}) == 1
            assert {port["HostIp"] for port in got[key]} == {"0.0.0.0", "::"}
            assert got[key][0]["HostPort"] != "32768"

    Lab().run(scenario)


def test_networks_are_isolated_and_internal_ones_closed() -> None:
    async def scenario(lab: Lab) -> None:
        await network(lab)
        second = IPAM(config=[IPAMConfig(subnet="fd00:8::/64")])
        await network(lab, "inner", internal=True, ipam=second)
        one, two = await lab.start("one", network="six"), await lab.start("two", network="inner")
        lab.from_outside(lambda: sh("ip", "route", "add", SUBNET, "via", HOST6))
        with one.serve(80), two.serve(80):
            assert two.cannot_reach(one.ip6, 80)
            assert one.cannot_reach(two.ip6, 80)
            assert lab.from_outside(lambda: unreachable(one.ip6, 80))
        with serving(lambda: lab.from_outside(lambda: listener(53))):
            assert two.cannot_reach(OUTSIDE6, 53)

    Lab().run(scenario)


def test_without_ipv4() -> None:
    async def scenario(lab: Lab) -> None:
        await network(lab, enable_ipv4=False)
        one = await lab.start("one", network="six")
        settings = one.endpoints["six"]
        assert (settings.ip_address, settings.gateway) == ("", "")
        assert "inet " not in one.inside(lambda: sh("ip", "address", "show", "eth0"))
        await one.publish({"80/tcp": ":8080"}, network="six")
        with one.serve(80):
            assert lab.from_outside(lambda: ask(HOST6, 8080)) == OUTSIDE6
            assert unreachable(HOST, 8080)

    Lab().run(scenario)


def test_chosen_addresses_are_kept_over_a_restart() -> None:
    async def scenario(lab: Lab) -> None:
        await network(lab)
        asked = EndpointIPAMConfig(ipv6_address="fd00:7::99")
        one = await lab.start("one", network="six", ipam_config=asked)
        assert one.ip6 == "fd00:7::99"
        with pytest.raises(AddressInUse, match="held by container one"):
            await lab.start("two", network="six", ipam_config=asked)
        await one.publish({"80/tcp": ":8080"}, network="six")
        before = lab.published()
        await lab.restart()
        await lab.service.restore([Live(one.id, "one")])
        assert lab.published() == before
        with one.serve(80):
            assert lab.from_outside(lambda: ask(HOST6, 8080)) == OUTSIDE6
        with pytest.raises(AddressInUse):
            await lab.start("two", network="six", ipam_config=asked)

    Lab().run(scenario)


def test_routed_networks_open_published_ports_at_the_containers_address() -> None:
    async def scenario(lab: Lab) -> None:
        await network(lab, options={MODE4: "routed", MODE6: "routed"})
        one, plain = await lab.start("one", network="six"), await lab.start("plain")
        got = await one.publish({"80/tcp": ":8080"}, network="six")
        assert got["80/tcp"] == [{"HostIp": "", "HostPort": ""}] * 2
        pool = lab.service.get("six").pools[0].subnet
        lab.from_outside(lambda: sh("ip", "route", "add", SUBNET, "via", HOST6))
        lab.from_outside(lambda: sh("ip", "route", "add", pool, "via", HOST))
        with one.serve(80), one.serve(81):
            for address in (one.ip, one.ip6):
                assert lab.from_outside(lambda at=address: ask(at, 80))  # type: ignore[misc]
                assert lab.from_outside(lambda at=address: unreachable(at, 81))  # type: ignore[misc]
            assert lab.from_outside(lambda: unreachable(HOST, 8080))
            assert plain.cannot_reach(one.ip, 81)
        with serving(lambda: lab.from_outside(lambda: listener(53))):
            assert one.ask(OUTSIDE6, 53) == one.ip6  # nothing is translated
            assert one.ask(OUTSIDE, 53) == one.ip
        await one.release()
        assert lab.elements("port-any") == []

    Lab().run(scenario)


def test_unprotected_networks_are_reached_by_those_who_route_to_them() -> None:
    async def scenario(lab: Lab) -> None:
        await network(lab, options={MODE4: "nat-unprotected"})
        one, other = await lab.start("one", network="six"), await lab.start("other")
        pool = lab.service.get("six").pools[0].subnet
        lab.from_outside(lambda: sh("ip", "route", "add", pool, "via", HOST))
        lab.from_outside(lambda: sh("ip", "route", "add", SUBNET, "via", HOST6))
        with one.serve(80):
            assert lab.from_outside(lambda: ask(one.ip, 80)) == OUTSIDE
            assert lab.from_outside(lambda: unreachable(one.ip6, 80))
            assert other.cannot_reach(one.ip, 80)
        with serving(lambda: lab.from_outside(lambda: listener(53))):
            assert one.ask(OUTSIDE, 53) == HOST

    Lab().run(scenario)


def test_isolated_networks_have_no_host() -> None:
    async def scenario(lab: Lab) -> None:
        modes = {MODE4: "isolated", MODE6: "isolated"}
        await network(lab, internal=True, options=modes)
        one, two = await lab.start("one", network="six"), await lab.start("two", network="six")
        link = lab.service.get("six").link
        assert "inet " not in sh("ip", "address", "show", link)
        with two.serve(80):
            assert one.ask(two.ip, 80) == one.ip
            assert unreachable(two.ip, 80)

    Lab().run(scenario)


def test_packets_leave_under_a_chosen_address() -> None:
    async def scenario(lab: Lab) -> None:
        sh("ip", "address", "add", "198.51.100.77/24", "dev", "up0")
        sh("ip", "address", "add", "2001:db8::77/64", "dev", "up0", "nodad")
        sources = {
            "com.docker.network.host_ipv4": "198.51.100.77",
            "com.docker.network.host_ipv6": "2001:db8::77",
        }
        await network(lab, options=sources)
        one = await lab.start("one", network="six")
        with serving(lambda: lab.from_outside(lambda: listener(53))):
            assert one.ask(OUTSIDE, 53) == "198.51.100.77"
            assert one.ask(OUTSIDE6, 53) == "2001:db8::77"
        await one.release()
        await lab.service.remove("six")
        assert lab.elements("source") == []

    Lab().run(scenario)
