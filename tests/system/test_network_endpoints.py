"""Endpoints of containers: several networks, routes, chosen links and addresses; configurations."""

import asyncio
from pathlib import Path

import pytest

from netlab import OUTSIDE, Lab, listener, serving, sh
from teu.errors import InvalidParameter, NotFound
from teu.model.config import EndpointIPAMConfig
from teu.model.network import IPAM, ConfigReference, IPAMConfig, NetworkCreate
from teu.network.errors import (
    AddressInUse,
    ConfigurationInUse,
    ConfigurationMixed,
    ConfigurationOnly,
    OnlyOneInstance,
    PortTaken,
)
from teu.network.options import OPTION_LINK, OPTION_SYSCTLS

ROUTE = ("ip", "route", "show", "default")


async def networks(lab: Lab, *names: str) -> None:
    for name in names:
        await lab.service.create(NetworkCreate(name=name))


def test_the_default_route_follows_priority_then_name() -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "alpha", "beta", "gamma")
        one = await lab.start("one", network="beta")

        def route() -> str:
            return one.inside(lambda: sh(*ROUTE)).split()[2]

        assert route() == one.endpoints["beta"].gateway
        await one.connect("alpha")
        assert route() == one.endpoints["alpha"].gateway
        await one.connect("gamma", gw_priority=1)
        assert route() == one.endpoints["gamma"].gateway
        await one.disconnect("gamma")
        assert route() == one.endpoints["alpha"].gateway
        await one.disconnect("alpha")
        assert route() == one.endpoints["beta"].gateway
        with serving(lambda: lab.from_outside(lambda: listener(53))):
            assert one.ask(OUTSIDE, 53)
        await one.disconnect("beta")
        assert one.inside(lambda: sh(*ROUTE)) == ""

    Lab().run(scenario)


def test_an_internal_network_never_takes_the_default_route() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.service.create(NetworkCreate(name="inner", internal=True))
        await networks(lab, "outer")
        one = await lab.start("one", network="outer")
        await one.connect("inner", gw_priority=9)
        assert one.inside(lambda: sh(*ROUTE)).split()[2] == one.endpoints["outer"].gateway

    Lab().run(scenario)


def test_chosen_interface_name_sysctls_and_link_local_addresses() -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "net")
        sysctls = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.forwarding=0"
        one = await lab.start(
            "one",
            network="net",
            driver_opts={OPTION_LINK: "wan.0", OPTION_SYSCTLS: sysctls},
            ipam_config=EndpointIPAMConfig(link_local_ips=["169.254.8.8"]),
        )
        shown = one.inside(lambda: sh("ip", "address", "show", "wan.0"))
        assert one.ip in shown
        assert "169.254.8.8/16" in shown
        conf = Path("/proc/sys/net/ipv4/conf/wan.0")
        assert one.inside((conf / "log_martians").read_text) == "1\n"
        assert one.inside((conf / "forwarding").read_text) == "0\n"

    Lab().run(scenario)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        (OPTION_LINK, "a/b"),
        (OPTION_LINK, "lo"),
        (OPTION_LINK, "sixteen-letters-"),
        (OPTION_SYSCTLS, "net.core.somaxconn=1"),
        (OPTION_SYSCTLS, "net.ipv4.conf.IFNAME.x/../y=1"),
        (OPTION_SYSCTLS, "net.ipv4.conf.all.forwarding=1"),
        (OPTION_SYSCTLS, "net.ipv4.conf.IFNAME.nosuch=1"),
    ],
)
def test_bad_endpoint_options_leave_nothing(option: str, value: str) -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "net")
        one = await lab.start("one")
        with pytest.raises(InvalidParameter):
            await one.connect("net", driver_opts={option: value})
        assert lab.service.endpoints(lab.service.get("net").id) == []
        assert "eth1" not in one.inside(lambda: sh("ip", "link"))
        asked = EndpointIPAMConfig(link_local_ips=["10.0.0.1"])
        with pytest.raises(InvalidParameter, match="link-local"):
            await one.connect("net", ipam_config=asked)

    Lab().run(scenario)


def test_an_interface_name_is_given_once() -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "net")
        one = await lab.start("one")
        with pytest.raises(InvalidParameter, match="already has an interface eth0"):
            await one.connect("net", driver_opts={OPTION_LINK: "eth0"})

    Lab().run(scenario)


def test_networks_from_a_configuration() -> None:
    async def scenario(lab: Lab) -> None:
        service = lab.service
        ipam = IPAM(config=[IPAMConfig(subnet="10.9.0.0/24")], options={"k": "v"})
        made = await service.create(
            NetworkCreate(name="cfg", config_only=True, ipam=ipam, labels={"a": "1"})
        )
        assert (made.driver, made.config_only, made.pools) == ("null", True, [])
        source = ConfigReference(network="cfg")
        net = await service.create(NetworkCreate(name="net", config_from=source, labels={"b": "2"}))
        assert net.pools[0].subnet == "10.9.0.0/24"
        assert net.labels == {"a": "1", "b": "2"}
        with pytest.raises(ConfigurationMixed):
            await service.create(NetworkCreate(name="x", config_from=source, internal=True))
        with pytest.raises(ConfigurationOnly):
            await lab.start(network="cfg")
        with pytest.raises(ConfigurationInUse):
            await service.remove("cfg")
        await lab.restart()
        assert lab.service.get("cfg").config_only
        await lab.service.remove("net")
        await lab.service.remove("cfg")

    Lab().run(scenario)


def test_what_a_user_gets_wrong_is_said() -> None:
    async def scenario(lab: Lab) -> None:
        with pytest.raises(OnlyOneInstance, match='only one instance of "host" network'):
            await lab.service.create(NetworkCreate(name="x", driver="host"))
        with pytest.raises(NotFound, match='configuration network "no" does not exist'):
            await lab.service.create(
                NetworkCreate(name="x", config_from=ConfigReference(network="no"))
            )

    Lab().run(scenario)


def test_what_an_ended_container_still_holds_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(lab: Lab) -> None:
        ipam = IPAM(config=[IPAMConfig(subnet="10.9.0.0/24")])
        await lab.service.create(NetworkCreate(name="net", ipam=ipam))
        asked = EndpointIPAMConfig(ipv4_address="10.9.0.7")
        one = await lab.start("one", network="net", ipam_config=asked)
        await one.publish({"80/tcp": ":8080"}, network="net")
        with pytest.raises(AddressInUse, match="held by container one"):
            await lab.start("two", network="net", ipam_config=asked)
        lab.service.expect_releases(lambda container_id: container_id == one.id)

        async def successor() -> None:
            two = await lab.start("two", network="net", ipam_config=asked)
            await two.publish({"80/tcp": ":8080"}, network="net")
            await two.release()
            await lab.service.remove("net")

        waiting = asyncio.create_task(successor())
        await asyncio.sleep(0)
        await one.release()
        await waiting
        # one that never lets go is waited for only so long
        monkeypatch.setattr("teu.network.connector._RELEASE_LIMIT_S", 0.2)
        stuck = await lab.start("stuck")
        await stuck.publish({"80/tcp": ":8081"})
        lab.service.expect_releases(lambda container_id: container_id == stuck.id)
        three = await lab.start("three")
        with pytest.raises(PortTaken, match="by container stuck"):
            await three.publish({"80/tcp": ":8081"})

    Lab().run(scenario)
