"""Who is called what on which network: what the daemon told, ready for look-ups.

A container finds what is on its own networks only, in their order. Names are lower case. The
daemon says everything again when it has come anew (`begin` … `end`); what it does not mention
then is dropped at `end`, so that answers go on meanwhile.
"""

from teu.resolver import message


class Member:
    """One endpoint: the names by which others find it, and its addresses."""

    __slots__ = ("addresses", "generation", "names")

    def __init__(self, names: list[str], addresses: list[str], generation: int) -> None:
        self.names = names
        self.addresses = addresses
        self.generation = generation


class Network:
    """The members, and an index of their names that is made anew when one was needed again."""

    __slots__ = ("_by_address", "_by_name", "_is_current", "members", "name")

    def __init__(self, name: str) -> None:
        self.name = name.lower()
        self.members: dict[str, Member] = {}
        self._by_name: dict[str, dict[int, list[bytes]]] = {}
        self._by_address: dict[str, str] = {}
        self._is_current = True

    def changed(self) -> None:
        self._is_current = False

    def records(self, name: str, kind: int) -> list[bytes] | None:
        """Of a name, each time another one first; None if nobody has it."""
        if not self._is_current:
            self._index()
        by_kind = self._by_name.get(name)
        if by_kind is None:
            return None
        found = by_kind.get(kind, [])
        if len(found) > 1:  # by kind: clients ask for A and AAAA by turns
            found.append(found.pop(0))
        return found

    def name_of(self, address: str) -> str | None:
        """`web.mynet`: the first name of who has the address."""
        if not self._is_current:
            self._index()
        return self._by_address.get(address)

    def _index(self) -> None:
        self._by_name, self._by_address = {}, {}
        for member in self.members.values():
            for name in dict.fromkeys(map(str.lower, member.names)):
                by_kind = self._by_name.setdefault(name, {})
                for address in member.addresses:
                    kind = message.AAAA if ":" in address else message.A
                    by_kind.setdefault(kind, []).append(message.address_record(address))
            for address in member.addresses:
                if member.names:
                    self._by_address[address] = f"{member.names[0]}.{self.name}"
        self._is_current = True


class View:
    """What one container sees: its networks by id in order, and its private names (links)."""

    __slots__ = ("links", "networks")

    def __init__(self, networks: list[str], links: dict[str, str]) -> None:
        self.networks = networks
        self.links = {alias.lower(): name.lower() for alias, name in links.items()}


class Table:
    """The loop is single-threaded; nothing here waits."""

    def __init__(self) -> None:
        self._networks: dict[str, Network] = {}
        self._generation = 0

    def begin(self) -> None:
        self._generation += 1

    def end(self) -> None:
        """Forgets what was not said again since `begin`."""
        for ident, network in list(self._networks.items()):
            current = self._generation
            network.members = {
                key: one for key, one in network.members.items() if one.generation == current
            }
            network.changed()
            if not network.members:
                del self._networks[ident]

    def join(
        self, ident: str, name: str, container: str, names: list[str], addresses: list[str]
    ) -> None:
        network = self._networks.get(ident)
        if network is None:
            network = self._networks[ident] = Network(name)
        network.members[container] = Member(names, addresses, self._generation)
        network.changed()

    def leave(self, ident: str, container: str) -> None:
        network = self._networks.get(ident)
        if network is None:
            return
        network.members.pop(container, None)
        network.changed()
        if not network.members:
            del self._networks[ident]

    def lookup(self, view: View, name: str, kind: int) -> list[bytes] | None:
        """The records; empty where the name is known but has none of that kind; None where it is
        not ours to answer."""
        if kind == message.PTR:
            owner = self._reverse(view, name)
            return None if owner is None else [message.name_record(owner)]
        name = view.links.get(name, name)
        networks = [self._networks[one] for one in view.networks if one in self._networks]
        for network in networks:
            if (found := network.records(name, kind)) is not None:
                return found
        for network in networks:
            host = name.removesuffix(f".{network.name}")
            if host == name:
                continue
            if (found := network.records(view.links.get(host, host), kind)) is not None:
                return found
        return None

    def _reverse(self, view: View, name: str) -> str | None:
        address = message.reversed_address(name)
        if address is None:
            return None
        for ident in view.networks:
            network = self._networks.get(ident)
            if network and (found := network.name_of(address)):
                return found
        return None
