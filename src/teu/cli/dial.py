"""Opens the socket to a daemon, and says what to do when that fails.

The result is always a bare `_socket` object: TLS runs behind a local socket pair.
"""

from __future__ import annotations

import _socket
import os

from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teu.cli.endpoint import Endpoint

CONNECT_TIMEOUT_S = 30.0


def dial(endpoint: Endpoint) -> _socket.socket:
    """A connected, blocking socket. Raises: Failure with the next step for the user."""
    if endpoint.scheme == "unix":
        return _dial_unix(endpoint)
    if endpoint.scheme == "ssh":
        from teu.cli.helper import connect_through_ssh

        return connect_through_ssh(endpoint.url, endpoint.address)
    sock = _dial_tcp(endpoint)
    if endpoint.tls is None:
        return sock
    from teu.cli.tls import relay

    return relay(sock, endpoint, endpoint.tls)


def _dial_unix(endpoint: Endpoint) -> _socket.socket:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(endpoint.address)
    except PermissionError as error:
        sock.close()
        raise Failure(_permission_text(endpoint)) from error
    except OSError as error:
        sock.close()
        raise Failure(_unreachable_text(endpoint, error)) from error
    return sock


def _dial_tcp(endpoint: Endpoint) -> _socket.socket:
    try:
        found = _socket.getaddrinfo(endpoint.address, endpoint.port, 0, _socket.SOCK_STREAM)
    except OSError as error:
        raise Failure(
            f"error during connect: lookup {endpoint.address}: {error.strerror}: "
            f"is the host in {endpoint.url} right?"
        ) from error
    last: OSError | None = None
    for family, kind, protocol, _, address in found:
        sock = _socket.socket(family, kind, protocol)
        try:
            sock.settimeout(CONNECT_TIMEOUT_S)
            sock.connect(address)
            sock.settimeout(None)
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            last = error
        else:
            return sock
    raise Failure(_unreachable_text(endpoint, last)) from last


def _unreachable_text(endpoint: Endpoint, error: OSError | None) -> str:
    text = f"Cannot connect to the Docker daemon at {endpoint.url}. Is the docker daemon running?"
    if endpoint.scheme != "unix":
        why = (error.strerror or str(error)) if error else "no address"
        return f"{text} ({why})"
    if endpoint.address.endswith("docker.sock"):
        return text
    return f"{text}\nStart it with: sudo systemctl start teu (without systemd: sudo teud &)"


def _permission_text(endpoint: Endpoint) -> str:
    text = (
        "permission denied while trying to connect to the Docker daemon socket at "
        f"{endpoint.url}: connect: permission denied"
    )
    try:
        import grp

        group = grp.getgrgid(os.stat(endpoint.address).st_gid).gr_name
    except (OSError, KeyError):
        group = "docker"
    if group == "root":
        return f"{text}\nOnly root may use this socket: try again with sudo"
    return (
        f'{text}\nOnly root and members of the group "{group}" may use it: '
        f"sudo usermod -aG {group} $USER, then log in again"
    )
