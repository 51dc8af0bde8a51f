"""Containers as the OCI runtime sees them: bundles, process objects, and calls to the runtime.

    EXEC_ROOT/runtimes/NAME/     that runtime's own state (its `--root`)
    EXEC_ROOT/seccomp/           compiled filters (filters.py)
    EXEC_ROOT/containers/ID/shm/ a tmpfs, only for containers whose IPC others may join
    BUNDLE/config.json           what `prepare` writes

Decides nothing about a container's life: the caller knows its state and holds its lock. Starting
a container is the shim's part; it gets the argument list from `command`.
"""

import asyncio
import logging
import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from teu.errors import InvalidParameter
from teu.model.config import ContainerConfig, HostConfig
from teu.model.container import ContainerRecord
from teu.runtime import (
    capabilities,
    cdi,
    limits,
    mountspec,
    namespaces,
    processes,
    resources,
    seccomp,
    security,
    spec,
    users,
    validate,
)
from teu.runtime.apparmor import AppArmor
from teu.runtime.binaries import Runtimes, find_init
from teu.runtime.config import RuntimeBinary, RuntimeConfig
from teu.runtime.filters import FilterCache
from teu.runtime.hostfacts import HostFacts
from teu.runtime.namespaces import HOST, PRIVATE, Joins
from teu.runtime.processes import Confinement, ExecRequest
from teu.runtime.security import SecurityOptions
from teu.sys import mounts, syscalls
from teu.sys.cgroup import Cgroups
from teu.sys.process import CommandFailed, Completed, run

log = logging.getLogger(__name__)
CALL_LIMIT_S: Final = 30.0
DEFAULT_CGROUP_PARENT: Final = "teu"
SECCOMP_PROGRAM: Final = "run.oci.seccomp_bpf_data"
NO_JOINS: Final = Joins()


class RuntimeService:
    """One for the daemon. `start` first; everything else then works from any task."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self._filters = FilterCache(config.exec_root / "seccomp", config.seccomp_profile)
        self._apparmor = AppArmor()
        self._cgroups = Cgroups(False, {})
        self._facts = HostFacts()
        self._runtimes = Runtimes(config)
        self._foreseen: asyncio.Future[None] | None = None
        self._own_hostname = ""
        self._recursive_read_only = False

    async def start(self) -> None:
        """Looks at the host, finds the default runtime, prepares the default seccomp filter.

        Raises: SystemFailure when the default runtime is missing or cannot work here, saying
        what to install or mount.
        """
        self._cgroups = Cgroups.detect()
        self._facts = HostFacts.detect(self._cgroups)
        self._own_hostname = os.uname().nodename
        self._recursive_read_only = seccomp.Machine.this().kernel >= (5, 12)
        self._check_ulimits(self._config)
        await asyncio.gather(
            self._runtimes.start(self._cgroups),
            self._apparmor.start(),
            self._filters.get("", capabilities.DEFAULT),
        )

    async def reload(self, config: RuntimeConfig) -> None:
        """Takes over another configuration for the containers that start from now on.

        Runtimes that are no longer configured stay callable for the containers that use them.
        Raises: as `start`; the old configuration stays then.
        """
        self._check_ulimits(config)
        runtimes = Runtimes(config, self._runtimes)
        filters = FilterCache(config.exec_root / "seccomp", config.seccomp_profile)
        await asyncio.gather(runtimes.start(self._cgroups), filters.get("", capabilities.DEFAULT))
        self._config, self._runtimes, self._filters = config, runtimes, filters

    def _check_ulimits(self, config: RuntimeConfig) -> None:
        for limit in config.default_ulimits.values():
            limits.check_ulimit(limit, self._facts)

    def foresee_start(self) -> None:
        """To be called when a start or an exec will follow, most likely, within milliseconds: what
        the kernel makes it wait for begins now, beside the preparations (see Cgroups.rejoin)."""
        if self._foreseen is None or self._foreseen.done():
            self._foreseen = asyncio.get_running_loop().run_in_executor(None, self._cgroups.rejoin)

    @property
    def cgroups(self) -> Cgroups:
        return self._cgroups

    def binary(self, name: str) -> RuntimeBinary:
        """Raises: InvalidParameter `unknown or invalid runtime name: X`."""
        return self._runtimes.binary(name)

    @property
    def default_runtime(self) -> str:
        return self._runtimes.default

    def known(self) -> dict[str, str]:
        """Name -> program of every runtime, for `info`."""
        return {name: self._runtimes.binary(name).path for name in self._runtimes.names}

    def version(self) -> str:
        """What the default runtime calls its version; empty when it did not say."""
        return self._runtimes.versions.get(self._runtimes.default, "")

    def security_options(self) -> list[str]:
        """Docker's words for what confines containers, for `info`."""
        options = ["name=seccomp,profile=builtin"]
        if self._apparmor.available:
            options.insert(0, "name=apparmor")
        if self._config.cgroupns_mode == PRIVATE or self._cgroups.unified:
            options.append("name=cgroupns")
        return options

    def command(self, name: str) -> list[str]:
        """How to call that runtime: program and global options; a subcommand follows.

        Raises: InvalidParameter.
        """
        return self._runtimes.command(name)

    def cgroup_path(self, record: ContainerRecord) -> str:
        """`/teu/ID`, relative to the root of each cgroup tree."""
        parent = record.host.cgroup_parent or self._config.cgroup_parent or DEFAULT_CGROUP_PARENT
        # Absolute, so that `..` ends at the root of the tree.
        return posixpath.normpath(f"/{parent.lstrip('/')}/{record.id}")

    async def prepare(
        self,
        record: ContainerRecord,
        *,
        rootfs: Path,
        bundle: Path,
        etc_files: Mapping[str, Path],
        prepared: Mapping[str, mountspec.Prepared],
        joins: Joins = NO_JOINS,
    ) -> None:
        """Writes `bundle/config.json`, ready for `run`.

        Args:   rootfs: mounted.  bundle: existing directory.  etc_files: path in the container
                -> file on the host.  prepared: destination of an asked mount -> what to mount
                there.  joins: namespaces of others; see `Joins`.
        Raises: InvalidParameter for what the image or host does not have (user, device, runtime).
        Cancel: safe.  Crash: a half-written file keeps another name; `delete` unmounts `shm`.
        """
        options = security.parse(record.host.security_opt or ())
        apparmor = await self._apparmor.ensure(self._apparmor_profile(record, options))
        facts = spec.Facts(
            rootfs=rootfs,
            user=users.resolve(rootfs, record.config.user, record.host.group_add or ()),
            cgroups_path=self.cgroup_path(record),
            unified=self._cgroups.unified,
            own_hostname=self._own_hostname,
            confinement=self._confinement(record, options, apparmor),
            security=options,
            sources=self._sources(record, etc_files, prepared),
            joins=joins,
            edits=self._device_edits(record),
            **await self._seccomp(record, options),
        )
        content = msgspec.json.encode(spec.build(record, facts))
        partial = bundle / "config.json.partial"
        with syscalls.os_errors("cannot write the container's configuration"):
            partial.write_bytes(content)
            os.replace(partial, bundle / "config.json")

    def exec_process(
        self, record: ContainerRecord, request: ExecRequest, rootfs: Path
    ) -> dict[str, Any]:
        """The OCI process object of an exec.

        Raises: InvalidParameter for an unknown user or an empty command.
        """
        if not request.cmd:
            raise InvalidParameter("No exec command specified")
        options = security.parse(record.host.security_opt or ())
        return processes.exec_process(
            record,
            request,
            users.resolve(rootfs, request.user or record.config.user, record.host.group_add or ()),
            self._confinement(record, options, self._apparmor_profile(record, options)),
            hostname=processes.hostname_of(record, self._own_hostname),
        )

    async def delete(self, record: ContainerRecord) -> None:
        """Kills what is left of it, removes its cgroup and the runtime's state; idempotent.

        Raises: SystemFailure, CommandTimedOut.
        """
        try:
            await self._call(record, "delete", "--force", record.id)
        except CommandFailed as error:
            if not _says_gone(error.completed.stderr):
                raise
        with syscalls.os_errors("cannot remove what a container left behind"):
            # A start that failed half way leaves the cgroup, and the runtime knows nothing of it.
            self._cgroups.remove(self.cgroup_path(record))
            mounts.unmount(self._shm(record.id), lazy=True)

    async def pause(self, record: ContainerRecord) -> None:
        """Freezes all processes. Raises: SystemFailure with the runtime's words."""
        await self._call(record, "pause", record.id)

    def is_paused(self, record: ContainerRecord) -> bool | None:
        """Whether its processes are frozen; None when it has no cgroup that says so."""
        return self._cgroups.frozen(self.cgroup_path(record))

    async def resume(self, record: ContainerRecord) -> None:
        """Undoes `pause`. Raises: SystemFailure with the runtime's words."""
        await self._call(record, "resume", record.id)

    async def update(self, record: ContainerRecord) -> None:
        """Applies the limits that `record.host` has now to the running container.

        Raises: SystemFailure with the runtime's words; some limits may be changed then.
        """
        wanted = resources.build(record.host, unified=self._cgroups.unified)
        words = ("update", "--resources", "-", record.id)
        await self._call(record, *words, stdin=msgspec.json.encode(wanted))
        if "pids" not in wanted:
            with syscalls.os_errors("cannot lift the limit of processes"):
                self._cgroups.lift_pids_limit(self.cgroup_path(record))

    def fill_defaults(self, host: HostConfig) -> None:
        """Writes what Docker writes into an asked configuration at create: runtime, shared
        memory, swap, OOM killer, IPC and cgroup namespace mode, hidden paths. Inspect shows them.

        Raises: InvalidParameter for a security option that does not exist.
        """
        host.runtime = host.runtime or self._runtimes.default
        host.shm_size = host.shm_size or self._config.default_shm_size
        host.ipc_mode = host.ipc_mode or self._config.ipc_mode
        if host.memory > 0 and not host.memory_swap:
            host.memory_swap = 2 * host.memory
        if host.oom_kill_disable is None:
            host.oom_kill_disable = False
        if not host.cgroupns_mode:
            unified = self._cgroups.unified
            default = self._config.cgroupns_mode or (PRIVATE if unified else HOST)
            host.cgroupns_mode = HOST if host.privileged and not unified else default
        spec.fill_hidden_paths(host)
        security.fill_label(host)

    def validate(self, host: HostConfig, config: ContainerConfig) -> list[str]:
        """Checks a container at create time, after `fill_defaults`, before a host name is filled
        in. What this host cannot limit is taken out of `host`.

        Returns: warnings for the client.
        Raises:  InvalidParameter with Docker's text.
        """
        validate.check_config(config)
        validate.check_host(host)
        validate.check_conflicts(host, config)
        self.binary(host.runtime)
        self._filters.check(security.parse(host.security_opt or ()).seccomp)
        return limits.check(host, self._facts)

    def validate_update(self, host: HostConfig) -> list[str]:
        """Checks the new limits of an `update`, merged into the whole configuration."""
        return limits.check(host, self._facts, update=True)

    @property
    def facts(self) -> HostFacts:
        """What this host can limit, for `info`."""
        return self._facts

    def processes(self, record: ContainerRecord) -> list[int]:
        """Host pids of everything that runs in the container, execs included."""
        return self._cgroups.processes(self.cgroup_path(record))

    async def _call(self, record: ContainerRecord, *words: str, stdin: bytes = b"") -> Completed:
        command = [*self.command(record.host.runtime), *words]
        return await run(command, timeout_s=CALL_LIMIT_S, stdin=stdin)

    def _device_edits(self, record: ContainerRecord) -> list[cdi.Edits]:
        requests = [r for r in record.host.device_requests or () if cdi.is_request(r)]
        return cdi.edits_for(requests, self._config.cdi_spec_dirs) if requests else []

    @property
    def cdi_directories(self) -> list[str]:
        """Where CDI files are looked for, for `info`."""
        return [str(directory) for directory in self._config.cdi_spec_dirs]

    def cdi_devices(self) -> list[str]:
        """Full names of the CDI devices there are, for `info`; none when a file is broken."""
        try:
            return sorted(cdi.discover(self._config.cdi_spec_dirs))
        except InvalidParameter as error:
            log.warning("%s", error)
            return []

    def _confinement(
        self, record: ContainerRecord, options: SecurityOptions, apparmor: str
    ) -> Confinement:
        asked = options.no_new_privileges
        return Confinement(
            no_new_privileges=self._config.no_new_privileges if asked is None else asked,
            apparmor=apparmor,
            ulimits=self._config.default_ulimits,
        )

    def _apparmor_profile(self, record: ContainerRecord, options: SecurityOptions) -> str:
        return self._apparmor.profile_for(options.apparmor, privileged=record.host.privileged)

    async def _seccomp(self, record: ContainerRecord, options: SecurityOptions) -> dict[str, Any]:
        """The parts of `Facts` about seccomp."""
        if record.host.privileged:
            return {}
        granted = processes.container_capabilities(record, privileged=False)
        found = await self._filters.get(options.seccomp, granted)
        if found is None:
            return {}
        if found.program and self._runtimes.takes_seccomp_program(record.host.runtime):
            # Without the section, which crun would only parse: 0.5 ms.
            return {"annotations": {SECCOMP_PROGRAM: found.program}}
        return {"seccomp": found.section}

    def _sources(
        self,
        record: ContainerRecord,
        etc_files: Mapping[str, Path],
        prepared: Mapping[str, mountspec.Prepared],
    ) -> mountspec.Sources:
        return mountspec.Sources(
            etc_files=etc_files,
            prepared=prepared,
            shm=self._shared_memory(record),
            init=self._init_binary(record),
            recursive_read_only=self._recursive_read_only
            and self._runtimes.takes_recursive_read_only(record.host.runtime),
            shm_bytes=self._config.default_shm_size,
        )

    def _shared_memory(self, record: ContainerRecord) -> Path | None:
        """A tmpfs that other containers can mount too, only where somebody may join."""
        mode = record.host.ipc_mode
        if other := namespaces.joined_container(mode):
            return self._shm(other)
        if mode != namespaces.SHAREABLE:
            return None
        shm = self._shm(record.id)
        with syscalls.os_errors("cannot make the shared memory"):
            shm.mkdir(parents=True, exist_ok=True)
            if not mounts.is_mounted(shm):
                flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
                size_bytes = record.host.shm_size or self._config.default_shm_size
                mounts.tmpfs(shm, size_bytes=size_bytes, mode=0o1777, flags=flags)
        return shm

    def _shm(self, container_id: str) -> Path:
        return self._config.exec_root / "containers" / container_id / "shm"

    def _init_binary(self, record: ContainerRecord) -> Path | None:
        """The init to put in front; never into a pid namespace that already has one."""
        host = record.host
        wanted = self._config.init if host.init is None else host.init
        if not wanted or host.pid_mode:
            return None
        return find_init(self._config.init_path)


def _says_gone(stderr: bytes) -> bool:
    """crun and runc take a missing container as deleted; others may say so and fail."""
    return b"does not exist" in stderr
