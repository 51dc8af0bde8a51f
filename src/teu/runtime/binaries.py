"""Which OCI runtimes there are, where, and how they are called."""

import asyncio
import logging
import re
import shutil
from pathlib import Path
from typing import Final

from teu.errors import EngineError, InvalidParameter, SystemFailure
from teu.runtime.config import CRUN, RUNC, RuntimeBinary, RuntimeConfig
from teu.sys.cgroup import Cgroups
from teu.sys.process import run

PROBE_LIMIT_S: Final = 10.0
_SHIM_NAMES: Final = {"io.containerd.runc.v2": RUNC, "io.containerd.runtime.v1.linux": RUNC}
_INIT_NAMES: Final = ("docker-init", "tini-static", "tini", "catatonit", "dumb-init")
_INIT_FOLDERS: Final = ("/usr/libexec/teu", "/usr/libexec/docker", "/usr/libexec", "/usr/bin")
_CRUN_VERSION: Final = re.compile(rb"crun version (\d+)(?:\.(\d+))?")
log = logging.getLogger(__name__)


class Runtimes:
    """The configured runtimes and the two that are always known."""

    def __init__(self, config: RuntimeConfig) -> None:
        builtin = {name: RuntimeBinary(name) for name in (CRUN, RUNC)}
        self._known = {**builtin, **config.runtimes}
        self.default = config.default_runtime
        self._state = config.exec_root / "runtimes"
        self.versions: dict[str, str] = {}
        self._crun: dict[str, tuple[int, int]] = {}

    @property
    def names(self) -> list[str]:
        return sorted(self._known)

    def name(self, asked: str) -> str:
        """The runtime's own name for what a container asks. Raises: InvalidParameter."""
        name = _SHIM_NAMES.get(asked, asked) or self.default
        if name not in self._known:
            raise InvalidParameter(f"unknown or invalid runtime name: {asked}")
        return name

    def binary(self, asked: str) -> RuntimeBinary:
        """Raises: InvalidParameter."""
        return self._known[self.name(asked)]

    def takes_seccomp_program(self, asked: str) -> bool:
        """Whether the runtime loads a compiled filter instead of the profile. Known of crun 1.7
        and its successors of the same major version; nobody else must be trusted with it, for a
        runtime that ignores the annotation would start the container unfiltered."""
        return (1, 7) <= self._crun.get(self.name(asked), (0, 0)) < (2, 0)

    def command(self, asked: str) -> list[str]:
        """Program and global options; all state of the runtime is below its own `--root`."""
        name = self.name(asked)
        binary = self._known[name]
        command = [binary.path, *binary.args, "--root", str(self._state / name)]
        if name in self._crun:
            command.append("--cgroup-manager=cgroupfs")
        return command

    async def start(self, cgroups: Cgroups) -> None:
        """Asks each runtime for its version; the default one must answer.

        Raises: SystemFailure with what to install, or what to mount for crun on cgroup v1.
        """
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        await asyncio.gather(*map(self._probe, self._known))
        if self.default not in self._known:
            raise InvalidParameter(f"unknown or invalid runtime name: {self.default}")
        binary = self._known[self.default]
        if shutil.which(binary.path) is None:
            raise SystemFailure(
                f"the default runtime {self.default} is missing: {binary.path} cannot be run; "
                f"install it (apt install {self.default}) or set another default-runtime"
            )
        if self.default in self._crun and cgroups.stray:
            raise SystemFailure(_mixture(cgroups))

    async def _probe(self, name: str) -> None:
        binary = self._known[name]
        if shutil.which(binary.path) is None:
            return
        try:
            told = await run([binary.path, "--version"], timeout_s=PROBE_LIMIT_S)
        except EngineError as error:
            log.warning("runtime %s does not tell its version: %s", name, error)
            return
        first = told.stdout.decode(errors="replace").partition("\n")[0]
        self.versions[name] = first.rpartition(" ")[2]
        if match := _CRUN_VERSION.match(told.stdout):
            self._crun[name] = (int(match[1]), int(match[2] or 0))


def find_init(configured: str) -> Path:
    """The small init program for `--init`. Raises: SystemFailure with what to install."""
    if configured:
        found = shutil.which(configured)
        if found is None:
            raise SystemFailure(f"the init-path {configured} cannot be executed")
        return Path(found)
    for name in _INIT_NAMES:
        for folder in _INIT_FOLDERS:
            candidate = shutil.which(f"{folder}/{name}")
            if candidate:
                return Path(candidate)
        on_path = shutil.which(name)
        if on_path:
            return Path(on_path)
    raise SystemFailure(
        "--init needs a small init program and none was found; install one "
        "(apt install tini) or set init-path"
    )


def _mixture(cgroups: Cgroups) -> str:
    names = sorted(cgroups.stray)
    how = "; ".join(
        f"mkdir -p /sys/fs/cgroup/{name} && mount -t cgroup -o {name} cgroup /sys/fs/cgroup/{name}"
        for name in names
    )
    return (
        "crun cannot work with this host's mixture of cgroup versions: not mounted as version 1: "
        f"{', '.join(names)}. Mount them ({how}), or use another runtime (default-runtime: runc)"
    )
