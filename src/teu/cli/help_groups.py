"""Which flags belong together, for commands that have too many for one list."""

from __future__ import annotations

_RUN = (
    (
        "Basics",
        ("detach", "interactive", "tty", "rm", "name", "env", "env-file", "entrypoint", "workdir",
         "user", "hostname", "restart", "pull", "platform", "cidfile", "attach", "detach-keys",
         "sig-proxy", "quiet"),
    ),
    (
        "Files and volumes",
        ("volume", "mount", "volumes-from", "volume-driver", "tmpfs", "read-only", "shm-size",
         "storage-opt"),
    ),
    (
        "Network",
        ("publish", "publish-all", "expose", "network", "network-alias", "ip", "ip6",
         "link-local-ip", "mac-address", "link", "dns", "dns-option", "dns-search", "add-host",
         "domainname"),
    ),
    (
        "Limits",
        ("memory", "memory-swap", "memory-reservation", "memory-swappiness", "oom-kill-disable",
         "oom-score-adj", "cpus", "cpu-shares", "cpuset-cpus", "cpuset-mems", "cpu-period",
         "cpu-quota", "cpu-rt-period", "cpu-rt-runtime", "pids-limit", "ulimit", "blkio-weight",
         "blkio-weight-device", "device-read-bps", "device-read-iops", "device-write-bps",
         "device-write-iops", "cgroup-parent"),
    ),
    (
        "Isolation and rights",
        ("privileged", "cap-add", "cap-drop", "security-opt", "group-add", "userns", "pid", "ipc",
         "uts", "cgroupns", "sysctl", "device", "device-cgroup-rule", "gpus", "isolation",
         "runtime"),
    ),
    (
        "Life cycle and health",
        ("init", "stop-signal", "stop-timeout", "health-cmd", "health-interval", "health-timeout",
         "health-retries", "health-start-period", "health-start-interval", "health-on-failure",
         "no-healthcheck"),
    ),
    ("Logs and labels", ("log-driver", "log-opt", "label", "label-file", "annotation")),
)  # fmt: skip

FLAG_GROUPS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "container run": _RUN,
    "container create": _RUN,
}

# How help calls the values of flags whose kind says little (`list`).
VALUE_NAMES = {
    "add-host": "host:ip",
    "attach": "stream",
    "cap-add": "capability",
    "cap-drop": "capability",
    "cidfile": "file",
    "device": "path",
    "dns": "ip",
    "dns-search": "domain",
    "env": "NAME=value",
    "env-file": "file",
    "expose": "port",
    "group-add": "group",
    "label": "name=value",
    "label-file": "file",
    "link": "container[:alias]",
    "log-opt": "name=value",
    "mount": "type=…,src=…,dst=…",
    "network-alias": "name",
    "publish": "[ip:]host:container",
    "storage-opt": "name=value",
    "sysctl": "name=value",
    "tmpfs": "path[:options]",
    "ulimit": "name=soft[:hard]",
    "user": "user[:group]",
    "volume": "source:path[:options]",
    "volumes-from": "container",
    "workdir": "path",
}
