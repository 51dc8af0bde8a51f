"""The flags of run and create as the JSON that `POST /containers/create` takes.

Every field that Docker's client sends is sent, with the same empty values: `inspect` of the
result then reads the same, and so do daemons that tell null from absent.

Source: docker/cli `container/opts.go`; API v1.51 ContainerCreate; compared field by field with
Docker 28.2 in `tests/system/test_cli_parity.py`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.grammar import Options

_CONFIG: dict[str, Any] = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False,
    "AttachStderr": False, "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None,
    "Cmd": None, "Image": "", "Volumes": {}, "WorkingDir": "", "Entrypoint": None,
    "OnBuild": None, "Labels": {},
}  # fmt: skip
_HOST: dict[str, Any] = {
    "Binds": None, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}},
    "NetworkMode": "default", "PortBindings": {},
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": False,
    "VolumeDriver": "", "VolumesFrom": None, "ConsoleSize": [0, 0], "CapAdd": None,
    "CapDrop": None, "CgroupnsMode": "", "Dns": [], "DnsOptions": [], "DnsSearch": [],
    "ExtraHosts": None, "GroupAdd": None, "IpcMode": "", "Cgroup": "", "Links": None,
    "OomScoreAdj": 0, "PidMode": "", "Privileged": False, "PublishAllPorts": False,
    "ReadonlyRootfs": False, "SecurityOpt": None, "UTSMode": "", "UsernsMode": "", "ShmSize": 0,
    "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "",
    "BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": [],
    "BlkioDeviceWriteBps": [], "BlkioDeviceReadIOps": [], "BlkioDeviceWriteIOps": [],
    "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0,
    "CpusetCpus": "", "CpusetMems": "", "Devices": [], "DeviceCgroupRules": None,
    "DeviceRequests": None, "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": -1,
    "OomKillDisable": False, "PidsLimit": 0, "Ulimits": [], "CpuCount": 0, "CpuPercent": 0,
    "IOMaximumIOps": 0, "IOMaximumBandwidth": 0, "MaskedPaths": None, "ReadonlyPaths": None,
}  # fmt: skip
_EMPTY_ENDPOINT: dict[str, Any] = {
    "IPAMConfig": None, "Links": None, "Aliases": None, "MacAddress": "", "DriverOpts": None,
    "GwPriority": 0, "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "",
    "IPPrefixLen": 0, "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0,
    "DNSNames": None,
}  # fmt: skip
# Flags whose value goes into one field unchanged.
_CONFIG_FIELDS = {
    "domainname": "Domainname", "hostname": "Hostname", "stop-timeout": "StopTimeout",
    "tty": "Tty", "user": "User", "workdir": "WorkingDir",
}  # fmt: skip
_HOST_FIELDS = {
    "add-host": "ExtraHosts", "blkio-weight": "BlkioWeight",
    "blkio-weight-device": "BlkioWeightDevice", "cgroup-parent": "CgroupParent",
    "cgroupns": "CgroupnsMode", "cidfile": "ContainerIDFile", "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota", "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime", "cpu-shares": "CpuShares", "cpus": "NanoCpus",
    "cpuset-cpus": "CpusetCpus", "cpuset-mems": "CpusetMems",
    "device-cgroup-rule": "DeviceCgroupRules", "device-read-bps": "BlkioDeviceReadBps",
    "device-read-iops": "BlkioDeviceReadIOps", "device-write-bps": "BlkioDeviceWriteBps",
    "device-write-iops": "BlkioDeviceWriteIOps", "dns": "Dns", "dns-option": "DnsOptions",
    "dns-search": "DnsSearch", "group-add": "GroupAdd", "init": "Init", "ipc": "IpcMode",
    "isolation": "Isolation", "link": "Links", "memory": "Memory",
    "memory-reservation": "MemoryReservation", "memory-swap": "MemorySwap",
    "memory-swappiness": "MemorySwappiness", "oom-kill-disable": "OomKillDisable",
    "oom-score-adj": "OomScoreAdj", "pid": "PidMode", "pids-limit": "PidsLimit",
    "privileged": "Privileged", "publish-all": "PublishAllPorts",
    "read-only": "ReadonlyRootfs", "rm": "AutoRemove", "shm-size": "ShmSize",
    "userns": "UsernsMode", "uts": "UTSMode",
    "volume-driver": "VolumeDriver", "volumes-from": "VolumesFrom",
}  # fmt: skip
_RARE = frozenset(
    "annotation cap-add cap-drop device env-file expose gpus health-cmd health-interval "
    "health-on-failure health-retries health-start-interval health-start-period health-timeout "
    "label-file log-driver log-opt mount no-healthcheck publish restart runtime security-opt "
    "stop-signal storage-opt sysctl tmpfs ulimit volume use-api-socket".split()
)
_NETWORK = frozenset("network network-alias ip ip6 mac-address link-local-ip link".split())
_MODES = {"pid": "PID", "uts": "UTS", "userns": "USER", "cgroupns": "CGROUP"}


def create_body(options: Options, image: str, command: list[str]) -> dict[str, Any]:
    """The whole request body. Raises: ValueError with Docker's text."""
    config = dict(_CONFIG)
    host = dict(_HOST)
    config["Image"] = image
    config["Cmd"] = command or None
    given = options.given()
    for name in given:
        if name in _HOST_FIELDS:
            host[_HOST_FIELDS[name]] = options.value(name)
        elif name in _CONFIG_FIELDS:
            config[_CONFIG_FIELDS[name]] = options.value(name)
    if "entrypoint" in given:
        config["Entrypoint"] = [options.text("entrypoint")]
    _set_streams(config, options)
    _set_text_lists(config, options)
    _check_modes(options, given)
    if not _RARE.isdisjoint(given):
        from teu.cli.container_rare import apply

        apply(options, config, host)
    host["NetworkMode"], endpoints = _networks(options, given)
    return config | {"HostConfig": host, "NetworkingConfig": {"EndpointsConfig": endpoints}}


def _set_streams(config: dict[str, Any], options: Options) -> None:
    attached = options.texts("attach")
    interactive = options.flag("interactive")
    if not attached:
        attached = ["stdout", "stderr"]
        if interactive:
            attached.append("stdin")
    config["AttachStdin"] = "stdin" in attached
    config["AttachStdout"] = "stdout" in attached
    config["AttachStderr"] = "stderr" in attached
    config["OpenStdin"] = interactive
    config["StdinOnce"] = interactive and config["AttachStdin"]


def _set_text_lists(config: dict[str, Any], options: Options) -> None:
    config["Env"] = options.texts("env") or None
    config["Labels"] = pairs(options.texts("label"))


def _check_modes(options: Options, given: list[str]) -> None:
    """Namespace modes that the client can tell are wrong."""
    for name, label in _MODES.items():
        if name not in given:
            continue
        mode = options.text(name)
        fits = mode in ("", "host")
        if name == "pid":
            fits = fits or (mode.startswith("container:") and mode != "container:")
        elif name == "cgroupns":
            fits = fits or mode == "private"
        if not fits:
            raise ValueError(f"--{name}: invalid {label} mode")
    swappiness = options.number("memory-swappiness")
    if "memory-swappiness" in given and swappiness != -1 and not 0 <= swappiness <= 100:
        raise ValueError(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")


def _networks(options: Options, given: list[str]) -> tuple[str, dict[str, Any]]:
    if _NETWORK.isdisjoint(given):
        return "default", {"default": _EMPTY_ENDPOINT}
    from teu.cli.networking import endpoints

    return endpoints(options, _EMPTY_ENDPOINT)


def pairs(texts: list[str]) -> dict[str, str]:
    """`["a=b", "c"]` -> `{"a": "b", "c": ""}`."""
    table = {}
    for text in texts:
        name, _, value = text.partition("=")
        table[name] = value
    return table
