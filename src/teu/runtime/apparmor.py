"""The AppArmor profile of containers, on kernels that have AppArmor.

`teu-default` allows what an ordinary program does and denies what reaches the host: mounts, most
of /proc/sys and /sys, kernel memory, raw security interfaces; ptrace and signals only among
containers and from the daemon's side. Loaded through apparmor_parser at start, and again when it
has vanished meanwhile (an upgrade of the apparmor package unloads what it does not know).
Source: apparmor.d(5); Docker's documented default profile.
"""

import logging
from pathlib import Path
from typing import Final

from teu.errors import SystemFailure
from teu.runtime.security import UNCONFINED
from teu.sys.process import CommandNotStarted, run

PROFILE_NAME: Final = "teu-default"
LOAD_LIMIT_S: Final = 30.0
_ENABLED: Final = Path("/sys/module/apparmor/parameters/enabled")
_LOADED: Final = Path("/sys/kernel/security/apparmor/profiles")
_ABSTRACTIONS: Final = Path("/etc/apparmor.d")
_TEMPLATE: Final = """
{tunables}

profile {name} flags=(attach_disconnected,mediate_deleted) {{
  {base}
  network,
  capability,
  file,
  umount,

  # Signals from outside (the daemon, runtimes, confined or not) and among containers.
  signal (receive) peer=unconfined,
  signal (receive) peer=runc,
  signal (receive) peer=crun,
  signal (send,receive) peer={name},

  # In /proc only a process's own directory is writable, and /proc/sys/kernel/shm*.
  deny @{{PROC}}/* w,
  deny @{{PROC}}/{{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}}/** w,
  deny @{{PROC}}/sys/[^k]** w,
  deny @{{PROC}}/sys/kernel/{{?,??,[^s][^h][^m]**}} w,
  deny @{{PROC}}/sysrq-trigger rwklx,
  deny @{{PROC}}/kcore rwklx,

  deny mount,

  # In /sys only cgroups.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,

  # Tracing inside a container and among containers.
  ptrace (trace,tracedby,read,readby) peer={name},
}}
"""
log = logging.getLogger(__name__)


class AppArmor:
    """Knows whether the kernel has AppArmor, and which profile a container gets."""

    def __init__(self, enabled: Path = _ENABLED, loaded: Path = _LOADED) -> None:
        self._enabled = enabled
        self._loaded = loaded

    @property
    def available(self) -> bool:
        try:
            return self._enabled.read_text().startswith("Y") and self._loaded.exists()
        except OSError:
            return False

    async def start(self) -> None:
        """Loads the default profile. Without the parser, containers run without a profile and
        the log says so."""
        if not self.available:
            return
        try:
            await self._load()
        except CommandNotStarted:
            log.warning(
                "this kernel has AppArmor but apparmor_parser is missing (install the apparmor "
                "package): containers run without an AppArmor profile"
            )

    def profile_for(self, asked: str, *, privileged: bool) -> str:
        """The profile's name for the runtime, empty for none."""
        if not self.available:
            return ""
        if asked == UNCONFINED or (privileged and not asked):
            return UNCONFINED
        return asked or PROFILE_NAME

    async def ensure(self, name: str) -> str:
        """Makes sure that what `profile_for` said is loaded; the name again, empty when it cannot
        be because the parser is missing.

        Raises: SystemFailure when a profile of the administrator's is not loaded.
        """
        if name in ("", UNCONFINED) or self._is_loaded(name):
            return name
        if name != PROFILE_NAME:
            raise SystemFailure(
                f"AppArmor profile {name!r} is not loaded; load it with apparmor_parser, "
                "or see the loaded ones with aa-status"
            )
        try:
            await self._load()
        except CommandNotStarted:
            return ""
        return name

    def _is_loaded(self, name: str) -> bool:
        try:
            lines = self._loaded.read_text().splitlines()
        except OSError as error:
            raise SystemFailure(f"cannot read AppArmor's profiles: {error}") from error
        return any(line.rpartition(" (")[0] == name for line in lines)

    async def _load(self) -> None:
        text = profile_text(PROFILE_NAME, abstractions=_ABSTRACTIONS)
        await run(["apparmor_parser", "-Kr"], stdin=text.encode(), timeout_s=LOAD_LIMIT_S)


def profile_text(name: str, *, abstractions: Path) -> str:
    """The profile for apparmor_parser; takes the distribution's base rules in where they are."""
    has_tunables = (abstractions / "tunables/global").exists()
    has_base = (abstractions / "abstractions/base").exists()
    return _TEMPLATE.format(
        name=name,
        tunables="#include <tunables/global>" if has_tunables else "@{PROC}=/proc/",
        base="#include <abstractions/base>" if has_base else "",
    )
