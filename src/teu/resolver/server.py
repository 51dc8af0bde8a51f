"""One container's resolver: its two sockets at 127.0.0.11, opened by the daemon in its sandbox."""

import socket
from collections.abc import Callable
from functools import partial

from teu.resolver import message
from teu.resolver.forward import Forwarder, Reply, Upstream
from teu.resolver.message import Malformed
from teu.resolver.table import Table, View
from teu.shim.loop import GONE, READ, WRITE, Loop, Timer

DATAGRAM_LIMIT_BYTES = 4096  # no question is as long
BURST = 16  # datagrams in a row, before others have their turn
CONNECTIONS_PER_CONTAINER = 32
IDLE_LIMIT_S = 10.0
_WAITING_BYTES = 4 * message.MESSAGE_LIMIT_BYTES  # answers that a client does not take


class Server:
    """`view` and `upstream` may be replaced at any time."""

    def __init__(
        self,
        loop: Loop,
        table: Table,
        forwarder: Forwarder,
        sockets: tuple[socket.socket, socket.socket],
        view: View,
        upstream: Upstream,
    ) -> None:
        self._loop = loop
        self._table = table
        self._forwarder = forwarder
        self._udp, self._tcp = sockets
        self.view = view
        self.upstream = upstream
        self.generation = 0
        self._connections: set[_Connection] = set()
        for sock in sockets:
            sock.setblocking(False)
        loop.watch(self._udp.fileno(), READ, lambda _: self._receive())
        loop.watch(self._tcp.fileno(), READ, lambda _: self._accept())

    def close(self) -> None:
        """Lets go of the sandbox. Answers that are still under way are dropped."""
        for connection in list(self._connections):
            connection.close()
        for sock in (self._udp, self._tcp):
            self._loop.forget(sock.fileno())
            sock.close()

    def _receive(self) -> None:
        for _ in range(BURST):
            try:
                packet, peer = self._udp.recvfrom(DATAGRAM_LIMIT_BYTES)
            except OSError:  # nothing more there, or the last answer could not be delivered
                return
            self._handle(packet, partial(self._send, peer), by_tcp=False)

    def _send(self, peer: tuple[str, int], reply: bytes) -> None:
        try:
            self._udp.sendto(reply, peer)
        except OSError:  # the asker has gone, or the sandbox
            return

    def _handle(self, packet: bytes, reply: Reply, *, by_tcp: bool) -> None:
        try:
            query = message.parse_query(packet)
        except Malformed as error:
            if error.query is not None:
                reply(message.failure(error.query, error.rcode))
            return
        limit = message.MESSAGE_LIMIT_BYTES if by_tcp else query.limit
        records = None
        if query.klass == message.INTERNET:
            records = self._table.lookup(self.view, query.name, query.kind)
        if records is not None:
            reply(message.answer(query, records, limit))
            return

        def pass_on(found: bytes) -> None:
            reply(message.fitting(found, query, limit))

        self._forwarder.forward(self.upstream, query, packet, pass_on, by_tcp=by_tcp)

    # --- TCP -----------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            sock, _ = self._tcp.accept()
        except OSError:
            return
        if len(self._connections) >= CONNECTIONS_PER_CONTAINER:
            sock.close()
            return
        self._connections.add(_Connection(self._loop, sock, self._serve, self._connections.discard))

    def _serve(self, packet: bytes, reply: Reply) -> None:
        self._handle(packet, reply, by_tcp=True)


class _Connection:
    """Any number of questions, each with its length in front; answers in any order."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        serve: Callable[[bytes, Reply], None],
        gone: Callable[["_Connection"], None],
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._serve = serve
        self._gone = gone
        self._input = b""
        self._output = b""
        self._is_open = True
        self._idle: Timer | None = None
        sock.setblocking(False)
        self._watch()
        self._still_there()

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        if self._idle:
            self._idle.cancel()
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        self._gone(self)

    def _still_there(self) -> None:
        if self._idle:
            self._idle.cancel()
        self._idle = self._loop.later(IDLE_LIMIT_S, self.close)

    def _watch(self) -> None:
        events = READ | WRITE if self._output else READ
        self._loop.watch(self._socket.fileno(), events, self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self._is_open and events & (READ | GONE):
            self._read()

    def _read(self) -> None:
        try:
            chunk = self._socket.recv(message.MESSAGE_LIMIT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self.close()
            return
        self._still_there()
        self._input += chunk
        while self._is_open and len(self._input) >= 2:
            size = int.from_bytes(self._input[:2], "big") + 2
            if len(self._input) < size:
                return
            packet, self._input = self._input[2:size], self._input[size:]
            self._serve(packet, self._reply)

    def _reply(self, reply: bytes) -> None:
        if not self._is_open:
            return
        self._output += len(reply).to_bytes(2, "big") + reply
        if len(self._output) > _WAITING_BYTES:
            self.close()
        else:
            self._flush()

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._output)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self._output = self._output[sent:]
        self._watch()
