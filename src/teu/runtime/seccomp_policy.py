"""Which system calls a container needs a capability for, beyond what a profile says.

Distributions tune their profile for containers inside containers: theirs lets everybody unshare
namespaces, mount, and read key rings, and trusts the kernel's own checks. Docker does not, for
these calls were behind most escapes. `tighten` brings such a profile to Docker's rules; `PROFILE`
is our own, for hosts without one: everything is allowed but these calls and some that nobody
should need.
Source: Docker's documentation, "Seccomp security profiles for Docker".
"""

from collections.abc import Mapping
from typing import Any, Final

_EPERM: Final = 1
_ENOSYS: Final = 38
_NEW_NAMESPACES: Final = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_NEVER: Final = "CAP_"  # a capability that nobody has

UNLOCKED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    capability: tuple(names.split())
    for capability, names in {
        "CAP_SYS_ADMIN": "bpf fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount "
        "mount_setattr move_mount open_tree perf_event_open pivot_root quotactl quotactl_fd "
        "setdomainname sethostname setns umount umount2 unshare",
        "CAP_SYS_BOOT": "reboot",
        "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
        "CAP_SYS_PTRACE": "pidfd_getfd",
        "CAP_SYSLOG": "syslog",
        _NEVER: "add_key keyctl request_key io_uring_setup io_uring_enter io_uring_register",
    }.items()
}
# Only where there is no distribution's profile: it rules these itself.
_MORE_UNLOCKED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    capability: tuple(names.split())
    for capability, names in {
        "CAP_DAC_READ_SEARCH": "open_by_handle_at",
        "CAP_SYS_MODULE": "delete_module finit_module init_module",
        "CAP_SYS_NICE": "migrate_pages move_pages",
        "CAP_SYS_PACCT": "acct",
        "CAP_SYS_PTRACE": "kcmp process_madvise",
        "CAP_SYS_RAWIO": "ioperm iopl",
        "CAP_SYS_TIME": "clock_adjtime clock_adjtime64 clock_settime clock_settime64 "
        "settimeofday stime",
        _NEVER: "_sysctl create_module get_kernel_syms kexec_file_load kexec_load nfsservctl "
        "pciconfig_iobase pciconfig_read pciconfig_write query_module sgetmask ssetmask "
        "swapcontext swapoff swapon sysfs uselib userfaultfd ustat vm86 vm86old vserver",
    }.items()
}
_RULED_HERE: Final = frozenset(
    ("clone", "clone3", *(name for names in UNLOCKED_BY.values() for name in names))
)


def tighten(profile: Mapping[str, Any]) -> Mapping[str, Any]:
    """A profile that allows by name only, with Docker's rules for the calls listed here."""
    if profile["defaultAction"] == "SCMP_ACT_ALLOW":
        return profile
    kept = []
    for rule in profile["syscalls"]:
        names = [name for name in rule["names"] if name not in _RULED_HERE]
        if names:
            kept.append({**rule, "names": names})
    ours = [
        rule
        for capability, names in UNLOCKED_BY.items()
        for rule in (_allow(names, capability), _deny(names, without=capability))
    ]
    return {**profile, "syscalls": [*kept, *ours, *_clone_allowed()]}


def _allow(names: tuple[str, ...], capability: str) -> dict[str, Any]:
    return {
        "names": list(names),
        "action": "SCMP_ACT_ALLOW",
        "includes": {"caps": [capability]},
    }


def _deny(names: tuple[str, ...], *, without: str, errno: int = _EPERM) -> dict[str, Any]:
    return {
        "names": list(names),
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": errno,
        "excludes": {"caps": [without]},
    }


def _clone3_hidden() -> dict[str, Any]:
    # Its flags are in memory, out of a filter's sight; with ENOSYS programs fall back to clone.
    return _deny(("clone3",), without="CAP_SYS_ADMIN", errno=_ENOSYS)


def _clone_allowed() -> list[dict[str, Any]]:
    """Threads and processes for everybody, new namespaces with CAP_SYS_ADMIN."""
    plain = {"value": _NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    rule = {
        "names": ["clone"],
        "action": "SCMP_ACT_ALLOW",
    }
    return [
        _allow(("clone", "clone3"), "CAP_SYS_ADMIN"),
        _clone3_hidden(),
        {
            **rule,
            "args": [{"index": 0, **plain}],
            "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390", "s390x"]},
        },
        {
            **rule,
            "args": [{"index": 1, **plain}],
            "includes": {"arches": ["s390", "s390x"]},
            "excludes": {"caps": ["CAP_SYS_ADMIN"]},
        },
    ]


def _clone_denied() -> list[dict[str, Any]]:
    """For a profile that allows the rest: any of the flags is enough."""
    flags = [1 << bit for bit in range(32) if _NEW_NAMESPACES >> bit & 1]
    return [
        {
            **_deny(("clone",), without="CAP_SYS_ADMIN"),
            "args": [{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}],
        }
        for flag in flags
    ]


PROFILE: Final[Mapping[str, Any]] = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "archMap": [
        {
            "architecture": "SCMP_ARCH_X86_64",
            "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        },
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": [
        *(_deny(names, without=capability) for capability, names in UNLOCKED_BY.items()),
        *(_deny(names, without=capability) for capability, names in _MORE_UNLOCKED_BY.items()),
        _clone3_hidden(),
        *_clone_denied(),
        {
            "names": ["socket"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": _EPERM,
            "args": [{"index": 0, "value": 40, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],  # AF_VSOCK
        },
    ],
}
