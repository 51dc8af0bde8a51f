"""`-p` and `--expose` in the API's shape.

Source: docker/go-connections `nat`; docker/cli `container/opts.go`; compared with Docker 28.2.
"""

from __future__ import annotations

from teu.cli.grammar import quote
from teu.cli.values import csv_fields, ip_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Bindings = dict[str, list[dict[str, str]]]

_PROTOCOLS = ("tcp", "udp", "sctp")
_LONG_KEYS = frozenset(("target", "published", "protocol", "mode"))


def parse_publish(specs: Sequence[str]) -> Bindings:
    """`-p` values -> HostConfig.PortBindings. Raises: ValueError with Docker's text."""
    bindings: Bindings = {}
    for spec in specs:
        plain = _from_long_form(spec) if "=" in spec else spec
        for port, binding in _parse_one(plain):
            bindings.setdefault(port, []).append(binding)
    return bindings


def _from_long_form(spec: str) -> str:
    """`target=80,published=8080,protocol=udp` -> `8080:80/udp`."""
    parts = {}
    for field in csv_fields(spec):
        key, equals, value = field.partition("=")
        if not equals or not value:
            raise ValueError(f"invalid field: {field}")
        if key.lower() not in _LONG_KEYS:
            raise ValueError(f"invalid field key: {key}")
        parts[key.lower()] = value
    published = parts.get("published", "")
    target = f"{parts.get('target', '')}/{parts.get('protocol', 'tcp')}"
    return f"{published}:{target}"


def _parse_one(spec: str) -> list[tuple[str, dict[str, str]]]:
    address, host_part, port_part = _split(spec)
    port_part, protocol = _split_protocol(port_part)
    if address:
        address = _host_address(address)
    if not port_part:
        raise ValueError(f"no port specified: {spec}<empty>")
    start, end = _range(port_part, "containerPort")
    host_start, host_end = _range(host_part, "hostPort") if host_part else (0, 0)
    if host_part and end - start != host_end - host_start and end != start:
        raise ValueError(
            f"invalid ranges specified for container and host Ports: {port_part} and {host_part}"
        )
    if protocol.lower() not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    result = []
    for offset in range(end - start + 1):
        host_port = ""
        if host_part:
            host_port = str(host_start + offset)
            if start == end and host_start != host_end:
                host_port = f"{host_start}-{host_end}"
        port = f"{start + offset}/{protocol.lower()}"
        result.append((port, {"HostIp": address, "HostPort": host_port}))
    return result


def _split(spec: str) -> tuple[str, str, str]:
    """Address, host port, container port."""
    parts = spec.split(":")
    if len(parts) == 1:
        return "", "", parts[0]
    if len(parts) == 2:
        return "", parts[0], parts[1]
    return ":".join(parts[:-2]), parts[-2], parts[-1]


def _split_protocol(text: str) -> tuple[str, str]:
    port, slash, rest = text.partition("/")
    protocol = rest.partition("/")[0]
    if not port:
        return "", protocol
    return port, protocol if slash and protocol else "tcp"


def _host_address(text: str) -> str:
    bare = text[1:-1] if text[0] == "[" and text[-1] == "]" else text
    try:
        ip_address(bare)
    except ValueError:
        raise ValueError(f"invalid IP address: {text}") from None
    return bare


def _range(text: str, what: str) -> tuple[int, int]:
    try:
        return port_range(text)
    except ValueError:
        raise ValueError(f"invalid {what}: {text}") from None


def port_range(text: str) -> tuple[int, int]:
    """`80` or `80-90` -> first and last port. Raises: ValueError with Go's text."""
    if not text:
        raise ValueError("empty string specified for ports")
    first, dash, last = text.partition("-")
    start = _port(first)
    end = _port(last) if dash else start
    if end < start:
        raise ValueError(f"invalid range specified for port: {text}")
    return start, end


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: invalid syntax")
    if int(text) > 65535:
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: value out of range")
    return int(text)


def parse_expose(specs: Sequence[str]) -> dict[str, dict[str, str]]:
    """`--expose` values -> Config.ExposedPorts. Raises: ValueError with Docker's text."""
    exposed: dict[str, dict[str, str]] = {}
    for spec in specs:
        if ":" in spec:
            raise ValueError(f"invalid port format for --expose: {spec}")
        ports, protocol = _split_protocol(spec)
        try:
            start, end = port_range(ports)
        except ValueError as error:
            raise ValueError(f"invalid range format for --expose: {spec}, error: {error}") from None
        exposed |= {f"{port}/{protocol}": {} for port in range(start, end + 1)}
    return exposed
