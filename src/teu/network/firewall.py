"""Our one nftables table: NAT, published ports, and who may reach whom.

    table inet teu                  (inet teu-BRIDGE when the default bridge has another name)
      set  bridges                  links of our bridge networks
      set  subnets, subnets6        those whose packets leave the host under its address
      map  source, source6          subnet -> the address of the host they leave under instead
      map  port-any, port-any6      protocol . port            -> container's address . port
      map  port-at, port-at6        address . protocol . port  -> container's address . port
      set  open, open6              container's address . protocol . port: published, not translated
      map  from-link, to-link, into-link   link -> chain of that network
      chain user                    THE place for the administrator's own rules; never touched by us
      chain guard                   before connection tracking: no way to the host's 127.0.0.0/8
      chain prerouting, output      published ports, for packets from outside and from the host
      chain forward                 user, then from-LINK, then to-LINK
      chain postrouting             into-LINK, then masquerading to the outside
      chain from-LINK, to-LINK      per network: what leaves it, what may enter it
      chain into-LINK               per network: its own and loopback clients get its address

Publishing a port is one map element. A packet may enter a network when it belongs to a known
connection, was sent to a published port (`ct status dnat`), or comes from the network itself. So a
container's address is of no use to a neighbour who routes to it, and networks are isolated.
Networks in gateway mode `routed` are the exception: there packets keep the container's address,
and published ports are open at that address.

Loopback: `route_localnet` is on for our bridges only, the host's packets to 127.0.0.1 are
translated in `output`, and `prerouting` never translates them: what is published on 127.0.0.1
cannot be reached by a neighbour who sends such a packet (CVE-2020-8558 and its kin). The kernel
routes no answer back to ::1 from another link, so that address is never translated: clients get a
refusal at once and go on to 127.0.0.1.

A drop in somebody else's table cannot be overruled from here (nft(8): an accept is final for one
base chain only): see `foreign_forward_drop`.
"""

import logging
import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from teu.model.network import PublishedPort
from teu.sys.nft import Nft, NftRefused

log = logging.getLogger(__name__)
_CHAINS = ("guard", "prerouting", "output", "postrouting", "forward")
_NETWORK_CHAIN = re.compile(r"(from|to|into)-")
_NETWORK_CHAINS = ("from", "to", "into")
_VXLAN_ID = "@th,96,24"  # after the UDP header (64 bits) and the flags (32). Source: RFC 7348
_FAMILIES = (("ip", ""), ("ip6", "6"))  # nft's word, and the end of the names of its sets
NAT, UNPROTECTED, ROUTED, ISOLATED = "nat", "nat-unprotected", "routed", "isolated"
_OBJECT = re.compile(r"^\t(chain|map|set) (\S+) \{", re.MULTILINE)
_CHAIN_BODY = re.compile(r"^\tchain (\S+) \{\n(.*?)^\t\}", re.MULTILINE | re.DOTALL)
_RULE = re.compile(r"^\t\t(?!type )\S", re.MULTILINE)
_LISTED_TABLE = re.compile(r"^table (\w+) (\S+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_DROPPING_CHAIN = re.compile(r"chain (\S+) \{\s+type filter hook forward [^;]*; policy drop;")


class Tunnel(Struct, frozen=True, kw_only=True):
    """A VXLAN whose packets are only accepted from the peers."""

    ident: int
    port: int
    peers: tuple[str, ...]


class BridgeRules(Struct, frozen=True, kw_only=True):
    """What the firewall must know of one bridge network."""

    link: str
    subnets: tuple[str, ...]
    icc: bool = True
    masquerade: bool = True
    internal: bool = False
    modes: dict[int, str] = field(default_factory=dict)  # IP version -> gateway mode, if not NAT
    sources: tuple[str, ...] = ()  # addresses of the host under which packets leave
    tunnel: Tunnel | None = None

    def mode(self, subnet: str) -> str:
        return self.modes.get(_version(subnet), NAT)


class Firewall:
    """Keeps the kernel's table equal to the bridges and ports it was told. Blocking: use a thread.

    A batch that fails because somebody flushed the table is answered by writing the whole table
    again. Calls from several threads take turns.
    """

    def __init__(self, nft: Nft, default_bridge: str) -> None:
        self.name_after(default_bridge)
        self._nft = nft
        self._lock = threading.RLock()
        self._bridges: dict[str, BridgeRules] = {}
        self._ports: dict[PublishedPort, None] = {}
        self._blocked: set[str] = set()

    def name_after(self, default_bridge: str) -> None:
        """Several daemons on one host have different bridges, and so tables of their own."""
        self.name = "teu" if default_bridge == "teu0" else f"teu-{default_bridge}"
        self.table = f"inet {self.name}"

    def block_foreign_forwarding(self, family: str) -> None:
        """`ip` or `ip6`: the host was no router before we came, and does not become one."""
        with self._lock:
            if family not in self._blocked and self._bridges:
                rule = _blocking_rule(family)
                self._change([f"add rule {self.table} {rule}"])
            self._blocked.add(family)

    def apply(self, bridges: Iterable[BridgeRules], ports: Iterable[PublishedPort]) -> None:
        """Makes the table say exactly this, in one kernel transaction; `user` is left as it is."""
        with self._lock:
            self._bridges = {rules.link: rules for rules in bridges}
            self._ports = dict.fromkeys(ports)
            self._write_all()

    def add_bridge(self, rules: BridgeRules) -> None:
        with self._lock:
            self._bridges[rules.link] = rules
            if rules.tunnel:
                self._write_all()
            else:
                self._change(self._bridge_lines(rules))

    def remove_bridge(self, link: str) -> None:
        """Accepts "not there"."""
        with self._lock:
            rules = self._bridges.pop(link, None)
            if rules and rules.tunnel:
                self._write_all()
            elif rules:
                self._change(self._bridge_removal(rules))

    def add_ports(self, ports: Sequence[PublishedPort]) -> None:
        with self._lock:
            self._ports.update(dict.fromkeys(ports))
            self._change(self._elements("add", ports))

    def remove_ports(self, ports: Sequence[PublishedPort]) -> None:
        """Accepts "not there"."""
        with self._lock:
            gone = [port for port in ports if port in self._ports]
            for port in gone:
                del self._ports[port]
            self._change(self._elements("delete", gone))

    def destroy(self) -> None:
        """Removes the table, the user's chain with it. Accepts "not there"."""
        with self._lock:
            self._bridges, self._ports = {}, {}
            self._nft.run(f"add table {self.table}\ndelete table {self.table}")

    def has_own_rules(self) -> bool:
        """Whether the administrator has rules in our table."""
        text = self._nft.run(f"list chain {self.table} user")
        return any(_RULE.findall(body) for _name, body in _CHAIN_BODY.findall(text))

    def repair(self) -> bool:
        """Writes the table anew if a chain, set or rule of ours is missing; whether it did."""
        with self._lock:
            if self._is_intact():
                return False
            log.warning("table %s was changed from outside; writing it anew", self.table)
            self._write_all()
            return True

    def foreign_forward_drop(self) -> str:
        """`ip filter FORWARD` if a foreign chain drops forwarded packets by default, or empty."""
        for family, table, body in _LISTED_TABLE.findall(self._nft.run("list chains")):
            match = _DROPPING_CHAIN.search(body)
            if match and f"{family} {table}" != self.table:
                return f"{family} {table} {match[1]}"
        return ""

    def _change(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        try:
            self._nft.run("\n".join(lines))
        except NftRefused as error:
            log.warning("table %s is not as expected, writing it anew: %s", self.table, error)
            self._write_all()

    def _write_all(self) -> None:
        self._nft.run("\n".join([*self._clearing(), *self._frame(), *self._content()]))

    def _existing(self) -> list[tuple[str, str]]:
        try:
            return _OBJECT.findall(self._nft.run(f"list table {self.table}"))
        except NftRefused as error:
            if error.missing:
                return []
            raise

    def _is_intact(self) -> bool:
        try:
            text = self._nft.run(f"list table {self.table}")
        except NftRefused as error:
            if error.missing:
                return False
            raise
        rules = [*self._base_rules()]
        for bridge in self._bridges.values():
            rules += _network_rules(bridge)
        wanted = Counter(rule.split(" ", 1)[0] for rule in rules)
        found = Counter(
            {name: len(_RULE.findall(body)) for name, body in _CHAIN_BODY.findall(text)}
        )
        names = {name for _kind, name in _OBJECT.findall(text)}
        return wanted <= found and {*_CHAINS, *_sets(), "user"} <= names

    def _clearing(self) -> list[str]:
        """Deletes what is ours, so that an older version's leftovers do not stand in the way."""
        existing = self._existing()
        chains = [
            name
            for kind, name in existing
            if kind == "chain" and (name in _CHAINS or _NETWORK_CHAIN.match(name))
        ]
        sets = [(kind, name) for kind, name in existing if kind != "chain" and name in _sets()]
        return [
            *(f"flush chain {self.table} {name}" for name in chains),
            *(f"delete {kind} {self.table} {name}" for kind, name in sets),
            *(f"delete chain {self.table} {name}" for name in chains),
        ]

    def _frame(self) -> list[str]:
        table = self.table
        hooks = {
            "guard": "type filter hook prerouting priority raw",
            "prerouting": "type nat hook prerouting priority dstnat",
            "output": "type nat hook output priority -100",
            "postrouting": "type nat hook postrouting priority srcnat",
            "forward": "type filter hook forward priority filter",
        }
        return [
            f"add table {table}",
            f"add chain {table} user",
            *(f"add {kind} {table} {name} {{ {type} }}" for name, (kind, type) in _sets().items()),
            *(
                f"add chain {table} {name} {{ {hook}; policy accept; }}"
                for name, hook in hooks.items()
            ),
            *(f"add rule {table} {rule}" for rule in self._base_rules()),
        ]

    def _base_rules(self) -> list[str]:
        translations = [rule for family, end in _FAMILIES for rule in _translation(family, end)]
        rules = [
            "guard iifname @bridges ip daddr 127.0.0.0/8 drop",
            "prerouting ip daddr 127.0.0.0/8 return",
            *(f"prerouting {rule}" for rule in translations),
            "output ip6 daddr ::1 return",
            *(f"output {rule}" for rule in translations),
            "forward jump user",
            "forward iifname vmap @from-link",
            "forward oifname vmap @to-link",
            "postrouting oifname vmap @into-link",
        ]
        for family, end in _FAMILIES:
            outwards = f"postrouting {family} saddr @subnets{end} oifname != @bridges"
            rules += [
                f"{outwards} snat {family} to {family} saddr map @source{end}",
                f"{outwards} masquerade",
            ]
        rules += self._tunnel_rules()
        return rules + [_blocking_rule(family) for family in sorted(self._blocked)]

    def _content(self) -> list[str]:
        lines = [line for rules in self._bridges.values() for line in self._bridge_lines(rules)]
        return lines + self._elements("add", list(self._ports))

    def _bridge_lines(self, rules: BridgeRules) -> list[str]:
        table, link = self.table, rules.link
        lines = [f"add chain {table} {kind}-{link}" for kind in _NETWORK_CHAINS]
        lines += [f"flush chain {table} {kind}-{link}" for kind in _NETWORK_CHAINS]
        lines += [f"add rule {table} {rule}" for rule in _network_rules(rules)]
        lines += [
            f'add element {table} {kind}-link {{ "{link}" : jump {kind}-{link} }}'
            for kind in _NETWORK_CHAINS
        ]
        lines.append(f'add element {table} bridges {{ "{link}" }}')
        return lines + self._subnet_elements("add", rules)

    def _tunnel_rules(self) -> list[str]:
        """Others may use the same port for tunnels of theirs: only packets with our id count."""
        rules = []
        for tunnel in (one.tunnel for one in self._bridges.values() if one.tunnel):
            match = f"guard udp dport {tunnel.port} {_VXLAN_ID} {tunnel.ident}"
            for family, end in _FAMILIES:
                peers = [peer for peer in tunnel.peers if (":" in peer) == bool(end)]
                known = f"{family} saddr != {{ {', '.join(peers)} }}" if peers else ""
                only = "meta nfproto ipv6" if end else "meta nfproto ipv4"
                rules.append(f"{match} {known or only} drop")
        return rules

    def _bridge_removal(self, rules: BridgeRules) -> list[str]:
        table, link = self.table, rules.link
        lines = [f'delete element {table} bridges {{ "{link}" }}']
        lines += self._subnet_elements("delete", rules)
        lines += [f'delete element {table} {kind}-link {{ "{link}" }}' for kind in _NETWORK_CHAINS]
        for kind in _NETWORK_CHAINS:
            lines += [f"flush chain {table} {kind}-{link}", f"delete chain {table} {kind}-{link}"]
        return lines

    def _subnet_elements(self, verb: str, rules: BridgeRules) -> list[str]:
        lines = []
        for subnet in rules.subnets:
            if rules.internal or not rules.masquerade or rules.mode(subnet) == ROUTED:
                continue
            end = "6" if ":" in subnet else ""
            lines.append(f"{verb} element {self.table} subnets{end} {{ {subnet} }}")
            for source in rules.sources:
                if _version(source) == _version(subnet):
                    element = f"{subnet} : {source}"
                    lines.append(f"{verb} element {self.table} source{end} {{ {element} }}")
        return lines

    def _elements(self, verb: str, ports: Sequence[PublishedPort]) -> list[str]:
        by_map: dict[str, list[str]] = {}
        for port in ports:
            name, element = _element(port)
            by_map.setdefault(name, []).append(element)
        return [
            f"{verb} element {self.table} {name} {{ {', '.join(elements)} }}"
            for name, elements in by_map.items()
        ]


def _version(text: str) -> int:
    """Of an address or subnet."""
    return 6 if ":" in text else 4


def _sets() -> dict[str, tuple[str, str]]:
    """Name -> (set or map, its definition)."""
    found = {"bridges": ("set", "type ifname;")}
    for address, end in (("ipv4_addr", ""), ("ipv6_addr", "6")):
        where = f"{address} . inet_service"
        found |= {
            f"subnets{end}": ("set", f"type {address}; flags interval;"),
            f"source{end}": ("map", f"type {address} : {address}; flags interval;"),
            f"port-any{end}": ("map", f"type inet_proto . inet_service : {where};"),
            f"port-at{end}": ("map", f"type {address} . inet_proto . inet_service : {where};"),
            f"open{end}": ("set", f"type {address} . inet_proto . inet_service;"),
        }
    for kind in _NETWORK_CHAINS:
        found[f"{kind}-link"] = ("map", "type ifname : verdict;")
    return found


def _translation(family: str, end: str) -> tuple[str, str]:
    """Of packets to published ports: at one address of the host, and at any."""
    only = "meta nfproto ipv6" if end else "meta nfproto ipv4"
    there = f"dnat {family} to"
    return (
        f"{only} {there} {family} daddr . meta l4proto . th dport map @port-at{end}",
        f"{only} fib daddr type local {there} meta l4proto . th dport map @port-any{end}",
    )


def _blocking_rule(family: str) -> str:
    only = "meta nfproto ipv6" if family == "ip6" else "meta nfproto ipv4"
    return f"forward {only} iifname != @bridges oifname != @bridges drop"


def _network_rules(rules: BridgeRules) -> list[str]:
    link = rules.link
    within = "accept" if rules.icc else "drop"
    if rules.internal:
        return [
            f'from-{link} oifname != "{link}" drop',
            f'to-{link} iifname "{link}" {within}',
            f"to-{link} drop",
        ]
    from_rules = [f"from-{link} oifname != @bridges ct state invalid drop"]
    return [
        *(from_rules if rules.masquerade else []),
        f"to-{link} ct state established,related accept",
        f"to-{link} ct status dnat accept",
        *(rule for subnet in rules.subnets for rule in _direct_rules(rules, subnet)),
        f'to-{link} iifname "{link}" {within}',
        f"to-{link} drop",
        *(rule for subnet in rules.subnets for rule in _hairpin_rules(link, subnet)),
    ]


def _direct_rules(rules: BridgeRules, subnet: str) -> list[str]:
    """What else may enter in gateway modes other than NAT."""
    link = rules.link
    family, end = _FAMILIES[_version(subnet) == 6]
    match rules.mode(subnet):
        case "routed":
            echo = "icmpv6 type echo-request" if end else "icmp type echo-request"
            return [
                f"to-{link} {family} daddr . meta l4proto . th dport @open{end} accept",
                f"to-{link} {echo} accept",
            ]
        case "nat-unprotected":
            return [f"to-{link} {family} daddr {subnet} iifname != @bridges accept"]
    return []


def _hairpin_rules(link: str, subnet: str) -> list[str]:
    family, end = _FAMILIES[_version(subnet) == 6]
    rules = [f"into-{link} {family} saddr {subnet} ct status dnat masquerade"]
    return rules if end else [f"into-{link} ip saddr 127.0.0.0/8 masquerade", *rules]


def _element(port: PublishedPort) -> tuple[str, str]:
    end = "6" if ":" in port.address else ""
    target = f"{port.address} . {port.port}"
    if not port.host_address:
        return f"open{end}", f"{port.address} . {port.protocol} . {port.port}"
    if port.host_address in ("0.0.0.0", "::"):
        return f"port-any{end}", f"{port.protocol} . {port.host_port} : {target}"
    return f"port-at{end}", f"{port.host_address} . {port.protocol} . {port.host_port} : {target}"
