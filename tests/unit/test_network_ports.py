"""What a request for published ports means, and which ports clash."""

from collections.abc import Iterator

import pytest

from teu.errors import InvalidParameter
from teu.model.config import PortBinding
from teu.network.ports import PortInUse, PortRequest, PortTable, parse_port_key, requested


@pytest.mark.parametrize(
    ("key", "meaning"),
    [("80/tcp", (80, "tcp")), ("53/UDP", (53, "udp")), ("9", (9, "tcp")), ("1/sctp", (1, "sctp"))],
)
def test_port_keys(key: str, meaning: tuple[int, str]) -> None:
    assert parse_port_key(key) == meaning


@pytest.mark.parametrize(
    "key", ["", "/tcp", "80/", "0/tcp", "65536", "80/icmp", "8O/tcp", "-1", "٣"]
)
def test_bad_port_keys(key: str) -> None:
    if key == "80/":
        assert parse_port_key(key) == (80, "tcp")
        return
    with pytest.raises(InvalidParameter, match="port specification"):
        parse_port_key(key)


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        (PortBinding(), ("0.0.0.0", 0, 0)),
        (PortBinding(host_port="0"), ("0.0.0.0", 0, 0)),
        (PortBinding(host_port="8080"), ("0.0.0.0", 8080, 8080)),
        (PortBinding(host_port="8000-8010"), ("0.0.0.0", 8000, 8010)),
        (PortBinding(host_ip="127.0.0.1", host_port="8080"), ("127.0.0.1", 8080, 8080)),
        (PortBinding(host_ip="0.0.0.0"), ("0.0.0.0", 0, 0)),
    ],
)
def test_bindings(binding: PortBinding, expected: tuple[str, int, int]) -> None:
    (found,) = requested({"80/tcp": [binding]}, (), publish_all=False)
    assert (*found.host_addresses, found.first, found.last) == expected
    assert found.key == "80/tcp"


def test_an_empty_binding_list_means_a_random_port() -> None:
    for empty in ([], None):
        (found,) = requested({"80/tcp": empty}, (), publish_all=False)
        assert (found.first, found.last) == (0, 0)


def test_publish_all_adds_what_is_exposed_and_not_bound() -> None:
    bindings: dict[str, list[PortBinding] | None] = {"80/tcp": [PortBinding(host_port="8080")]}
    assert [one.key for one in requested(bindings, ["80/tcp", "81/udp"], publish_all=False)] == [
        "80/tcp"
    ]
    found = requested(bindings, ["80/tcp", "81/udp"], publish_all=True, default_address="10.0.0.1")
    assert [(one.key, one.first, *one.host_addresses) for one in found] == [
        ("80/tcp", 8080, "10.0.0.1"),
        ("81/udp", 0, "10.0.0.1"),
    ]


def test_fixed_ports_come_before_ranges_before_random_ones() -> None:
    bindings: dict[str, list[PortBinding] | None] = {
        "1/tcp": [PortBinding()],
        "2/tcp": [PortBinding(host_port="9000-9001")],
        "3/tcp": [PortBinding(host_port="9000")],
    }
    keys = [one.key for one in requested(bindings, (), publish_all=False)]
    assert keys == ["3/tcp", "2/tcp", "1/tcp"]


@pytest.fixture
def table() -> Iterator[PortTable]:
    table = PortTable()
    yield table
    table.close()


def ask(table: PortTable, address: str, first: int, last: int = 0, protocol: str = "tcp") -> int:
    request = PortRequest(
        protocol=protocol, port=80, host_addresses=(address,), first=first, last=last or first
    )
    return table.acquire(request, "c1", "web")


def free_port(table: PortTable) -> int:
    return ask(table, "127.0.0.1", 0)


def test_addresses_that_overlap_clash_and_others_do_not(table: PortTable) -> None:
    port = free_port(table)
    assert ask(table, "127.0.0.2", port) == port
    for address in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(PortInUse) as clash:
            ask(table, address, port)
        assert clash.value.holder is not None
        assert clash.value.holder.container_name == "web"
    assert ask(table, "127.0.0.1", port, protocol="udp") == port
    with pytest.raises(PortInUse):
        ask(table, "0.0.0.0", port, protocol="udp")


def test_a_released_port_is_free_and_release_is_idempotent(table: PortTable) -> None:
    port = free_port(table)
    table.release("tcp", "127.0.0.1", port, "somebody-else")
    with pytest.raises(PortInUse):
        ask(table, "127.0.0.1", port)
    table.release("tcp", "127.0.0.1", port, "c1")
    table.release("tcp", "127.0.0.1", port, "c1")
    assert ask(table, "127.0.0.1", port) == port


def test_an_address_that_is_not_ours_is_refused(table: PortTable) -> None:
    with pytest.raises(InvalidParameter, match="cannot assign requested address"):
        ask(table, "203.0.113.9", 20000)


def test_sctp_needs_no_socket(table: PortTable) -> None:
    port = ask(table, "127.0.0.1", 20123, protocol="sctp")
    with pytest.raises(PortInUse):
        ask(table, "127.0.0.1", port, protocol="sctp")
