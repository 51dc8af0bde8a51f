"""What the runtime service is told by the daemon's configuration."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from teu.model.config import Ulimit

CRUN = "crun"
RUNC = "runc"


class RuntimeBinary(Struct, frozen=True):
    """An OCI runtime as configured: a path or a name on PATH, and arguments before all others."""

    path: str
    args: tuple[str, ...] = ()


class RuntimeConfig(Struct, kw_only=True, frozen=True):
    """Empty strings mean the default.

    `runtimes`: the administrator's, by name; `crun` and `runc` exist without being listed.
    `cgroup_parent`: `/teu`-like path. `seccomp_profile`: a path, or `unconfined`.
    `cgroupns_mode`, `ipc_mode`: for containers that do not say.
    """

    exec_root: Path
    runtimes: Mapping[str, RuntimeBinary] = {}
    default_runtime: str = CRUN
    cgroup_parent: str = ""
    init: bool = False
    init_path: str = ""
    default_ulimits: Mapping[str, Ulimit] = {}
    default_shm_size: int = 64 << 20
    ipc_mode: str = "private"
    cgroupns_mode: str = ""
    no_new_privileges: bool = False
    seccomp_profile: str = ""
    cdi_spec_dirs: tuple[Path, ...] = ()
