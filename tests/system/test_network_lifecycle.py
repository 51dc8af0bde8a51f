"""Networks over their life: made, removed, daemon restarted with another configuration, broken."""

import asyncio
import time

import pytest

from netlab import HOST, UPLINK, Lab, ask, links, nft, sh, unreachable, wait_until
from teu.errors import EngineError, SystemFailure
from teu.ids import new_id
from teu.model.network import IPAM, IPAMConfig, NetworkCreate
from teu.network.errors import NetworkInUse, NoSuchNetwork, PredefinedNetwork, SubnetTaken
from teu.network.service import Live, NetworkConfig, NetworkService
from teu.store.networks import NetworkNameTaken

BRIDGE_NAME = "com.docker.network.bridge.name"


def test_the_predefined_networks_keep_their_ids_and_cannot_be_removed() -> None:
    async def scenario(lab: Lab) -> None:
        before = {record.name: record.id for record in lab.service.all()}
        assert sorted(before) == ["bridge", "host", "none"]
        await lab.restart()
        assert {record.name: record.id for record in lab.service.all()} == before
        for name in before:
            with pytest.raises(
                PredefinedNetwork, match="pre-defined network and cannot be removed"
            ):
                await lab.service.remove(name)

    Lab().run(scenario)


def test_a_network_is_made_kept_over_restarts_and_removed() -> None:
    async def scenario(lab: Lab) -> None:
        made = await lab.service.create(
            NetworkCreate(
                name="front",
                labels={"a": "b"},
                ipam=IPAM(config=[IPAMConfig(subnet="10.7.0.0/24")]),
            )
        )
        assert "10.7.0.1/24" in sh("ip", "-br", "address", "show", made.link)
        with pytest.raises(NetworkNameTaken, match="network with name front already exists"):
            await lab.service.create(NetworkCreate(name="front"))
        await lab.restart()
        assert lab.service.get(made.id[:12]) == made
        one = await lab.start("web", network="front")
        with pytest.raises(NetworkInUse, match='has active endpoints \\(name:"web" id:"'):
            await lab.service.remove("front")
        await one.release()
        await lab.service.remove("front")
        with pytest.raises(NoSuchNetwork):
            await lab.service.remove("front")
        assert made.link not in links()
        assert made.link not in nft("list", "ruleset")

    Lab().run(scenario)


def test_a_failed_creation_leaves_nothing() -> None:
    async def scenario(lab: Lab) -> None:
        sh("ip", "link", "add", "notbridge", "type", "ifb")
        before = nft("list", "ruleset")
        with pytest.raises(SystemFailure, match="is no bridge"):
            await lab.service.create(NetworkCreate(name="x", options={BRIDGE_NAME: "notbridge"}))
        assert "notbridge" in links()  # it was not ours to remove
        assert len(lab.service.all()) == 3
        assert len(lab.db.rows("SELECT * FROM network")) == 3
        assert nft("list", "ruleset") == before
        with pytest.raises(SubnetTaken, match="a route or resolver of this host"):
            await lab.service.create(
                NetworkCreate(name="x", ipam=IPAM(config=[IPAMConfig(subnet="198.51.0.0/16")]))
            )
        sh("ip", "link", "delete", "notbridge")

    Lab().run(scenario)


def test_a_bridge_that_was_there_before_is_used_and_stays() -> None:
    async def scenario(lab: Lab) -> None:
        sh("ip", "link", "add", "br0", "type", "bridge")
        sh("ip", "address", "add", "192.168.40.1/24", "dev", "br0")
        await lab.service.create(
            NetworkCreate(
                name="old",
                options={BRIDGE_NAME: "br0"},
                ipam=IPAM(config=[IPAMConfig(subnet="10.7.0.0/24")]),
            )
        )
        one = await lab.start(network="old")
        with one.serve(80):
            assert ask(one.ip, 80) == "10.7.0.1"
        await one.release()
        await lab.service.remove("old")
        assert "192.168.40.1/24" in sh("ip", "-br", "address", "show", "br0")
        assert "10.7.0.1" not in sh("ip", "-br", "address", "show", "br0")
        sh("ip", "link", "delete", "br0")

    Lab().run(scenario)


def test_another_bridge_address_waits_for_the_last_container() -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start()
        lab.config.bip, lab.config.bridge = "10.6.0.1/24", "teu9"
        await lab.restart()
        assert one.ip == "172.17.0.2"
        with one.serve(80):
            await one.publish({"80/tcp": ":8080"})
            assert ask(HOST, 8080) == HOST
        two = await lab.start()
        assert two.ip == "172.17.0.3"
        await one.release()
        await two.release()
        await lab.restart()
        assert (await lab.start()).ip == "10.6.0.2"
        assert "teu0" not in links()
        assert nft("list", "tables").split() == ["table", "inet", "teu-teu9"]

    Lab().run(scenario)


def test_no_default_bridge() -> None:
    async def scenario(lab: Lab) -> None:
        assert sorted(record.name for record in lab.service.all()) == ["host", "none"]
        with pytest.raises(NoSuchNetwork):
            await lab.start()
        await lab.service.create(NetworkCreate(name="own"))
        one = await lab.start(network="own")
        with one.serve(80):
            assert ask(one.ip, 80) == one.endpoints["own"].gateway

    Lab(bridge="none").run(scenario)


def test_after_a_reboot_everything_is_made_again() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.service.create(NetworkCreate(name="own"))
        one = await lab.start("one")
        await lab.close()
        for link in ("teu0", *(name for name in links() if name.startswith("br-"))):
            sh("ip", "link", "delete", link)
        nft("flush", "ruleset")
        sh("umount", one.sandbox)
        await lab.open()
        await lab.service.restore([])
        await lab.service.reap(set())
        assert (await lab.start("two")).ip == "172.17.0.2"
        assert (await lab.start("three", network="own")).ip == "172.18.0.2"

    Lab().run(scenario)


def test_a_killed_daemon_leaves_what_the_next_one_needs() -> None:
    """Not stopped, just gone: sockets close, everything else stays as it is at that moment."""

    async def scenario(lab: Lab) -> None:
        keep, lose = await lab.start("keep"), await lab.start("lose")
        await keep.publish({"80/tcp": ":8080"})
        await lose.publish({"80/tcp": ":8081"})
        # In the middle of a start: the row is written, the kernel has not been asked yet.
        orphan = new_id()
        lab.db.write(
            "INSERT INTO endpoint SELECT network_id, ?, replace(record, ?, ?) FROM endpoint "
            "WHERE container_id = ?",
            (orphan, lose.id, orphan, lose.id),
        )
        # In the middle of an end: the namespace is gone, the row is not.
        sh("umount", lose.sandbox)
        await lab.restart()
        await lab.service.restore([Live(keep.id, "keep")])
        await lab.service.reap({keep.id})
        assert len(lab.db.rows("SELECT * FROM endpoint")) == 1
        assert lab.published() == ["tcp . 8080 : 172.17.0.2 . 80"]
        wait_until(lambda: sum(name.startswith("veth") for name in links()) == 1)
        with keep.serve(80):
            assert ask(HOST, 8080) == HOST
        assert unreachable(HOST, 8081)

    Lab().run(scenario)


def test_broken_rows_are_told_and_do_not_stop_the_daemon(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(lab: Lab) -> None:
        one = await lab.start("one")
        lab.db.write("INSERT INTO network VALUES ('f00d', 'broken', '{')")
        lab.db.write("INSERT INTO endpoint VALUES ('beef', 'cafe', '{\"id\": 1}')")
        lab.db.write(
            "INSERT INTO endpoint SELECT 'dead', container_id, replace(record, network_id, 'dead') "
            "FROM endpoint WHERE container_id = ?",
            (one.id,),
        )
        await lab.restart()
        for word in ("f00d", "cafe", "dead"):
            assert word in caplog.text
        assert (await lab.start("two")).ip == "172.17.0.3"
        assert lab.db.rows("SELECT * FROM network WHERE id = 'f00d'")

    Lab().run(scenario)


def test_two_daemons_on_one_host() -> None:
    async def scenario(lab: Lab) -> None:
        config = NetworkConfig(bridge="second0")
        other = NetworkService(lab.db, lab.root / "exec2", config)
        lab.db.write("DELETE FROM network")  # its own database is empty
        await other.start()
        try:
            assert other.get("bridge").pools[0].subnet == "172.18.0.0/16"
            one = await lab.start("one")
            await one.publish({"80/tcp": ":8080"})
            assert "second0" not in nft("list", "table", "inet", "teu")
            await other.destroy()
            with one.serve(80):
                assert ask(HOST, 8080) == HOST
        finally:
            await other.stop()

    Lab().run(scenario)


def test_the_mtu_follows_the_hosts_route_while_containers_run() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.service.create(NetworkCreate(name="free"))
        option = {"com.docker.network.driver.mtu": "1300"}
        await lab.service.create(NetworkCreate(name="fixed", options=option))
        one = await lab.start("one", network="free")
        await one.connect("fixed")

        def mtu(link: str) -> str:
            return sh("ip", "link", "show", link).partition("mtu ")[2].split()[0]

        async def becomes(expected: str) -> None:
            deadline = time.monotonic() + 5
            while mtu(lab.service.get("free").link) != expected:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)

        sh("ip", "link", "set", UPLINK, "mtu", "1400")
        await becomes("1400")
        endpoint = lab.service.endpoints(lab.service.get("free").id)[0]
        assert mtu(endpoint.host_link) == "1400"
        assert one.inside(lambda: mtu("eth0")) == "1400"
        assert one.inside(lambda: mtu("eth1")) == "1300"
        assert mtu("teu0") == "1400"
        sh("ip", "link", "set", UPLINK, "mtu", "1500")
        await becomes("1500")
        assert one.inside(lambda: mtu("eth0")) == "1500"

    Lab().run(scenario)


def test_a_stopped_daemon_without_containers_leaves_nothing() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.service.create(NetworkCreate(name="net"))
        one = await lab.start("one", network="net")
        await lab.close()
        assert f"table inet {lab.table}" in nft("list", "tables")
        await lab.open()
        await lab.service.restore([Live(one.id, "one")])
        await one.release()
        await lab.close()
        assert nft("list", "ruleset") == ""
        assert not [link for link in links() if link.startswith(("br-", "teu"))]
        await lab.open()
        nft("add", "rule", "inet", lab.table, "user", "counter")
        await lab.close()
        assert "counter" in nft("list", "ruleset")
        await lab.open()
        assert "counter" in nft("list", "chain", "inet", lab.table, "user")

    Lab().run(scenario)


def test_bridges_of_lost_data_are_removed() -> None:
    async def scenario(lab: Lab) -> None:
        await lab.service.create(NetworkCreate(name="net"))
        lost = lab.service.get("net").link
        await lab.start("one", network="net")
        await lab.close()
        (lab.root / "teu.db").unlink()
        sh("ip", "link", "add", "br-foreign", "type", "bridge")
        await lab.open()
        await lab.service.reap(set())
        assert lost not in links()
        assert "br-foreign" in links()
        sh("ip", "link", "delete", "br-foreign")

    Lab().run(scenario)


def test_a_bad_configuration_is_refused_at_start() -> None:
    async def scenario(lab: Lab) -> None:
        for config in (
            NetworkConfig(bip="172.17.0.0/16"),
            NetworkConfig(fixed_cidr="x"),
            NetworkConfig(bip="10.1.0.1/24", fixed_cidr="10.2.0.0/24"),
        ):
            service = NetworkService(lab.db, lab.exec_root, config)
            with pytest.raises(EngineError):
                await service.start()
            await service.stop()
        with pytest.raises(EngineError):
            NetworkService(
                lab.db, lab.exec_root, NetworkConfig(default_address_pools=[("10.0.0.0/8", 40)])
            )

    Lab().run(scenario)
