"""A shim and its log server: what happens to lines when one of them goes."""

import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.logservers import DatagramServer, StreamServer, journal_fields
from harness.registry import free_port
from harness.shims import Box, eventually, run
from harness.waiting import until
from system.daemon_process import Authority
from teu.runtime.failures import StartFailed
from teu.runtime.shim import LogServer, LogTarget, ShimService

SYSLOG = {"format": "", "facility": "3", "tag": "tag", "hostname": "host"}


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    box = Box(tmp_path)
    yield box
    box.close()


def syslog(port: int, **more: Any) -> LogTarget:
    target = {"network": "tcp", "host": "127.0.0.1", "port": port, **more}
    return LogTarget(remote=LogServer(driver="syslog", settings=SYSLOG, target=target))


def test_journald_gets_datagrams(box: Box, tmp_path: Path) -> None:
    server = DatagramServer(tmp_path / "journal")
    target = {"network": "unixgram", "path": str(tmp_path / "journal")}
    remote = LogServer(
        driver="journald", settings={}, target=target, extra={"CONTAINER_NAME": "web"}
    )

    async def scenario(shims: ShimService) -> None:
        spec = box.spec(["sh", "-c", "seq 1 300; echo bad >&2"], log=LogTarget(remote=remote))
        shim = await shims.launch(spec, [])
        await shim.wait()

    try:
        run(box, scenario)
        until("all has come", lambda: len(server.packets) == 301)
    finally:
        server.close()
    found = [journal_fields(packet) for packet in server.packets]
    out = [fields for fields in found if fields["PRIORITY"] == b"6"]
    assert [fields["MESSAGE"] for fields in out] == [b"%d" % n for n in range(1, 301)]
    assert {fields["CONTAINER_NAME"] for fields in found} == {b"web"}


def test_what_is_left_is_sent_after_the_end(box: Box) -> None:
    """The container's end is told at once; its shim stays until the server has the rest."""
    server = StreamServer()
    server.reads = False

    async def scenario(shims: ShimService) -> None:
        shim = await shims.launch(box.spec(["seq", "1", "100000"], log=syslog(server.port)), [])
        await eventually("the server is there", lambda: server.connections == 1)
        server.reads = True
        assert (await shim.wait()).exit_code == 0

    try:
        run(box, scenario)
        until("all has come", lambda: server.received.endswith(b": 100000\n"), 30)
    finally:
        server.close()
    assert server.received.count(b"\n") == 100_000


def test_a_server_that_stays_away_ends_the_patience_after_the_end(box: Box) -> None:
    """With a limit of attempts lines are given up, and the shim ends."""
    server = StreamServer()
    port = server.port

    async def scenario(shims: ShimService) -> None:
        script = "echo one; until [ -e /tmp/go ]; do usleep 10000; done; seq 1 9"
        spec = box.spec(["sh", "-c", script], log=syslog(port, max_retries=1, retry_s=0.05))
        shim = await shims.launch(spec, [])
        pid = box.shim_pid(shim.id)
        await eventually("a line has come", lambda: server.received.endswith(b"\n"))
        server.close()
        (box.rootfs / "tmp" / "go").touch()
        assert (await shim.wait()).exit_code == 0
        await eventually("the shim has ended", lambda: not Path(f"/proc/{pid}").exists())

    run(box, scenario)


def test_an_absent_server_refuses_the_start(box: Box) -> None:
    port = free_port()

    async def scenario(shims: ShimService) -> None:
        spec = box.spec(["true"], log=syslog(port))
        with pytest.raises(StartFailed, match="failed to initialize logging driver: dial tcp"):
            await shims.launch(spec, [])
        assert not list(box.directory(spec.id).glob("*.sock"))

    run(box, scenario)


def test_a_name_is_looked_up_again_without_holding_anything_up(box: Box) -> None:
    """`localhost` is a name: after the loss a child of the shim looks it up."""
    port = free_port()
    first = StreamServer(port=port)

    async def scenario(shims: ShimService) -> None:
        spec = box.spec(["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; usleep 5000; done"])
        spec.log = syslog(port, host="localhost", retry_s=0.05)
        shim = await shims.launch(spec, [])
        await eventually("the first has some", lambda: first.received.count(b"\n") > 3)
        first.close()
        second = StreamServer(port=port)
        await eventually("the second has some", lambda: second.received.count(b"\n") > 3)
        second.close()
        box.remove(shim.id)
        await shim.wait()
        numbers = [
            int(line.rpartition(b" ")[2])
            for line in (first.received + second.received).splitlines()
        ]
        assert sorted(set(numbers)) == list(range(1, max(numbers) + 1))

    run(box, scenario)


def test_a_tls_server_that_comes_back(box: Box, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("server", "serverAuth"))
    port = free_port()
    first = StreamServer(port=port, tls=context)

    async def scenario(shims: ShimService) -> None:
        spec = box.spec(["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; usleep 5000; done"])
        spec.log = syslog(port, retry_s=0.05)
        assert spec.log.remote is not None
        spec.log.remote.tls = {"ca": str(authority.root / "ca.pem")}
        shim = await shims.launch(spec, [])
        await eventually("the first has some", lambda: first.received.count(b"\n") > 3)
        first.close()
        second = StreamServer(port=port, tls=context)
        await eventually("the second has some", lambda: second.received.count(b"\n") > 3)
        box.remove(shim.id)
        await shim.wait()
        second.close()

    run(box, scenario)


def test_a_tls_server_of_somebody_else_is_refused(box: Box, tmp_path: Path) -> None:
    own, other = Authority(tmp_path / "own"), Authority(tmp_path / "other")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*other.issue("server", "serverAuth"))
    server = StreamServer(tls=context)

    async def scenario(shims: ShimService) -> None:
        spec = box.spec(["true"], log=syslog(server.port))
        assert spec.log.remote is not None
        spec.log.remote.tls = {"ca": str(own.root / "ca.pem")}
        with pytest.raises(StartFailed, match="certificate verify failed"):
            await shims.launch(spec, [])

    try:
        run(box, scenario)
    finally:
        server.close()
