"""A container as it is stored: what was asked, and what is.

Status is one enum with one table of allowed moves (`container/state.py`). Docker's overlapping
booleans (`Running`, `Paused`, `Restarting`, `Dead`) are derived on the wire only.
"""

from enum import StrEnum

from msgspec import Struct, field

from teu.model.config import ContainerConfig, EndpointSettings, HostConfig


class Status(StrEnum):
    CREATING = "creating"  # intent: nothing promised yet; undone at recovery
    CREATED = "created"
    STARTING = "starting"  # intent: a shim may or may not exist; adopted or undone at recovery
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"  # exited, waiting for the restart policy's delay
    EXITED = "exited"
    REMOVING = "removing"  # intent: name and id are free for others; teardown replayed at recovery
    DEAD = "dead"  # removal failed; kept for inspection


class MountPoint(Struct, kw_only=True):
    """A resolved mount: `source` is a host path, `destination` a path in the container.

    `type`: bind, volume, tmpfs, image. `name` is the volume's. `mode` is the text after the last
    colon of `-v`. `options` are mount(8) words for the runtime (`rbind`, `ro`, `size=…`).
    `anonymous`: a volume that nobody named, neither for this mount nor before. `id_map`: ranges
    of owners, or "auto". `layers`: chain ids of an image's, topmost last.
    """

    type: str
    source: str
    destination: str
    name: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    options: list[str] = field(default_factory=list)
    anonymous: bool = False
    subpath: str = ""
    nocopy: bool = False  # volume: do not fill it from the image
    create_source: bool = False  # bind: make a missing source at start
    labels: dict[str, str] = field(default_factory=dict)  # of a volume made for this mount
    driver_options: dict[str, str] = field(default_factory=dict)  # the same
    chown: bool = False
    id_map: str = ""
    image_id: str = ""
    layers: list[str] = field(default_factory=list)


class HealthResult(Struct, kw_only=True):
    """One probe: exit code (-1: it could not run, or took too long) and its output, cut short."""

    start_ns: int
    end_ns: int
    exit_code: int
    output: str = ""


class Health(Struct, kw_only=True):
    """`status`: starting, healthy or unhealthy. `failing_streak`: failures since the last success.
    `log`: the last results, oldest first."""

    status: str
    failing_streak: int = 0
    log: list[HealthResult] = field(default_factory=list)


class ContainerRecord(Struct, kw_only=True):
    """One row of the `container` table. Instants are epoch nanoseconds, 0 for never."""

    id: str
    name: str
    created_ns: int
    image_id: str  # config digest, `sha256:…`; empty for none
    config: ContainerConfig
    host: HostConfig
    args: list[str]  # entrypoint and command, resolved; args[0] is the path as asked
    mounts: list[MountPoint] = field(default_factory=list)
    networks: dict[str, EndpointSettings] = field(default_factory=dict)  # by network name
    layers: list[str] = field(default_factory=list)  # chain ids, base first
    platform: str = "linux"

    status: Status = Status.CREATING
    boot_id: str = ""  # the boot in which `pid` means something
    pid: int = 0
    pid_started: int = 0  # field 22 of /proc/PID/stat: tells a reused pid apart
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_ns: int = 0
    finished_ns: int = 0
    restart_count: int = 0
    short_runs: int = 0  # one after the other, the last included: each doubles the restart delay
    intent: str = ""  # what a change of several steps is for: see container/exits.py
    stopped_by_user: bool = False  # `unless-stopped` looks at it after a restart of the daemon
    ports: dict[str, list[dict[str, str]]] = field(default_factory=dict)  # bound, as inspect shows
    health: Health | None = None  # None: no health check, or never started
    sandbox: str = ""  # path of the network namespace; empty for host and container:X
