"""Which networks can be made, which are refused, and how they are found."""

from ipaddress import IPv4Network, IPv6Network

import pytest

from teu.errors import Forbidden, InvalidParameter, NotFound, NotImplementedYet
from teu.model.network import IPAM, ConfigReference, IPAMConfig, NetworkCreate, NetworkRecord
from teu.network.catalog import Catalog
from teu.network.config import NetworkConfig
from teu.network.errors import (
    AmbiguousNetwork,
    NoSuchConfiguration,
    NoSuchNetwork,
    OnlyOneInstance,
    PoolsExhausted,
    PredefinedNetwork,
    SubnetTaken,
)
from teu.store.networks import NetworkNameTaken


def catalog(**config: object) -> Catalog:
    return Catalog(NetworkConfig(**config))  # type: ignore[arg-type]


def ipam(**pool: object) -> IPAM:
    return IPAM(config=[IPAMConfig(**pool)])  # type: ignore[arg-type]


def made(networks: Catalog, name: str, **request: object) -> NetworkRecord:
    record = networks.plan(NetworkCreate(name=name, **request), [])  # type: ignore[arg-type]
    networks.add(record)
    return record


def test_subnets_follow_each_other_and_avoid_the_hosts_routes() -> None:
    networks = catalog()
    routes = [IPv4Network("172.18.0.0/23"), IPv4Network("0.0.0.0/0")]
    first = networks.plan(NetworkCreate(name="a"), routes)
    networks.add(first)
    second = networks.plan(NetworkCreate(name="b"), routes)
    assert first.pools == [IPAMConfig(subnet="172.18.2.0/24", gateway="172.18.2.1")]
    assert second.pools[0].subnet == "172.18.3.0/24"
    assert not first.user_subnet
    assert first.link == f"br-{first.id[:12]}"


def test_networks_are_found_by_name_id_and_prefix() -> None:
    networks = catalog()
    one = made(networks, "front")
    assert networks.get("front") is networks.get(one.id) is networks.get(one.id[:9]) is one
    for ref in ("nowhere", "", "zz", "0" * 64):
        with pytest.raises(NoSuchNetwork, match="not found"):
            networks.get(ref)
    for start in "0123456789abcdef":
        for end in "ab":
            record = networks.plan(NetworkCreate(name=f"{start}{end}-net"), [])
            record.id = start + end * 63
            networks.add(record)
    with pytest.raises(AmbiguousNetwork):
        networks.get(one.id[:1])


def test_a_chosen_subnet_must_be_free() -> None:
    networks = catalog()
    made(networks, "a", ipam=ipam(subnet="10.1.0.0/16"))
    with pytest.raises(SubnetTaken, match=r"Pool overlaps.*network a \(10\.1\.0\.0/16\)"):
        made(networks, "b", ipam=ipam(subnet="10.1.5.0/24"))
    with pytest.raises(SubnetTaken, match="a route or resolver of this host"):
        networks.plan(
            NetworkCreate(name="c", ipam=ipam(subnet="10.2.0.0/16")), [IPv4Network("10.2.3.0/24")]
        )


def test_exhausted_pools_list_who_holds_them() -> None:
    networks = catalog(default_address_pools=[("10.0.0.0/23", 24)])
    made(networks, "a")
    made(networks, "b")
    with pytest.raises(PoolsExhausted, match=r"a \(10\.0\.0\.0/24\), b \(10\.0\.1\.0/24\)"):
        made(networks, "c")


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"name": "bridge"}, PredefinedNetwork),
        ({"name": "host"}, PredefinedNetwork),
        ({"name": ""}, InvalidParameter),
        ({"name": "  "}, InvalidParameter),
        ({"name": "a/b"}, InvalidParameter),
        ({"name": "taken"}, NetworkNameTaken),
        ({"driver": "host"}, OnlyOneInstance),
        ({"driver": "null"}, OnlyOneInstance),
        ({"driver": "overlay"}, NotImplementedYet),
        ({"driver": "macvlan", "options": {"macvlan_mode": "x"}}, InvalidParameter),
        ({"driver": "vxlan"}, InvalidParameter),
        ({"driver": "weave"}, InvalidParameter),
        ({"enable_ipv4": False}, InvalidParameter),
        ({"options": {"com.docker.network.bridge.gateway_mode_ipv4": "x"}}, InvalidParameter),
        (
            {"options": {"com.docker.network.bridge.gateway_mode_ipv6": "isolated"}},
            InvalidParameter,
        ),
        ({"options": {"com.docker.network.host_ipv4": "fd00::1"}}, InvalidParameter),
        ({"config_from": ConfigReference(network="nosuch")}, NoSuchConfiguration),
        ({"config_from": ConfigReference(network="taken")}, NoSuchConfiguration),
        ({"ingress": True}, Forbidden),
        ({"scope": "swarm"}, Forbidden),
        ({"ipam": IPAM(driver="dhcp")}, NotFound),
        ({"ipam": ipam(gateway="10.0.0.1")}, InvalidParameter),
        ({"ipam": ipam(subnet="x")}, InvalidParameter),
        (
            {
                "ipam": IPAM(
                    config=[IPAMConfig(subnet="10.1.0.0/24"), IPAMConfig(subnet="10.2.0.0/24")]
                )
            },
            InvalidParameter,
        ),
        ({"options": {"com.docker.network.bridge.name": "way-too-long-name"}}, InvalidParameter),
        ({"options": {"com.docker.network.bridge.name": "a/b"}}, InvalidParameter),
        ({"options": {"com.docker.network.bridge.name": "held"}}, InvalidParameter),
        ({"options": {"com.docker.network.driver.mtu": "big"}}, InvalidParameter),
        ({"options": {"com.docker.network.bridge.enable_icc": "maybe"}}, InvalidParameter),
    ],
)
def test_what_is_refused(request_: dict[str, object], error: type[Exception]) -> None:
    networks = catalog()
    made(networks, "taken", options={"com.docker.network.bridge.name": "held"})
    with pytest.raises(error):
        made(networks, **{"name": "new", **request_})  # type: ignore[arg-type]
    assert len(networks.all()) == 1


def test_ipv6_subnets_are_unique_local_and_follow_each_other() -> None:
    networks = catalog()
    first = made(networks, "a", enable_ipv6=True)
    second = made(networks, "b", enable_ipv6=True, enable_ipv4=False)
    assert [pool.subnet.partition(":")[0][:2] for pool in first.pools] == ["17", "fd"]
    (pool,) = second.pools
    base = IPv6Network(first.pools[1].subnet)
    assert base.prefixlen == 64
    assert base.subnet_of(IPv6Network("fd00::/8"))
    assert IPv6Network(pool.subnet) == IPv6Network((int(base[0]) + 2**64, 64))
    assert pool.gateway == str(IPv6Network(pool.subnet)[1])
    asked = IPAM(config=[IPAMConfig(subnet="fd00:1::/64"), IPAMConfig(subnet="10.1.0.0/24")])
    third = made(networks, "c", enable_ipv6=True, ipam=asked)
    assert [pool.subnet for pool in third.pools] == ["10.1.0.0/24", "fd00:1::/64"]
    assert third.user_subnet6
    fourth = made(networks, "d", ipam=IPAM(config=[IPAMConfig(subnet="fd00:2::/64")]))
    assert [":" in pool.subnet for pool in fourth.pools] == [False]  # not asked for: as Docker


@pytest.mark.parametrize(
    ("config", "present", "expected"),
    [
        ({}, "", ("172.17.0.0/16", "172.17.0.1", "")),
        ({"bip": "10.5.0.9/24"}, "", ("10.5.0.0/24", "10.5.0.9", "")),
        (
            {"bip": "10.5.0.1/24", "fixed_cidr": "10.5.0.128/25"},
            "",
            ("10.5.0.0/24", "10.5.0.1", "10.5.0.128/25"),
        ),
        ({"fixed_cidr": "10.6.0.0/25"}, "", ("10.6.0.0/25", "10.6.0.1", "")),
        ({}, "192.168.7.1/24", ("192.168.7.0/24", "192.168.7.1", "")),
        ({"default_address_pools": [("10.8.0.0/16", 20)]}, "", ("10.8.0.0/20", "10.8.0.1", "")),
    ],
)
def test_the_default_bridge(
    config: dict[str, object], present: str, expected: tuple[str, str, str]
) -> None:
    record = catalog(**config).plan_bridge(None, present, [])
    (pool,) = record.pools
    assert (pool.subnet, pool.gateway, pool.ip_range) == expected
    assert record.options["com.docker.network.bridge.name"] == "teu0"


def test_the_default_bridge_keeps_its_subnet_until_the_host_needs_it() -> None:
    networks = catalog()
    record = networks.plan_bridge(None, "", [IPv4Network("172.17.0.0/16")])
    assert record.pools[0].subnet == "172.18.0.0/16"
    again = networks.plan_bridge(record, "172.18.0.1/16", [IPv4Network("172.17.0.0/16")])
    assert again.pools[0].subnet == "172.18.0.0/16"
    moved = networks.plan_bridge(record, "172.18.0.1/16", [IPv4Network("172.18.7.0/24")])
    assert moved.pools[0].subnet == "172.17.0.0/16"
    assert moved.id == record.id


@pytest.mark.parametrize("bip", ["10.5.0.0/24", "10.5.0.255/24", "10.5.0.1", "ten", "10.0.0.1/31"])
def test_a_bad_bip_is_refused(bip: str) -> None:
    with pytest.raises(InvalidParameter):
        catalog(bip=bip).plan_bridge(None, "", [])
