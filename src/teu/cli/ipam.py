"""Address flags of `network create` as the API's IPAM object.

Ranges, gateways and auxiliary addresses belong to the subnet that contains them.
Source: docker/cli `network/create.go`; texts compared with Docker 28.2.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

from teu.cli.lists import csv_values, pairs
from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.grammar import Options


def ipam_config(options: Options) -> dict[str, Any]:
    """{"Driver", "Config": [{"Subnet", ...}], "Options"}. Raises: Failure with Docker's text."""
    subnets, ranges, gateways = (
        csv_values(options.texts(name)) for name in ("subnet", "ip-range", "gateway")
    )
    if len(subnets) < max(len(ranges), len(gateways)):
        raise Failure("every ip-range or gateway must have a corresponding subnet")
    config: dict[str, dict[str, Any]] = {}
    for subnet in subnets:
        if any(_contains(subnet, other) or _contains(other, subnet) for other in config):
            raise Failure("multiple overlapping subnet configuration is not supported")
        config[subnet] = {"Subnet": subnet, "AuxiliaryAddresses": {}}
    for text in ranges:
        _check_cidr(text)
        _put(config, "IPRange", text, "range", "cannot configure multiple ranges ({}, {}) on the "
             "same subnet ({})")  # fmt: skip
    for text in gateways:
        _put(config, "Gateway", text, "gateway", "cannot configure multiple gateways ({}, {}) for "
             "the same subnet ({})")  # fmt: skip
    for name, address in pairs(options.texts("aux-address")).items():
        owners = [subnet for subnet in subnets if _contains(subnet, address)]
        if not owners:
            raise Failure(f"no matching subnet for aux-address {address}")
        for subnet in owners:
            config[subnet]["AuxiliaryAddresses"][name] = address
    return {
        "Driver": options.text("ipam-driver"),
        "Config": list(config.values()),
        "Options": pairs(options.texts("ipam-opt")),
    }


def _put(config: dict[str, dict[str, Any]], key: str, text: str, what: str, twice: str) -> None:
    owners = [subnet for subnet in config if _contains(subnet, text)]
    if not owners:
        raise Failure(f"no matching subnet for {what} {text}")
    for subnet in owners:
        if key in config[subnet]:
            raise Failure(twice.format(text, config[subnet][key], subnet))
        config[subnet][key] = text


def _network(text: str) -> Any:
    try:
        if "/" not in text:
            raise ValueError
        return ip_network(text, strict=False)
    except ValueError:
        raise Failure(f"invalid subnet: invalid CIDR address: {text}") from None


def _check_cidr(text: str) -> None:
    try:
        if "/" not in text:
            raise ValueError
        ip_interface(text)
    except ValueError:
        raise Failure(f"invalid CIDR address: {text}") from None


def _contains(subnet: str, text: str) -> bool:
    network = _network(subnet)
    if "/" in text:
        _check_cidr(text)
        return ip_interface(text).ip in network
    try:
        return ip_address(text) in network
    except ValueError:
        return False
