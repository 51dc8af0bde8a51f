"""Options of one endpoint: what `--network name=…,driver-opt=…` and `--link-local-ip` may say."""

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_interface
from typing import Final

from teu.errors import InvalidParameter
from teu.model.config import EndpointSettings
from teu.model.network import EndpointRecord, NetworkRecord
from teu.network.endpoints import free_link_name
from teu.network.ipam import parse_address

OPTION_PREFIX: Final = "com.docker.network.container_iface_prefix"  # of the network
OPTION_LINK: Final = "com.docker.network.endpoint.ifname"
OPTION_SYSCTLS: Final = "com.docker.network.endpoint.sysctls"
_PREFIXES: Final = {4: 16, 6: 64}  # of link-local networks
_LINK_NAME: Final = re.compile(r"[^\s/:]{1,15}")
_SYSCTL: Final = re.compile(r"(net\.(?:ipv4|ipv6|mpls)\.(?:conf|neigh)\.)IFNAME(\.\w+)=([^,=\s]+)")


def apply(
    record: EndpointRecord,
    network: NetworkRecord,
    settings: EndpointSettings,
    others: Iterable[EndpointRecord],
) -> None:
    """Fills in the link's name inside, its sysctls and link-local addresses.

    `others` are the container's other endpoints. Raises: InvalidParameter.
    """
    options = settings.driver_opts or {}
    others = list(others)
    record.link = _link_name(options, network, others)
    record.sysctls = dict(_sysctls(options.get(OPTION_SYSCTLS, ""), record.link))
    asked = (settings.ipam_config.link_local_ips if settings.ipam_config else None) or []
    record.link_locals = [_link_local(text) for text in asked]


def _link_name(
    options: Mapping[str, str], network: NetworkRecord, others: list[EndpointRecord]
) -> str:
    asked = options.get(OPTION_LINK)
    if not asked:
        return free_link_name(network.options.get(OPTION_PREFIX) or "eth", others)
    if not _LINK_NAME.fullmatch(asked) or asked in (".", "..", "lo"):
        raise InvalidParameter(f"invalid interface name {asked!r} in {OPTION_LINK}")
    if asked in {one.link for one in others}:
        raise InvalidParameter(f"the container already has an interface {asked} ({OPTION_LINK})")
    return asked


def _sysctls(text: str, link: str) -> Iterable[tuple[str, str]]:
    for entry in filter(None, text.split(",")):
        match = _SYSCTL.fullmatch(entry.strip())
        if match is None:
            raise InvalidParameter(
                f"unrecognised network interface sysctl {entry!r}: use "
                "net.ipv4.conf.IFNAME.NAME=VALUE, where IFNAME stands for the interface"
            )
        yield f"{match[1]}{link}{match[2]}", match[3]


def _link_local(text: str) -> str:
    address = parse_address(text, "link-local address")
    if not address.is_link_local:
        raise InvalidParameter(f"invalid link-local address {text}: not in 169.254/16 or fe80::/10")
    return str(ip_interface(f"{address}/{_PREFIXES[address.version]}"))
