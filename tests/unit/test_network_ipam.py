"""Subnets and addresses: nothing overlaps, nothing is given twice, everything is used."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teu.errors import InvalidParameter
from teu.model.network import IPAMConfig
from teu.network import ipam


def pool(subnet: str, **more: str) -> ipam.AddressPool:
    return ipam.AddressPool(ipam.complete(IPAMConfig(subnet=subnet, **more)))


subnets = st.builds(
    lambda number, size: IPv4Network((number, size), strict=False),
    st.integers(int(IPv4Address("10.0.0.0")), int(IPv4Address("10.0.15.255"))),
    st.integers(20, 32),
)


@given(taken=st.lists(subnets, max_size=12), size=st.integers(21, 28))
def test_a_free_subnet_overlaps_with_nothing_and_is_the_first_such(
    taken: list[IPv4Network], size: int
) -> None:
    base = IPv4Network("10.0.0.0/20")
    found = ipam.free_subnet([(base, size)], taken)
    free = [
        candidate
        for candidate in base.subnets(new_prefix=size)
        if not any(candidate.overlaps(other) for other in taken)
    ]
    assert found == (free[0] if free else None)


def test_pools_are_used_in_order_and_broad_routes_do_not_count() -> None:
    pools = ipam.parse_pools([("10.0.0.0/23", 24), ("10.9.0.0/24", 24)])
    taken: list[IPv4Network] = [IPv4Network("0.0.0.0/0"), IPv4Network("0.0.0.0/1")]
    seen = []
    while found := ipam.free_subnet(pools, taken):
        seen.append(str(found))
        taken.append(found)
    assert seen == ["10.0.0.0/24", "10.0.1.0/24", "10.9.0.0/24"]


def test_thousands_of_networks_fit_in_the_default_pools() -> None:
    taken = [IPv4Network("172.17.0.0/16")]
    for _ in range(3000):
        found = ipam.free_subnet(ipam.DEFAULT_POOLS, taken)
        assert found is not None
        taken.append(found)
    assert len(set(taken)) == 3001


@given(
    steps=st.lists(st.one_of(st.just(None), st.integers(0, 15)), max_size=60),
    ip_range=st.sampled_from(["", "10.0.0.4/30", "10.0.0.8/29"]),
)
def test_addresses_are_unique_lowest_first_and_come_back(
    steps: list[int | None], ip_range: str
) -> None:
    addresses = pool("10.0.0.0/28", ip_range=ip_range)
    part = IPv4Network(ip_range or "10.0.0.0/28")
    usable = {IPv4Address(f"10.0.0.{last}") for last in range(2, 15)} & set(part)
    held: set[IPv4Address] = set()
    for step in steps:
        if step is None:
            got = addresses.take()
            assert got == min(usable - held, default=None)
            if got:
                held.add(got)
        else:
            address = IPv4Address(f"10.0.0.{step}")
            if address in held:
                addresses.release(address)
                held.discard(address)
            elif addresses.usable(address) and addresses.hold(address):
                assert address != IPv4Address("10.0.0.1")
                held.add(address)
    assert addresses.used == len(held)


def test_reserved_addresses_are_never_handed_out() -> None:
    config = IPAMConfig(
        subnet="10.0.0.0/29", gateway="10.0.0.6", aux_addresses={"a": "10.0.0.2", "b": "10.0.0.3"}
    )
    addresses = ipam.AddressPool(ipam.complete(config))
    assert [str(addresses.take()) for _ in range(4)] == [
        "10.0.0.1", "10.0.0.4", "10.0.0.5", "None",
    ]  # fmt: skip
    assert not addresses.hold(IPv4Address("10.0.0.6"))
    assert not addresses.hold(IPv4Address("10.0.0.2"))
    assert not addresses.usable(IPv4Address("10.0.0.7"))
    assert not addresses.usable(IPv4Address("10.0.0.0"))


@pytest.mark.parametrize(
    "bad",
    [
        IPAMConfig(subnet="10.0.0.0"),
        IPAMConfig(subnet="10.0.0.0/33"),
        IPAMConfig(subnet="10.0.0.0/31"),
        IPAMConfig(subnet="fd00::/127"),
        IPAMConfig(subnet="fd00::/64", gateway="10.0.0.1"),
        IPAMConfig(subnet="fd00::/64", ip_range="10.0.0.0/25"),
        IPAMConfig(subnet="10.0.0.0/24", gateway="10.0.1.1"),
        IPAMConfig(subnet="10.0.0.0/24", gateway="x"),
        IPAMConfig(subnet="10.0.0.0/24", ip_range="10.0.1.0/25"),
        IPAMConfig(subnet="10.0.0.0/24", ip_range="10.0.0.0/23"),
        IPAMConfig(subnet="10.0.0.0/24", aux_addresses={"a": "10.1.0.1"}),
    ],
)
def test_bad_pools_are_refused(bad: IPAMConfig) -> None:
    with pytest.raises(InvalidParameter):
        ipam.complete(bad)


@pytest.mark.parametrize(("base", "size"), [("10.0.0.0/8", 7), ("10.0.0.0/8", 31), ("ten", 24)])
def test_bad_default_pools_are_refused(base: str, size: int) -> None:
    with pytest.raises(InvalidParameter):
        ipam.parse_pools([(base, size)])


def test_mac_follows_the_address() -> None:
    assert ipam.mac_of(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"
