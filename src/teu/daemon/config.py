"""The daemon's configuration as the rest of the program sees it: typed, complete, frozen.

`load.py` makes one from the command line and the configuration file; `options.py` says which
option fills which field. Everything here is already validated. Field names are Docker's keys with
underscores; where a unit is not in Docker's name, it is in ours (`*_bytes`, `*_s`).
"""

import enum
from pathlib import Path

from msgspec import Struct

from teu.model.config import Ulimit

BUILTIN_RUNTIMES = ("crun", "runc")  # found on PATH; the first is the default


class TlsMode(enum.Enum):
    """What a TCP listener demands of its clients."""

    UNSAID = "unsaid"  # nobody asked for TLS, nobody gave it up: TCP is refused
    OFF = "off"  # `--tls=false`: plain HTTP, everybody who can connect is root
    SERVER = "server"  # `--tlsverify=false`: encrypted, everybody who can connect is root
    MUTUAL = "mutual"  # clients show a certificate of our authority


class Host(Struct, frozen=True):
    """Where to listen: scheme `unix`, `tcp` or `fd`.

    `address` is a path, `host:port` (IPv6 in brackets), or a descriptor number; empty for all
    sockets that the service manager passes.
    """

    scheme: str
    address: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}"


class AddressPool(Struct, frozen=True):
    """Networks without a subnet of their own get one of `/size` cut from `base`."""

    base: str
    size: int


class RuntimeEntry(Struct, frozen=True):
    """An OCI runtime: a program (path, or a name on PATH) and arguments before its command."""

    path: str
    args: tuple[str, ...] = ()


class DaemonConfig(Struct, frozen=True, kw_only=True):
    """See the module's text. Defaults are those of `teud` without any option."""

    # process
    data_root: Path = Path("/var/lib/teu")
    exec_root: Path = Path("/run/teu")
    pidfile: Path = Path("/run/teu.pid")
    debug: bool = False
    log_level: str = "info"  # debug, info, warning, error, critical
    log_format: str = "text"  # text, json
    shutdown_timeout_s: int = 15
    oom_score_adjust: int | None = None
    labels: tuple[str, ...] = ()  # key=value

    # listeners
    hosts: tuple[Host, ...] = ()  # empty: what the service manager passed, else the default socket
    group: str = "docker"
    tls: TlsMode = TlsMode.UNSAID
    tlscacert: Path = Path("/etc/teu/ca.pem")
    tlscert: Path = Path("/etc/teu/cert.pem")
    tlskey: Path = Path("/etc/teu/key.pem")

    # defaults of containers
    log_driver: str = "json-file"
    log_opts: dict[str, str] = {}
    default_ulimits: dict[str, Ulimit] = {}  # by name
    default_shm_size_bytes: int = 64 << 20
    default_stop_timeout_s: int = 10
    default_ipc_mode: str = "private"  # private, shareable
    default_cgroupns_mode: str = ""  # private, host; empty: private on cgroup v2, host on v1
    cgroup_parent: str = ""
    cdi_spec_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")  # the last wins
    init: bool = False
    init_path: str = ""  # empty: tini or catatonit, wherever the distribution puts it
    no_new_privileges: bool = False
    seccomp_profile: str = "builtin"  # builtin, unconfined, or a path

    # runtimes
    default_runtime: str = BUILTIN_RUNTIMES[0]
    runtimes: dict[str, RuntimeEntry] = {}  # beside the built-in ones

    # networks
    bridge: str = ""  # an existing bridge to use, or `none`; empty: our own
    bip: str = ""  # address/prefix of the default bridge; empty: from the pools
    fixed_cidr: str = ""
    ipv6: bool = False
    bip6: str = ""
    fixed_cidr_v6: str = ""
    builder: int = 20_000_000_000  # bytes of build cache; 0: no limit
    default_address_pools: tuple[AddressPool, ...] = ()  # empty: the built-in ones
    mtu: int = 0  # 0: the driver decides
    icc: bool = True
    ip: str = "0.0.0.0"  # host address of published ports
    ip_forward: bool = True
    ip_masq: bool = True
    iptables: bool = True  # program the firewall at all (nftables, in our own table)
    dns: tuple[str, ...] = ()
    dns_opts: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    host_gateway_ips: tuple[str, ...] = ()

    # registries
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
