"""Whether the kernel killed something for memory in a container's cgroup (v1 and v2)."""

import json


class OomCounter:
    """Finds the memory cgroup of `pid`, which may be a zombie already. Never raises."""

    def __init__(self, pid: int, bundle: str) -> None:
        self._file = ""
        try:
            with open(f"/proc/{pid}/cgroup") as file:
                lines = file.read().splitlines()
            self._find([line.split(":", 2) for line in lines], bundle)
        except (OSError, ValueError, LookupError):
            pass

    def killed(self) -> bool:
        try:
            with open(self._file) as file:
                counts = dict(line.split() for line in file)
            return int(counts.get("oom_kill", 0)) > 0
        except (OSError, ValueError):
            return False

    def _find(self, entries: list[list[str]], bundle: str) -> None:
        version1 = [path for _, names, path in entries if "memory" in names.split(",")]
        version2 = [path for _, names, path in entries if not names]
        path = (version1 or version2)[0].removesuffix(" (deleted)")
        if path == "/":  # on v1 a zombie has left its cgroup
            with open(f"{bundle}/config.json") as file:
                path = json.load(file)["linux"]["cgroupsPath"]
        if not path.startswith("/") or path == "/":
            return
        name = "memory.oom_control" if version1 else "memory.events"
        self._file = f"{_mount_point(bool(version1))}{path}/{name}"


def _mount_point(version1: bool) -> str:
    with open("/proc/self/mounts") as file:
        for _, path, kind, options, *_ in map(str.split, file):
            if version1 and kind == "cgroup" and "memory" in options.split(","):
                return path
            if not version1 and kind == "cgroup2":
                return path
    raise LookupError("no memory cgroup is mounted")
