"""Names inside sandboxes: the resolver on the real kernel, killed, flooded and lied to."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from harness import dns
from netlab import OUTSIDE, Container, Lab, nft, wait_until
from teu.errors import InvalidParameter, SystemFailure
from teu.model.config import EndpointSettings
from teu.model.network import NetworkCreate
from teu.network.service import Live

T = TypeVar("T")
RESOLV_CONF = "/etc/resolv.conf"


async def start(
    lab: Lab, name: str, *networks: str, servers: tuple[str, ...] = (), **asked: Any
) -> Container:
    """A container with names, on the first network as asked and on the others plainly."""
    container = await lab.start(name, network=networks[0], **asked)
    for network in networks[1:]:
        await container.connect(network)
    assert await lab.service.serve_names(container.id, servers)
    return container


async def inside(container: Container, work: Callable[[], T]) -> T:
    return await asyncio.to_thread(container.inside, work)


async def ask(container: Container, name: str, kind: int = dns.A, **options: Any) -> dns.Reply:
    await container.lab.service._names.settled()
    return await inside(container, lambda: dns.ask(name, kind, **options))


def answered(name: str) -> list[str]:
    """Asks again until there is an answer, as every client does."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return dns.ask(name, timeout_s=0.1).records
        except OSError:
            assert time.monotonic() < deadline


async def networks(lab: Lab, *names: str, **asked: Any) -> None:
    for name in names:
        await lab.service.create(NetworkCreate(name=name, **asked))


def resolver(lab: Lab) -> int:
    return lab.service._names.process_id


def test_names_aliases_ids_hosts_and_scopes() -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "front", "back")
        one = await start(lab, "one", "front", aliases=["web", "WWW"])
        two = await start(lab, "two", "front", "back")
        three = await start(lab, "one-more", "back")
        await three.disconnect("back")
        await three.connect("back", aliases=["web"])
        for name in ("one", "ONE", "www", one.id[:12], "one.front", "web.FRONT"):
            assert (await ask(two, name)).records == [one.ip], name
        assert (await ask(two, "web.back")).records == [three.ip]
        assert (await ask(two, "web")).records == [three.ip]  # `back` comes before `front`
        assert (await ask(one, "one")).records == [one.ip]
        assert (await ask(three, "web")).records == [three.ip]
        assert (await ask(one, "two", tcp=True)).records == [two.endpoints["front"].ip_address]
        # known, but not of that kind: an empty answer, not "no such name"
        for kind in (dns.AAAA, dns.TXT, dns.ANY):
            reply = await ask(two, "one", kind)
            assert (reply.rcode, reply.records) == (0, [])
        # of other networks nothing is told
        assert (await ask(one, "one-more")).rcode != 0
        assert (await ask(three, "one.front")).rcode != 0

    Lab().run(scenario)


def test_addresses_have_names() -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "front")
        one = await start(lab, "one", "front", aliases=["web"])
        pointer = ".".join(reversed(one.ip.split("."))) + ".in-addr.arpa"
        assert (await ask(one, pointer, dns.PTR)).records == ["one.front"]

    Lab().run(scenario)


def test_links_and_new_names() -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "front")
        one = await start(lab, "one", "front")
        two = await start(lab, "two", "front", links=["one:store"])
        assert (await ask(two, "store")).records == [one.ip]
        assert (await ask(one, "store")).rcode != 0
        lab.service.rename(one.id, "uno")
        assert (await ask(two, "uno")).records == [one.ip]
        assert (await ask(two, "one")).rcode != 0

    Lab().run(scenario)


def test_a_shared_alias_takes_turns_and_large_answers_go_by_tcp() -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "front")
        members = [await lab.start(network="front", aliases=["pool"]) for _ in range(60)]
        one = await start(lab, "one", "front")
        first = [(await ask(one, "pool", edns=4096)).records[0] for _ in range(60)]
        assert {*first} == {member.ip for member in members}
        cut = await ask(one, "pool")
        assert cut.truncated
        assert cut.size <= 512
        assert {*(await ask(one, "pool", tcp=True)).records} == {*first}
        await members[0].release()
        assert members[0].ip not in (await ask(one, "pool", tcp=True)).records

    Lab().run(scenario)


def test_only_networks_with_names_get_a_resolver() -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start("one")
        assert not await lab.service.serve_names(one.id)
        assert resolver(lab) == 0
        with pytest.raises(InvalidParameter, match="network-scoped alias"):
            await lab.start("two", aliases=["x"])

    Lab().run(scenario)


def test_the_container_may_listen_on_port_53_itself() -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "front")
        one, two = await start(lab, "one", "front"), await start(lab, "two", "front")

        def serve() -> str:
            with dns.server(dns.fixed("192.0.2.7"), ""):
                return str(dns.ask("two").records + dns.ask("x", server=("127.0.0.1", 53)).records)

        assert await inside(one, serve) == str([two.ip, "192.0.2.7"])

    Lab().run(scenario)


def test_names_work_without_nftables(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_commands: str) -> None:
        raise SystemFailure("no nftables here")

    async def scenario(lab: Lab) -> None:
        monkeypatch.setattr("teu.network.names._write_rules", refused)
        await networks(lab, "front")
        one, two = await start(lab, "one", "front"), await start(lab, "two", "front")
        assert (await ask(one, "two")).records == [two.ip]
        assert (await ask(one, "two", tcp=True)).records == [two.ip]

    Lab().run(scenario)


def test_other_names_are_asked_of_the_servers_in_order() -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "front")
        silent = "198.51.100.99"
        one = await start(lab, "one", "front", servers=(silent, OUTSIDE))
        answers = dns.fixed("192.0.2.1", count=40)
        server = dns.server(answers, OUTSIDE)
        seen = lab.from_outside(server.__enter__)
        try:
            reply = await ask(one, "example.org", edns=1400)
            assert reply.records == ["192.0.2.1"] * 40
            assert seen[-1][0] != one.ip  # masqueraded: it went out by the container's own way
            assert (await ask(one, "example.org", tcp=True)).records == ["192.0.2.1"] * 40
            assert (await ask(one, "example.org")).truncated  # 512 bytes are too few
        finally:
            server.__exit__(None, None, None)
        assert (await ask(one, "example.org", timeout_s=9)).rcode == 2

    Lab().run(scenario)


def test_an_internal_network_gets_no_names_from_outside() -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "inner", internal=True)
        await networks(lab, "outer")
        one = await start(lab, "one", "inner", servers=(OUTSIDE,))
        server = dns.server(dns.fixed("192.0.2.1"), OUTSIDE)
        seen = lab.from_outside(server.__enter__)
        try:
            assert (await ask(one, "example.org")).rcode == 2
            assert seen == []
            await one.connect("outer")
            assert (await ask(one, "example.org")).records == ["192.0.2.1"]
            await one.disconnect("outer")
            assert (await ask(one, "example.org")).rcode == 2
        finally:
            server.__exit__(None, None, None)

    Lab().run(scenario)


def test_forged_and_broken_answers_do_not_count() -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "front")
        one = await start(lab, "one", "front", servers=(OUTSIDE,))
        good = dns.fixed("192.0.2.1")
        lies = iter(
            [
                lambda packet: b"\0\0" + good(packet)[2:],  # another id
                lambda packet: good(dns.question("evil.org"))[:40],  # another question
                lambda packet: packet,  # a query, sent back
                lambda packet: b"\xff" * 7,
            ]
        )

        def answer(packet: bytes) -> bytes:
            lie = next(lies, None)
            return lie(packet) if lie else good(packet)

        server = dns.server(answer, OUTSIDE)
        lab.from_outside(server.__enter__)
        try:
            for _ in range(4):
                with pytest.raises(TimeoutError):
                    await ask(one, "example.org", timeout_s=0.15)
            assert (await ask(one, "example.org")).records == ["192.0.2.1"]
        finally:
            server.__exit__(None, None, None)

    Lab().run(scenario)


def test_hostile_packets_do_not_stop_it() -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "front")
        one = await start(lab, "one", "front")

        def attack() -> None:
            junk = [b"", b"\0", b"\xff" * 12, b"\0" * 600, dns.question("a")[:-1], os.urandom(4000)]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect(dns.RESOLVER)
                for packet in junk * 50:
                    sock.send(packet)
            idle = [socket.create_connection(dns.RESOLVER) for _ in range(40)]
            for sock in idle[:20]:
                sock.send(b"\xff\xff" + b"x" * 1000)
            idle[0].send(b"\0")
            for sock in idle:
                sock.close()

        await inside(one, attack)
        before = resolver(lab)
        assert await inside(one, lambda: answered("one")) == [one.ip]
        assert (await ask(one, "one", tcp=True)).records == [one.ip]
        assert resolver(lab) == before

    Lab().run(scenario)


def test_names_outlive_the_daemon_and_its_successor_takes_over() -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "front")
        one, two = await start(lab, "one", "front"), await start(lab, "two", "front")
        process = resolver(lab)
        await lab.close()
        assert (await ask(one, "two")).records == [two.ip]
        await lab.open()
        await lab.service.restore([Live(one.id, "one"), Live(two.id, "deux")])
        assert resolver(lab) == process
        assert (await ask(one, "deux")).records == [two.ip]
        three = await start(lab, "three", "front")
        assert (await ask(one, "three")).records == [three.ip]
        await lab.close()
        await lab.open()
        await lab.service.restore([Live(one.id, "one")])
        await lab.service.reap({one.id})
        assert (await ask(one, "deux")).rcode != 0

    Lab().run(scenario)


@pytest.mark.parametrize("also_daemon", [False, True], ids=["alone", "with the daemon"])
def test_a_killed_resolver_is_back_within_a_second(also_daemon: bool) -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "front")
        one, two = await start(lab, "one", "front"), await start(lab, "two", "front")
        if also_daemon:
            await lab.close()
        process = _resolver_of(lab)
        os.kill(process, signal.SIGKILL)
        began = time.monotonic()
        if also_daemon:
            await lab.open()
            await lab.service.restore([Live(one.id, "one"), Live(two.id, "two")])
        assert await inside(one, lambda: answered("two")) == [two.ip]
        assert time.monotonic() - began < 2  # on a busy machine; half a second on a calm one
        assert resolver(lab) not in (0, process)

    Lab().run(scenario)


def _resolver_of(lab: Lab) -> int:
    """By its command line, as there may be no daemon that knows it."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(lab.exec_root).encode() in words:
                return int(entry.name)
    raise AssertionError("no resolver")


def test_nothing_is_left_when_nobody_needs_it() -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "front")
        one = await start(lab, "one", "front")
        process = resolver(lab)
        await ask(one, "one")

        def open_files() -> int:
            return len(os.listdir(f"/proc/{process}/fd"))

        before = open_files()
        for _ in range(5):
            two = await start(lab, "two", "front")
            await ask(two, "one")
            await two.release()
        wait_until(lambda: open_files() == before)
        await one.release()
        await lab.close()
        wait_until(lambda: not Path(f"/proc/{process}").exists())
        await lab.open()
        assert nft("list", "tables").count("teu-resolver") == 0

    Lab().run(scenario)


def test_thousands_of_lookups_a_second() -> None:
    """The floor is a tenth of what a calm machine does: tests share theirs."""

    async def scenario(lab: Lab) -> None:
        await networks(lab, "front")
        one = await start(lab, "one", "front")
        await start(lab, "two", "front")

        def measure() -> tuple[float, float]:
            packet, times = dns.question("two"), []
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(5)
                sock.connect(dns.RESOLVER)
                for _ in range(3000):
                    began = time.perf_counter()
                    sock.send(packet)
                    sock.recv(512)
                    times.append(time.perf_counter() - began)
            times.sort()
            return len(times) / sum(times), times[len(times) * 99 // 100]

        rate, p99_s = await inside(one, measure)
        assert rate > 2000
        assert p99_s < 0.02

    Lab().run(scenario)


def test_running_containers_move_between_networks() -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "front")
        one = await lab.start("one")
        assert not await lab.service.serve_names(one.id)
        await one.connect("front", aliases=["late"])
        assert await lab.service.serve_names(one.id)
        two = await start(lab, "two", "front")
        assert (await ask(two, "late")).records == [one.endpoints["front"].ip_address]
        assert (await ask(one, "two")).records == [two.ip]
        await one.disconnect("front")
        assert (await ask(two, "late")).rcode != 0
        assert (await ask(one, "two")).rcode != 0

    Lab().run(scenario)


def test_endpoints_tell_their_names() -> None:
    async def scenario(lab: Lab) -> None:
        await networks(lab, "front")
        one = await lab.start("one")
        settings = EndpointSettings(aliases=["web", "one"])
        got = await lab.service.connect(
            one.id, "one", one.sandbox, "front", settings, hostname="host1"
        )
        assert got.dns_names == ["one", "web", one.id[:12], "host1"]

    Lab().run(scenario)
