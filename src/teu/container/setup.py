"""Everything a container needs before its runtime starts: file system, network, config.json."""

import os
from pathlib import Path

from msgspec.structs import replace

from teu.container.container import Container
from teu.container.containers import NoSuchContainer
from teu.container.links import Links
from teu.container.logtarget import log_target
from teu.container.mounting import Mounter
from teu.container.rootfs import RootFilesystems
from teu.container.services import Services
from teu.errors import Conflict
from teu.model.container import ContainerRecord
from teu.runtime.namespaces import Joins
from teu.runtime.shim import LaunchSpec
from teu.tx import Transaction


class Setup:
    """One method per step; each step's undo is registered before it acquires."""

    def __init__(
        self, services: Services, rootfs: RootFilesystems, links: Links, mounter: Mounter
    ) -> None:
        self._services = services
        self._rootfs = rootfs
        self._links = links
        self._mounter = mounter

    async def prepare(self, container: Container, tx: Transaction) -> LaunchSpec:
        """All steps in order; what the shim is to run.

        Raises: whatever a step raises; the transaction undoes the earlier ones.
        """
        services = self._services
        record = container.record
        tx.on_rollback("mount", lambda: self._rootfs.unmount(record.id))
        rootfs = self._rootfs.mount(container)
        tx.on_rollback("network", lambda: self._release(record))
        has_resolver = await self._network(container)
        tx.on_rollback("volumes", lambda: self._mounter.release(record))
        prepared = await self._mounter.prepare(record, rootfs)
        bundle = services.paths.run(record.id)
        bundle.mkdir(mode=0o700, parents=True, exist_ok=True)
        await services.runtime.prepare(
            self._with_variables(record),
            rootfs=rootfs,
            bundle=bundle,
            etc_files=self._etc_files(container, has_resolver=has_resolver),
            prepared=prepared,
            joins=self._joins(record),
        )
        self._links.follow(container)
        return self._launch_spec(record, bundle)

    def finish(self, container: Container) -> None:
        """The runtime has taken what was made for it."""
        self._mounter.detach(container.record)

    def close_clients(self, container: Container) -> None:
        """Clients that attached before a start that failed see the end of their stream."""
        for client in container.take_pending():
            os.close(client.fd)

    # --- network -------------------------------------------------------------------------

    async def _network(self, container: Container) -> bool:
        """Whether the container resolves names by the embedded resolver."""
        record = container.record
        record.ports = {}
        record.sandbox = ""
        if not record.networks:
            return False
        networks = self._services.networks
        record.sandbox = await networks.open_sandbox(record.id)
        for name, asked in record.networks.items():
            record.networks[name] = await networks.connect(
                record.id, record.name, record.sandbox, name, asked,
                hostname=record.config.hostname,
            )  # fmt: skip
        has_resolver = await networks.serve_names(record.id, self._services.etc.servers(record))
        first = next(iter(record.networks))
        record.ports = await networks.publish(
            record.id,
            record.name,
            first,
            record.host.port_bindings,
            record.config.exposed_ports or {},
            record.host.publish_all_ports,
        )
        return has_resolver

    async def _release(self, record: ContainerRecord) -> None:
        await self._services.networks.release(record.id, record.sandbox)
        record.sandbox = ""
        record.ports = {}

    def _joins(self, record: ContainerRecord) -> Joins:
        """Paths of the namespaces of other containers (or the sandbox) to join."""
        host = record.host
        net = record.sandbox or None
        if host.network_mode.startswith("container:"):
            net = self._namespace_of(host.network_mode[10:], "network", "net")
        pid = ipc = None
        if host.pid_mode.startswith("container:"):
            pid = self._namespace_of(host.pid_mode[10:], "PID", "pid")
        if host.ipc_mode.startswith("container:"):
            ipc = self._namespace_of(host.ipc_mode[10:], "IPC", "ipc")
            self._check_shareable(host.ipc_mode[10:])
        return Joins(net=net, pid=pid, ipc=ipc)

    def _namespace_of(self, ref: str, what: str, kind: str) -> str:
        other = self._services.containers.find(ref)
        if other is None:
            raise NoSuchContainer(ref)
        if not other.running:
            raise Conflict(
                f"cannot join {what.lower()} namespace of a non running container: {other.name} "
                f"({other.id[:12]})"
            )
        return f"/proc/{other.record.pid}/ns/{kind}"

    def _check_shareable(self, ref: str) -> None:
        donor = self._services.containers.get(ref)
        if donor.record.host.ipc_mode in ("private", "none"):
            raise Conflict(
                f"can't join IPC of container {donor.id}: non-shareable IPC (hint: use "
                "IpcMode:shareable for the donor container)"
            )

    def _etc_files(self, container: Container, *, has_resolver: bool) -> dict[str, Path]:
        record = container.record
        mode = record.host.network_mode
        if mode.startswith("container:"):
            other = self._services.containers.get(mode[10:])
            home = self._services.paths.home(other.id)
            record.config.hostname = record.config.hostname or other.record.config.hostname
        else:
            home = self._services.paths.home(record.id)
            linked = self._links.hosts(record)
            self._services.etc.write(home, record, linked, has_resolver=has_resolver)
        names = ("hosts", "hostname", "resolv.conf")
        return {f"/etc/{n}": home / n for n in names if (home / n).exists()}

    def _with_variables(self, record: ContainerRecord) -> ContainerRecord:
        """The record with the variables of its links."""
        if not record.host.links:
            return record
        variables = [*self._links.environment(record), *(record.config.env or [])]
        return replace(record, config=replace(record.config, env=variables))

    # --- the shim ------------------------------------------------------------------------

    def _launch_spec(self, record: ContainerRecord, bundle: Path) -> LaunchSpec:
        services = self._services
        console = record.host.console_size or [0, 0]
        return LaunchSpec(
            id=record.id,
            directory=bundle,
            bundle=bundle,
            runtime=services.runtime.command(record.host.runtime),
            command=record.args[0],
            tty=record.config.tty,
            open_stdin=record.config.open_stdin,
            stdin_once=record.config.stdin_once,
            console_size=(console[0], console[1]) if all(console) else None,
            log=log_target(record, str(services.paths.log_file(record.id))),
        )
