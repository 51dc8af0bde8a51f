"""Rules about options that only make sense together."""

import ipaddress

from teu.daemon.config import BUILTIN_RUNTIMES, DaemonConfig


def check_together(config: DaemonConfig) -> None:
    """Raises: ValueError with Docker's text where it has one."""
    _check_bridge(config)
    _check_runtimes(config)
    _check_directories(config)
    _check_labels(config)


def _check_bridge(config: DaemonConfig) -> None:
    if config.bridge and config.bip:
        raise ValueError(
            "You specified -b & --bip, mutually exclusive options. Please specify only one"
        )
    if not config.iptables and not config.icc:
        raise ValueError(
            "You specified --iptables=false with --icc=false. ICC=false uses iptables to "
            "function. Please set --icc or --iptables to true"
        )
    if config.bip and config.fixed_cidr:
        subnet = ipaddress.IPv4Interface(config.bip).network
        if not ipaddress.IPv4Network(config.fixed_cidr).subnet_of(subnet):
            raise ValueError(f"fixed-cidr {config.fixed_cidr} is not part of bip's subnet {subnet}")


def _check_runtimes(config: DaemonConfig) -> None:
    for name in BUILTIN_RUNTIMES:
        if name in config.runtimes:
            raise ValueError(f"runtime name '{name}' is reserved")
    if config.default_runtime not in (*BUILTIN_RUNTIMES, *config.runtimes):
        known = ", ".join((*BUILTIN_RUNTIMES, *sorted(config.runtimes)))
        raise ValueError(
            f"specified default runtime '{config.default_runtime}' does not exist (known: {known})"
        )


def _check_directories(config: DaemonConfig) -> None:
    if config.data_root == config.exec_root:
        raise ValueError(
            f"data-root and exec-root are both {config.data_root}: exec-root is emptied by a "
            "reboot, so they must differ"
        )


def _check_labels(config: DaemonConfig) -> None:
    seen: dict[str, str] = {}
    for label in config.labels:
        key, _, value = label.partition("=")
        if seen.setdefault(key, value) != value:
            raise ValueError(f"conflict labels for {key}={value} and {key}={seen[key]}")
