"""Our one nftables table: NAT, published ports, and who may reach whom.

    table inet teu                  (inet teu-BRIDGE when the default bridge has another name)
      set  bridges                  links of our bridge networks
      set  subnets                  those whose packets leave the host under its address
      map  port-any                 protocol . port            -> container's address . port
      map  port-at                  address . protocol . port  -> container's address . port
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

Loopback: `route_localnet` is on for our bridges only, the host's packets to 127.0.0.1 are
translated in `output`, and `prerouting` never translates them: what is published on 127.0.0.1
cannot be reached by a neighbour who sends such a packet (CVE-2020-8558 and its kin).

A drop in somebody else's table cannot be overruled from here (nft(8): an accept is final for one
base chain only): see `foreign_forward_drop`.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from teu.model.network import PublishedPort
from teu.sys.nft import Nft, NftRefused

log = logging.getLogger(__name__)
_CHAINS = ("guard", "prerouting", "output", "postrouting", "forward")
_NETWORK_CHAIN = re.compile(r"(from|to|into)-")
_SETS = ("bridges", "subnets", "port-any", "port-at", "from-link", "to-link", "into-link")
_OBJECT = re.compile(r"^\t(chain|map|set) (\S+) \{", re.MULTILINE)
_CHAIN_BODY = re.compile(r"^\tchain (\S+) \{\n(.*?)^\t\}", re.MULTILINE | re.DOTALL)
_RULE = re.compile(r"^\t\t(?!type )\S", re.MULTILINE)
_LISTED_TABLE = re.compile(r"^table (\w+) (\S+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_DROPPING_CHAIN = re.compile(r"chain (\S+) \{\s+type filter hook forward [^;]*; policy drop;")


class BridgeRules(Struct, frozen=True, kw_only=True):
    """What the firewall must know of one bridge network."""

    link: str
    subnet: str
    icc: bool = True
    masquerade: bool = True
    internal: bool = False


class Firewall:
    """Keeps the kernel's table equal to the bridges and ports it was told. Blocking: use a thread.

    A batch that fails because somebody flushed the table is answered by writing the whole table
    again. Calls are serialized by the owner.
    """

    def __init__(self, nft: Nft, default_bridge: str) -> None:
        self.name_after(default_bridge)
        self._nft = nft
        self._bridges: dict[str, BridgeRules] = {}
        self._ports: dict[PublishedPort, None] = {}
        self.blocks_foreign_forwarding = False  # the host was no router before we came

    def name_after(self, default_bridge: str) -> None:
        """Several daemons on one host have different bridges, and so tables of their own."""
        self.name = "teu" if default_bridge == "teu0" else f"teu-{default_bridge}"
        self.table = f"inet {self.name}"

    def apply(self, bridges: Iterable[BridgeRules], ports: Iterable[PublishedPort]) -> None:
        """Makes the table say exactly this, in one kernel transaction; `user` is left as it is."""
        self._bridges = {rules.link: rules for rules in bridges}
        self._ports = dict.fromkeys(ports)
        self.apply_again()

    def apply_again(self) -> None:
        """Writes the whole table anew, for example after somebody flushed the rule set."""
        self._nft.run("\n".join([*self._clearing(), *self._frame(), *self._content()]))

    def add_bridge(self, rules: BridgeRules) -> None:
        self._bridges[rules.link] = rules
        self._change(self._bridge_lines(rules))

    def remove_bridge(self, link: str) -> None:
        """Accepts "not there"."""
        if rules := self._bridges.pop(link, None):
            self._change(self._bridge_removal(rules))

    def add_ports(self, ports: Sequence[PublishedPort]) -> None:
        self._ports.update(dict.fromkeys(ports))
        self._change(self._elements("add", ports))

    def remove_ports(self, ports: Sequence[PublishedPort]) -> None:
        """Accepts "not there"."""
        gone = [port for port in ports if port in self._ports]
        for port in gone:
            del self._ports[port]
        self._change(self._elements("delete", gone))

    def destroy(self) -> None:
        """Removes the table, the user's chain with it. Accepts "not there"."""
        self._bridges, self._ports = {}, {}
        self._nft.run(f"add table {self.table}\ndelete table {self.table}")

    def repair(self) -> bool:
        """Writes the table anew if a chain, set or rule of ours is missing; whether it did."""
        if self._is_intact():
            return False
        log.warning("table %s was changed from outside; writing it anew", self.table)
        self.apply_again()
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
            self.apply_again()

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
        return wanted <= found and {*_CHAINS, *_SETS, "user"} <= names

    def _clearing(self) -> list[str]:
        """Deletes what is ours, so that an older version's leftovers do not stand in the way."""
        existing = self._existing()
        chains = [
            name
            for kind, name in existing
            if kind == "chain" and (name in _CHAINS or _NETWORK_CHAIN.match(name))
        ]
        sets = [(kind, name) for kind, name in existing if kind != "chain" and name in _SETS]
        return [
            *(f"flush chain {self.table} {name}" for name in chains),
            *(f"delete {kind} {self.table} {name}" for kind, name in sets),
            *(f"delete chain {self.table} {name}" for name in chains),
        ]

    def _frame(self) -> list[str]:
        table = self.table
        where = "ipv4_addr . inet_service"
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
            f"add set {table} bridges {{ type ifname; }}",
            f"add set {table} subnets {{ type ipv4_addr; flags interval; }}",
            f"add map {table} port-any {{ type inet_proto . inet_service : {where}; }}",
            f"add map {table} port-at {{ type ipv4_addr . inet_proto . inet_service : {where}; }}",
            *(f"add map {table} {name} {{ type ifname : verdict; }}" for name in _SETS[4:]),
            *(
                f"add chain {table} {name} {{ {hook}; policy accept; }}"
                for name, hook in hooks.items()
            ),
            *(f"add rule {table} {rule}" for rule in self._base_rules()),
        ]

    def _base_rules(self) -> list[str]:
        at = "dnat ip to ip daddr . meta l4proto . th dport map @port-at"
        anywhere = "fib daddr type local dnat ip to meta l4proto . th dport map @port-any"
        rules = [
            "guard iifname @bridges ip daddr 127.0.0.0/8 drop",
            "prerouting ip daddr 127.0.0.0/8 return",
            f"prerouting {at}",
            f"prerouting {anywhere}",
            f"output {at}",
            f"output {anywhere}",
            "forward jump user",
            "forward iifname vmap @from-link",
            "forward oifname vmap @to-link",
            "postrouting oifname vmap @into-link",
            "postrouting ip saddr @subnets oifname != @bridges masquerade",
        ]
        if self.blocks_foreign_forwarding:
            rules.append("forward iifname != @bridges oifname != @bridges drop")
        return rules

    def _content(self) -> list[str]:
        lines = [line for rules in self._bridges.values() for line in self._bridge_lines(rules)]
        return lines + self._elements("add", list(self._ports))

    def _bridge_lines(self, rules: BridgeRules) -> list[str]:
        table, link = self.table, rules.link
        lines = [f"add chain {table} {kind}-{link}" for kind in ("from", "to", "into")]
        lines += [f"flush chain {table} {kind}-{link}" for kind in ("from", "to", "into")]
        lines += [f"add rule {table} {rule}" for rule in _network_rules(rules)]
        lines += [
            f'add element {table} {kind}-link {{ "{link}" : jump {kind}-{link} }}'
            for kind in ("from", "to", "into")
        ]
        lines.append(f'add element {table} bridges {{ "{link}" }}')
        if rules.masquerade and not rules.internal:
            lines.append(f"add element {table} subnets {{ {rules.subnet} }}")
        return lines

    def _bridge_removal(self, rules: BridgeRules) -> list[str]:
        table, link = self.table, rules.link
        lines = [f'delete element {table} bridges {{ "{link}" }}']
        if rules.masquerade and not rules.internal:
            lines.append(f"delete element {table} subnets {{ {rules.subnet} }}")
        lines += [
            f'delete element {table} {kind}-link {{ "{link}" }}' for kind in ("from", "to", "into")
        ]
        for kind in ("from", "to", "into"):
            lines += [f"flush chain {table} {kind}-{link}", f"delete chain {table} {kind}-{link}"]
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
        f'to-{link} iifname "{link}" {within}',
        f"to-{link} drop",
        f"into-{link} ip saddr 127.0.0.0/8 masquerade",
        f"into-{link} ip saddr {rules.subnet} ct status dnat masquerade",
    ]


def _element(port: PublishedPort) -> tuple[str, str]:
    target = f"{port.address} . {port.port}"
    if port.host_address == "0.0.0.0":
        return "port-any", f"{port.protocol} . {port.host_port} : {target}"
    return "port-at", f"{port.host_address} . {port.protocol} . {port.host_port} : {target}"
