"""Compiles an OCI seccomp section to the kernel's BPF program, through libseccomp.

crun compiles the profile again at each start (9 ms); given the program it only loads it. The
result behaves as what crun compiles itself: names unknown to this libseccomp are skipped, as are
rules that say what the default says anyway.

A section with flags or with actions that need a listener is not compiled (None): the runtime does
that itself. So is everything when libseccomp is missing.
Source: seccomp_init(3), seccomp_rule_add(3), seccomp_export_bpf(3); seccomp.h of libseccomp 2.5.
"""

import ctypes
import errno
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

_ERRNO: Final = 0x00050000
_TRACE: Final = 0x7FF00000
_ACTIONS: Final = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_TRACE": _TRACE,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_COMPARISONS: Final = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_UNKNOWN_SYSCALL: Final = -1
_OPTIMIZE: Final = 8  # SCMP_FLTATR_CTL_OPTIMIZE
_BINARY_TREE: Final = 2
_LAST_ARGUMENT: Final = 5


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))


class NotCompilable(Exception):
    """This section must be left to the runtime."""


def library_version() -> str:
    """`2.5.4`, empty when the library is not there."""
    library = _library()
    if library is None:
        return ""
    facts = library.seccomp_version().contents
    return f"{facts.major}.{facts.minor}.{facts.micro}"


def compile_section(section: Mapping[str, Any]) -> bytes | None:
    """The program as an array of `struct sock_filter`. Blocks for about 10 ms: use a thread.

    Returns: None when the runtime has to compile it.
    """
    library = _library()
    if library is None or section.get("flags") or section.get("listenerPath"):
        return None
    try:
        default = _action(section["defaultAction"], section.get("defaultErrnoRet"))
        context = library.seccomp_init(default)
        if not context:
            return None
        try:
            _fill(library, context, section, default)
            return _export(library, context)
        finally:
            library.seccomp_release(context)
    except NotCompilable:
        return None


def _fill(library: ctypes.CDLL, context: int, section: Mapping[str, Any], default: int) -> None:
    # Fewer instructions per system call; older libraries do not know it, which is no loss.
    library.seccomp_attr_set(context, _OPTIMIZE, _BINARY_TREE)
    for name in section.get("architectures") or ():
        short = name.removeprefix("SCMP_ARCH_").lower().encode()
        token = library.seccomp_arch_resolve_name(short)
        result = library.seccomp_arch_add(context, token) if token else -errno.EINVAL
        if result not in (0, -errno.EEXIST):
            raise NotCompilable(f"architecture {name}")
    for rule in section["syscalls"]:
        action = _action(rule["action"], rule.get("errnoRet"))
        if action != default:
            _add(library, context, action, rule)


def _add(library: ctypes.CDLL, context: int, action: int, rule: Mapping[str, Any]) -> None:
    comparisons = _comparisons(rule.get("args") or ())
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == _UNKNOWN_SYSCALL:
            continue
        result = library.seccomp_rule_add_array(
            context, action, number, len(comparisons), comparisons
        )
        if result != 0:
            raise NotCompilable(f"{name}: {os.strerror(-result)}")


def _comparisons(arguments: Sequence[Mapping[str, Any]]) -> "ctypes.Array[_Comparison]":
    found = []
    indexes = [argument["index"] for argument in arguments]
    if len(indexes) != len(set(indexes)) or any(index > _LAST_ARGUMENT for index in indexes):
        raise NotCompilable("several conditions on one argument")  # runtimes make rules of them
    for argument in arguments:
        op = _COMPARISONS.get(argument["op"])
        if op is None:
            raise NotCompilable(argument["op"])
        first, second = argument["value"], argument.get("valueTwo", 0)
        found.append(_Comparison(argument["index"], op, first, second))
    return (_Comparison * len(found))(*found)


def _action(name: str, errno_value: int | None) -> int:
    value = _ACTIONS.get(name)
    if value is None:
        raise NotCompilable(name)
    if value in (_ERRNO, _TRACE):
        value |= (errno.EPERM if errno_value is None else errno_value) & 0xFFFF
    return value


def _export(library: ctypes.CDLL, context: int) -> bytes:
    # seccomp_export_bpf_mem came with 2.6; a memory file serves all versions.
    fd = os.memfd_create("seccomp")
    try:
        result = library.seccomp_export_bpf(context, fd)
        if result != 0:
            raise NotCompilable(os.strerror(-result))
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    library.seccomp_version.restype = ctypes.POINTER(_Version)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_release.restype = None
    library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    library.seccomp_arch_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    )
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    return library
