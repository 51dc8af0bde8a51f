"""The sockets that the API is served on: unix paths, TCP addresses, and those that the service
manager passes (sd_listen_fds(3)).

All are bound before the engine starts, so a wrong address fails at once and early clients queue
in the kernel; nothing is accepted before the engine is ready. Passed sockets are served whether or
not a `fd://` host asks for them, so `hosts` in the file and a socket unit never contradict.
"""

import contextlib
import errno
import grp
import logging
import os
import socket
import ssl
import stat
from collections.abc import MutableMapping
from dataclasses import dataclass

from teu.daemon.config import DaemonConfig, Host, TlsMode
from teu.daemon.tls import server_context
from teu.errors import Conflict, InvalidParameter, SystemFailure

FIRST_PASSED_FD = 3  # sd_listen_fds(3)
BACKLOG = 1024
SOCKET_MODE = 0o660
DEFAULT_GROUP = "docker"
MAX_PATH_BYTES = 107  # sun_path without its closing zero byte
log = logging.getLogger(__name__)


@dataclass
class Listener:
    """A socket that listens. `tls` is set for TCP unless it was given up.

    `identity` is (device, inode) of the path that we made, so that close removes only that one.
    """

    host: Host
    socket: socket.socket
    tls: ssl.SSLContext | None = None
    identity: tuple[int, int] | None = None

    def close(self) -> None:
        self.socket.close()
        if self.identity is not None:
            with contextlib.suppress(OSError):
                if _identity(self.host.address) == self.identity:
                    os.unlink(self.host.address)
            self.identity = None


def open_listeners(
    config: DaemonConfig, default_socket: str, environ: MutableMapping[str, str]
) -> list[Listener]:
    """Binds everything, or nothing.

    Raises: InvalidParameter (not safe, or no such group, file or passed socket), Conflict (address
    in use), SystemFailure.
    """
    context = server_context(config)
    passed = [_passed(sock, context, config) for sock in _passed_sockets(environ)]
    hosts = config.hosts
    if not hosts and not passed:
        hosts = (Host("unix", default_socket),)
    opened = _chosen(hosts, passed)
    taken = {os.path.realpath(listener.host.address) for listener in opened}
    try:
        for host in hosts:
            if host.scheme == "unix" and os.path.realpath(host.address) not in taken:
                opened.append(_open_unix(host, config.group))
            elif host.scheme == "tcp":
                opened.append(_open_tcp(host, context, config.tls))
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def _passed_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """Takes them over: the variables go, so that no child believes they are its own."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    found = []
    for fd in range(FIRST_PASSED_FD, FIRST_PASSED_FD + int(count)):
        try:
            os.set_inheritable(fd, False)
            sock = socket.socket(fileno=fd)
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise OSError(errno.EINVAL, "it does not listen")
        except OSError as error:
            raise InvalidParameter(
                f"descriptor {fd}, passed by the service manager, is not a listening stream "
                f"socket ({error.strerror}): use ListenStream= in the socket unit"
            ) from error
        found.append(sock)
    return found


def _passed(sock: socket.socket, context: ssl.SSLContext | None, config: DaemonConfig) -> Listener:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return Listener(Host("unix", os.fsdecode(name)), sock)
    host = Host("tcp", _shown(name))
    _demand_safety(host, config.tls)
    return Listener(host, sock, context)


def _chosen(hosts: tuple[Host, ...], passed: list[Listener]) -> list[Listener]:
    """`fd://N` takes only the Nth passed socket; `fd://`, or no word of it, takes all."""
    asked = [host for host in hosts if host.scheme == "fd"]
    if asked and not passed:
        raise InvalidParameter(
            "no sockets found via socket activation: make sure the service was started by systemd"
        )
    if not asked or any(not host.address for host in asked):
        return passed
    wanted = {int(host.address) - FIRST_PASSED_FD for host in asked}
    if max(wanted) >= len(passed) or min(wanted) < 0:
        raise InvalidParameter(
            "too few socket activated files passed in by systemd: there are descriptors "
            f"{FIRST_PASSED_FD} to {FIRST_PASSED_FD + len(passed) - 1}"
        )
    for index, listener in enumerate(passed):
        if index not in wanted:
            listener.close()
    return [listener for index, listener in enumerate(passed) if index in wanted]


def _open_unix(host: Host, group: str) -> Listener:
    path = host.address
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise InvalidParameter(
            f"can't create unix socket {path}: a socket's path has at most {MAX_PATH_BYTES} bytes"
        )
    owner = _group_id(group)
    _clear_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener = Listener(host, sock)
    mask = os.umask(0o777 & ~0o600)  # nobody connects before the group is right
    try:
        sock.bind(path)
        listener.identity = _identity(path)
        os.chown(path, 0, owner)
        os.chmod(path, SOCKET_MODE)
        sock.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SystemFailure(
            f"can't create unix socket {path}: {(error.strerror or '').lower()}. Does the "
            "directory exist, and may root write there?"
        ) from error
    finally:
        os.umask(mask)
    return listener


def _identity(path: str) -> tuple[int, int]:
    facts = os.lstat(path)
    return facts.st_dev, facts.st_ino


def _clear_stale(path: str) -> None:
    """Removes a socket that nobody listens on. Raises: Conflict for anything else there."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SystemFailure(f"can't create unix socket {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise Conflict(f"can't create unix socket {path}: something else than a socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(path)
    if answer not in (errno.ECONNREFUSED, errno.ENOENT, errno.EPROTOTYPE):
        raise Conflict(
            f"can't create unix socket {path}: address already in use by another daemon or a "
            "socket unit. Stop it, or listen elsewhere with -H unix://PATH"
        )
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _group_id(group: str) -> int:
    if not group:
        return 0
    if group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if group != DEFAULT_GROUP:
            raise InvalidParameter(
                f"group {group} not found: create it with `groupadd {group}`, or choose another "
                "with --group"
            ) from None
    log.warning("there is no group %s: only root may use the socket", group)
    return 0


def _open_tcp(host: Host, context: ssl.SSLContext | None, mode: TlsMode) -> Listener:
    _demand_safety(host, mode)
    name, _, port = host.address.rpartition(":")
    name = name.strip("[]")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            name, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        both = family == socket.AF_INET6 and name == "::"
        sock = socket.create_server(
            address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=both
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"listen tcp {host.address}: bind: address already in use. Find the holder with "
                f"`ss -ltnp sport = :{port}`"
            ) from error
        raise SystemFailure(
            f"listen tcp {host.address}: {(error.strerror or str(error)).lower()}"
        ) from error
    return Listener(Host("tcp", _shown(sock.getsockname())), sock, context)


def _shown(name: tuple[str, int]) -> str:
    address, port = name[:2]
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _demand_safety(host: Host, mode: TlsMode) -> None:
    """Docker warns; here whoever wants to be open has to say so."""
    if mode is TlsMode.UNSAID:
        raise InvalidParameter(
            f"refusing to listen on {host} without TLS: everybody who can connect would be root "
            "on this machine. Use --tlsverify with --tlscacert, --tlscert and --tlskey, or accept "
            "the risk with --tls=false"
        )
    if mode is not TlsMode.MUTUAL:
        log.warning(
            "Binding to IP address without --tlsverify is insecure and gives root access on this "
            "machine to everyone who has access to your network. host=%s",
            host,
        )
