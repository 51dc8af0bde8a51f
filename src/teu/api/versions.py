"""What older versions of the API mean by the same words.

Requests of an older client are brought to today's meaning before the engine sees them; answers are
brought back to the shape it knows. Source: Docker's "Engine API version history", 1.24 to 1.51.
"""

from typing import Any

from teu.container.create import CreateRequest
from teu.errors import InvalidParameter
from teu.model.config import EndpointSettings, HostConfig, Mount, NetworkingConfig

Version = tuple[int, int]
NONE_TAG = "<none>:<none>"
NONE_DIGEST = "<none>@<none>"


def adapt_create(request: CreateRequest, version: Version, *, unified: bool) -> list[str]:
    """Changes the request in place; warnings for the client.

    Args:   unified: whether this host has cgroup version 2.
    Raises: InvalidParameter for what the client's version does not have and must not be ignored.
    """
    host = request.host
    _drop_newer_fields(request, version)
    if version < (1, 40) and not host.ipc_mode:
        host.ipc_mode = "shareable"
    if version < (1, 41):
        request.platform = ""
        if not unified and not host.cgroupns_mode:
            host.cgroupns_mode = "host"
    for mount in host.mounts or ():
        _adapt_mount(mount, version)
    endpoints = request.networking.endpoints_config or {}
    if version < (1, 44) and len(endpoints) > 1:
        raise InvalidParameter(
            "Container cannot be created with multiple network endpoints: "
            + ", ".join(sorted(endpoints))
        )
    if host.pids_limit is not None and host.pids_limit <= 0:
        host.pids_limit = None
    return _adapt_mac_address(request, version)


def _drop_newer_fields(request: CreateRequest, version: Version) -> None:
    host, config = request.host, request.config
    if version < (1, 25):
        host.auto_remove = False
    if version < (1, 42):
        host.console_size = None
    if version < (1, 43):
        host.annotations = None
    if version < (1, 44) and config.healthcheck is not None:
        config.healthcheck.start_interval = 0
    if version < (1, 48):
        for settings in (request.networking.endpoints_config or {}).values():
            if settings is not None:
                settings.gw_priority = 0


def _adapt_mount(mount: Mount, version: Version) -> None:
    bind, volume = mount.bind_options, mount.volume_options
    if bind is not None:
        if version < (1, 40):
            bind.non_recursive = False
        if version < (1, 42):
            bind.create_mountpoint = False
        if version < (1, 44):
            bind.read_only_non_recursive = False
        if version < (1, 44) and bind.read_only_force_recursive:
            raise InvalidParameter("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
    if version < (1, 42):  # not checked in those days
        mount.volume_options = volume if mount.type == "volume" else None
        mount.tmpfs_options = mount.tmpfs_options if mount.type == "tmpfs" else None
    if version < (1, 45) and volume is not None and volume.subpath:
        raise InvalidParameter("VolumeOptions.Subpath needs API v1.45 or newer")
    if version < (1, 48) and mount.type == "image":
        raise InvalidParameter('Mount type "Image" needs API v1.48 or newer')


def _adapt_mac_address(request: CreateRequest, version: Version) -> list[str]:
    """The container's own MAC address became one of its first endpoint with API 1.44."""
    address = request.config.mac_address
    endpoints = request.networking.endpoints_config or {}
    if version < (1, 44) and not address:
        for settings in endpoints.values():
            if settings is not None:
                settings.mac_address = ""
    if not address:
        return []
    mode = request.host.network_mode
    if mode not in ("host", "none") and not mode.startswith("container:"):
        main = _main_endpoint(request.host, request.networking)
        if version >= (1, 44) and main.mac_address not in ("", address):
            raise InvalidParameter(
                "the container-wide MAC address must match the endpoint-specific MAC address for "
                "the main network, or be left empty"
            )
        main.mac_address = address
    elif version < (1, 44):
        raise InvalidParameter("conflicting options: mac-address and the network mode")
    if version < (1, 44):
        return []
    return [
        "The container-wide MacAddress field is now deprecated. It should be specified in "
        "EndpointsConfig instead."
    ]


def _main_endpoint(host: HostConfig, networking: NetworkingConfig) -> EndpointSettings:
    """The endpoint that the network mode names, made if the request has none."""
    mode = host.network_mode
    if networking.endpoints_config is None:
        networking.endpoints_config = {}
    endpoints = networking.endpoints_config
    names = ("bridge", "default") if mode in ("", "default", "bridge") else (mode,)
    for name in names:
        if name in endpoints:
            settings = endpoints[name] or EndpointSettings()
            break
    else:
        name, settings = names[0], EndpointSettings()
    endpoints[name] = settings
    return settings


def adapt_inspect(shown: dict[str, Any], version: Version) -> None:
    """`ContainerInspect` for an older client, in place."""
    if version >= (1, 45):
        return
    names = (shown["Id"][:12], shown["Config"]["Hostname"])
    for network, settings in shown["NetworkSettings"]["Networks"].items():
        if network not in ("bridge", "host", "none"):
            aliases = [*(settings.get("Aliases") or ()), *names]
            settings["Aliases"] = list(dict.fromkeys(filter(None, aliases)))
    if version < (1, 44):
        address = shown["NetworkSettings"]["MacAddress"]
        shown["Config"].setdefault("MacAddress", address)


def adapt_image_row(row: dict[str, Any], version: Version) -> None:
    """One row of `GET /images/json` for an older client, in place."""
    if version < (1, 44):
        row["VirtualSize"] = row["Size"]
    if version < (1, 43) and not row["RepoTags"] and not row["RepoDigests"]:
        row["RepoTags"], row["RepoDigests"] = [NONE_TAG], [NONE_DIGEST]


def adapt_image(shown: dict[str, Any], version: Version) -> None:
    """`ImageInspect` for an older client, in place."""
    if version < (1, 44):
        shown["VirtualSize"] = shown["Size"]
    if version < (1, 48):
        shown.pop("Descriptor", None)


def adapt_info(info: dict[str, Any], version: Version) -> None:
    """`SystemInfo` for an older client, in place."""
    if version >= (1, 50):
        for name in ("BridgeNfIptables", "BridgeNfIp6tables"):
            info.pop(name, None)
    if version < (1, 49):
        info.pop("FirewallBackend", None)
    if version < (1, 50):
        info.pop("DiscoveredDevices", None)
    if version < (1, 47):
        registry = info["RegistryConfig"]
        registry["AllowNondistributableArtifactsCIDRs"] = None
        registry["AllowNondistributableArtifactsHostnames"] = None
