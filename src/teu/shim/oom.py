"""Whether the kernel killed something for memory in a container's cgroup (v1 and v2)."""

import functools
import json

from teu.shim.files import read_file


class OomCounter:
    """Finds the memory cgroup of `pid`, which may be a zombie already. Never raises."""

    def __init__(self, pid: int, bundle: str) -> None:
        self._file = ""
        try:
            lines = read_file(f"/proc/{pid}/cgroup").decode().splitlines()
            self._find([line.split(":", 2) for line in lines], bundle)
        except (OSError, ValueError, LookupError):
            pass

    def killed(self) -> bool:
        try:
            lines = read_file(self._file).splitlines()
            counts = dict(line.split() for line in lines)
            return int(counts.get(b"oom_kill", 0)) > 0
        except (OSError, ValueError):
            return False

    def _find(self, entries: list[list[str]], bundle: str) -> None:
        version1 = [path for _, names, path in entries if "memory" in names.split(",")]
        version2 = [path for _, names, path in entries if not names]
        path = (version1 or version2)[0].removesuffix(" (deleted)")
        if path == "/":  # on v1 a zombie has left its cgroup
            path = json.loads(read_file(f"{bundle}/config.json"))["linux"]["cgroupsPath"]
        if not path.startswith("/") or path == "/":
            return
        name = "memory.oom_control" if version1 else "memory.events"
        self._file = f"{memory_mount(bool(version1))}{path}/{name}"


@functools.lru_cache(maxsize=2)
def memory_mount(version1: bool) -> str:
    """Where the memory controller is mounted. Raises: LookupError."""
    for line in read_file("/proc/self/mounts").decode().splitlines():
        _, path, kind, options, *_ = line.split()
        if version1 and kind == "cgroup" and "memory" in options.split(","):
            return path
        if not version1 and kind == "cgroup2":
            return path
    raise LookupError("no memory cgroup is mounted")
