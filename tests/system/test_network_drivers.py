"""macvlan, ipvlan and vxlan: on the lab's LAN, and between two hosts."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from harness import dns
from netlab import HOST, OUTSIDE, UPLINK, Container, Lab, ask, links, listener, nft, serving, sh
from teu.errors import Forbidden, InvalidParameter, NotImplementedYet, SystemFailure
from teu.ids import new_id
from teu.model.config import EndpointSettings
from teu.model.network import IPAM, IPAMConfig, NetworkCreate
from teu.network.service import NetworkConfig, NetworkService
from teu.store.db import Database

T = TypeVar("T")
LAN = IPAMConfig(subnet="198.51.100.0/24", gateway=OUTSIDE, ip_range="198.51.100.64/26")


async def make(lab: Lab, driver: str, name: str = "net", **options: str) -> None:
    """A network on the lab's LAN; the test is skipped where the kernel has no such links."""
    settings = {"parent": UPLINK, **options}
    ipam = IPAM(config=[LAN]) if name == "net" else None
    request = NetworkCreate(name=name, driver=driver, options=settings, ipam=ipam)
    await lab.service.create(request)


async def plug(lab: Lab, name: str) -> Container:
    try:
        return await lab.start(name, network="net")
    except SystemFailure as error:
        if "Unknown device type" in error.message or "not supported" in error.message:
            pytest.skip("this kernel has no such links")
        raise


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("macvlan", {}),
        ("macvlan", {"macvlan_mode": "bridge"}),
        ("ipvlan", {}),
        ("ipvlan", {"ipvlan_mode": "l3"}),
    ],
)
def test_containers_are_stations_of_the_lan(driver: str, options: dict[str, str]) -> None:
    async def scenario(lab: Lab) -> None:
        await make(lab, driver, **options)
        one, two = await plug(lab, "one"), await plug(lab, "two")
        direct = options.get("ipvlan_mode") == "l3"
        assert one.ip == "198.51.100.64"
        assert one.endpoints["net"].gateway == ("" if direct else OUTSIDE)
        route = one.inside(lambda: sh("ip", "route", "show", "default"))
        assert route.startswith("default dev eth0" if direct else f"default via {OUTSIDE}")
        with one.serve(80):
            assert two.ask(one.ip, 80) == two.ip
            if not direct:  # the LAN knows no route to l3
                assert lab.from_outside(lambda: ask(one.ip, 80)) == OUTSIDE
        if not direct:
            with serving(lambda: lab.from_outside(lambda: listener(53))):
                assert one.ask(OUTSIDE, 53) == one.ip
        assert await lab.service.publish(one.id, "one", "net", {"80/tcp": None}) == {}
        assert await lab.service.serve_names(one.id)
        found = await asyncio.to_thread(one.inside, lambda: dns.ask("two"))
        assert found.records == [two.ip]
        await two.disconnect("net")
        assert "eth0" not in two.inside(lambda: sh("ip", "link"))
        await lab.restart()
        assert lab.service.get("net").driver == driver

    Lab().run(scenario)


def test_parents_are_shared_by_nobody_and_made_where_they_can_be() -> None:
    async def scenario(lab: Lab) -> None:
        await make(lab, "macvlan")
        with pytest.raises(Forbidden, match="network net is already using parent interface up0"):
            await make(lab, "macvlan", "other")
        with pytest.raises(InvalidParameter, match="no such link"):
            await make(lab, "macvlan", "other", parent="nosuch0")
        with pytest.raises(InvalidParameter, match="macvlan mode"):
            await make(lab, "macvlan", "other", parent="up1", macvlan_mode="x")
        with pytest.raises(InvalidParameter, match="ipvlan mode"):
            await make(lab, "ipvlan", "other", parent="up1", ipvlan_mode="l4")
        await lab.service.remove("net")
        assert UPLINK in links()
        with pytest.raises(NotImplementedYet, match="vxlan"):
            await lab.service.create(NetworkCreate(name="o", driver="overlay"))

    Lab().run(scenario)


class FarHost:
    """A second engine, on the machine outside: a thread of its own in that namespace."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._loop = asyncio.new_event_loop()
        self.service: NetworkService
        lab.from_outside(self._start)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()  # inherits the namespace

    async def do(self, work: Callable[[], Awaitable[T]]) -> T:
        async def call() -> T:
            return await work()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), self._loop))

    async def open(self) -> None:
        async def work() -> None:
            self.db = Database(self._lab.root / "far.db")
            config = NetworkConfig(bip="172.30.0.1/16", bridge="tfar0")
            self.service = NetworkService(self.db, self._lab.root / "far", config)
            await self.service.start()

        await self.do(work)

    async def close(self) -> None:
        async def work() -> None:
            await self.service.destroy()
            await self.service.stop()
            self.db.close()

        await self.do(work)
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join, 5)
        self._loop.close()


def mesh(peer: str, part: str, **more: str) -> NetworkCreate:
    pool = IPAMConfig(subnet="10.50.0.0/16", ip_range=part)
    options = {"vxlan.id": "42", "vxlan.peers": peer, **more}
    return NetworkCreate(name="mesh", driver="vxlan", options=options, ipam=IPAM(config=[pool]))


def test_one_network_over_two_hosts() -> None:
    async def scenario(lab: Lab) -> None:
        far = FarHost(lab)
        await far.open()
        try:
            await far.do(lambda: far.service.create(mesh(HOST, "10.50.2.0/24")))
            await lab.service.create(mesh(OUTSIDE, "10.50.1.0/24"))
            one = await lab.start("one", network="mesh")
            two = Container(lab, new_id(), "two")

            async def start_two() -> EndpointSettings:
                two.sandbox = await far.service.open_sandbox(two.id)
                return await far.service.connect(
                    two.id, "two", two.sandbox, "mesh", EndpointSettings()
                )

            two.endpoints["mesh"] = await far.do(start_two)
            assert (one.ip, two.ip) == ("10.50.1.0", "10.50.2.0")
            with two.serve(80), one.serve(81):
                assert one.ask(two.ip, 80) == one.ip
                assert two.ask(one.ip, 81) == two.ip
            assert "mtu 1450" in one.inside(lambda: sh("ip", "link", "show", "eth0"))
            big = one.inside(lambda: sh("ping", "-c1", "-W2", "-s1422", "-Mdo", two.ip))
            assert "1 received" in big
            # each uses its own host as the gateway
            with serving(lambda: lab.from_outside(lambda: listener(53))):
                assert one.ask(OUTSIDE, 53) == HOST
            with serving(lambda: listener(54)):
                assert two.ask(HOST, 54) == OUTSIDE
        finally:
            await far.close()

    Lab().run(scenario)


def test_strangers_cannot_send_into_a_vxlan() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.service.create(mesh("198.51.100.9", "10.50.1.0/24"))
        one = await lab.start("one", network="mesh")
        link = f"vx-{lab.service.get('mesh').id[:12]}"
        frame = bytes(6) + bytes.fromhex("0a0000000001") + b"\x08\x06" + bytes(46)
        packet = bytes.fromhex("0800000000002a00") + frame

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(packet, (HOST, 4789))

        def received() -> str:
            return sh("ip", "-s", "link", "show", link).split("RX:")[1].split("TX:")[0]

        before = received()
        lab.from_outside(send)
        sh("ping", "-c1", "-W1", OUTSIDE)
        assert received() == before
        assert "drop" in nft("list", "chain", "inet", lab.table, "guard")
        await one.release()
        await lab.service.remove("mesh")
        assert "@th" not in nft("list", "chain", "inet", lab.table, "guard")
        assert link not in links()

    Lab().run(scenario)


@pytest.mark.parametrize(
    "options",
    [
        {"vxlan.id": ""},
        {"vxlan.id": "0"},
        {"vxlan.id": "16777216"},
        {"vxlan.id": "x"},
        {"vxlan.peers": "x"},
        {"vxlan.peers": "192.0.2.1,fd00::1"},
        {"vxlan.port": "70000"},
        {"vxlan.local": "fd00::1"},
    ],
)
def test_bad_options_of_a_vxlan(options: dict[str, str]) -> None:
    async def scenario(lab: Lab) -> None:
        with pytest.raises(InvalidParameter):
            await lab.service.create(mesh(OUTSIDE, "10.50.1.0/24", **options))
        assert not [link for link in links() if link.startswith(("vx-", "br-"))]

    Lab().run(scenario)
