"""What `network create -o` says of a bridge network, read and checked; and what follows from it."""

import re
from ipaddress import ip_interface, ip_network
from typing import Final

from teu.errors import InvalidParameter
from teu.model.network import NetworkRecord
from teu.network.firewall import ISOLATED, NAT, ROUTED, UNPROTECTED
from teu.network.ipam import parse_address
from teu.sys.netlink import IPInterface

_LINK_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}")
OPTION_NAME: Final = "com.docker.network.bridge.name"
OPTION_ICC: Final = "com.docker.network.bridge.enable_icc"
OPTION_MASQUERADE: Final = "com.docker.network.bridge.enable_ip_masquerade"
OPTION_HOST_IP: Final = "com.docker.network.bridge.host_binding_ipv4"
OPTION_DEFAULT: Final = "com.docker.network.bridge.default_bridge"
OPTION_MTU: Final = "com.docker.network.driver.mtu"
OPTION_MODES: Final = {
    4: "com.docker.network.bridge.gateway_mode_ipv4",
    6: "com.docker.network.bridge.gateway_mode_ipv6",
}
OPTION_SOURCES: Final = {4: "com.docker.network.host_ipv4", 6: "com.docker.network.host_ipv6"}


def option_flag(record: NetworkRecord, option: str, default: bool = True) -> bool:
    """Raises: InvalidParameter."""
    text = record.options.get(option, "").lower()
    if text in ("", "1", "t", "true", "0", "f", "false"):
        return text in ("1", "t", "true") if text else default
    raise InvalidParameter(f"invalid value {text!r} for network option {option}: use true or false")


def option_mtu(record: NetworkRecord) -> int:
    """0 if it is not asked for. Raises: InvalidParameter."""
    text = record.options.get(OPTION_MTU, "") or "0"
    if not text.isdigit() or not (text == "0" or 68 <= int(text) <= 65535):
        raise InvalidParameter(f"invalid value {text!r} for network option {OPTION_MTU}")
    return int(text)


def option_mode(record: NetworkRecord, version: int) -> str:
    """How the network meets the world: nat, nat-unprotected, routed, isolated.

    Raises: InvalidParameter.
    """
    option = OPTION_MODES[version]
    mode = record.options.get(option) or NAT
    if mode not in (NAT, UNPROTECTED, ROUTED, ISOLATED):
        raise InvalidParameter(
            f"unknown gateway mode {mode} in {option}: use {NAT}, {UNPROTECTED}, {ROUTED} or "
            f"{ISOLATED}"
        )
    if mode == ISOLATED and not record.internal:
        raise InvalidParameter(
            f"gateway mode 'isolated' can only be used for an internal network ({option}): "
            "add --internal"
        )
    return mode


def option_sources(record: NetworkRecord) -> tuple[str, ...]:
    """Addresses of the host under which packets leave. Raises: InvalidParameter."""
    found = []
    for version, option in OPTION_SOURCES.items():
        if text := record.options.get(option):
            address = parse_address(text, f"address in {option}")
            if address.version != version:
                raise InvalidParameter(f"{text} in {option} is no IPv{version} address")
            found.append(str(address))
    return tuple(found)


def gateway_interfaces(record: NetworkRecord) -> list[IPInterface]:
    """The bridge's own addresses, those of the gateways; none of an isolated network."""
    networks = ((pool.gateway, ip_network(pool.subnet)) for pool in record.pools)
    return [
        ip_interface(f"{gateway}/{subnet.prefixlen}")
        for gateway, subnet in networks
        if option_mode(record, subnet.version) != ISOLATED
    ]


def check(record: NetworkRecord) -> None:
    """Raises: InvalidParameter for an option that makes no sense."""
    option_mtu(record)
    option_sources(record)
    for version in OPTION_MODES:
        option_mode(record, version)
    for option in (OPTION_ICC, OPTION_MASQUERADE):
        option_flag(record, option)
    if not _LINK_NAME.fullmatch(record.link):
        raise InvalidParameter(
            f"invalid bridge name {record.link!r}: at most 15 letters, digits, '.', '_', '-'"
        )
