"""Capabilities: their names, Docker's default set, and what `--cap-add`/`--cap-drop` make of it.

Source: capabilities(7); Docker's documented default list.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from teu.errors import InvalidParameter

# By bit number; the kernel's include/uapi/linux/capability.h.
_BY_BIT: Final = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP "
    "LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER "
    "SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE "
    "SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
    "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF "
    "CHECKPOINT_RESTORE"
)
_DOCKERS: Final = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP "
    "NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
)
NAMES: Final = tuple(f"CAP_{name}" for name in _BY_BIT.split())
DEFAULT: Final = tuple(f"CAP_{name}" for name in _DOCKERS.split())
ALL: Final = "ALL"


@cache
def available() -> tuple[str, ...]:
    """What this process may hand on: its own bounding set (the kernel knows no more)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return decode(int(line.split()[1], 16))
    raise AssertionError("no CapBnd in /proc/self/status")


def decode(mask: int) -> tuple[str, ...]:
    """Names of the bits that are set; bits newer than this list are left out."""
    return tuple(name for bit, name in enumerate(NAMES) if mask >> bit & 1)


def normalize(names: Sequence[str], allowed: Sequence[str]) -> list[str]:
    """`net_admin` -> `CAP_NET_ADMIN`; ALL stays ALL.

    Raises: InvalidParameter for a name that does not exist, or that is not in `allowed`.
    """
    found = []
    for name in names:
        upper = name.upper()
        if upper not in (ALL, f"CAP_{ALL}"):
            upper = upper if upper.startswith("CAP_") else f"CAP_{upper}"
            _check(upper, allowed)
        else:
            upper = ALL
        found.append(upper)
    return found


def _check(name: str, allowed: Sequence[str]) -> None:
    if name not in NAMES:
        raise InvalidParameter(f'unknown capability: "{name}"')
    if name not in allowed:
        raise InvalidParameter(
            "capability not supported by your kernel or not available in the current "
            f'environment: "{name}"'
        )


def tweak(
    add: Sequence[str], drop: Sequence[str], *, privileged: bool, allowed: Sequence[str]
) -> list[str]:
    """The container's set. Default minus `drop` plus `add`; ALL in `add` starts from everything,
    ALL in `drop` from nothing; privileged is everything that the daemon has.

    Raises: InvalidParameter as `normalize`.
    """
    if privileged:
        return list(allowed)
    dropped, added = normalize(drop, allowed), normalize(add, allowed)
    if ALL in added:
        return [name for name in allowed if name not in dropped]
    base = () if ALL in dropped else DEFAULT
    kept = [name for name in base if name not in dropped and name in allowed]
    return list(dict.fromkeys(kept + added))
