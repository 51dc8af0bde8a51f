"""The keys of a service, and of the other top-level objects.

Source: Compose Specification, "Services top-level element" and its neighbours.
"""

from __future__ import annotations

from typing import Any

from teu.compose import references, shapes
from teu.compose.errors import Place
from teu.compose.shapes import (
    Reader,
    anything,
    boolean,
    command,
    duration,
    integer,
    labels,
    mapping,
    number,
    one_of,
    one_or_more,
    pairs,
    sequence,
    size,
    string,
    table,
    text,
)


def _depends_on(value: Any, place: Place) -> Any:
    if isinstance(value, list):
        names = sequence(string, unique=True)(value, place)
        value = shapes.as_map({name: shapes.as_map({}, place) for name in names}, place)
    keys = {
        "condition": one_of("service_started", "service_healthy", "service_completed_successfully"),
        "restart": boolean,
        "required": boolean,
    }
    found = mapping(table(keys))(value, place)
    for entry in found.values():
        entry.setdefault("condition", "service_started")
        entry.setdefault("required", True)
    return found


def _networks(value: Any, place: Place) -> Any:
    if isinstance(value, list):
        names = sequence(string, unique=True)(value, place)
        value = shapes.as_map(dict.fromkeys(names), place)
    keys = {
        "aliases": sequence(string, unique=True),
        "ipv4_address": string,
        "ipv6_address": string,
        "link_local_ips": sequence(string),
        "mac_address": string,
        "driver_opts": mapping(text),
        "interface_name": string,
        "priority": number,
        "gw_priority": number,
    }
    read = table(keys)
    found = mapping(lambda entry, here: None if entry is None else read(entry, here))(value, place)
    return found


def _healthcheck(value: Any, place: Place) -> Any:
    def test(words: Any, here: Place) -> list[str]:
        if isinstance(words, str):
            return ["CMD-SHELL", words]
        found: list[str] = sequence(text)(words, here)
        if found and found[0] not in ("NONE", "CMD", "CMD-SHELL"):
            raise here.error(f"must begin with NONE, CMD or CMD-SHELL, not {found[0]!r}")
        return found

    return table(
        {
            "test": test,
            "interval": duration,
            "timeout": duration,
            "retries": integer,
            "start_period": duration,
            "start_interval": duration,
            "disable": boolean,
        }
    )(value, place)


def _ulimits(value: Any, place: Place) -> Any:
    read = table({"soft": integer, "hard": integer})

    def one(entry: Any, here: Place) -> Any:
        return read(entry, here) if isinstance(entry, dict) else integer(entry, here)

    return mapping(one)(value, place)


def _env_file(value: Any, place: Place) -> Any:
    keys = {"path": string, "required": boolean, "format": string}
    item = table(keys, short=lambda words, here: {"path": string(words, here)})
    found = one_or_more(item)(value, place)
    for entry in found:
        entry.setdefault("required", True)
    return found


def _extends(value: Any, place: Place) -> Any:
    keys = {"service": string, "file": string}
    return table(keys, short=lambda words, here: {"service": string(words, here)})(value, place)


def _ssh(value: Any, place: Place) -> Any:
    if isinstance(value, dict):
        return [f"{key}={path}" if path else key for key, path in value.items()]
    return one_or_more(string)(value, place)


_BUILD_KEYS: dict[str, Reader] = {
    "additional_contexts": pairs,
    "args": pairs,
    "cache_from": sequence(string),
    "cache_to": sequence(string),
    "context": string,
    "dockerfile": string,
    "dockerfile_inline": string,
    "entitlements": sequence(string),
    "extra_hosts": references.extra_hosts,
    "isolation": string,
    "labels": labels,
    "network": string,
    "no_cache": boolean,
    "no_cache_filter": one_or_more(string),
    "platforms": sequence(string),
    "privileged": boolean,
    "provenance": anything,
    "pull": boolean,
    "sbom": anything,
    "secrets": sequence(references.file_reference),
    "shm_size": size,
    "ssh": _ssh,
    "tags": sequence(string),
    "target": string,
    "ulimits": _ulimits,
}
_build = table(_BUILD_KEYS, short=lambda words, here: {"context": string(words, here)})

_DEVICE_REQUEST = {
    "capabilities": sequence(string),
    "count": anything,
    "device_ids": sequence(string),
    "driver": string,
    "options": pairs,
}
_RESOURCES = {
    "limits": table({"cpus": text, "memory": size, "pids": integer}),
    "reservations": table(
        {
            "cpus": text,
            "memory": size,
            "devices": sequence(table(_DEVICE_REQUEST)),
            "generic_resources": anything,
        }
    ),
}
_UPDATE = {
    "parallelism": integer,
    "delay": duration,
    "failure_action": string,
    "monitor": duration,
    "max_failure_ratio": number,
    "order": one_of("start-first", "stop-first"),
}
_DEPLOY = {
    "mode": string,
    "endpoint_mode": string,
    "replicas": integer,
    "labels": labels,
    "update_config": table(_UPDATE),
    "rollback_config": table(_UPDATE),
    "resources": table(_RESOURCES),
    "restart_policy": table(
        {"condition": string, "delay": duration, "max_attempts": integer, "window": duration}
    ),
    "placement": anything,
}


def _gpus(value: Any, place: Place) -> Any:
    if value == "all":
        return [{"count": -1}]
    return sequence(table(_DEVICE_REQUEST))(value, place)


_LIMIT_RATE = sequence(table({"path": string, "rate": size}))
_HOOK = {
    "command": command,
    "user": string,
    "privileged": boolean,
    "working_dir": string,
    "environment": pairs,
}
_WATCH = {
    "path": string,
    "action": one_of("rebuild", "sync", "restart", "sync+restart", "sync+exec"),
    "target": string,
    "ignore": sequence(string),
    "include": sequence(string),
    "initial_sync": boolean,
    "exec": table(_HOOK),
}

SERVICE_KEYS: dict[str, Reader] = {
    "annotations": labels,
    "attach": boolean,
    "blkio_config": table(
        {
            "weight": integer,
            "weight_device": sequence(table({"path": string, "weight": integer})),
            "device_read_bps": _LIMIT_RATE,
            "device_read_iops": _LIMIT_RATE,
            "device_write_bps": _LIMIT_RATE,
            "device_write_iops": _LIMIT_RATE,
        }
    ),
    "build": _build,
    "cap_add": sequence(string, unique=True),
    "cap_drop": sequence(string, unique=True),
    "cgroup": one_of("host", "private"),
    "cgroup_parent": string,
    "command": command,
    "configs": sequence(references.file_reference),
    "container_name": string,
    "cpu_count": integer,
    "cpu_percent": number,
    "cpu_period": integer,
    "cpu_quota": integer,
    "cpu_rt_period": anything,
    "cpu_rt_runtime": anything,
    "cpu_shares": integer,
    "cpus": number,
    "cpuset": string,
    "credential_spec": anything,
    "depends_on": _depends_on,
    "deploy": table(_DEPLOY),
    "develop": table({"watch": sequence(table(_WATCH))}),
    "device_cgroup_rules": sequence(string),
    "devices": sequence(references.device),
    "dns": one_or_more(string),
    "dns_opt": sequence(string),
    "dns_search": one_or_more(string),
    "domainname": string,
    "driver_opts": mapping(text),
    "entrypoint": command,
    "env_file": _env_file,
    "environment": pairs,
    "expose": sequence(text, unique=True),
    "extends": _extends,
    "external_links": sequence(string),
    "extra_hosts": references.extra_hosts,
    "gpus": _gpus,
    "group_add": sequence(text, unique=True),
    "healthcheck": _healthcheck,
    "hostname": string,
    "image": string,
    "init": boolean,
    "ipc": string,
    "isolation": string,
    "label_file": one_or_more(string),
    "labels": labels,
    "links": sequence(string, unique=True),
    "logging": table({"driver": string, "options": mapping(text)}),
    "mac_address": string,
    "mem_limit": size,
    "mem_reservation": size,
    "mem_swappiness": integer,
    "memswap_limit": size,
    "network_mode": string,
    "networks": _networks,
    "oom_kill_disable": boolean,
    "oom_score_adj": integer,
    "pid": string,
    "pids_limit": integer,
    "platform": string,
    "ports": references.ports,
    "post_start": sequence(table(_HOOK)),
    "pre_stop": sequence(table(_HOOK)),
    "privileged": boolean,
    "profiles": sequence(string, unique=True),
    "pull_policy": string,
    "read_only": boolean,
    "restart": string,
    "runtime": string,
    "scale": integer,
    "secrets": sequence(references.file_reference),
    "security_opt": sequence(string, unique=True),
    "shm_size": size,
    "stdin_open": boolean,
    "stop_grace_period": duration,
    "stop_signal": string,
    "storage_opt": mapping(text),
    "sysctls": labels,
    "tmpfs": one_or_more(string),
    "tty": boolean,
    "ulimits": _ulimits,
    "user": text,
    "userns_mode": string,
    "uts": string,
    "volumes": references.volumes,
    "volumes_from": sequence(string, unique=True),
    "working_dir": string,
}


def _external(value: Any, place: Place) -> bool:
    """`external: {name: x}` of old files is `external: true` with a name."""
    if isinstance(value, dict):
        raise place.error("must be true or false; write the name beside it")
    return boolean(value, place)


_IPAM = {
    "driver": string,
    "config": sequence(
        table(
            {
                "subnet": string,
                "gateway": string,
                "ip_range": string,
                "aux_addresses": mapping(string),
            }
        )
    ),
    "options": mapping(text),
}
_NETWORK = table(
    {
        "name": string,
        "driver": string,
        "driver_opts": mapping(text),
        "attachable": boolean,
        "enable_ipv4": boolean,
        "enable_ipv6": boolean,
        "external": _external,
        "internal": boolean,
        "ipam": table(_IPAM),
        "labels": labels,
    }
)
_VOLUME = table(
    {
        "name": string,
        "driver": string,
        "driver_opts": mapping(text),
        "external": _external,
        "labels": labels,
    }
)
_FILE = table(
    {
        "name": string,
        "file": string,
        "environment": string,
        "content": string,
        "external": _external,
        "labels": labels,
        "driver": string,
        "driver_opts": mapping(text),
        "template_driver": string,
    }
)


def _objects(read: Reader) -> Reader:
    """Named ones; an empty entry is one with all defaults."""

    def one(value: Any, place: Place) -> Any:
        return read(shapes.as_map({}, place) if value is None else value, place)

    return mapping(shapes.kept(one))


def _include(value: Any, place: Place) -> Any:
    keys = {
        "path": one_or_more(string),
        "project_directory": string,
        "env_file": one_or_more(string),
    }
    return sequence(table(keys, short=lambda words, _: {"path": words}))(value, place)


_service = table(SERVICE_KEYS)
DOCUMENT = table(
    {
        "version": text,
        "name": string,
        "include": _include,
        "services": _objects(_service),
        "networks": _objects(_NETWORK),
        "volumes": _objects(_VOLUME),
        "configs": _objects(_FILE),
        "secrets": _objects(_FILE),
    }
)
