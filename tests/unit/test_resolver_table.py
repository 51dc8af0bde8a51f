"""Who finds whom: scopes, aliases, links, turns, and what is forgotten."""

from teu.resolver import message, resolvconf
from teu.resolver.table import Table, View


def addresses(table: Table, view: View, name: str, kind: int = message.A) -> list[bytes] | None:
    found = table.lookup(view, name, kind)
    return None if found is None else [one[12:] for one in found]


def four(last: int) -> bytes:
    return bytes([10, 0, 0, last])


def table_of_two() -> Table:
    table = Table()
    table.join("n1", "Front", "c1", ["web", "www"], ["10.0.0.2", "fd00::2"])
    table.join("n1", "Front", "c2", ["web2", "www"], ["10.0.0.3"])
    table.join("n2", "back", "c3", ["web", "db"], ["10.0.0.4"])
    return table


def test_a_network_knows_its_own_only() -> None:
    table = table_of_two()
    assert addresses(table, View(["n1"], {}), "web") == [four(2)]
    assert addresses(table, View(["n2"], {}), "web") == [four(4)]
    assert addresses(table, View(["n1"], {}), "db") is None
    assert addresses(table, View([], {}), "web") is None


def test_the_first_network_counts_and_a_suffix_chooses() -> None:
    table = table_of_two()
    view = View(["n2", "n1"], {})
    assert addresses(table, view, "web") == [four(4)]
    assert addresses(table, view, "web.front") == [four(2)]
    assert addresses(table, view, "web.back") == [four(4)]
    assert addresses(table, View(["n1"], {}), "db.back") is None
    assert addresses(table, view, "front") is None


def test_a_shared_alias_takes_turns() -> None:
    table = table_of_two()
    table.join("n1", "Front", "c4", ["www"], ["10.0.0.4", "fd00::4"])
    view, first = View(["n1"], {}), []
    for _ in range(6):
        first.append((addresses(table, view, "www") or [])[0])
        assert len(addresses(table, view, "www", message.AAAA) or []) == 2
    assert first[:3] == first[3:]
    assert {*first} == {four(2), four(3), four(4)}


def test_families_and_other_kinds() -> None:
    table = table_of_two()
    view = View(["n1"], {})
    assert len(addresses(table, view, "web", message.AAAA) or []) == 1
    assert addresses(table, view, "web2", message.AAAA) == []  # known, but has none
    assert addresses(table, view, "web2", 15) == []
    assert addresses(table, view, "nosuch", 15) is None


def test_reverse_is_the_first_name_with_its_network() -> None:
    table = table_of_two()
    found = table.lookup(View(["n1"], {}), "2.0.0.10.in-addr.arpa", message.PTR)
    assert found is not None
    assert found[0].endswith(message.encode_name("web.front"))
    assert table.lookup(View(["n2"], {}), "2.0.0.10.in-addr.arpa", message.PTR) is None


def test_links_are_private() -> None:
    table = table_of_two()
    view = View(["n1"], {"Store": "web2"})
    assert addresses(table, view, "store") == [four(3)]
    assert addresses(table, view, "store.front") == [four(3)]
    assert addresses(table, View(["n1"], {}), "store") is None


def test_who_leaves_is_not_found() -> None:
    table = table_of_two()
    view = View(["n1"], {})
    table.leave("n1", "c1")
    table.leave("n1", "c1")
    table.leave("nosuch", "c1")
    assert addresses(table, view, "web") is None
    assert addresses(table, view, "www") == [four(3)]
    assert table.lookup(view, "2.0.0.10.in-addr.arpa", message.PTR) is None


def test_what_is_not_said_again_is_forgotten_at_the_end_only() -> None:
    table = table_of_two()
    view = View(["n1", "n2"], {})
    table.begin()
    table.join("n1", "Front", "c2", ["web2"], ["10.0.0.9"])
    assert addresses(table, view, "web") == [four(2)]
    table.end()
    assert addresses(table, view, "web") is None
    assert addresses(table, view, "db") is None
    assert addresses(table, view, "web2") == [four(9)]


def test_resolv_conf() -> None:
    text = "; c\nnameserver 10.0.0.1 # x\nsearch a b\ndomain c\noptions ndots:2\noptions edns0\nx"
    assert resolvconf.parse(text) == (["10.0.0.1"], ["c"], ["ndots:2", "edns0"])
    assert resolvconf.parse("nameserver\n\n#nameserver 1.2.3.4") == ([], [], [])
