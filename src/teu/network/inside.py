"""The inner side of an endpoint, whatever its driver: addresses, routes, sysctls in the sandbox."""

from functools import partial
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Final

from teu.errors import InvalidParameter, SystemFailure
from teu.model.network import EndpointRecord
from teu.sys import netlink, netns
from teu.sys.netlink import IPInterface, Netlink
from teu.sys.netlink_socket import Request

_EVERYWHERE: Final = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_IPV6_CONF: Final = Path("/proc/sys/net/ipv6/conf")


def configure(
    endpoint: EndpointRecord, sandbox: Path, inside: Netlink, default_routes: set[int]
) -> None:
    """The link is there and up; now it gets everything else.

    Args: default_routes: IP versions whose packets to everywhere go by this endpoint.
    Raises: OSError, InvalidParameter, SystemFailure.
    """
    link = inside.link(endpoint.link)
    if link is None:
        raise SystemFailure(f"link {endpoint.link} did not appear in {sandbox}")
    if endpoint.address6 or endpoint.sysctls:
        netns.run_inside(sandbox, partial(_set_up_inside, endpoint))
    requests = [netlink.add_address(link.index, one) for one in interfaces(endpoint)]
    inside.run(*requests, *route_requests(endpoint, link.index, default_routes))


def interfaces(endpoint: EndpointRecord) -> list[IPInterface]:
    """The addresses of an endpoint with their prefixes."""
    found = ((endpoint.address, endpoint.prefix), (endpoint.address6, endpoint.prefix6))
    own = [ip_interface(f"{address}/{prefix}") for address, prefix in found if address]
    return own + [ip_interface(one) for one in endpoint.link_locals]


def route_requests(endpoint: EndpointRecord, index: int, versions: set[int]) -> list[Request]:
    """For inside the sandbox: everything of these IP versions goes by this endpoint's link."""
    found = []
    for version, gateway, address in (
        (4, endpoint.gateway, endpoint.address),
        (6, endpoint.gateway6, endpoint.address6),
    ):
        if version not in versions:
            continue
        if endpoint.is_direct and address:
            found.append(netlink.add_route(_EVERYWHERE[version], link_index=index))
        elif gateway:
            found.append(netlink.add_route(_EVERYWHERE[version], gateway=ip_address(gateway)))
    return found


def _set_up_inside(endpoint: EndpointRecord) -> None:
    """In the sandbox, whose new links have IPv6 switched off; then what the user asked for.

    A link's name may contain dots, so the sysctl's own are replaced around it.
    """
    if endpoint.address6:
        (_IPV6_CONF / endpoint.link / "accept_ra").write_text("0")
        (_IPV6_CONF / endpoint.link / "disable_ipv6").write_text("0")
    for name, value in endpoint.sysctls.items():
        kind, key = name.split(f".{endpoint.link}.")
        path = Path("/proc/sys", *kind.split("."), endpoint.link, key)
        try:
            path.write_text(value)
        except OSError as error:
            raise InvalidParameter(f"cannot set {name} to {value}: {error.strerror}") from error
