"""Container Device Interface: what vendors' files say a device needs inside a container.

    /etc/cdi/*.{json,yaml}       made by administrators (`nvidia-ctk cdi generate`)
    /var/run/cdi/*.{json,yaml}   made by drivers while they run; wins over the one above

A device is called `vendor.com/class=name`. Its edits (device nodes, mounts, environment, hooks,
groups) are added to the OCI configuration of a container that asks for it. The files are read when
a container with such a request starts: they change with the hardware.
Source: CDI specification 1.0, SPEC.md.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct, field

from teu.errors import InvalidParameter, SystemFailure
from teu.model.config import DeviceRequest
from teu.runtime.devices import OciObject, describe

T = TypeVar("T")
DRIVER: Final = "cdi"
_GPU_KINDS: Final = ("nvidia.com/gpu", "amd.com/gpu")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_-]*=[\w.:-]+")
_HOOKS: Final = frozenset(
    ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
)


class DeviceNode(Struct, rename="camel", kw_only=True):
    path: str
    host_path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class Mount(Struct, rename="camel", kw_only=True):
    host_path: str
    container_path: str
    options: list[str] = []
    type: str = ""


class Hook(Struct, rename="camel", kw_only=True):
    hook_name: str
    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


class Edits(Struct, rename="camel", kw_only=True):
    """`containerEdits` of a device or of a whole file."""

    env: list[str] = field(default_factory=list)
    device_nodes: list[DeviceNode] = field(default_factory=list)
    hooks: list[Hook] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    additional_gids: list[int] = field(default_factory=list, name="additionalGIDs")


class Device(Struct, rename="camel", kw_only=True):
    name: str
    container_edits: Edits = field(default_factory=Edits)


class Spec(Struct, rename="camel", kw_only=True):
    """One file. `kind` is `vendor.com/class`."""

    cdi_version: str
    kind: str
    devices: list[Device] = []
    container_edits: Edits = field(default_factory=Edits)


Found = dict[str, tuple[Spec, Device]]  # by full name


def discover(directories: Sequence[Path]) -> Found:
    """All devices. Raises: InvalidParameter for a file that cannot be read or understood."""
    found: Found = {}
    for directory in directories:
        for file in sorted(directory.glob("*")) if directory.is_dir() else ():
            if file.suffix in (".json", ".yaml"):
                spec = _load(file)
                found.update({f"{spec.kind}={d.name}": (spec, d) for d in spec.devices})
    return found


def _load(file: Path) -> Spec:
    try:
        data = file.read_bytes()
        if file.suffix == ".json":
            return msgspec.json.decode(data, type=Spec)
        return msgspec.convert(_yaml(file)(data), Spec)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise InvalidParameter(f"CDI specification {file}: {error}") from error


def _yaml(file: Path) -> Callable[[bytes], Any]:
    try:
        import yaml
    except ImportError:
        raise InvalidParameter(
            f"CDI specification {file} is YAML, and PyYAML is not installed; install it, or make "
            "the file as JSON (`nvidia-ctk cdi generate --format=json`)"
        ) from None

    def load(data: bytes) -> Any:
        try:
            return yaml.safe_load(data)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from None

    return load


def is_request(request: DeviceRequest) -> bool:
    """Whether this module answers for it: named devices, and `--gpus`."""
    return request.driver == DRIVER or any("gpu" in group for group in request.capabilities or ())


def edits_for(requests: Iterable[DeviceRequest], directories: Sequence[Path]) -> list[Edits]:
    """What all requests ask for, each file's common edits once.

    Raises: InvalidParameter with Docker's text when a device is not there.
    """
    found = discover(directories)
    names = dict.fromkeys(name for request in requests for name in _names(request, found))
    if missing := [name for name in names if name not in found]:
        raise InvalidParameter(
            f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}"
        )
    chosen = [found[name] for name in names]
    common = {id(spec): spec.container_edits for spec, _ in chosen}
    return [*common.values(), *(device.container_edits for _, device in chosen)]


def _names(request: DeviceRequest, found: Found) -> list[str]:
    if request.driver == DRIVER:
        for name in request.device_ids or ():
            if not _NAME.fullmatch(name):
                raise InvalidParameter(f"invalid CDI device name {name!r}: use vendor/class=name")
        return list(request.device_ids or ())
    for kind in _GPU_KINDS:
        if any(name.startswith(f"{kind}=") for name in found):
            return [f"{kind}={name}" for name in _gpus(request, kind, found)]
    wanted = " ".join(f"[{' '.join(group)}]" for group in request.capabilities or ())
    raise InvalidParameter(
        f'could not select device driver "{request.driver}" with capabilities: [{wanted}]'
    )


def _gpus(request: DeviceRequest, kind: str, found: Found) -> list[str]:
    """`--gpus all|N|device=…` as names of one kind."""
    if request.device_ids:
        return request.device_ids
    names = [name.partition("=")[2] for name in found if name.startswith(f"{kind}=")]
    if request.count < 0 and "all" in names:
        return ["all"]
    numbered = sorted((name for name in names if name.isdigit()), key=int)
    if request.count > len(numbered):
        raise InvalidParameter(
            f"--gpus asks for {request.count} devices, {kind} has {len(numbered)}"
        )
    return numbered if request.count < 0 else numbered[: request.count]


# --- into the OCI configuration ----------------------------------------------------------------


def apply(config: dict[str, Any], edits: Iterable[Edits]) -> None:
    """Adds the edits to a complete OCI configuration. Raises: InvalidParameter, SystemFailure."""
    for each in edits:
        _add_environment(config["process"], each.env)
        for node in each.device_nodes:
            _add_node(config["linux"], node)
        for mount in each.mounts:
            config["mounts"].append(
                {
                    "destination": mount.container_path,
                    "source": mount.host_path,
                    "type": mount.type or "bind",
                    "options": mount.options or ["nosuid", "nodev", "rbind"],
                }
            )
        for hook in each.hooks:
            _add_hook(config, hook)
        groups = config["process"]["user"]["additionalGids"]
        groups += [gid for gid in each.additional_gids if gid and gid not in groups]


def _add_environment(process: dict[str, Any], variables: list[str]) -> None:
    names = {variable.partition("=")[0] for variable in variables}
    kept = [entry for entry in process["env"] if entry.partition("=")[0] not in names]
    process["env"] = [*kept, *variables]


def _add_node(linux: dict[str, Any], node: DeviceNode) -> None:
    device = _described(node)
    devices = linux.setdefault("devices", [])
    devices[:] = [other for other in devices if other["path"] != node.path]
    devices.append(device)
    if device["type"] in ("b", "c"):
        rule: OciObject = {"allow": True, "access": node.permissions or "rwm"}
        linux["resources"]["devices"].append(
            rule | {name: device[name] for name in ("type", "major", "minor")}
        )


def _described(node: DeviceNode) -> OciObject:
    """Completed from the device on the host, where the file does not say."""
    path = node.host_path or node.path
    try:
        on_host = describe(node.path, os.stat(path))
    except OSError as error:
        if not (node.type and node.major):
            raise SystemFailure(f"CDI device node {path}: {error.strerror}") from error
        on_host = None
    device: OciObject = {
        "path": node.path,
        "type": node.type or (on_host or {}).get("type", "c"),
        "major": node.major or (on_host or {}).get("major", 0),
        "minor": node.minor or (on_host or {}).get("minor", 0),
    }
    asked: Mapping[str, int | None] = {
        "fileMode": node.file_mode,
        "uid": node.uid,
        "gid": node.gid,
    }
    for name, value in asked.items():
        given = (on_host or {}).get(name) if value is None else value
        if given is not None:
            device[name] = stat.S_IMODE(given) if name == "fileMode" else given
    return device


def _add_hook(config: dict[str, Any], hook: Hook) -> None:
    if hook.hook_name not in _HOOKS:
        raise InvalidParameter(f"CDI hook of an unknown kind: {hook.hook_name}")
    shown: dict[str, Any] = {"path": hook.path}
    if hook.args:
        shown["args"] = hook.args
    if hook.env:
        shown["env"] = hook.env
    if hook.timeout is not None:
        shown["timeout"] = hook.timeout
    config.setdefault("hooks", {}).setdefault(hook.hook_name, []).append(shown)
