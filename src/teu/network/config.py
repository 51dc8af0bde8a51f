"""What the daemon's configuration says about networks (dockerd's keys in parentheses)."""

from msgspec import Struct, field


class NetworkConfig(Struct, kw_only=True):
    """Empty strings and 0 mean "find out"."""

    bridge: str = "teu0"
    bip: str = ""  # address of the default bridge with prefix, `172.17.0.1/16`
    fixed_cidr: str = ""  # the part of it that containers get
    ipv6: bool = False  # of the default bridge
    bip6: str = ""  # as `bip`; both count only with `ipv6`
    fixed_cidr_v6: str = ""
    mtu: int = 0  # 0: that of the host's default route
    icc: bool = True
    ip_masq: bool = True
    ip_forward: bool = True
    iptables: bool = True  # False: no firewall rules, so no NAT and no published ports
    default_address_pools: list[tuple[str, int]] = field(default_factory=list)  # (CIDR, size)
    default_host_ip: str = "0.0.0.0"  # (ip) where ports are published without an address
    dns: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    dns_options: list[str] = field(default_factory=list)
    host_gateway_ip: str = ""  # what `host-gateway` stands for; empty: the default bridge
