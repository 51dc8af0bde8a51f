"""Where a log server is: names to addresses, at once or without holding up the loop."""

import json
import os
import socket
from collections.abc import Callable
from typing import Any

from teu.shim.loop import READ, Loop

Addresses = list[tuple[int, int, Any]]  # (family, kind, address)
_ANSWER_BYTES = 1 << 14


class LogServerError(Exception):
    """The log server cannot be used; the text says why."""


def lookup(target: dict[str, Any]) -> Addresses:
    """All addresses of the target, best first. Raises: LogServerError."""
    network = target["network"]
    if network in ("unix", "unixgram"):
        kinds = [socket.SOCK_STREAM, socket.SOCK_DGRAM]  # what a path is, only trying tells
        if network == "unixgram":
            kinds.reverse()
        return [(socket.AF_UNIX, kind, path) for path in paths_of(target) for kind in kinds]
    kind = socket.SOCK_DGRAM if network == "udp" else socket.SOCK_STREAM
    try:
        # bytes: for a str the whole machinery of international names is imported
        found = socket.getaddrinfo(target["host"].encode(), target["port"], type=kind)
    except socket.gaierror as error:
        raise LogServerError(
            f"dial {network}: lookup {target['host']}: {_reason(error)}"
        ) from error
    return [(family, kind, address) for family, kind, _, _, address in found]


def paths_of(target: dict[str, Any]) -> list[str]:
    path = target["path"]
    return path if isinstance(path, list) else [path]


def _reason(error: socket.gaierror) -> str:
    unknown = (socket.EAI_NONAME, socket.EAI_NODATA)
    return "no such host" if error.errno in unknown else (error.strerror or str(error))


class Resolver:
    """Calls back with the addresses; with none if they cannot be found."""

    def __init__(
        self, loop: Loop, target: dict[str, Any], on_done: Callable[[Addresses], None]
    ) -> None:
        self._loop = loop
        self._target = target
        self._on_done = on_done

    def start(self) -> None:
        """At once for paths and literal addresses. Else a child asks: a name server may be slow."""
        if "host" not in self._target or is_literal(self._target["host"]):
            self._on_done(lookup(self._target))
            return
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            child = os.fork()
        except OSError:
            os.close(read_fd)
            os.close(write_fd)
            self._on_done([])
            return
        if not child:
            self._answer(write_fd)
        os.close(write_fd)
        self._loop.watch(read_fd, READ, lambda _: self._read(read_fd))

    def _answer(self, write_fd: int) -> None:
        """The child's whole life; it holds nothing else of the shim, as it may live long."""
        try:
            os.closerange(3, write_fd)
            os.closerange(write_fd + 1, os.sysconf("SC_OPEN_MAX"))
            os.write(write_fd, json.dumps(lookup(self._target)).encode())
        finally:
            os._exit(0)

    def _read(self, read_fd: int) -> None:
        answer = os.read(read_fd, _ANSWER_BYTES)
        self._loop.forget(read_fd)
        os.close(read_fd)
        found = json.loads(answer) if answer else []
        self._on_done([(family, kind, tuple(address)) for family, kind, address in found])


def is_literal(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False
