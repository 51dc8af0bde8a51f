"""Networks and endpoints as they are asked for and as they are stored.

CNM's words: a *sandbox* is a container's network namespace, an *endpoint* its plug on one network,
a *network* what endpoints meet on, a *driver* what makes a network real, *IPAM* who hands out
addresses.
"""

from msgspec import Struct, field

from teu.model.config import Wire

BRIDGE, HOST, NONE = "bridge", "host", "none"  # the networks every daemon has, by name
PREDEFINED = (BRIDGE, HOST, NONE)
SHORT_ID = 12  # characters of a container's id that are also a name of it
VXLAN, MACVLAN, IPVLAN = "vxlan", "macvlan", "ipvlan"  # drivers, beside BRIDGE and HOST
NULL_DRIVER = "null"  # the driver of the network `none`


class IPAMConfig(Wire, omit_defaults=True):
    """One address pool: `subnet` in CIDR, `ip_range` the part to hand out, both may be empty."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    aux_addresses: dict[str, str] | None = None


class IPAM(Wire):
    driver: str = "default"
    config: list[IPAMConfig] | None = None
    options: dict[str, str] | None = None


class ConfigReference(Wire):
    network: str = ""


class NetworkCreate(Wire):
    """The body of `POST /networks/create`."""

    name: str = ""
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    ipam: IPAM | None = None
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class NetworkRecord(Struct, kw_only=True):
    """One row of the `network` table. Pools have subnet and gateway filled in."""

    id: str
    name: str
    created_ns: int
    driver: str
    scope: str = "local"
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    pools: list[IPAMConfig] = field(default_factory=list)
    user_subnet: bool = False  # asked for by name: only then may a container choose its address
    user_subnet6: bool = False
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    ipam_options: dict[str, str] | None = None
    config: NetworkCreate | None = None  # what a configuration-only network stands for
    config_from: str = ""  # the name of such a network that this one was made from
    link: str = ""  # the bridge's interface name; that of the parent of macvlan and ipvlan
    link_is_ours: bool = True  # made by us, so removed with the network

    def pool(self, version: int) -> IPAMConfig | None:
        """Of IPv4 (4) or IPv6 (6); None where the network has none."""
        colon = version == 6
        return next((one for one in self.pools if (":" in one.subnet) == colon), None)

    @property
    def is_bridged(self) -> bool:
        """Its containers meet on a bridge of this host, behind our firewall."""
        return self.driver in (BRIDGE, VXLAN)

    @property
    def config_only(self) -> bool:
        """Nothing but settings for other networks; no container can be on it."""
        return self.config is not None

    @property
    def has_names(self) -> bool:
        """Whether containers find each other by name: on all networks but the predefined ones."""
        return self.name not in PREDEFINED


class PublishedPort(Struct, frozen=True):
    """One way from the host in. `host_address` 0.0.0.0 means every address of the host."""

    protocol: str
    host_address: str
    host_port: int
    address: str
    port: int


class EndpointRecord(Struct, kw_only=True):
    """One row of the `endpoint` table: written before the kernel is touched, removed after."""

    id: str
    network_id: str
    container_id: str
    container_name: str
    address: str = ""  # without prefix; empty for host and none
    prefix: int = 0
    gateway: str = ""
    mac: str = ""
    host_link: str = ""
    link: str = ""  # the interface's name inside
    gw_priority: int = 0
    aliases: list[str] = field(default_factory=list)
    ports: list[PublishedPort] = field(default_factory=list)
    hostname: str = ""
    links: list[str] = field(default_factory=list)  # `NAME:ALIAS`, for this container only
    address6: str = ""  # as `address`, `prefix` and `gateway`; empty without IPv6
    prefix6: int = 0
    gateway6: str = ""
    is_direct: bool = False  # packets to everywhere need no gateway (ipvlan l3)
    link_locals: list[str] = field(default_factory=list)  # more addresses, chosen by the user
    sysctls: dict[str, str] = field(default_factory=dict)  # `net.ipv4.conf.eth0.forwarding`

    @property
    def names(self) -> list[str]:
        """By which others on a user-defined network find the container, its own name first."""
        own = [self.container_name, *self.aliases, self.container_id[:SHORT_ID], self.hostname]
        return list(dict.fromkeys(name for name in own if name))
