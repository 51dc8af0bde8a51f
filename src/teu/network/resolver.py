"""The resolver's process as the daemon sees it: started when first needed, found again, replaced.

It answers DNS in all sandboxes (`teu.resolver`) and outlives the daemon. `exec_root/resolver.sock`
is where a later daemon finds it. One that dies is replaced at once, and told everything again.
"""

import array
import asyncio
import contextlib
import logging
import os
import signal
import socket
import struct
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from teu.errors import EngineError, SystemFailure
from teu.sys import pidfd
from teu.sys.process import Process, spawn_daemon_child
from teu.tasks import TaskOwner

PROTOCOL: Final = 1  # of resolver/main.py; another one's process is replaced
_SOCKET_NAME: Final = "resolver.sock"
_HELLO_LIMIT_S: Final = 3.0
_SYNC_LIMIT_S: Final = 1.0
_QUIT_LIMIT_S: Final = 2.0
_QUEUE_LIMIT: Final = 20_000  # packets; a process that takes none for so long is of no use
_PACKET_BYTES: Final = 1 << 18
_RESPAWN_DELAY_S: Final = 0.02
_RESPAWN_DELAY_LIMIT_S: Final = 5.0
log = logging.getLogger(__name__)

Told = Callable[[set[str]], Awaitable[None]]


class _Packet(Struct):
    """What the process says."""

    event: str
    protocol: int = 0
    serving: list[str] = field(default_factory=list)
    text: str = ""


class ResolverProcess:
    """`tell_all` is awaited whenever a process was connected, with whom it serves already."""

    def __init__(self, exec_root: Path, tell_all: Told) -> None:
        self._root = exec_root
        self._tell_all = tell_all
        self._tasks = TaskOwner()
        self._connecting = asyncio.Lock()
        self._socket: socket.socket | None = None
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._syncs: deque[asyncio.Future[None]] = deque()
        self._hello: asyncio.Future[_Packet] | None = None
        self._closed = False
        self._pid = 0
        self._born = 0
        self._process: Process | None = None
        self._reaper: asyncio.Task[int] | None = None

    @property
    def pid(self) -> int:
        """0 while there is none."""
        return self._pid if self._socket else 0

    async def ensure(self) -> None:
        """Returns once there is a process that knows everything.

        Raises: SystemFailure. Cancel: safe.
        """
        if self._socket and not self._connecting.locked():
            return
        async with self._connecting:
            if self._socket is None and not self._closed:
                hello = await self._find() or await self._start()
                await self._tell_all(set(hello.serving))

    def foresee(self) -> None:
        """`ensure` in the background; a failure is told by the `ensure` that waits for it."""
        if self._socket is None and not self._closed:
            self._tasks.start(self.ensure(), "start the resolver")

    async def find(self) -> bool:
        """Connects to a process that an earlier daemon left, if there is one."""
        async with self._connecting:
            hello = await self._find()
            if hello:
                await self._tell_all(set(hello.serving))
        return hello is not None

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Sent in order, now or when the process takes it; lost with a process that ends, but
        then all is told again. `fds` stay the caller's."""
        if self._socket is None:
            return
        copies = [os.dup(fd) for fd in fds]
        self._queue.append((msgspec.json.encode(message), copies))
        if len(self._queue) == 1:
            self._flush()
        elif len(self._queue) > _QUEUE_LIMIT:
            log.error("the resolver takes no messages; it is replaced")
            self._kill()
            self._lost()

    async def settled(self) -> None:
        """Returns when what was sent so far is in force, or nobody is there to do so."""
        if self._socket is None:
            return
        synced: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._syncs.append(synced)
        self.send({"op": "sync"})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SYNC_LIMIT_S):
                await synced

    async def close(self, *, end: bool) -> None:
        """Leaves it running, or ends it where nobody needs it."""
        self._closed = True
        if end:
            self.send({"op": "quit"})
        self._disconnect()
        if self._hello and not self._hello.done():
            self._hello.set_exception(ConnectionError("the daemon stops"))
        if self._reaper:
            if end:
                await asyncio.wait([self._reaper], timeout=_QUIT_LIMIT_S)
            self._reaper.cancel()
        await self._tasks.drain(1.0)
        if self._process:
            self._process.leave()

    # --- getting hold of one -----------------------------------------------------------------

    async def _find(self) -> _Packet | None:
        sock = self._dial()
        if sock is None:
            return None
        hello = await self._greet(sock, _listener(sock))
        if hello is None:
            log.warning("the resolver that is there (process %d) is replaced", self._pid)
            self._kill()
        return hello

    def _dial(self) -> socket.socket | None:
        try:
            directory_fd = os.open(self._root, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            return None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.setblocking(False)
            sock.connect(f"/proc/self/fd/{directory_fd}/{_SOCKET_NAME}")
        except (FileNotFoundError, ConnectionError, BlockingIOError):
            sock.close()
            return None
        finally:
            os.close(directory_fd)
        return sock

    async def _start(self) -> _Packet:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = Path(__file__).parents[1] / "resolver" / "main.py"
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        argv = [sys.executable, "-I", "-S", str(program), str(theirs.fileno()), str(self._root)]
        with theirs:
            try:
                process = self._process = spawn_daemon_child(argv, pass_fds=[theirs.fileno()])
            except BaseException:
                ours.close()
                raise
        self._reaper = asyncio.create_task(process.wait(), name="wait for the resolver")
        ours.setblocking(False)
        hello = await self._greet(ours, process.pid)
        if hello is None:
            self._kill()
            raise SystemFailure(
                "the resolver for container names does not start: see the daemon's log"
            )
        log.info("started the resolver for container names, process %d", process.pid)
        return hello

    async def _greet(self, sock: socket.socket, pid: int) -> _Packet | None:
        """Takes the connection over; None if its process does not answer as it should."""
        loop = asyncio.get_running_loop()
        self._pid = pid
        self._born = pidfd.start_time(pid)
        self._socket = sock
        self._hello = loop.create_future()
        loop.add_reader(sock.fileno(), self._readable, sock)
        self.send({"op": "hello", "protocol": PROTOCOL})
        try:
            async with asyncio.timeout(_HELLO_LIMIT_S):
                hello = await self._hello
        except (TimeoutError, ConnectionError):
            hello = None
        except BaseException:
            self._disconnect()
            raise
        finally:
            self._hello = None
        if hello is None or hello.protocol != PROTOCOL:
            self._disconnect()
            return None
        return hello

    def _kill(self) -> None:
        pidfd.send_signal(self._pid, self._born, signal.SIGKILL)

    # --- while it runs -----------------------------------------------------------------------

    def _flush(self) -> None:
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        while self._queue:
            payload, fds = self._queue[0]
            rights = array.array("i", fds)
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if fds else []
            try:
                self._socket.sendmsg([payload], ancillary, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                loop.add_writer(self._socket.fileno(), self._flush)
                return
            except OSError:
                self._lost()
                return
            self._queue.popleft()
            _close_all(fds)
        loop.remove_writer(self._socket.fileno())

    def _readable(self, sock: socket.socket) -> None:
        try:
            payload = sock.recv(_PACKET_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            payload = b""
        if not payload:
            self._lost()
            return
        packet = msgspec.json.decode(payload, type=_Packet)
        if packet.event == "hello" and self._hello and not self._hello.done():
            self._hello.set_result(packet)
        elif packet.event == "synced" and self._syncs:
            _settle(self._syncs.popleft())
        elif packet.event == "fault":
            log.error("a defect in the resolver: %s", packet.text)

    def _lost(self) -> None:
        self._disconnect()
        if self._hello and not self._hello.done():
            self._hello.set_exception(ConnectionError("the resolver has ended"))
        elif not self._closed:
            log.warning("the resolver has ended; another one starts")
            self._tasks.start(self._revive(), "start the resolver again")

    async def _revive(self) -> None:
        delay_s = _RESPAWN_DELAY_S
        while not self._closed:
            try:
                return await self.ensure()
            except (EngineError, OSError) as error:
                log.error("the resolver cannot be started: %s", error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _RESPAWN_DELAY_LIMIT_S)

    def _disconnect(self) -> None:
        if self._socket:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket.fileno())
            loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._socket = None
        while self._queue:
            _close_all(self._queue.popleft()[1])
        while self._syncs:
            _settle(self._syncs.popleft())


def _settle(synced: asyncio.Future[None]) -> None:
    if not synced.done():
        synced.set_result(None)


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _listener(sock: socket.socket) -> int:
    """The process that listens at the other end."""
    size = struct.calcsize("3i")
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(struct.unpack("3i", credentials)[0])
