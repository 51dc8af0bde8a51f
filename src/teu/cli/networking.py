"""`--network` and the older flags around it (`--ip`, `--network-alias`, …) in the API's shape.

Source: docker/cli `opts/network.go`, `container/opts.go`; compared with Docker 28.2.
"""

from __future__ import annotations

from teu.cli.values import csv_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.grammar import Options

_BUILT_IN = frozenset(("default", "bridge", "host", "none"))


def parse_network(text: str) -> dict[str, Any]:
    """One `--network` value: a plain name, or `name=...,alias=...,ip=...`.

    Returns: {"name", "aliases", "ip", "ip6", "link_local", "mac", "options", "priority"}.
    Raises: ValueError with Docker's text.
    """
    network: dict[str, Any] = {
        "name": "", "aliases": [], "ip": "", "ip6": "", "link_local": [], "mac": "",
        "options": {}, "priority": 0,
    }  # fmt: skip
    if "=" not in text:
        network["name"] = text
        return network
    for field in csv_fields(text):
        key, equals, value = field.partition("=")
        if not equals:
            raise ValueError(f"invalid field {field}")
        _set_field(network, key.strip().lower(), value.strip())
    if not network["name"]:
        raise ValueError("network name/id is not specified")
    return network


def _set_field(network: dict[str, Any], key: str, value: str) -> None:
    if key in ("name", "ip", "ip6"):
        network[key] = value
    elif key == "alias":
        network["aliases"].append(value)
    elif key == "mac-address":
        network["mac"] = value
    elif key == "link-local-ip":
        network["link_local"].append(value)
    elif key == "driver-opt":
        name, equals, content = value.partition("=")
        if not equals:
            raise ValueError("invalid key value pair format in driver options")
        network["options"][name.strip().lower()] = content.strip()
    elif key == "gw-priority":
        digits = value[1:] if value[:1] in ("-", "+") else value
        if not digits.isascii() or not digits.isdigit():
            raise ValueError(f"invalid gw-priority ({value}): invalid syntax")
        network["priority"] = int(value)
    else:
        raise ValueError(f"invalid field key {key}")


def endpoints(options: Options, empty: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """All network flags of run and create -> (NetworkMode, EndpointsConfig).

    A single network without settings is named by the mode alone, as Docker does. `empty` is an
    endpoint without settings.
    Raises: ValueError with Docker's text.
    """
    given = options.value("network") or []
    networks = [dict(network) for network in given] or [parse_network("default")]
    _merge_plain_flags(networks[0], options)
    result: dict[str, Any] = {}
    for network in networks:
        endpoint = _endpoint(network, empty)
        name = network["name"]
        if name in result:
            raise ValueError(f'network "{name}" is specified multiple times')
        if len(given) != 1 or _has_settings(network):
            result[name] = endpoint
    if len({is_user_defined(network["name"]) for network in networks}) > 1:
        raise ValueError(
            "conflicting options: cannot attach both user-defined and non-user-defined "
            "network-modes"
        )
    return networks[0]["name"], result


def is_user_defined(name: str) -> bool:
    """False for the built-in modes and `container:ID`."""
    return name not in _BUILT_IN and not name.startswith("container:")


def _merge_plain_flags(network: dict[str, Any], options: Options) -> None:
    """`--network-alias`, `--ip` and so on belong to the first network."""
    for key, flag, label in (
        ("aliases", "network-alias", "alias"),
        ("ip", "ip", "IPv4 address"),
        ("ip6", "ip6", "IPv6 address"),
        ("mac", "mac-address", "MAC address"),
        ("link_local", "link-local-ip", "link-local IP addresses"),
    ):
        value = options.value(flag)
        if not value:
            continue
        if network[key]:
            raise ValueError(
                f"conflicting options: cannot specify both --{flag} and per-network {label}"
            )
        network[key] = value
    if is_user_defined(network["name"]):
        network["links"] = options.texts("link")


def _has_settings(network: dict[str, Any]) -> bool:
    return any(value for key, value in network.items() if key != "name")


def _endpoint(network: dict[str, Any], empty: dict[str, Any]) -> dict[str, Any]:
    if not network["name"].strip():
        raise ValueError("no name set for network")
    if network["aliases"] and not is_user_defined(network["name"]):
        raise ValueError("network-scoped aliases are only supported for user-defined networks")
    if network["mac"] and not _is_mac(network["mac"]):
        raise ValueError(f"{network['mac']} is not a valid mac address")
    ipam = {
        "IPv4Address": network["ip"],
        "IPv6Address": network["ip6"],
        "LinkLocalIPs": network["link_local"],
    }
    ipam = {key: value for key, value in ipam.items() if value}
    return empty | {
        "IPAMConfig": ipam or None,
        "Links": network.get("links") or None,
        "Aliases": network["aliases"] or None,
        "MacAddress": network["mac"],
        "DriverOpts": network["options"] or None,
        "GwPriority": network["priority"],
    }


def _is_mac(text: str) -> bool:
    parts = text.strip().replace("-", ":").split(":")
    digits = frozenset("0123456789abcdefABCDEF")
    return len(parts) in (6, 8, 20) and all(
        len(part) == 2 and digits.issuperset(part) for part in parts
    )
