"""Users of an agent's socket meet the connections that wait for them."""

import asyncio
import socket
from pathlib import Path

from teu.sys.agentsocket import AgentSocket


async def _talk(path: Path, text: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(text)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def _echo(connection: socket.socket) -> None:
    """The far end: the start byte, then everything back."""
    with connection:
        connection.settimeout(10)
        assert connection.recv(1) == b"\x01"
        while data := connection.recv(100):
            connection.sendall(data)


def test_each_user_gets_a_connection(tmp_path: Path) -> None:
    async def main() -> list[bytes]:
        agent = AgentSocket(tmp_path / "s")
        pairs = [socket.socketpair() for _ in range(2)]
        for ours, _ in pairs:
            agent.offer(ours)
        try:
            ends = [asyncio.to_thread(_echo, theirs) for _, theirs in pairs]
            talks = [_talk(agent.path, text) for text in (b"one", b"two")]
            return list((await asyncio.gather(*talks, *ends))[:2])
        finally:
            agent.close()

    assert asyncio.run(main()) == [b"one", b"two"]
    assert not (tmp_path / "s").exists()


def test_a_connection_whose_client_is_gone_is_passed_over(tmp_path: Path) -> None:
    async def main() -> bytes:
        agent = AgentSocket(tmp_path / "s")
        dead, gone = socket.socketpair()
        gone.close()
        agent.offer(dead)
        ours, theirs = socket.socketpair()
        talking = asyncio.create_task(_talk(agent.path, b"late"))
        agent.offer(ours)
        try:
            await asyncio.to_thread(_echo, theirs)
            return await talking
        finally:
            agent.close()

    assert asyncio.run(main()) == b"late"
