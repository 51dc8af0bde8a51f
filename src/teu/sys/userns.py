"""A user namespace that nobody lives in: the map of owners for an idmapped mount.

The kernel takes such a map only in the form of a namespace, and only a process can make one: a
short-lived helper does, and is gone before this returns.
Source: user_namespaces(7), mount_setattr(2).
"""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from teu.errors import SystemFailure
from teu.sys import process

_LIMIT_S: Final = 5.0
_MAP_LINES: Final = 340  # the kernel's limit


class IdRange(Struct, frozen=True):
    """`count` ids from `on_disk` on are shown as `shown` and following."""

    on_disk: int
    shown: int
    count: int


async def open_userns(uids: Sequence[IdRange], gids: Sequence[IdRange]) -> int:
    """A descriptor of a user namespace with these maps; the caller closes it.

    Raises: SystemFailure (user namespaces are off; ranges overlap).
    Cancel: safe.  Crash: the helper ends by itself within seconds.
    """
    helper = process.spawn_daemon_child(["unshare", "--user", "sleep", str(int(_LIMIT_S))])
    try:
        await _until_unshared(helper)
        for name, ranges in (("uid_map", uids), ("gid_map", gids)):
            if len(ranges) > _MAP_LINES:
                raise SystemFailure(f"a map of owners has at most {_MAP_LINES} ranges")
            lines = "".join(f"{r.on_disk} {r.shown} {r.count}\n" for r in ranges)
            try:
                Path(f"/proc/{helper.pid}/{name}").write_text(lines)
            except OSError as error:
                raise SystemFailure(
                    f"the kernel does not take this map of owners ({lines.strip()}): "
                    f"{error.strerror}; do ranges overlap?"
                ) from error
        return os.open(f"/proc/{helper.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        await helper.stop()


async def _until_unshared(helper: process.Process) -> None:
    own = os.readlink("/proc/self/ns/user")
    deadline = time.monotonic() + _LIMIT_S
    while helper.returncode is None and time.monotonic() < deadline:
        try:
            if os.readlink(f"/proc/{helper.pid}/ns/user") != own:
                return
        except OSError:
            break
        await asyncio.sleep(0.001)
    raise SystemFailure(
        "cannot make a user namespace: are they turned off on this host "
        "(sysctl user.max_user_namespaces)?"
    )
