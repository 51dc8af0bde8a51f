"""RUN: a command in a container of its own, on the stage's layers, seen by nobody else.

The container never gets a row: its directories are its journal (workspace.py). Order of a step:
directories -> overlay -> record.json -> mounts -> network -> config.json -> shim -> output until
the exit -> what was made for mounts goes -> everything is detached. Cancel: the command is killed
at once, and all of it is undone.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct, field

from teu.build.mountpoints import MountPoints, MountSource
from teu.build.request import Limits
from teu.build.steps import Run
from teu.build.workspace import Place, Workspace
from teu.clock import now_ns
from teu.errors import EngineError, InvalidParameter
from teu.model.config import ContainerConfig, EndpointSettings, HostConfig
from teu.model.container import ContainerRecord
from teu.model.network import HOST
from teu.network.files import EtcFiles
from teu.network.service import NetworkService
from teu.runtime.service import RuntimeService
from teu.runtime.shim import Client, LaunchSpec, LogTarget, Shim, ShimService
from teu.sys import pidfd
from teu.tasks import TaskOwner
from teu.tx import Transaction

HOSTNAME: Final = "buildkitsandbox"
DEFAULT_NETWORK: Final = "bridge"
_HEADER_BYTES: Final = 8
_READ_BYTES: Final = 1 << 16
_EXIT_LIMIT_S: Final = 30.0
log = logging.getLogger(__name__)
Output = Callable[[bytes], Awaitable[None]]


class Environment(Struct, kw_only=True):
    """What a whole build decides about its commands."""

    network: str = ""
    extra_hosts: list[str] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)


class Runner:
    """Runs the commands of builds."""

    def __init__(
        self,
        workspace: Workspace,
        runtime: RuntimeService,
        shims: ShimService,
        networks: NetworkService,
        etc: EtcFiles,
        tasks: TaskOwner,
    ) -> None:
        self._workspace = workspace
        self._runtime = runtime
        self._shims = shims
        self._networks = networks
        self._etc = etc
        self._tasks = tasks
        self._records: dict[str, ContainerRecord] = {}

    async def run(
        self,
        step: Run,
        place: Place,
        lower: Sequence[Path],
        sources: Sequence[MountSource],
        environment: Environment,
        output: Output,
    ) -> int:
        """The command's exit code. The step's changes are in `place.upper`, nothing is mounted.

        Raises: StartFailed, InvalidParameter (user, limits), SystemFailure. Whatever happens, the
        caller hands the place to `finish` once it has what it wants of it.
        """
        record = self._record(step, place, environment)
        mount_points = MountPoints(place, sources, step.scripts)
        self._records[place.id] = record
        async with Transaction("build step", place.id[:12]) as tx:
            tx.on_rollback("mounts", lambda: self._workspace.unmount(place))
            rootfs = await asyncio.to_thread(self._workspace.mount, place, lower, for_run=True)
            self._workspace.save(place, record)
            await asyncio.to_thread(mount_points.make, rootfs)
            record.mounts = mount_points.points
            record.config.env = [*(record.config.env or []), *mount_points.env]
            has_resolver = await self._connect(record)
            self._etc.write(place.home, record, has_resolver=has_resolver)
            shim, ours = await self._launch(place, rootfs, record)
            try:
                code = await _follow(shim, ours, output)
            except BaseException:
                await _kill(shim)
                raise
            await asyncio.to_thread(mount_points.clean, rootfs)
            self._workspace.unmount(place)
            tx.commit()
        return code

    def finish(self, place: Place) -> None:
        """Takes everything of a step away, in the background; its record goes last."""
        self._tasks.start(self._take_down(place), f"build step {place.id[:12]}: clean up")

    async def _launch(
        self, place: Place, rootfs: Path, record: ContainerRecord
    ) -> tuple[Shim, socket.socket]:
        names = ("hosts", "hostname", "resolv.conf")
        await self._runtime.prepare(
            record,
            rootfs=rootfs,
            bundle=place.run,
            etc_files={f"/etc/{name}": place.home / name for name in names},
            prepared={},
        )
        ours, theirs = socket.socketpair()
        client = Client(theirs.detach(), stdin=False, stdout=True, stderr=True, multiplexed=True)
        spec = LaunchSpec(
            id=record.id,
            directory=place.run,
            bundle=place.run,
            runtime=self._runtime.command(record.host.runtime),
            tty=False,
            open_stdin=False,
            stdin_once=False,
            console_size=None,
            log=LogTarget(),
        )
        try:
            return await self._shims.launch(spec, [client]), ours
        except BaseException:
            ours.close()
            raise

    def _record(self, step: Run, place: Place, environment: Environment) -> ContainerRecord:
        mode = step.network or environment.network or DEFAULT_NETWORK
        mode = DEFAULT_NETWORK if mode == "default" else mode
        limits = environment.limits
        host = HostConfig(
            network_mode=mode,
            extra_hosts=environment.extra_hosts or None,
            privileged=step.insecure,
            ipc_mode="private",
            memory=limits.memory,
            memory_swap=limits.memory_swap,
            cpu_shares=limits.cpu_shares,
            cpu_period=limits.cpu_period,
            cpu_quota=limits.cpu_quota,
            cpuset_cpus=limits.cpuset_cpus,
            cpuset_mems=limits.cpuset_mems,
            shm_size=limits.shm_size,
            ulimits=limits.ulimits or None,
            cgroup_parent=limits.cgroup_parent,
            security_opt=limits.security_opt or None,
        )
        config = ContainerConfig(
            hostname=HOSTNAME, env=step.env, user=step.user, working_dir=step.directory
        )
        self._runtime.fill_defaults(host)
        self._runtime.validate(host, config)
        return ContainerRecord(
            id=place.id,
            name=f"build-{place.id[:12]}",
            created_ns=now_ns(),
            image_id="",
            config=config,
            host=host,
            args=step.args,
            networks={} if mode == HOST else {mode: EndpointSettings()},
        )

    async def _connect(self, record: ContainerRecord) -> bool:
        """Whether the command resolves names by the embedded resolver."""
        if record.host.network_mode.startswith("container:"):
            raise InvalidParameter("a build cannot join a container's network")
        if not record.networks:
            return False
        record.sandbox = await self._networks.open_sandbox(record.id)
        for name, asked in record.networks.items():
            record.networks[name] = await self._networks.connect(
                record.id, record.name, record.sandbox, name, asked
            )
        return await self._networks.serve_names(record.id, self._etc.servers(record))

    async def _take_down(self, place: Place) -> None:
        """Goes on after failures; what resists is left to the next start."""
        record = self._records.pop(place.id, None)
        try:
            if record is not None:
                await self._runtime.delete(record)
                await self._networks.release(record.id, record.sandbox)
            await asyncio.to_thread(self._workspace.close, place)
        except (EngineError, OSError) as error:
            log.error("build step %s: cannot be cleaned up: %s", place.id[:12], error)


async def _follow(shim: Shim, ours: socket.socket, output: Output) -> int:
    """Hands the output on until the container has ended and everything is read."""
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    buffered = bytearray()
    with ours:
        while data := await loop.sock_recv(ours, _READ_BYTES):
            buffered += data
            for piece in _frames(buffered):
                await output(piece)
    return (await shim.wait()).exit_code


def _frames(buffered: bytearray) -> list[bytes]:
    """Takes whole frames (8 bytes of header: stream, length) off the front."""
    found: list[bytes] = []
    while len(buffered) >= _HEADER_BYTES:
        length = int.from_bytes(buffered[4:_HEADER_BYTES], "big")
        if len(buffered) < _HEADER_BYTES + length:
            break
        found.append(bytes(buffered[_HEADER_BYTES : _HEADER_BYTES + length]))
        del buffered[: _HEADER_BYTES + length]
    return found


async def _kill(shim: Shim) -> None:
    pidfd.send_signal(shim.pid, shim.pid_started, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_EXIT_LIMIT_S):
            await shim.wait()
