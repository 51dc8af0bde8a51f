"""Keeps the zygote running: the process from which shims and log readers are forked."""

import asyncio
import logging
import socket
import sys
from pathlib import Path
from typing import Any

from teu.errors import Unavailable
from teu.runtime.channel import send_packet
from teu.sys.process import Process, spawn_daemon_child
from teu.tasks import TaskOwner

SEND_LIMIT_S = 10.0
RESPAWN_DELAY_S = 0.05
RESPAWN_DELAY_LIMIT_S = 5.0
HEALTHY_S = 1.0
log = logging.getLogger(__name__)


class Zygote:
    """`start` once, `fork` any number of times, `close`. A zygote that dies is replaced.

    `scratch`: a directory for its rehearsal, made when needed.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._tasks = TaskOwner()
        self._process: Process | None = None
        self._control: socket.socket | None = None
        self._alive = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Raises: CommandNotStarted."""
        self._spawn()
        self._keeper = self._tasks.spawn(self._keep(), "keep the zygote")

    async def close(self) -> None:
        """Ends the zygote; the shims that it forked live on."""
        if self._keeper:
            self._keeper.cancel()
        self._drop_control()
        if self._process:
            await self._process.stop()
        await self._tasks.drain(1.0)

    async def fork(self, message: dict[str, Any], fds: list[int]) -> None:
        """Hands a request to the zygote. `fds` stay the caller's.

        Raises: Unavailable: no zygote takes it in SEND_LIMIT_S.
        Crash:  if the zygote dies right after, the far end of `fds` sees end of file.
        """
        try:
            async with asyncio.timeout(SEND_LIMIT_S):
                while True:
                    await self._alive.wait()
                    if await self._try_fork(message, fds):
                        return
                    self._drop_control()
        except TimeoutError:
            raise Unavailable(
                "the process that starts containers does not run; see the daemon's log for why"
            ) from None

    async def _try_fork(self, message: dict[str, Any], fds: list[int]) -> bool:
        assert self._control is not None
        try:
            await send_packet(self._control, message, fds)
        except OSError:
            return False
        return True

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = Path(__file__).parents[1] / "shim" / "zygote.py"
        argv = [sys.executable, "-I", "-S", str(program), str(theirs.fileno()), str(self._scratch)]
        with theirs:
            try:
                self._process = spawn_daemon_child(argv, pass_fds=[theirs.fileno()])
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self._control = ours
        self._alive.set()

    async def _keep(self) -> None:
        delay_s = RESPAWN_DELAY_S
        while True:
            assert self._process is not None
            born = asyncio.get_running_loop().time()
            status = await self._process.wait()
            self._drop_control()
            if asyncio.get_running_loop().time() - born > HEALTHY_S:
                delay_s = RESPAWN_DELAY_S
            log.warning("the zygote ended (status %d); a new one starts", status)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RESPAWN_DELAY_LIMIT_S)
            self._spawn()

    def _drop_control(self) -> None:
        if self._control:
            self._control.close()
            self._control = None
        self._alive.clear()
