"""How containers are answered: `ContainerInspect` and `ContainerSummary` of API 1.51."""

from typing import Any

import msgspec
from msgspec.structs import replace

from teu import clock, units
from teu.container import state
from teu.container.container import Container
from teu.container.healthcheck import HEALTHY, STARTING, UNHEALTHY
from teu.container.services import Services
from teu.image.service import ImageService
from teu.model.config import EndpointSettings, Wire
from teu.model.container import ContainerRecord, Health, MountPoint, Status

_WORDS = {
    Status.CREATING: "created",
    Status.STARTING: "created",
    Status.REMOVING: "removing",
}
_HEALTH_WORDS = {STARTING: "health: starting", HEALTHY: HEALTHY, UNHEALTHY: UNHEALTHY}
_SECOND_NS = 1_000_000_000


def status_word(record: ContainerRecord) -> str:
    """Docker's `State.Status`."""
    return _WORDS.get(record.status, str(record.status))


def builtins(value: Wire) -> dict[str, Any]:
    """A wire struct as a plain dict in Docker's words."""
    plain = msgspec.to_builtins(value)
    assert isinstance(plain, dict)
    return plain


def inspect(container: Container, services: Services, image_name: str) -> dict[str, Any]:
    """`GET /containers/{id}/json`, without sizes."""
    record = container.record
    home = services.paths.home(record.id)
    joined = record.host.network_mode.startswith("container:")
    etc = {} if joined else {n: str(home / n) for n in ("resolv.conf", "hostname", "hosts")}
    host = builtins(record.host)
    return {
        "Id": record.id,
        "Created": clock.format_ns(record.created_ns),
        "Path": record.args[0],
        "Args": record.args[1:],
        "State": state_of(record),
        "Image": record.image_id,
        "ResolvConfPath": etc.get("resolv.conf", ""),
        "HostnamePath": etc.get("hostname", ""),
        "HostsPath": etc.get("hosts", ""),
        "LogPath": str(services.paths.log_file(record.id))
        if record.host.log_config.type == "json-file"
        else "",
        "Name": f"/{record.name}",
        "RestartCount": record.restart_count,
        "Driver": "overlay2",
        "Platform": record.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(container.exec_ids) or None,
        "HostConfig": host,
        "GraphDriver": {
            "Name": "overlay2",
            "Data": {
                "MergedDir": str(home / "rootfs"),
                "UpperDir": str(home / "upper"),
                "WorkDir": str(home / "work"),
            },
        },
        "Mounts": [mount_point(point) for point in record.mounts],
        "Config": config_of(record, image_name),
        "NetworkSettings": network_settings(record),
    }


def state_of(record: ContainerRecord) -> dict[str, Any]:
    """`State`: Docker's overlapping booleans, derived from the one status."""
    return {
        "Status": status_word(record),
        "Running": state.is_running(record) or record.status is Status.RESTARTING,
        "Paused": record.status is Status.PAUSED,
        "Restarting": record.status is Status.RESTARTING,
        "OOMKilled": record.oom_killed,
        "Dead": record.status is Status.DEAD,
        "Pid": record.pid if state.is_running(record) else 0,
        "ExitCode": record.exit_code,
        "Error": record.error,
        "StartedAt": clock.format_ns(record.started_ns),
        "FinishedAt": clock.format_ns(record.finished_ns),
        **({"Health": health_of(record.health)} if record.health else {}),
    }


def health_of(health: Health) -> dict[str, Any]:
    """API 1.51 `Health`."""
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": clock.format_ns(result.start_ns),
                "End": clock.format_ns(result.end_ns),
                "ExitCode": result.exit_code,
                "Output": result.output,
            }
            for result in health.log
        ],
    }


def config_of(record: ContainerRecord, image_name: str) -> dict[str, Any]:
    config = builtins(record.config)
    config["Image"] = image_name
    for optional in ("StopTimeout", "Shell", "Healthcheck", "MacAddress", "NetworkDisabled"):
        if not config.get(optional):
            config.pop(optional, None)
    for optional in ("StopSignal", "ArgsEscaped", "ExposedPorts"):
        if not config.get(optional):
            config.pop(optional, None)
    config["Labels"] = config.get("Labels") or {}
    config["Env"] = config.get("Env") or []
    return config


def mount_point(point: MountPoint) -> dict[str, Any]:
    """`MountPoint`; a volume's source is its directory."""
    result: dict[str, Any] = {"Type": point.type}
    if point.name:
        result["Name"] = point.name
    result |= {
        "Source": point.source,
        "Destination": point.destination,
        "Mode": point.mode,
        "RW": point.rw,
        "Propagation": point.propagation if point.type == "bind" else "",
    }
    if point.type == "volume":
        result["Driver"] = point.driver
    return result


def network_settings(record: ContainerRecord) -> dict[str, Any]:
    running = state.is_running(record)
    first = record.networks.get("bridge") if running else None
    default = builtins(first or EndpointSettings())
    return {
        "Bridge": "",
        "SandboxID": record.id if running and record.sandbox else "",
        "SandboxKey": record.sandbox if running else "",
        "Ports": ports(record) if running else {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": default["EndpointID"],
        "Gateway": default["Gateway"],
        "GlobalIPv6Address": default["GlobalIPv6Address"],
        "GlobalIPv6PrefixLen": default["GlobalIPv6PrefixLen"],
        "IPAddress": default["IPAddress"],
        "IPPrefixLen": default["IPPrefixLen"],
        "IPv6Gateway": default["IPv6Gateway"],
        "MacAddress": default["MacAddress"],
        "Networks": {name: builtins(s) for name, s in _shown_networks(record).items()},
    }


def _shown_networks(record: ContainerRecord) -> dict[str, EndpointSettings]:
    if record.host.network_mode == "host":
        return {"host": EndpointSettings()}
    if state.is_running(record) or not record.started_ns:  # before its first start: as asked
        return record.networks
    started = bool(record.started_ns)
    return {name: _asked_only(one, started) for name, one in record.networks.items()}


def _asked_only(settings: EndpointSettings, started: bool) -> EndpointSettings:
    """An endpoint without what only a running container has. A MAC address from before the first
    start was asked for."""
    return replace(
        settings,
        endpoint_id="",
        gateway="",
        ip_address="",
        ip_prefix_len=0,
        mac_address="" if started else settings.mac_address,
    )


def ports(record: ContainerRecord) -> dict[str, list[dict[str, str]] | None]:
    """`{"80/tcp": [{"HostIp": …, "HostPort": …}]}`; exposed but unpublished ports are null."""
    result: dict[str, list[dict[str, str]] | None] = {}
    for port in record.config.exposed_ports or {}:
        result[port if "/" in port else f"{port}/tcp"] = None
    result.update({port: bindings or None for port, bindings in record.ports.items()})
    return result


# --- listing -----------------------------------------------------------------------------


def summary(container: Container, images: ImageService) -> dict[str, Any]:
    """One row of `GET /containers/json`."""
    record = container.record
    return {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": image_name(record, images),
        "ImageID": record.image_id,
        "Command": shown_command(record.args),
        "Created": record.created_ns // _SECOND_NS,
        "Ports": port_rows(record) if state.is_running(record) else [],
        "Labels": record.config.labels or {},
        "State": status_word(record),
        "Status": status_text(record, clock.now_ns()),
        "HostConfig": {"NetworkMode": record.host.network_mode},
        "NetworkSettings": {
            "Networks": {name: builtins(s) for name, s in _shown_networks(record).items()}
        },
        "Mounts": [mount_point(point) for point in record.mounts],
    }


def shown_command(args: list[str]) -> str:
    """Arguments with a space in them are quoted, the program is not."""
    return " ".join([args[0], *(f"'{arg}'" if " " in arg else arg for arg in args[1:])])


def image_name(record: ContainerRecord, images: ImageService) -> str:
    """The name the container was created with, while it still means that image; else its id."""
    if images.is_name_of(record.config.image, record.image_id):
        return record.config.image
    return record.image_id


def port_rows(record: ContainerRecord) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for port, bindings in ports(record).items():
        number, _, protocol = port.partition("/")
        if not number.isdigit():
            continue
        for binding in bindings or [{}]:
            row: dict[str, Any] = {}
            if binding:
                row["IP"] = binding["HostIp"]
            row["PrivatePort"] = int(number)
            if binding:
                row["PublicPort"] = int(binding["HostPort"])
            row["Type"] = protocol or "tcp"
            rows.append(row)
    return rows


def status_text(record: ContainerRecord, now_ns: int) -> str:
    """`Up 2 minutes (Paused)`, `Exited (0) 3 seconds ago`, `Created`, …"""
    match record.status:
        case Status.RUNNING:
            up = f"Up {units.human_duration((now_ns - record.started_ns) / 1e9)}"
            return up + (f" ({_HEALTH_WORDS[record.health.status]})" if record.health else "")
        case Status.PAUSED:
            return f"Up {units.human_duration((now_ns - record.started_ns) / 1e9)} (Paused)"
        case Status.RESTARTING:
            ago = units.human_duration((now_ns - record.finished_ns) / 1e9)
            return f"Restarting ({record.exit_code}) {ago} ago"
        case Status.EXITED:
            ago = units.human_duration((now_ns - record.finished_ns) / 1e9)
            return f"Exited ({record.exit_code}) {ago} ago"
        case Status.REMOVING:
            return "Removal In Progress"
        case Status.DEAD:
            return "Dead"
    return "Created"
