"""Which daemon to talk to, from `-H`, contexts and the environment, in Docker's order.

`-H`, then `--context`, TEU_HOST, DOCKER_HOST, DOCKER_CONTEXT, `currentContext`, and at last
teu's own socket (Docker's, if only that one exists).
"""

from __future__ import annotations

import os

from teu.cli.config import read_bytes
from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.config import ClientConfig
    from teu.cli.grammar import Options

DEFAULT_SOCKET = "/run/teu.sock"
DOCKER_SOCKET = "/var/run/docker.sock"
_UNRESOLVED = "Failed to initialize: unable to resolve docker endpoint: "


class Endpoint:
    """One daemon address. `url` is how messages name it; `tls` is None for plain connections.

    scheme: "unix", "tcp", "fd" or "ssh". address: socket path, or host for the others.
    """

    __slots__ = ("address", "port", "scheme", "tls", "url")

    def __init__(self, url: str, scheme: str, address: str, port: int = 0) -> None:
        self.url = url
        self.scheme = scheme
        self.address = address
        self.port = port
        self.tls: TlsFiles | None = None


class TlsFiles:
    """Where the certificates are. Empty names are left out of the handshake."""

    __slots__ = ("ca", "cert", "key", "verify")

    def __init__(self, ca: str, cert: str, key: str, verify: bool) -> None:
        self.ca = ca
        self.cert = cert
        self.key = key
        self.verify = verify


def resolve(globals: Options, config: ClientConfig) -> Endpoint:
    """The endpoint for this invocation. Raises: Failure with Docker's text."""
    hosts = globals.texts("host")
    if len(hosts) > 1:
        raise Failure(f"{_UNRESOLVED}Specify only one -H")
    if hosts and globals.text("context"):
        raise Failure("conflicting options: cannot specify both --host and --context")
    host = hosts[0] if hosts else ""
    if not host:
        name = current_context(globals, config)
        if name != "default":
            return _from_context(config, name)
        host = os.environ.get("TEU_HOST") or os.environ.get("DOCKER_HOST") or ""
    return _with_tls(parse(host), globals, config)


def current_context(globals: Options, config: ClientConfig) -> str:
    """The context in force; "default" stands for environment and built-in address."""
    if chosen := globals.text("context"):
        return chosen
    environment = os.environ
    if globals.texts("host") or environment.get("TEU_HOST") or environment.get("DOCKER_HOST"):
        return "default"
    if chosen := environment.get("DOCKER_CONTEXT", ""):
        return chosen
    return config.text("currentContext") or "default"


def parse(host: str) -> Endpoint:
    """`unix:///path`, `tcp://host[:port]`, `ssh://[user@]host`, `host[:port]`; "" is the default.

    Raises: Failure with Docker's text.
    """
    host = host.strip()
    if not host:
        return _default()
    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest = ("unix", host) if host.startswith("/") else ("tcp", host)
    if scheme == "unix":
        path = rest or DEFAULT_SOCKET
        return Endpoint(f"unix://{path}", "unix", path)
    if scheme == "ssh":
        return Endpoint(host, "ssh", rest)
    if scheme not in ("tcp", "http", "https"):
        raise Failure(f"{_UNRESOLVED}invalid bind address format: {host}")
    return _parse_tcp(host, rest.partition("/")[0])


def _default() -> Endpoint:
    path = DEFAULT_SOCKET
    if not os.path.exists(path) and os.path.exists(DOCKER_SOCKET):
        path = DOCKER_SOCKET
    return Endpoint(f"unix://{path}", "unix", path)


def _parse_tcp(host: str, rest: str) -> Endpoint:
    name, port_text = rest, ""
    if rest.startswith("["):
        name, _, port_text = rest[1:].partition("]")
        port_text = port_text.removeprefix(":")
    elif rest.count(":") == 1:
        name, _, port_text = rest.partition(":")
    if port_text and not (port_text.isdigit() and int(port_text) < 65536):
        raise Failure(f"{_UNRESOLVED}invalid port in {host}: {port_text}")
    port = int(port_text or 0)
    return Endpoint(f"tcp://{rest}" if port else host, "tcp", name or "localhost", port)


def _from_context(config: ClientConfig, name: str) -> Endpoint:
    meta = context_meta(config, name)
    docker = meta.get("Endpoints", {}).get("docker", {})
    endpoint = parse(docker.get("Host", ""))
    folder = os.path.join(config.directory, "contexts", "tls", context_folder(name), "docker")
    ca, cert, key = (
        _tls_file("", os.path.join(folder, part)) for part in ("ca.pem", "cert.pem", "key.pem")
    )
    if endpoint.scheme == "tcp" and (ca or cert or key):
        endpoint.tls = TlsFiles(ca, cert, key, not docker.get("SkipTLSVerify", False))
    return _with_port(endpoint)


def context_meta(config: ClientConfig, name: str) -> dict[str, Any]:
    """The stored description of a context. Raises: Failure when there is none."""
    root = os.path.join(config.directory, "contexts", "meta")
    path = os.path.join(root, context_folder(name), "meta.json")
    data = read_bytes(path)
    if data is None:
        raise Failure(
            f'{_UNRESOLVED}context "{name}": context not found: open {path}: '
            "no such file or directory"
        )
    from teu.cli.jsontext import loads

    try:
        meta: dict[str, Any] = loads(data)
    except ValueError as error:
        raise Failure(f'{_UNRESOLVED}context "{name}": {path}: {error}') from error
    return meta


def context_folder(name: str) -> str:
    import hashlib

    return hashlib.sha256(name.encode()).hexdigest()


def _with_tls(endpoint: Endpoint, globals: Options, config: ClientConfig) -> Endpoint:
    """Adds TLS as the flags and DOCKER_TLS_VERIFY, DOCKER_TLS, DOCKER_CERT_PATH ask for it."""
    environment = os.environ
    verify = globals.flag("tlsverify") or bool(environment.get("DOCKER_TLS_VERIFY"))
    named = any(globals.text(name) for name in ("tlscacert", "tlscert", "tlskey"))
    wanted = verify or named or globals.flag("tls") or bool(environment.get("DOCKER_TLS"))
    if endpoint.scheme == "tcp" and (wanted or endpoint.url.startswith("https")):
        folder = environment.get("DOCKER_CERT_PATH") or config.directory
        ca, cert, key = (
            _tls_file(globals.text(flag), os.path.join(folder, name))
            for flag, name in (
                ("tlscacert", "ca.pem"), ("tlscert", "cert.pem"), ("tlskey", "key.pem")
            )
        )  # fmt: skip
        endpoint.tls = TlsFiles(ca, cert, key, verify)
    return _with_port(endpoint)


def _tls_file(named: str, usual: str) -> str:
    return named or (usual if os.path.exists(usual) else "")


def _with_port(endpoint: Endpoint) -> Endpoint:
    if endpoint.scheme == "tcp" and not endpoint.port:
        endpoint.port = 2376 if endpoint.tls else 2375
        endpoint.url = f"tcp://{endpoint.address}:{endpoint.port}"
    return endpoint
