"""The table of all options: dockerd's names, and what this daemon does with each.

One row serves the command line, the configuration file, `--help` and docs/configuration.md. An
option that dockerd has (versions 20 to 28) is in one of three states; none is unknown:

    USED     fills a field of `DaemonConfig`
    IGNORED  accepted with a note in the log, because its absence cannot hurt: `why` says so
    REFUSED  stops the start unless it is off (empty, false, zero) or one of `allowed`,
             because somebody relies on what it would do: `why` says what to do instead
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from teu.daemon import kinds
from teu.daemon.kinds import Kind


class State(enum.Enum):
    USED = "used"
    IGNORED = "ignored"
    REFUSED = "refused"


@dataclass(frozen=True)
class Option:
    """`key` in the file, `--flag` on the command line (default: the key; empty: file only)."""

    key: str
    kind: Kind
    help: str  # empty: not in `--help`
    flag: str | None = None
    short: str = ""
    field: str = ""
    state: State = State.USED
    why: str = ""
    allowed: tuple[object, ...] = ()
    reloads: bool = False

    @property
    def long(self) -> str:
        return self.key if self.flag is None else self.flag

    @property
    def target(self) -> str:
        return self.field or self.key.replace("-", "_")


def _ignored(
    key: str, why: str, kind: Kind = kinds.ANY, flag: str | None = None, short: str = ""
) -> Option:
    return Option(key, kind, "", flag, short, state=State.IGNORED, why=why)


def _refused(
    key: str, why: str, kind: Kind = kinds.ANY, flag: str | None = None, short: str = "",
    allowed: tuple[object, ...] = (),
) -> Option:  # fmt: skip
    return Option(key, kind, "", flag, short, state=State.REFUSED, why=why, allowed=allowed)


_SWARM = "swarm mode is not served"
_CONTAINERD = "there is no containerd here"

PROCESS = (
    Option("data-root", kinds.PATH, "Root directory of persistent state"),
    Option("exec-root", kinds.PATH, "Root directory for execution state files"),
    Option("pidfile", kinds.PATH, "Path to use for daemon PID file", short="p"),
    Option("debug", kinds.BOOL, "Enable debug mode", short="D", reloads=True),
    Option(
        "log-level", kinds.LOG_LEVEL,
        'Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")',
        short="l", reloads=True,
    ),
    Option("log-format", kinds.choice("text", "json"), 'Set the logging format ("text"|"json")'),
    Option(
        "shutdown-timeout", kinds.SECONDS, "Seconds that a stop waits for requests under way",
        field="shutdown_timeout_s", reloads=True,
    ),
    Option("oom-score-adjust", kinds.OOM_SCORE, "Set the oom_score_adj for the daemon"),
    Option("labels", kinds.LABELS, "Set key=value labels to the daemon", "label", reloads=True),
)  # fmt: skip

LISTENERS = (
    Option("hosts", kinds.HOSTS, "Daemon socket(s) to listen on", "host", short="H"),
    Option("group", kinds.TEXT, "Group for the unix socket", short="G"),
    Option("tls", kinds.BOOL, "Use TLS; implied by --tlsverify", field="tls"),
    Option("tlsverify", kinds.BOOL, "Use TLS and verify the remote", field="tls"),
    Option("tlscacert", kinds.PATH, "Trust certs signed only by this CA"),
    Option("tlscert", kinds.PATH, "Path to TLS certificate file"),
    Option("tlskey", kinds.PATH, "Path to TLS key file"),
)

CONTAINERS = (
    Option("log-driver", kinds.TEXT, "Default driver for container logs"),
    Option("log-opts", kinds.MAP, "Default log driver options for containers", "log-opt"),
    Option(
        "default-ulimits", kinds.ULIMIT, "Default ulimits for containers", "default-ulimit"
    ),
    Option(
        "default-shm-size", kinds.SIZE, "Default shm size for containers",
        field="default_shm_size_bytes",
    ),
    Option(
        "default-stop-timeout", kinds.SECONDS, "Seconds from the stop signal to SIGKILL",
        field="default_stop_timeout_s", reloads=True,
    ),
    Option(
        "default-ipc-mode", kinds.choice("private", "shareable"),
        'Default mode for containers ipc ("shareable" | "private")',
    ),
    Option(
        "default-cgroupns-mode", kinds.choice("private", "host"),
        'Default mode for containers cgroup namespace ("host" | "private")',
    ),
    Option("cgroup-parent", kinds.TEXT, "Set parent cgroup for all containers"),
    Option(
        "cdi-spec-dirs", kinds.TEXTS, "Directories with CDI specification files", "cdi-spec-dir",
        reloads=True,
    ),
    Option("init", kinds.BOOL, "Run an init in containers that forwards signals and reaps"),
    Option("init-path", kinds.PATH, "Path to the init binary (tini, catatonit)"),
    Option("no-new-privileges", kinds.BOOL, "Set no-new-privileges by default for new containers"),
    Option(
        "seccomp-profile", kinds.SECCOMP,
        'Path to seccomp profile. Set to "unconfined" to disable the default one',
    ),
    Option(
        "default-runtime", kinds.TEXT, "Default OCI runtime for containers", reloads=True
    ),
    Option(
        "runtimes", kinds.RUNTIME, "Register an additional OCI compatible runtime", "add-runtime",
        reloads=True,
    ),
)  # fmt: skip

NETWORKS = (
    Option("bridge", kinds.BRIDGE, "Attach containers to this existing bridge", short="b"),
    Option("bip", kinds.INTERFACE, "IPv4 address of the default bridge"),
    Option("fixed-cidr", kinds.NETWORK, "IPv4 subnet for the default bridge network's containers"),
    Option("ipv6", kinds.BOOL, "Give the default bridge network IPv6"),
    Option("bip6", kinds.INTERFACE6, "IPv6 address of the default bridge"),
    Option(
        "fixed-cidr-v6", kinds.NETWORK6, "IPv6 subnet for the default bridge network's containers"
    ),
    Option(
        "default-address-pools", kinds.POOLS, "Address pools of networks without a subnet",
        "default-address-pool",
    ),
    Option("mtu", kinds.MTU, "Set the MTU of the default bridge network"),
    Option("icc", kinds.BOOL, "Enable inter-container communication on the default bridge network"),
    Option("ip", kinds.IPV4, "Host address for published ports"),
    Option("ip-forward", kinds.BOOL, "Enable IP forwarding in system configuration"),
    Option("ip-masq", kinds.BOOL, "Enable IP masquerading for the default bridge network"),
    Option("iptables", kinds.BOOL, "Enable addition of firewall rules (nftables)"),
    Option("dns", kinds.IPS, "DNS server to use"),
    Option("dns-opts", kinds.TEXTS, "DNS options to use", "dns-opt"),
    Option("dns-search", kinds.DOMAINS, "DNS search domains to use"),
    Option(
        "host-gateway-ips", kinds.IPS,
        "Addresses that 'host-gateway' in --add-host resolves to", "host-gateway-ip",
    ),
)  # fmt: skip

REGISTRIES = (
    Option(
        "insecure-registries", kinds.INSECURE, "Enable insecure registry communication",
        "insecure-registry", reloads=True,
    ),
    Option(
        "registry-mirrors", kinds.MIRRORS,
        "Mirror to try before Docker Hub (URL) or before another registry (HOST=URL)",
        "registry-mirror", reloads=True,
    ),
    Option(
        "max-concurrent-downloads", kinds.COUNT, "Set the max concurrent downloads", reloads=True
    ),
    Option("max-concurrent-uploads", kinds.COUNT, "Set the max concurrent uploads", reloads=True),
    Option(
        "max-download-attempts", kinds.COUNT, "Set the max download attempts for each pull",
        reloads=True,
    ),
    Option("http-proxy", kinds.TEXT, "HTTP proxy URL to use for outgoing traffic"),
    Option("https-proxy", kinds.TEXT, "HTTPS proxy URL to use for outgoing traffic"),
    Option("builder", kinds.BUILDER, "Limit of the build cache", flag=""),
    Option("no-proxy", kinds.TEXT, "Comma-separated hosts for which the proxy is skipped"),
)  # fmt: skip

WITHOUT_EFFECT = (
    _ignored("live-restore", "containers always outlive the daemon", kinds.BOOL),
    _ignored("exec-opts", "the runtime makes cgroups itself (cgroupfs)", flag="exec-opt"),
    _ignored("userland-proxy", "published ports go through the kernel", kinds.BOOL),
    _ignored("userland-proxy-path", "published ports go through the kernel"),
    _ignored("firewall-backend", "the firewall is nftables, in a table of our own"),
    _ignored("ip-forward-no-drop", "the policy of other tables is never changed", kinds.BOOL),
    _ignored("ip6tables", "nftables rules cover both families", kinds.BOOL),
    _ignored("experimental", "there are no experimental features", kinds.BOOL),
    _ignored("features", "every feature is always on, or not served", kinds.ANY, "feature"),
    _ignored("min-api-version", "every API version from 1.24 on is served", flag=""),
    _ignored("raw-logs", "log lines are never coloured", kinds.BOOL),
    _ignored("containerd", _CONTAINERD),
    _ignored("containerd-namespace", _CONTAINERD),
    _ignored("containerd-plugins-namespace", _CONTAINERD),
    _ignored("containerd-plugin-namespace", _CONTAINERD, flag=""),
    _ignored("network-control-plane-mtu", _SWARM),
    _ignored("swarm-default-advertise-addr", _SWARM),
    _ignored("swarm-raft-heartbeat-tick", _SWARM, flag=""),
    _ignored("swarm-raft-election-tick", _SWARM, flag=""),
    _ignored("default-init", "use init-path", flag=""),
    _ignored("resolv-conf", "the host's own resolver configuration is read", flag=""),
    _ignored("deprecated-key-path", "manifests are no longer signed", flag=""),
    _ignored("allow-nondistributable-artifacts", "all layers are pushed", flag=None),
    _ignored("restart", "restart policies belong to containers", kinds.BOOL, None, "r"),
)

NOT_SERVED = (
    _refused(
        "storage-driver", "layers are always overlayfs; use overlay2 or leave it out",
        kinds.TEXT, None, "s", ("overlay2", "overlayfs"),
    ),
    _refused("storage-opts", "overlayfs has no options here", flag="storage-opt"),
    _refused(
        "authorization-plugins",
        "requests would not be authorized; give each client a certificate instead (tlsverify)",
        flag="authorization-plugin",
    ),
    _refused("userns-remap", "containers' users are not remapped"),
    _refused("selinux-enabled", "SELinux labels are not set", kinds.BOOL),
    _refused("rootless", "run teud as root", kinds.BOOL),
    _refused("cri-containerd", _CONTAINERD, kinds.BOOL),
    _refused("cpu-rt-period", "use --cpu-rt-period of a container"),
    _refused("cpu-rt-runtime", "use --cpu-rt-runtime of a container"),
    _refused("metrics-addr", "metrics are not served"),
    _refused("nri-opts", "NRI plugins are not run"),
    _refused("node-generic-resources", _SWARM, flag="node-generic-resource"),
    _refused("network-diagnostic-port", _SWARM),
    _refused("cluster-store", _SWARM),
    _refused("cluster-store-opts", _SWARM, flag="cluster-store-opt"),
    _refused("cluster-advertise", _SWARM),
    _refused("api-cors-header", "browsers must not reach the API; put a proxy in front of it"),
    _refused("graph", "it was renamed to data-root", short="g"),
    _refused("disable-legacy-registry", "no such registries are left", kinds.BOOL,
             allowed=(True,)),
    _refused("default-gateway-v6", "the bridge's own address is the gateway"),
    _refused("default-gateway", "the bridge's own address is the gateway"),
    _refused(
        "default-network-opts", "give options to each network",
        flag="default-network-opt",
    ),
    _refused("allow-direct-routing", "containers are reached by published ports", kinds.BOOL),
    _refused("bridge-accept-fwmark", "add a rule of your own to the firewall instead"),
)  # fmt: skip

GROUPS: Mapping[str, tuple[Option, ...]] = MappingProxyType(
    {
        "Process": PROCESS,
        "Listeners": LISTENERS,
        "Containers": CONTAINERS,
        "Networks": NETWORKS,
        "Registries": REGISTRIES,
        "Accepted without effect": WITHOUT_EFFECT,
        "Refused": NOT_SERVED,
    }
)
OPTIONS: tuple[Option, ...] = tuple(option for group in GROUPS.values() for option in group)
BY_KEY: Mapping[str, Option] = MappingProxyType({option.key: option for option in OPTIONS})
# a key that takes one text where the newer one takes a list
OLD_KEYS: Mapping[str, str] = MappingProxyType({"host-gateway-ip": "host-gateway-ips"})
