"""The checks behind `kinds.py`: addresses, hosts, limits, runtimes, each with Docker's rules.

Every function returns the checked value or raises ValueError with the reason only.
"""

import ipaddress
import re
from typing import Any

from teu.daemon.config import AddressPool, Host, RuntimeEntry
from teu.model.config import Ulimit
from teu.units import parse_size

# getrlimit(2), in the words of `--ulimit`
ULIMITS = {
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
    "rss", "rtprio", "rttime", "sigpending", "stack",
}  # fmt: skip
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_DOMAIN = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?(\.[a-zA-Z0-9_-]+)*\.?")
_REGISTRY = re.compile(r"[a-zA-Z0-9.-]+(:\d{1,5})?|\[[0-9a-fA-F:]+\](:\d{1,5})?")
_BUILDER_GC = {"enabled", "defaultKeepStorage", "defaultReservedSpace", "maxUsedSpace"}
_BUILDER_BYTES = 20_000_000_000

Value = Any  # whatever JSON holds


def shown(value: Value) -> str:
    names = {bool: "true or false", dict: "an object", list: "a list", type(None): "null"}
    return names.get(type(value)) or repr(value)


def as_text(value: Value) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a text in quotes, not {shown(value)}")
    return value


def as_object(value: Value) -> dict[str, Value]:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object {{…}}, not {shown(value)}")
    return value


def absolute_path(text: str) -> str:
    if not text.startswith("/") or "\0" in text:
        raise ValueError(f'"{text}" is not an absolute path')
    return text


def ip_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise ValueError(f"{text} is not an ip address") from None


def ipv4(text: str) -> str:
    address = ip_address(text)
    if ":" in address:
        raise ValueError(f"{text} is not an IPv4 address")
    return address


def subnet(text: str) -> str:
    try:
        return str(ipaddress.IPv4Network(text))
    except ValueError as error:
        raise ValueError(f"{text} is not an IPv4 subnet such as 10.10.0.0/16: {error}") from None


def subnet6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Network(text))
    except ValueError as error:
        raise ValueError(f"{text} is not an IPv6 subnet such as fd00:1::/64: {error}") from None


def bridge_address6(text: str) -> str:
    """As `bridge_address`, of IPv6."""
    try:
        found = ipaddress.IPv6Interface(text)
    except ValueError as error:
        raise ValueError(f"invalid CIDR address: {text}: {error}") from None
    if "/" not in text or found.network.prefixlen > 126 or found.ip == found.network[0]:
        raise ValueError(
            f"{text} does not name the bridge's own address and prefix, such as fd00:1::1/64"
        )
    return str(found)


def bridge_address(text: str) -> str:
    """An address with its prefix, which must be an address of a host in that subnet."""
    try:
        found = ipaddress.IPv4Interface(text)
    except ValueError as error:
        raise ValueError(f"invalid CIDR address: {text}: {error}") from None
    if "/" not in text or found.network.prefixlen > 30 or found.ip == found.network.network_address:
        raise ValueError(
            f"{text} does not name the bridge's own address and prefix, such as 192.168.1.1/24"
        )
    return str(found)


def label(text: str) -> str:
    key, equals, _ = text.partition("=")
    if not key or not equals or key != key.strip():
        raise ValueError(f"bad attribute format: {text} (expected key=value)")
    return text


def search_domain(text: str) -> str:
    name = text.strip()
    if name != "." and not _DOMAIN.fullmatch(name):
        raise ValueError(f"{text} is not a valid domain")
    return name


def mirror(text: str) -> str:
    """`URL` of a mirror of Docker Hub, or `HOST[:PORT]=URL` for any other registry."""
    host, equals, url = text.partition("=")
    if not equals or "/" in host:
        host, url = "", text
    elif not _REGISTRY.fullmatch(host):
        raise ValueError(f'invalid mirror: "{host}" is not the host[:port] of a registry')
    scheme, _, rest = url.partition("://")
    if scheme not in ("http", "https") or not rest:
        raise ValueError(f'invalid mirror: "{url}" is not an http:// or https:// address')
    if "@" in rest or "?" in rest or "#" in rest:
        raise ValueError(f'invalid mirror: no credentials, query, or fragment in "{url}"')
    return f"{host}=" * bool(host) + url.rstrip("/") + "/"


def insecure_registry(text: str) -> str:
    if "://" in text:
        raise ValueError(f"insecure registry {text} should not contain '://'")
    if "/" in text:
        try:
            return str(ipaddress.ip_network(text))
        except ValueError:
            raise ValueError(
                f"insecure registry {text} is neither host:port nor a subnet"
            ) from None
    if not _REGISTRY.fullmatch(text):
        raise ValueError(f"insecure registry {text} is not valid: expected host:port or a subnet")
    return text


def parse_host(text: str) -> Host:
    """A `-H` value: `unix://PATH`, `tcp://HOST:PORT`, `fd://`. Without a scheme it is TCP.

    A TCP port that is left out is 0 here: 2375 or 2376, which depends on TLS.
    """
    scheme, separator, address = text.strip().partition("://")
    if not separator:
        scheme, address = "tcp", scheme
    if scheme == "unix":
        if address and not address.startswith("/"):
            raise ValueError(f"invalid bind address ({text}): the path must be absolute")
        return Host("unix", address)
    if scheme == "fd":
        if address not in ("", "*") and not address.isdigit():
            raise ValueError(f"failed to parse systemd fd address: should be a number: {address}")
        return Host("fd", address.replace("*", ""))
    if scheme == "tcp":
        return Host("tcp", _tcp_address(address, text))
    raise ValueError(f"invalid bind address ({text}): unsupported proto '{scheme}'")


def _tcp_address(address: str, text: str) -> str:
    if "/" in address:
        raise ValueError(f"invalid bind address ({text}): should not contain a path element")
    match = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\[\]:]*)(?::(\d*))?", address)
    if not match:
        raise ValueError(f"invalid bind address ({text}): expected tcp://HOST:PORT")
    port = int(match[2] or 0)
    if port > 65535 or match[2] == "0":
        raise ValueError(f"invalid bind address ({text}): invalid port: {match[2]}")
    return f"{match[1] or '127.0.0.1'}:{port}"


def ulimit_flag(text: str) -> dict[str, Ulimit]:
    name, equals, limits = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    soft, _, hard = limits.partition(":")
    try:
        return {name: _ulimit(name, int(soft), int(hard or soft))}
    except ValueError as error:
        if str(error).startswith("invalid literal"):
            raise ValueError(f"invalid ulimit argument: {text} (expected whole numbers)") from None
        raise


def ulimit_json(value: Value) -> dict[str, Ulimit]:
    found = {}
    for name, limits in as_object(value).items():
        facts = as_object(limits)
        if unknown := set(facts) - {"Name", "Soft", "Hard"}:
            raise ValueError(f"{name}: unknown key {sorted(unknown)[0]} (use Name, Soft, Hard)")
        soft, hard = facts.get("Soft", 0), facts.get("Hard", 0)
        if not all(isinstance(limit, int) and limit is not True for limit in (soft, hard)):
            raise ValueError(f"{name}: Soft and Hard must be whole numbers")
        found[name] = _ulimit(name, soft, hard)
    return found


def _ulimit(name: str, soft: int, hard: int) -> Ulimit:
    if name not in ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    if hard != -1 and (soft == -1 or soft > hard):
        raise ValueError(
            f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )
    return Ulimit(name=name, soft=soft, hard=hard)


def pool_flag(text: str) -> tuple[AddressPool, ...]:
    facts: dict[str, Value] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"invalid field '{part}' must be a key=value pair")
        facts[key.strip()] = value.strip()
    if str(facts.get("size", "")).isdigit():
        facts["size"] = int(facts["size"])
    return (_pool(facts),)


def pool_json(value: Value) -> tuple[AddressPool, ...]:
    if not isinstance(value, list):
        raise ValueError(f'expected a list of {{"base": …, "size": …}}, not {shown(value)}')
    return tuple(_pool(as_object(item)) for item in value)


def _pool(facts: dict[str, Value]) -> AddressPool:
    if unknown := set(facts) - {"base", "size"}:
        raise ValueError(f"unexpected key '{sorted(unknown)[0]}' (use base and size)")
    base, size = as_text(facts.get("base", "")), facts.get("size", 0)
    try:
        network = ipaddress.ip_network(base)
    except ValueError as error:
        raise ValueError(f'invalid base prefix "{base}": {error}') from None
    if isinstance(size, bool) or not isinstance(size, int):
        raise ValueError(f"invalid size value: {shown(size)} (must be integer)")
    if not network.prefixlen <= size <= network.max_prefixlen:
        raise ValueError(
            f"pool {base} cannot be cut into /{size}: size must be from {network.prefixlen} to "
            f"{network.max_prefixlen}"
        )
    return AddressPool(str(network), size)


def runtime_flag(text: str) -> dict[str, RuntimeEntry]:
    name, _, path = (part.strip() for part in text.partition("="))
    if not name or not path:
        raise ValueError(f"invalid runtime argument: {text} (expected name=path)")
    return {name: _runtime(name, {"path": path})}


def runtime_json(value: Value) -> dict[str, RuntimeEntry]:
    return {name: _runtime(name, as_object(facts)) for name, facts in as_object(value).items()}


def _runtime(name: str, facts: dict[str, Value]) -> RuntimeEntry:
    if not _NAME.fullmatch(name):
        raise ValueError(f"runtime name '{name}' has other characters than letters, digits, -_.")
    if facts.get("runtimeType"):
        raise ValueError(
            f"runtime '{name}': containerd shims (runtimeType) are not run; give the OCI runtime "
            "itself as path"
        )
    arguments = facts.get("runtimeArgs") or []
    if unknown := set(facts) - {"path", "runtimeArgs", "runtimeType", "options"}:
        raise ValueError(f"runtime '{name}': unknown key {sorted(unknown)[0]}")
    if facts.get("options") or not isinstance(arguments, list):
        raise ValueError(f"runtime '{name}': use path and runtimeArgs (a list of texts)")
    path = as_text(facts.get("path", ""))
    if not path:
        raise ValueError(f"runtime '{name}' has no path")
    return RuntimeEntry(path, tuple(as_text(item) for item in arguments))


def seccomp(text: str) -> str:
    return text if text in ("builtin", "unconfined") else absolute_path(text)


def bridge(text: str) -> str:
    if text and (not _NAME.fullmatch(text) or len(text) > 15):
        raise ValueError(f"{text} is not the name of a network interface")
    return text


def log_level(text: str) -> str:
    level = text.lower()
    known = {"trace": "debug", "warn": "warning", "fatal": "critical", "panic": "critical"}
    if known.get(level, level) not in ("debug", "info", "warning", "error", "critical"):
        raise ValueError(f"invalid logging level: {text} (use debug, info, warn, error or fatal)")
    return known.get(level, level)


def builder_json(value: Value) -> int:
    """dockerd's `builder.gc`: `{"enabled": true, "defaultKeepStorage": "20GB"}` -> bytes, 0 for
    no limit."""
    gc = as_object(as_object(value).get("gc", {}))
    if unknown := gc.keys() - _BUILDER_GC:
        raise ValueError(f"builder.gc has no {sorted(unknown)[0]!r} here: set defaultKeepStorage")
    if not gc.get("enabled", True):
        return 0
    size = gc.get("maxUsedSpace") or gc.get("defaultReservedSpace") or gc.get("defaultKeepStorage")
    return parse_size(as_text(size)) if size else _BUILDER_BYTES
