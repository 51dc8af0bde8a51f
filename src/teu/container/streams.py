"""attach, logs and wait: handing clients to the shim and to the log reader."""

import asyncio
import os

from msgspec import Struct

from teu.container import state
from teu.container.container import Container, Outcome
from teu.container.logtarget import has_log
from teu.container.services import Services
from teu.errors import Conflict, InvalidParameter, NotImplementedYet
from teu.model.container import Status
from teu.runtime.logs import LogRequest
from teu.runtime.shim import Client


class LogOptions(Struct, kw_only=True):
    """`tail` -1 is all; instants are epoch nanoseconds, 0 for open. `raw`: without frames, as the
    log of a container with a terminal always is."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    timestamps: bool = False
    details: bool = False
    since_ns: int = 0
    until_ns: int = 0
    tail: int = -1
    raw: bool = False


class Streams:
    """Descriptors given to these methods are theirs from then on, also on failure."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def attach(self, container: Container, client: Client, *, logs: bool, live: bool) -> None:
        """Connects a client: its bytes flow through the shim from here on.

        A container that does not run yet keeps the client for its next start. With `logs` the
        client first gets what was logged; the log reader then also follows in the shim's place.
        """
        try:
            if container.record.status is Status.STARTING:  # has taken its clients already
                async with container.lock:
                    pass
            self.check_attachable(container)
        except BaseException:
            os.close(client.fd)
            raise
        if logs and not (live and container.record.status is Status.CREATED):
            await self._attach_with_logs(container, client, live)
        elif not live:
            os.close(client.fd)
        elif container.shim is not None:
            await container.shim.attach(client)
        else:
            container.pending.append(client)
        self._services.containers.tell(container, "attach")

    @staticmethod
    def check_attachable(container: Container) -> None:
        """Raises: Conflict with Docker's text for a container that takes no clients now."""
        status, name = container.record.status, container.id
        if status is Status.PAUSED:
            raise Conflict(f"container {name} is paused, unpause the container before attach")
        if status is Status.RESTARTING:
            raise Conflict(
                f"container {name} is restarting, wait until the container is running before attach"
            )

    async def _attach_with_logs(self, container: Container, client: Client, live: bool) -> None:
        options = LogOptions(
            stdout=client.stdout, stderr=client.stderr, follow=live, raw=not client.multiplexed
        )
        if live and client.stdin and container.shim is not None:
            stdin_only = Client(
                fd=os.dup(client.fd),
                stdin=True,
                stdout=False,
                stderr=False,
                multiplexed=client.multiplexed,
                detach_keys=client.detach_keys,
            )
            await container.shim.attach(stdin_only)
        await self.logs(container, options, client.fd)

    async def logs(self, container: Container, options: LogOptions, fd: int) -> None:
        """The log, written to `fd` by a process of its own."""
        try:
            self.check_readable(container)
        except NotImplementedYet:
            os.close(fd)
            raise
        record = container.record
        follow = options.follow and (state.is_active(record) or record.status is Status.CREATED)
        await self._services.shims.read_logs(
            LogRequest(
                path=str(self._services.paths.log_file(record.id)),
                exit_directory=str(self._services.paths.run(record.id)),
                stdout=options.stdout,
                stderr=options.stderr,
                since_ns=options.since_ns,
                until_ns=options.until_ns,
                tail=options.tail,
                follow=follow,
                timestamps=options.timestamps,
                details=options.details,
                multiplexed=not (record.config.tty or options.raw),
                # Libraries hand frames on as they come (docker-py's `logs(stream=True)`, which
                # follows): their callers expect lines. Who reads all at once gets it faster.
                by_line=options.follow,
            ),
            fd,
        )

    @staticmethod
    def check_readable(container: Container) -> None:
        """Raises: NotImplementedYet with Docker's text for a driver without reading."""
        if not has_log(container.record):
            raise NotImplementedYet("configured logging driver does not support reading")

    async def resize(self, container: Container, height: int, width: int) -> None:
        """Raises: Conflict (not running)."""
        if container.shim is None:
            raise Conflict(f"container {container.id} is not running")
        await container.shim.resize(height, width)
        self._services.containers.tell(container, "resize", height=str(height), width=str(width))

    def wait(self, container: Container, condition: str) -> asyncio.Future[Outcome]:
        """A future of the outcome: `not-running` (default), `next-exit` or `removed`.

        Raises: InvalidParameter.
        """
        match condition:
            case "" | "not-running":
                if state.is_active(container.record):
                    return container.next_exit()
                done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
                done.set_result(Outcome(container.record.exit_code, container.record.error))
                return done
            case "next-exit":
                return container.next_exit()
            case "removed":
                return container.removal()
        raise InvalidParameter(f'invalid condition: "{condition}"')
