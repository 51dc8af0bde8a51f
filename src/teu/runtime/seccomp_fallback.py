"""Our own seccomp profile, for hosts without the distribution's: all is allowed but what reaches
the host's kernel state, other namespaces, or rarely used and often attacked parts.

Grouped by the capability that unlocks it, in Docker's profile format.
"""

from typing import Any, Final

_EPERM: Final = 1
_ENOSYS: Final = 38
_CLONE_NEW_NAMESPACES: Final = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}

_NEVER: Final = (
    "add_key keyctl request_key get_kernel_syms query_module create_module nfsservctl _sysctl "
    "sysfs uselib ustat userfaultfd vm86 vm86old vserver kexec_file_load kexec_load "
    "io_uring_setup io_uring_enter io_uring_register pciconfig_iobase pciconfig_read "
    "pciconfig_write sgetmask ssetmask swapcontext"
)
_UNLOCKED_BY: Final = {
    "CAP_SYS_ADMIN": "bpf fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount "
    "mount_setattr move_mount open_tree perf_event_open pivot_root quotactl quotactl_fd setns "
    "swapoff swapon umount umount2 unshare",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind migrate_pages move_pages set_mempolicy "
    "set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_adjtime clock_adjtime64 clock_settime clock_settime64 settimeofday "
    "stime",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
}


def _deny(names: str, *, without: str = "", errno: int = _EPERM) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "names": names.split(),
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": errno,
    }
    if without:
        rule["excludes"] = {"caps": [without]}
    return rule


def _deny_new_namespaces() -> list[dict[str, Any]]:
    """One rule for each flag: `clone` with any of them set is denied."""
    flags = [1 << bit for bit in range(32) if _CLONE_NEW_NAMESPACES >> bit & 1]
    return [
        {
            **_deny("clone", without="CAP_SYS_ADMIN"),
            "args": [{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}],
        }
        for flag in flags
    ]


PROFILE: Final[dict[str, Any]] = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "archMap": [
        {
            "architecture": "SCMP_ARCH_X86_64",
            "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        },
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": [
        _deny(_NEVER),
        *(_deny(names, without=capability) for capability, names in _UNLOCKED_BY.items()),
        # Its flags are in memory, out of a filter's sight; with ENOSYS programs fall back to clone.
        _deny("clone3", without="CAP_SYS_ADMIN", errno=_ENOSYS),
        *_deny_new_namespaces(),
        {
            **_deny("socket"),
            "args": [{"index": 0, "value": 40, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],  # AF_VSOCK
        },
    ],
}
