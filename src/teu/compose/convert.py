"""A service as the body of `POST /containers/create`; networks and volumes as theirs.

Source: Docker Engine API 1.44 (several networks at once); labels and names as docker compose v2.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from teu.compose.project import Project, Service, dependencies
from teu.compose.shapes import seconds

PREFIX = "com.docker.compose."
VERSION = "2.40.0"  # of docker compose, whose labels these are
_NS = 1_000_000_000
_SECRETS, _CONFIGS = "/run/secrets/", "/"
_NOT_HASHED = ("build", "scale", "depends_on", "profiles", "pull_policy", "develop", "attach")


def label(name: str) -> str:
    return PREFIX + name


def image_of(project: Project, key: str) -> str:
    """The image's name; that of what is built when the service gives none."""
    return str(project.services[key].get("image") or f"{project.name}-{key}")


def container_name(project: Project, key: str, number: int) -> str:
    given = project.services[key].get("container_name")
    return str(given) if given else f"{project.name}-{key}-{number}"


def config_hash(project: Project, key: str) -> str:
    """Changes when a container would have to be another one."""
    service = {k: v for k, v in project.services[key].items() if k not in _NOT_HASHED}
    if "deploy" in service:
        service["deploy"] = {k: v for k, v in service["deploy"].items() if k != "replicas"}
    contents = [_file_facts(project, kind, key) for kind in ("configs", "secrets")]
    text = json.dumps([service, image_of(project, key), contents], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def service_labels(
    project: Project, key: str, number: int, *, oneoff: bool = False
) -> dict[str, str]:
    """What says to whom a container belongs."""
    needed = dependencies(project.services[key])
    depends = [
        f"{n}:{how['condition']}:{_go(how.get('restart', False))}" for n, how in needed.items()
    ]
    found = {
        "project": project.name,
        "service": key,
        "container-number": str(number),
        "oneoff": "True" if oneoff else "False",
        "config-hash": config_hash(project, key),
        "project.working_dir": project.directory,
        "project.config_files": ",".join(project.files),
        "depends_on": ",".join(depends),
        "version": VERSION,
    }
    return {label(name): value for name, value in found.items()}


def container_body(
    project: Project, key: str, number: int, *, oneoff: bool = False, peers: dict[str, str]
) -> dict[str, Any]:
    """`peers`: service -> id of its container, for `network_mode: service:X` and the like."""
    service = project.services[key]
    body: dict[str, Any] = {
        "Image": image_of(project, key),
        "Labels": {
            **service.get("labels", {}),
            **service_labels(project, key, number, oneoff=oneoff),
        },
        "Env": _environment(service.get("environment", {})),
        "Tty": service.get("tty", False),
        "OpenStdin": service.get("stdin_open", False),
        "ExposedPorts": _exposed(service),
        "HostConfig": _host_config(project, service, peers),
        "NetworkingConfig": {"EndpointsConfig": _endpoints(project, key, number, oneoff)},
    }
    for name, field in (
        ("command", "Cmd"), ("entrypoint", "Entrypoint"), ("hostname", "Hostname"),
        ("domainname", "Domainname"), ("user", "User"), ("working_dir", "WorkingDir"),
        ("stop_signal", "StopSignal"), ("mac_address", "MacAddress"),
    ):  # fmt: skip
        if service.get(name) is not None:
            body[field] = service[name]
    if "stop_grace_period" in service:
        body["StopTimeout"] = round(seconds(service["stop_grace_period"]))
    if "healthcheck" in service:
        body["Healthcheck"] = _healthcheck(service["healthcheck"])
    return body


def network_body(project: Project, key: str) -> dict[str, Any]:
    network = project.networks[key]
    ipam = network.get("ipam", {})
    ranges = {"subnet": "Subnet", "gateway": "Gateway", "ip_range": "IPRange",
              "aux_addresses": "AuxiliaryAddresses"}  # fmt: skip
    return {
        "Name": network["name"],
        "Driver": network.get("driver", "bridge"),
        "Options": network.get("driver_opts", {}),
        "Internal": network.get("internal", False),
        "Attachable": network.get("attachable", False),
        "EnableIPv6": network.get("enable_ipv6", False),
        **({"EnableIPv4": network["enable_ipv4"]} if "enable_ipv4" in network else {}),
        "IPAM": {
            "Driver": ipam.get("driver", "default"),
            "Config": [
                {ranges[name]: value for name, value in entry.items() if name in ranges}
                for entry in ipam.get("config", ())
            ],
        },
        "Labels": {
            **network.get("labels", {}),
            **_object_labels(project, "network", key),
        },
    }


def volume_body(project: Project, key: str) -> dict[str, Any]:
    volume = project.volumes[key]
    return {
        "Name": volume["name"],
        "Driver": volume.get("driver", "local"),
        "DriverOpts": volume.get("driver_opts", {}),
        "Labels": {**volume.get("labels", {}), **_object_labels(project, "volume", key)},
    }


def copied_files(project: Project, key: str) -> list[tuple[str, bytes, int, int, int]]:
    """Configs and secrets that are put into the container: (path, content, mode, uid, gid).

    Those that are files and ask for nothing special are mounted instead. Raises: OSError.
    """
    found = []
    for kind, entry, definition in _files(project, key):
        if _is_mounted(entry, definition):
            continue
        mode = entry.get("mode", 0o444)
        owner = int(entry.get("uid", 0)), int(entry.get("gid", 0))
        content = _content(project, definition)
        found.append((_target(kind, entry), content, mode, *owner))
    return found


def _files(project: Project, key: str) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(kind, what the service says, what the project says) of its configs and secrets."""
    return [
        (kind, entry, getattr(project, kind)[entry["source"]])
        for kind in ("configs", "secrets")
        for entry in project.services[key].get(kind, ())
    ]


def _file_facts(project: Project, kind: str, key: str) -> list[str]:
    facts = []
    for found, entry, definition in _files(project, key):
        if found == kind and not _is_mounted(entry, definition):
            try:
                facts.append(hashlib.sha256(_content(project, definition)).hexdigest())
            except OSError:
                facts.append("")
    return facts


def _is_mounted(entry: dict[str, Any], definition: dict[str, Any]) -> bool:
    return "file" in definition and not {"uid", "gid", "mode"} & entry.keys()


def _content(project: Project, definition: dict[str, Any]) -> bytes:
    if "content" in definition:
        return str(definition["content"]).encode()
    if "environment" in definition:
        return project.environment.get(definition["environment"], "").encode()
    with open(definition["file"], "rb") as file:
        return file.read()


def _target(kind: str, entry: dict[str, Any]) -> str:
    target = str(entry.get("target") or entry["source"])
    if target.startswith("/"):
        return target
    return (_SECRETS if kind == "secrets" else _CONFIGS) + target


def _object_labels(project: Project, kind: str, key: str) -> dict[str, str]:
    return {label("project"): project.name, label(kind): key, label("version"): VERSION}


def _environment(variables: dict[str, str | None]) -> list[str]:
    return [name if value is None else f"{name}={value}" for name, value in variables.items()]


def _exposed(service: Service) -> dict[str, Any]:
    ports = [f"{port['target']}/{port['protocol']}" for port in service.get("ports", ())]
    for entry in service.get("expose", ()):
        ports.append(entry if "/" in entry else f"{entry}/tcp")
    return {port: {} for port in ports}


def _bindings(service: Service) -> dict[str, Any]:
    found: dict[str, list[dict[str, str]]] = {}
    for port in service.get("ports", ()):
        key = f"{port['target']}/{port['protocol']}"
        binding = {"HostIp": port.get("host_ip", ""), "HostPort": port.get("published", "")}
        found.setdefault(key, []).append(binding)
    return found


def _host_config(project: Project, service: Service, peers: dict[str, str]) -> dict[str, Any]:
    limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
    reserved = service.get("deploy", {}).get("resources", {}).get("reservations", {})
    cpus = service.get("cpus", limits.get("cpus"))
    gpus = service.get("gpus", reserved.get("devices", ()))
    logging = service.get("logging", {})
    host: dict[str, Any] = {
        "NetworkMode": _network_mode(project, service, peers),
        "PortBindings": _bindings(service),
        "Mounts": _mounts(project, service),
        "RestartPolicy": restart_policy(service),
        "VolumesFrom": [_volumes_from(entry, peers) for entry in service.get("volumes_from", ())],
        "Memory": service.get("mem_limit", limits.get("memory", 0)),
        "MemoryReservation": service.get("mem_reservation", reserved.get("memory", 0)),
        "NanoCpus": round(float(cpus) * _NS) if cpus else 0,
        "Ulimits": [_ulimit(name, value) for name, value in service.get("ulimits", {}).items()],
        "Tmpfs": dict(_tmpfs(entry) for entry in service.get("tmpfs", ())),
        "ExtraHosts": [entry.replace("=", ":", 1) for entry in service.get("extra_hosts", ())],
        "Devices": [_device(entry) for entry in service.get("devices", ())],
        "DeviceRequests": [_gpu(entry) for entry in gpus],
        "LogConfig": {"Type": logging.get("driver", ""), "Config": logging.get("options", {})},
        "Links": [],
    }  # fmt: skip
    pids = service.get("pids_limit", limits.get("pids"))
    if pids is not None:
        host["PidsLimit"] = pids
    for name, field in _SAME.items():
        if name in service:
            host[field] = service[name]
    for name, field in (("ipc", "IpcMode"), ("pid", "PidMode")):
        if name in service:
            host[field] = _joined(str(service[name]), peers)
    return host


_SAME = {
    "annotations": "Annotations",
    "cap_add": "CapAdd",
    "cap_drop": "CapDrop",
    "cgroup": "CgroupnsMode",
    "cgroup_parent": "CgroupParent",
    "cpu_count": "CpuCount",
    "cpu_percent": "CpuPercent",
    "cpu_period": "CpuPeriod",
    "cpu_quota": "CpuQuota",
    "cpu_rt_period": "CpuRealtimePeriod",
    "cpu_rt_runtime": "CpuRealtimeRuntime",
    "cpu_shares": "CpuShares",
    "cpuset": "CpusetCpus",
    "device_cgroup_rules": "DeviceCgroupRules",
    "dns": "Dns",
    "dns_opt": "DnsOptions",
    "dns_search": "DnsSearch",
    "group_add": "GroupAdd",
    "init": "Init",
    "mem_swappiness": "MemorySwappiness",
    "memswap_limit": "MemorySwap",
    "oom_kill_disable": "OomKillDisable",
    "oom_score_adj": "OomScoreAdj",
    "privileged": "Privileged",
    "read_only": "ReadonlyRootfs",
    "runtime": "Runtime",
    "security_opt": "SecurityOpt",
    "shm_size": "ShmSize",
    "storage_opt": "StorageOpt",
    "sysctls": "Sysctls",
    "userns_mode": "UsernsMode",
    "uts": "UTSMode",
}


def restart_policy(service: Service) -> dict[str, Any]:
    """`restart`, else what `deploy.restart_policy` says."""
    if "restart" in service:
        name, _, count = service["restart"].partition(":")
        return {"Name": name, "MaximumRetryCount": int(count) if count.isdigit() else 0}
    policy = service.get("deploy", {}).get("restart_policy")
    if policy is None:
        return {"Name": "no", "MaximumRetryCount": 0}
    names = {"any": "always", "none": "no", "on-failure": "on-failure"}
    name = names.get(policy.get("condition", "any"), "always")
    attempts = policy.get("max_attempts", 0) if name == "on-failure" else 0
    return {"Name": name, "MaximumRetryCount": attempts}


def networks_in_order(service: Service) -> list[str]:
    """Keys, the one with the highest priority first."""
    networks = service.get("networks", {})
    return sorted(networks, key=lambda key: (-(networks[key] or {}).get("priority", 0), key))


def _network_mode(project: Project, service: Service, peers: dict[str, str]) -> str:
    if "network_mode" in service:
        return _joined(service["network_mode"], peers)
    order = networks_in_order(service)
    return str(project.networks[order[0]]["name"]) if order else "none"


def _joined(mode: str, peers: dict[str, str]) -> str:
    kind, colon, name = mode.partition(":")
    return f"container:{peers[name]}" if colon and kind == "service" else mode


def _volumes_from(entry: str, peers: dict[str, str]) -> str:
    if entry.startswith("container:"):
        return entry.removeprefix("container:")
    name, colon, mode = entry.partition(":")
    return peers[name] + colon + mode


def _endpoints(project: Project, key: str, number: int, oneoff: bool) -> dict[str, Any]:
    service = project.services[key]
    found = {}
    for name in networks_in_order(service):
        told = service["networks"][name] or {}
        ipam = {"IPv4Address": told.get("ipv4_address"), "IPv6Address": told.get("ipv6_address"),
                "LinkLocalIPs": told.get("link_local_ips")}  # fmt: skip
        aliases = [] if oneoff else [container_name(project, key, number), key]
        endpoint: dict[str, Any] = {
            "Aliases": [*aliases, *told.get("aliases", ())],
            "IPAMConfig": {field: value for field, value in ipam.items() if value},
            "Links": [_link(project, entry) for entry in service.get("links", ())],
        }
        for field, option in (("MacAddress", "mac_address"), ("DriverOpts", "driver_opts"),
                              ("GwPriority", "gw_priority")):  # fmt: skip
            if option in told:
                endpoint[field] = told[option]
        found[project.networks[name]["name"]] = endpoint
    return found


def _link(project: Project, entry: str) -> str:
    target, _, alias = entry.partition(":")
    return f"{container_name(project, target, 1)}:{alias or target}"


def _mounts(project: Project, service: Service) -> list[dict[str, Any]]:
    found = [_mount(project, volume) for volume in service.get("volumes", ())]
    for kind in ("configs", "secrets"):
        for entry in service.get(kind, ()):
            definition = getattr(project, kind)[entry["source"]]
            if _is_mounted(entry, definition):
                found.append(
                    {
                        "Type": "bind",
                        "Source": definition["file"],
                        "Target": _target(kind, entry),
                        "ReadOnly": True,
                    }
                )
    return found


def _mount(project: Project, volume: dict[str, Any]) -> dict[str, Any]:
    kind = volume["type"]
    source = volume.get("source", "")
    if kind == "volume" and source:
        source = project.volumes[source]["name"]
    mount: dict[str, Any] = {
        "Type": kind,
        "Source": source,
        "Target": volume["target"],
        "ReadOnly": volume.get("read_only", False),
    }
    if consistency := volume.get("consistency"):
        mount["Consistency"] = consistency
    bind = volume.get("bind", {})
    if kind == "bind":
        mount["BindOptions"] = {
            "CreateMountpoint": bind.get("create_host_path", True),
            "Propagation": bind.get("propagation", ""),
        }
    elif kind == "volume":
        options = volume.get("volume", {})
        mount["VolumeOptions"] = {
            "NoCopy": options.get("nocopy", False),
            "Labels": options.get("labels", {}),
            **({"Subpath": options["subpath"]} if options.get("subpath") else {}),
        }
    elif kind == "tmpfs":
        options = volume.get("tmpfs", {})
        mount["TmpfsOptions"] = {
            "SizeBytes": options.get("size", 0),
            "Mode": options.get("mode", 0o1777),
        }
    elif kind == "image" and volume.get("image", {}).get("subpath"):
        mount["ImageOptions"] = {"Subpath": volume["image"]["subpath"]}
    return mount


def _healthcheck(check: dict[str, Any]) -> dict[str, Any]:
    if check.get("disable"):
        return {"Test": ["NONE"]}
    found: dict[str, Any] = {"Test": check["test"]} if "test" in check else {}
    for name, field in (
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start_period", "StartPeriod"),
        ("start_interval", "StartInterval"),
    ):
        if name in check:
            found[field] = round(seconds(check[name]) * _NS)
    if "retries" in check:
        found["Retries"] = check["retries"]
    return found  # fmt: skip


def _ulimit(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, int):
        return {"Name": name, "Soft": value, "Hard": value}
    return {"Name": name, "Soft": value.get("soft", 0), "Hard": value.get("hard", 0)}


def _tmpfs(entry: str) -> tuple[str, str]:
    path, _, options = entry.partition(":")
    return path, options


def _device(entry: dict[str, str]) -> dict[str, str]:
    source = entry["source"]
    return {
        "PathOnHost": source,
        "PathInContainer": entry.get("target", source),
        "CgroupPermissions": entry.get("permissions", "rwm"),
    }


def _gpu(entry: dict[str, Any]) -> dict[str, Any]:
    count = entry.get("count", -1 if not entry.get("device_ids") else 0)
    return {
        "Driver": entry.get("driver", ""),
        "Count": -1 if count == "all" else int(count),
        "DeviceIDs": entry.get("device_ids", []),
        "Capabilities": [entry.get("capabilities", ["gpu"])],
        "Options": entry.get("options", {}),
    }


def _go(value: bool) -> str:
    return "true" if value else "false"


def number_of(labels: dict[str, str]) -> int:
    """A container's number among its service's; 0 when it has none."""
    text = labels.get(label("container-number"), "")
    return int(text) if text.isdigit() else 0
