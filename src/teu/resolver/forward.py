"""Questions about the rest of the world: passed on to the container's or the host's resolvers.

A question goes out from the container's own network namespace, so that its isolation holds for
names too; only the host's stub on a loopback address (systemd-resolved, dnsmasq), and IPv6
resolvers of containers without IPv6, are asked from the host's. Each question has a socket and
an id of its own, both chosen at random, and only an answer to that very question counts.

Source: resolv.conf(5), RFC 5452 (forged answers), RFC 7766 (TCP).
"""

import ctypes
import os
import socket
import time
from collections import deque
from collections.abc import Callable

from teu.resolver import message, resolvconf
from teu.resolver.message import Query
from teu.shim.loop import GONE, READ, WRITE, Loop, Timer

HOST_RESOLV_CONF = "/etc/resolv.conf"
ANSWER_LIMIT_S = 2.0  # per server: three of them within the 5 s that the asker waits
SERVERS_ASKED = 3
OPEN_LIMIT = 2048  # questions under way in all, descriptors being finite
OPEN_LIMIT_PER_CONTAINER = 256
_LOOK_AGAIN_S = 0.5
_PORT = 53
_CLONE_NEWNET = 0x40000000
_TRY_NEXT = (message.SERVER_FAILURE, 5)  # and REFUSED

Reply = Callable[[bytes], None]
_libc = ctypes.CDLL(None, use_errno=True)


class Upstream:
    """How one container's questions travel. `servers`: its own; empty: the host's.

    `netns`: path of its namespace. `open`: questions under way.
    """

    __slots__ = ("allowed", "has_ipv6", "netns", "open", "servers")

    def __init__(self, netns: str, servers: list[str], *, allowed: bool, has_ipv6: bool) -> None:
        self.netns = netns
        self.servers = servers
        self.allowed = allowed
        self.has_ipv6 = has_ipv6
        self.open = 0


class _Question:
    """One question under way."""

    def __init__(
        self, upstream: Upstream, query: Query, packet: bytes, reply: Reply, *, by_tcp: bool
    ) -> None:
        self.upstream = upstream
        self.query = query
        self.packet = packet
        self.reply = reply
        self.by_tcp = by_tcp
        self.servers: list[tuple[str, bool]] = []
        self.ident = 0
        self.socket: socket.socket | None = None
        self.to_send = b""
        self.received = b""
        self.due = 0.0
        self.last_answer = b""


class Forwarder:
    """Asks one server after the other until one answers. Never blocks."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._own_namespace_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._waiting: deque[tuple[float, _Question]] = deque()  # in order: one limit for all
        self._timer: Timer | None = None
        self._open = 0
        self._host_servers: list[str] = []
        self._looked_at = -_LOOK_AGAIN_S
        self._version: tuple[int, ...] = ()

    def forward(
        self, upstream: Upstream, query: Query, packet: bytes, reply: Reply, *, by_tcp: bool
    ) -> None:
        """`reply` gets the answer (or a failure) with the asker's id, some time later or now."""
        is_full = self._open >= OPEN_LIMIT or upstream.open >= OPEN_LIMIT_PER_CONTAINER
        if not upstream.allowed or is_full:
            reply(message.failure(query, message.SERVER_FAILURE))
            return
        question = _Question(upstream, query, packet, reply, by_tcp=by_tcp)
        question.servers = self._route(upstream)
        if len(question.servers) == 1:
            question.servers *= 2  # a datagram may get lost
        self._open += 1
        upstream.open += 1
        self._ask_next(question)

    def _route(self, upstream: Upstream) -> list[tuple[str, bool]]:
        """(server, whether it is asked from the host's namespace)."""
        if upstream.servers:
            return [(server, False) for server in upstream.servers[:SERVERS_ASKED]]
        self._follow_host()
        found = []
        for server in self._host_servers[:SERVERS_ASKED]:
            is_ipv6 = ":" in server
            only_host = server.startswith("127.") or server == "::1" or "%" in server
            found.append((server, only_host or (is_ipv6 and not upstream.has_ipv6)))
        return found

    def _follow_host(self) -> None:
        """Reads the host's resolv.conf again when it has changed; twice a second at most."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_AGAIN_S:
            return
        self._looked_at = now
        try:
            found = os.stat(HOST_RESOLV_CONF)
            version = (found.st_mtime_ns, found.st_ino, found.st_size)
            if version == self._version:
                return
            with open(HOST_RESOLV_CONF, encoding="utf-8", errors="replace") as file:
                self._host_servers = resolvconf.parse(file.read())[0]
            self._version = version
        except OSError:
            self._host_servers, self._version = [], ()

    # --- one question --------------------------------------------------------------------

    def _ask_next(self, question: _Question) -> None:
        self._close(question)
        while question.servers:
            server, from_host = question.servers.pop(0)
            try:
                self._send(question, server, from_host=from_host)
            except OSError:
                self._close(question)
                continue
            question.due = time.monotonic() + ANSWER_LIMIT_S
            self._waiting.append((question.due, question))
            self._set_timer()
            return
        self._finish(question, question.last_answer)

    def _send(self, question: _Question, server: str, *, from_host: bool) -> None:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        kind = socket.SOCK_STREAM if question.by_tcp else socket.SOCK_DGRAM
        question.ident = int.from_bytes(os.urandom(2), "big")
        sock = question.socket = self._socket(
            "" if from_host else question.upstream.netns, family, kind
        )
        sock.setblocking(False)
        packet = message.with_ident(question.packet, question.ident)
        target = socket.getaddrinfo(server, _PORT, family, kind, 0, socket.AI_NUMERICHOST)[0][4]
        if question.by_tcp:
            question.to_send = len(packet).to_bytes(2, "big") + packet
            question.received = b""
            sock.connect_ex(target)
            self._loop.watch(sock.fileno(), WRITE, lambda events: self._by_tcp(question, events))
        else:
            sock.connect(target)
            sock.send(packet)
            self._loop.watch(sock.fileno(), READ, lambda _: self._by_udp(question))

    def _socket(self, netns: str, family: int, kind: int) -> socket.socket:
        """A socket that belongs to that namespace (empty: the host's). Raises: OSError."""
        if not netns:
            return socket.socket(family, kind)
        namespace_fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(namespace_fd)
        finally:
            os.close(namespace_fd)
        try:
            return socket.socket(family, kind)
        finally:
            try:
                _enter(self._own_namespace_fd)
            except OSError:  # it must never stay in there: the daemon starts another one
                os._exit(1)

    def _by_udp(self, question: _Question) -> None:
        assert question.socket is not None
        try:
            reply = question.socket.recv(message.MESSAGE_LIMIT_BYTES)
        except BlockingIOError:
            return
        except OSError:  # nobody listens there
            self._ask_next(question)
            return
        if message.answers_to(reply, question.ident, question.query.question):
            self._take(question, reply)

    def _by_tcp(self, question: _Question, events: int) -> None:
        assert question.socket is not None
        try:
            if question.to_send and events & (WRITE | GONE):
                sent = question.socket.send(question.to_send)
                question.to_send = question.to_send[sent:]
                if not question.to_send:
                    self._loop.watch(
                        question.socket.fileno(), READ, lambda now: self._by_tcp(question, now)
                    )
                return
            chunk = question.socket.recv(message.MESSAGE_LIMIT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        question.received += chunk
        size = int.from_bytes(question.received[:2], "big") + 2
        if not chunk:
            self._ask_next(question)
        elif len(question.received) >= max(size, 2 + message.HEADER_BYTES):
            reply = question.received[2:size]
            if message.answers_to(reply, question.ident, question.query.question):
                self._take(question, reply)
            else:
                self._ask_next(question)

    def _take(self, question: _Question, reply: bytes) -> None:
        reply = message.with_ident(reply, question.query.ident)
        if message.rcode_of(reply) in _TRY_NEXT and question.servers:
            question.last_answer = reply
            self._ask_next(question)
        else:
            self._finish(question, reply)

    def _finish(self, question: _Question, reply: bytes) -> None:
        self._close(question)
        self._open -= 1
        question.upstream.open -= 1
        question.reply(reply or message.failure(question.query, message.SERVER_FAILURE))

    def _close(self, question: _Question) -> None:
        if question.socket is not None:
            self._loop.forget(question.socket.fileno())
            question.socket.close()
            question.socket = None
        question.due = 0.0

    # --- time ------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        if self._timer is None:
            delay_s = max(0.0, self._waiting[0][0] - time.monotonic())
            self._timer = self._loop.later(delay_s, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            due, question = self._waiting.popleft()
            if question.due == due:  # it still waits for that very server
                self._ask_next(question)
        if self._waiting:
            self._set_timer()


def _enter(namespace_fd: int) -> None:
    if _libc.setns(namespace_fd, _CLONE_NEWNET) < 0:
        raise OSError(ctypes.get_errno(), "setns")
