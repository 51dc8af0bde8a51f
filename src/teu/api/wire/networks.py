"""How networks are answered: `Network` of API 1.51."""

from typing import Any

import msgspec

from teu import clock
from teu.container.container import Container
from teu.model.network import NetworkRecord


def shown(network: NetworkRecord, containers: list[Container] | None) -> dict[str, Any]:
    """`containers`: those that run on it (None in lists, as Docker leaves them out there)."""
    asked = network.config.ipam if network.config else None
    pools = (asked.config or []) if asked else network.pools
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": clock.format_ns(network.created_ns),
        "Scope": network.scope,
        "Driver": network.driver,
        "EnableIPv4": network.enable_ipv4,
        "EnableIPv6": network.enable_ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": network.ipam_options,
            "Config": [msgspec.to_builtins(pool) for pool in pools],
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": network.config_from},
        "ConfigOnly": network.config_only,
        "Containers": {c.id: endpoint(c, network.name) for c in containers or []},
        "Options": network.options,
        "Labels": network.labels,
    }


def endpoint(container: Container, network_name: str) -> dict[str, str]:
    """`NetworkContainer`."""
    settings = container.record.networks[network_name]
    address = f"{settings.ip_address}/{settings.ip_prefix_len}" if settings.ip_address else ""
    address6 = settings.global_ipv6_address
    return {
        "Name": container.name,
        "EndpointID": settings.endpoint_id,
        "MacAddress": settings.mac_address,
        "IPv4Address": address,
        "IPv6Address": f"{address6}/{settings.global_ipv6_prefix_len}" if address6 else "",
    }
