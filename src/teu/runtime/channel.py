"""Packets to a shim or the zygote, and answers back. The protocol: shim/wire.py.

Works on asyncio and uvloop alike: the socket is non-blocking and watched by the loop itself.
"""

import array
import asyncio
import itertools
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from teu.errors import DeadlineExceeded, Unavailable

_PACKET_BYTES = 1 << 18
_BURST = 32


class Executed(Struct):
    """One exec in a shim's state; `exit_code` None while it runs."""

    exec: str
    pid: int
    exit_code: int | None = None


class Facts(Struct):
    """The positive answer of a shim; which fields are set depends on the request."""

    pid: int = 0
    pid_started: int = 0
    started_ns: int = 0
    execs: list[Executed] = field(default_factory=list)


class Refusal(Struct):
    kind: str
    message: str
    exit_code: int = 0


class Packet(Struct):
    """Everything that a shim may say: an answer (`id`) or an event (`event`)."""

    id: int | None = None
    ok: Facts | None = None
    error: Refusal | None = None
    event: str = ""
    seq: int = 0
    exec: str = ""
    exit_code: int = 0
    finished_ns: int = 0
    oom_killed: bool = False
    message: str = ""


class ShimRefused(Exception):
    """The shim answered with an error; `refusal` says which."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class ShimGone(Unavailable):
    """The connection to the shim ended before its answer."""


class Channel:
    """One connection to a shim. `on_event` and `on_closed` are called on the loop, never awaited.

    Both may be assigned later; events that came before are kept until then.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._answers: dict[int, asyncio.Future[Facts]] = {}
        self._numbers = itertools.count(1)
        self._early: list[Packet] = []
        self._on_event: Callable[[Packet], None] | None = None
        self._on_closed: Callable[[], None] | None = None
        self.greeted = False
        self.closed = False
        self._loop.add_reader(sock.fileno(), self._readable)

    def listen(self, on_event: Callable[[Packet], None], on_closed: Callable[[], None]) -> None:
        """From now on events go there; at once those that came before, and a close."""
        self._on_event = on_event
        self._on_closed = on_closed
        early, self._early = self._early, []
        for packet in early:
            on_event(packet)
        if self.closed:
            on_closed()

    async def request(
        self, op: str, fields: dict[str, Any], fds: Iterable[int] = (), *, timeout_s: float
    ) -> Facts:
        """Sends one request and returns its answer. `fds` stay the caller's.

        Raises: ShimRefused, ShimGone, DeadlineExceeded. Cancel: the shim still does it.
        """
        number = next(self._numbers)
        answer: asyncio.Future[Facts] = self._loop.create_future()
        self._answers[number] = answer
        try:
            async with asyncio.timeout(timeout_s):
                await self.send({"op": op, "id": number, **fields}, fds)
                return await answer
        except TimeoutError:
            raise DeadlineExceeded(
                f"the container's shim did not answer '{op}' within {timeout_s:g} s"
            ) from None
        finally:
            self._answers.pop(number, None)

    async def send(self, message: dict[str, Any], fds: Iterable[int] = ()) -> None:
        """One packet; waits while the peer's queue is full. Raises: ShimGone."""
        if self.closed:
            raise ShimGone("the container's shim has closed its connection")
        try:
            await send_packet(self._socket, message, fds)
        except OSError as error:
            raise ShimGone(f"the container's shim cannot be reached: {error.strerror}") from error

    def close(self) -> None:
        """Ends the connection; open requests fail with ShimGone."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ShimGone("the container's shim closed its connection"))
        if self._on_closed:
            self._on_closed()

    def _readable(self) -> None:
        for _ in range(_BURST):
            if self.closed:
                return
            try:
                payload = self._socket.recv(_PACKET_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                payload = b""
            if not payload:
                self.close()
                return
            self._take(msgspec.json.decode(payload, type=Packet))

    def _take(self, packet: Packet) -> None:
        if packet.event == "hello":
            self.greeted = True
        elif packet.event and self._on_event:
            self._on_event(packet)
        elif packet.event:
            self._early.append(packet)
        elif packet.id is not None and (answer := self._answers.get(packet.id)):
            if answer.done():
                return
            if packet.error:
                answer.set_exception(ShimRefused(packet.error))
            else:
                answer.set_result(packet.ok or Facts())


async def connect(directory: Path, name: str = "shim.sock") -> Channel | None:
    """A channel to the shim that listens in `directory`; None if there is none."""
    try:
        directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.setblocking(False)
        sock.connect(f"/proc/self/fd/{directory_fd}/{name}")  # sun_path holds 107 bytes only
    except (FileNotFoundError, ConnectionError, BlockingIOError):
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(directory_fd)
    return Channel(sock)


async def send_packet(sock: socket.socket, message: dict[str, Any], fds: Iterable[int]) -> None:
    """Raises: OSError. Cancel: safe, nothing or all of it was sent."""
    payload = msgspec.json.encode(message)
    rights = array.array("i", fds)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
    while True:
        try:
            sock.sendmsg([payload], ancillary, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            await _writable(sock)
        else:
            return


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(sock.fileno(), _settle, ready)
    try:
        await ready
    finally:
        if sock.fileno() >= 0:
            loop.remove_writer(sock.fileno())


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
