"""The default bridge on the real kernel: addresses, NAT, isolation, several at once."""

import asyncio
import time

import pytest

from netlab import (
    HOST,
    OUTSIDE,
    UPLINK,
    Lab,
    ask,
    links,
    listener,
    nft,
    serving,
    sh,
    unreachable,
    wait_until,
)
from teu.errors import EngineError, InvalidParameter
from teu.model.network import IPAM, IPAMConfig, NetworkCreate
from teu.network.errors import AlreadyConnected, NoFreeAddress, NoSuchNetwork


def test_containers_reach_each_other_and_the_host() -> None:
    async def scenario(lab: Lab) -> None:
        one, two = await lab.start("one"), await lab.start("two")
        assert (one.ip, two.ip) == ("172.17.0.2", "172.17.0.3")
        settings = one.endpoints["bridge"]
        assert (settings.gateway, settings.ip_prefix_len) == ("172.17.0.1", 16)
        assert settings.mac_address == "02:42:ac:11:00:02"
        with one.serve(80):
            assert ask(one.ip, 80) == "172.17.0.1"
            assert two.ask(one.ip, 80) == two.ip
        with serving(lambda: listener(7000)):
            assert one.ask("172.17.0.1", 7000) == one.ip
        ping = one.inside(lambda: sh("ping", "-c1", "-W2", two.ip))
        assert "1 received" in ping

    Lab().run(scenario)


def test_sandbox_looks_as_a_container_expects() -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start(mac_address="02:42:00:00:00:99")
        shown = one.inside(lambda: sh("ip", "address"))
        assert "127.0.0.1/8" in shown
        assert "::1/128" in shown
        assert "link/ether 02:42:00:00:00:99" in shown
        assert "inet 172.17.0.2/16 brd 172.17.255.255 scope global eth0" in shown
        assert "fe80" not in shown
        assert "mtu 1500" in shown
        routes = one.inside(lambda: sh("ip", "route"))
        assert routes.splitlines()[0].strip() == "default via 172.17.0.1 dev eth0"
        host_side = next(name for name in links() if name.startswith("veth"))
        assert "fe80" not in sh("ip", "address", "show", host_side)

    Lab().run(scenario)


def test_packets_leave_under_the_hosts_address() -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start()
        with serving(lambda: lab.from_outside(lambda: listener(53))):
            assert one.ask(OUTSIDE, 53) == HOST
        with serving(lambda: lab.from_outside(lambda: listener(53, "udp")), "udp"):
            assert one.ask(OUTSIDE, 53, kind="udp") == HOST

    Lab().run(scenario)


def test_without_masquerading_the_containers_address_is_kept() -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start()
        lab.from_outside(lambda: sh("ip", "route", "add", "172.17.0.0/16", "via", HOST))
        with serving(lambda: lab.from_outside(lambda: listener(53))):
            assert one.ask(OUTSIDE, 53) == one.ip

    Lab(ip_masq=False).run(scenario)


def test_a_neighbour_who_routes_to_containers_is_refused() -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start()
        lab.from_outside(lambda: sh("ip", "route", "add", "172.17.0.0/16", "via", HOST))
        with one.serve(80) as seen:
            assert lab.from_outside(lambda: unreachable(one.ip, 80))
            await one.publish({"80/tcp": "127.0.0.1:8080"})
            assert lab.from_outside(lambda: unreachable(one.ip, 80))
            assert seen == []

    Lab().run(scenario)


def test_icc_off_separates_containers_but_not_their_published_ports() -> None:
    async def scenario(lab: Lab) -> None:
        one, two = await lab.start(), await lab.start()
        await one.publish({"80/tcp": ":8080"})
        with one.serve(80):
            assert two.cannot_reach(one.ip, 80)
            assert ask(one.ip, 80) == "172.17.0.1"
            assert two.ask(HOST, 8080) == "172.17.0.1"
        sh("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")
        await lab.restart()
        with one.serve(80):
            assert two.cannot_reach(one.ip, 80)
            assert two.ask(HOST, 8080) == "172.17.0.1"

    Lab(icc=False).run(scenario)


def test_user_networks_are_isolated_and_internal_ones_cannot_get_out() -> None:
    async def scenario(lab: Lab) -> None:
        inner = IPAM(config=[IPAMConfig(subnet="10.77.0.0/24")])
        await lab.service.create(NetworkCreate(name="front"))
        await lab.service.create(NetworkCreate(name="inner", internal=True, ipam=inner))
        front = await lab.start(network="front")
        hidden, friend = await lab.start(network="inner"), await lab.start(network="inner")
        assert front.ip == "172.18.0.2"
        assert hidden.endpoints["inner"].gateway == ""
        default = await lab.start()
        with front.serve(80), hidden.serve(80):
            assert friend.ask(hidden.ip, 80) == friend.ip
            assert default.cannot_reach(front.ip, 80)
            assert front.cannot_reach(hidden.ip, 80)
            assert hidden.cannot_reach(front.ip, 80)
            await front.publish({"80/tcp": ":8080"}, "front")
            assert default.ask(HOST, 8080) == default.ip
            # Even with a route of its own an internal container does not get out.
            hidden.inside(lambda: sh("ip", "route", "add", "default", "via", "10.77.0.1"))
            assert hidden.cannot_reach(HOST, 8080)
        with serving(lambda: lab.from_outside(lambda: listener(53))):
            assert front.ask(OUTSIDE, 53) == HOST
            assert hidden.cannot_reach(OUTSIDE, 53)
        assert await hidden.publish({"80/tcp": ":8081"}, "inner") == {"80/tcp": []}

    Lab().run(scenario)


def test_several_networks_and_the_default_route() -> None:
    async def scenario(lab: Lab) -> None:
        for name in ("aaa", "bbb"):
            await lab.service.create(NetworkCreate(name=name))
        one = await lab.start(network="bbb")

        def default() -> str:
            return one.inside(lambda: sh("ip", "route", "show", "default")).strip()

        assert default() == "default via 172.18.1.1 dev eth0"
        await one.connect("aaa")
        assert default() == "default via 172.18.0.1 dev eth1"
        await one.connect("bridge", gw_priority=7)
        assert default() == "default via 172.17.0.1 dev eth2"
        await one.disconnect("bridge")
        assert default() == "default via 172.18.0.1 dev eth1"
        await one.disconnect("bbb")
        assert sh("ip", "-br", "link", "show", "master", "teu0") == ""
        await one.connect("bbb")
        shown = one.inside(lambda: sh("ip", "-br", "address"))
        assert "eth0" in shown
        assert "172.18.1.2/24" in shown
        with pytest.raises(AlreadyConnected):
            await one.connect("bbb")

    Lab().run(scenario)


def test_fifty_at_once_and_nothing_left_after_release() -> None:
    async def scenario(lab: Lab) -> None:
        async def one_of_many(number: int) -> str:
            one = await lab.start(f"c{number}")
            await one.publish({"80/tcp": ""})
            address = one.ip
            if number % 2:
                await one.release()
            return address

        addresses = await asyncio.gather(*(one_of_many(number) for number in range(50)))
        assert len(lab.published()) == 25
        wait_until(lambda: sum(name.startswith("veth") for name in links()) == 25)
        kept = {one.address for one in lab.service.endpoints(lab.service.get("bridge").id)}
        assert len(kept) == 25
        assert kept < set(addresses)
        await lab.service.reap(set())
        assert lab.published() == []
        assert lab.db.rows("SELECT * FROM endpoint") == []
        assert not list((lab.exec_root / "netns").iterdir())
        wait_until(lambda: not any(name.startswith("veth") for name in links()))

    Lab().run(scenario)


def test_an_address_may_be_reused_at_once() -> None:
    async def scenario(lab: Lab) -> None:
        client = await lab.start("client")
        for number in range(20):
            one = await lab.start(f"c{number}")
            assert one.ip == "172.17.0.3"
            with one.serve(80):
                assert client.ask(one.ip, 80) == client.ip
                assert ask(one.ip, 80) == "172.17.0.1"
            await one.release()

    Lab().run(scenario)


def test_release_is_idempotent_and_accepts_strangers() -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start()
        await one.publish({"80/tcp": ":8080"})
        await one.release()
        await one.release()
        await lab.service.release("f" * 64)
        assert lab.published() == []

    Lab().run(scenario)


def test_a_failed_or_cancelled_connect_leaves_nothing() -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start()
        await lab.service.create(NetworkCreate(name="other"))
        before = set(links())
        one.inside(lambda: sh("ip", "link", "add", "eth1", "type", "ifb"))
        with pytest.raises(EngineError, match="eth1"):
            await one.connect("other")
        for _ in range(10):
            task = asyncio.create_task(lab.start("two"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert set(links()) == before
        assert [row.container_name for row in lab.service.endpoints(lab.service.get("bridge").id)]
        assert len(lab.db.rows("SELECT * FROM endpoint")) == 1
        assert (await lab.start("three")).ip == "172.17.0.3"

    Lab().run(scenario)


def test_host_and_none() -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start(network="none")
        assert one.inside(links) == ["lo"]
        assert one.endpoints["none"].ip_address == ""
        assert one.endpoints["none"].network_id == lab.service.get("none").id
        assert await one.publish({"80/tcp": ":8080"}, "none") == {}
        got = await lab.service.connect("a" * 64, "h", "", "host", one.endpoints["none"])
        assert (got.gateway, got.network_id) == ("", lab.service.get("host").id)
        await lab.service.release("a" * 64)

    Lab().run(scenario)


def test_addresses_can_be_chosen_on_networks_with_a_chosen_subnet() -> None:
    async def scenario(lab: Lab) -> None:
        pool = IPAMConfig(subnet="10.9.0.0/29", aux_addresses={"printer": "10.9.0.2"})
        await lab.service.create(NetworkCreate(name="small", ipam=IPAM(config=[pool])))
        fixed = await lab.start("fixed", network="small", ipam_config=_static("10.9.0.4"))
        assert fixed.ip == "10.9.0.4"
        taken = {(await lab.start(network="small")).ip for _ in range(3)}
        assert taken == {"10.9.0.3", "10.9.0.5", "10.9.0.6"}
        with pytest.raises(NoFreeAddress, match=r"10\.9\.0\.0/29"):
            await lab.start(network="small")
        with pytest.raises(EngineError, match=r"Address already in use.*container fixed"):
            await lab.start(network="small", ipam_config=_static("10.9.0.4"))
        for bad in ("10.9.0.7", "10.10.0.1", "nonsense", "10.9.0.1"):
            with pytest.raises(EngineError):
                await lab.start(network="small", ipam_config=_static(bad))
        with pytest.raises(InvalidParameter, match="user configured subnets"):
            await lab.start(ipam_config=_static("172.17.0.9"))
        with pytest.raises(NoSuchNetwork, match="network nowhere not found"):
            await lab.start(network="nowhere")
        with pytest.raises(InvalidParameter, match="MAC"):
            await lab.start(mac_address="01:00:00:00:00:01")

    Lab().run(scenario)


def _static(address: str) -> object:
    from teu.model.config import EndpointIPAMConfig

    return EndpointIPAMConfig(ipv4_address=address)


def test_a_host_that_was_no_router_does_not_become_one() -> None:
    async def scenario(lab: Lab) -> None:
        assert sh("sysctl", "-n", "net.ipv4.ip_forward").strip() == "1"
        one = await lab.start()
        with serving(lambda: lab.from_outside(lambda: listener(53))):
            assert one.ask(OUTSIDE, 53) == HOST
        assert "drop" in nft("list", "chain", "inet", "teu", "forward")
        await lab.restart()
        assert "drop" in nft("list", "chain", "inet", "teu", "forward")

    async def after_switching_off(lab: Lab) -> None:
        await lab.close()
        sh("sysctl", "-qw", "net.ipv4.ip_forward=0")
        await lab.open()
        await scenario(lab)

    Lab().run(after_switching_off)


def test_mtu_follows_the_hosts_route_or_the_configuration() -> None:
    Lab(mtu=1400).run(_only_default)
    Lab().run(_follow)


async def _only_default(lab: Lab) -> None:
    one = await lab.start()
    assert "mtu 1400" in one.inside(lambda: sh("ip", "link", "show", "eth0"))


async def _follow(lab: Lab) -> None:
    sh("ip", "link", "set", UPLINK, "mtu", "1300")
    await lab.service.create(NetworkCreate(name="later"))
    one = await lab.start(network="later")
    assert "mtu 1300" in one.inside(lambda: sh("ip", "link", "show", "eth0"))


def test_a_bridge_deleted_by_hand_comes_back_with_the_next_container() -> None:
    async def scenario(lab: Lab) -> None:
        sh("ip", "link", "delete", "teu0")
        one = await lab.start()
        with one.serve(80):
            assert ask(one.ip, 80) == "172.17.0.1"

    Lab().run(scenario)


def test_connect_is_fast() -> None:
    async def scenario(lab: Lab) -> None:
        durations = []
        for number in range(15):
            began = time.perf_counter()
            await lab.start(f"c{number}")
            durations.append(time.perf_counter() - began)
        # About 2 ms on a quiet machine; the bound only catches a change of kind (an `ip` process,
        # a veth deletion) on a loaded one.
        assert sorted(durations)[3] < 0.012

    Lab().run(scenario)
