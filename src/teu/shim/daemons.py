"""The shim's connections to daemons: any number over time, each may end at any byte."""

import socket
from collections.abc import Callable

from teu.shim.loop import READ, Loop, Timer
from teu.shim.wire import ACK_LIMIT_S, BadMessage, Message, receive, send

Handler = Callable[["Connection", Message, list[int]], None]


class Connection:
    """One daemon. A peer that is gone, or does not read, is dropped."""

    def __init__(self, daemons: "Daemons", sock: socket.socket) -> None:
        self._daemons = daemons
        self.socket = sock

    def send(self, message: Message) -> None:
        try:
            send(self.socket, message)
        except OSError:
            self._daemons.drop(self)


class Daemons:
    """Hands each request to `handle` with its descriptors, which then belong to the handler."""

    def __init__(self, loop: Loop, handle: Handler) -> None:
        self._loop = loop
        self._handle = handle
        self._connections: list[Connection] = []
        self._listener: socket.socket | None = None
        self._unacknowledged: dict[int, tuple[Callable[[bool], None], Timer]] = {}
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, sock: socket.socket) -> Connection:
        sock.setblocking(False)
        connection = Connection(self, sock)
        self._connections.append(connection)
        self._loop.watch(sock.fileno(), READ, lambda _: self._receive(connection))
        return connection

    def listen(self, listener: socket.socket) -> None:
        self._listener = listener
        self._loop.watch(listener.fileno(), READ, lambda _: self._accept())

    def stop_listening(self) -> None:
        if self._listener:
            self._loop.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def broadcast(self, event: Message) -> None:
        for connection in list(self._connections):
            connection.send(event)

    def report(self, event: Message, then: Callable[[bool], None]) -> None:
        """Tells every daemon; calls `then(acknowledged)` after the first ack.

        Without a daemon at once, without an ack after ACK_LIMIT_S.
        """
        self._sequence += 1
        sequence = self._sequence
        timer = self._loop.later(ACK_LIMIT_S, lambda: self._settle(sequence, False))
        self._unacknowledged[sequence] = then, timer
        self.broadcast({**event, "seq": sequence})
        self._settle_if_alone()

    def acknowledge(self, sequence: object) -> None:
        if isinstance(sequence, int):
            self._settle(sequence, True)

    def drop(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            self._loop.forget(connection.socket.fileno())
            connection.socket.close()
            self._settle_if_alone()

    def _settle_if_alone(self) -> None:
        if not self._connections:
            for sequence in list(self._unacknowledged):
                self._settle(sequence, False)

    def _settle(self, sequence: int, acknowledged: bool) -> None:
        then, timer = self._unacknowledged.pop(sequence, (None, None))
        if then and timer:
            timer.cancel()
            then(acknowledged)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError:  # it has gone again
            return
        self.add(sock)

    def _receive(self, connection: Connection) -> None:
        try:
            packet = receive(connection.socket)
        except BlockingIOError:
            return
        except BadMessage as error:
            connection.send({"id": None, "error": {"kind": "invalid", "message": str(error)}})
            return
        except OSError:
            packet = None
        if packet is None:
            self.drop(connection)
        else:
            self._handle(connection, *packet)
