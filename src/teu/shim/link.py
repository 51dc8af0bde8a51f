"""The connection to a log server: what waits for it, and how it comes back when it was lost.

The first connection is made while the container is not started yet, so it may block; a server that
is not there then is the caller's error. Later everything goes over the loop. A packet leaves the
queue when the server has it, as far as that can be told: its answer (packets that ask for one), or
what the kernel has not got acknowledged when a connection breaks. Those are sent again, so a line
may arrive twice, but it is lost only when the limits say so.
"""

import contextlib
import errno
import fcntl
import os
import socket
import termios
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from teu.shim.formats import Packet
from teu.shim.loop import GONE, READ, WRITE, Loop, Timer
from teu.shim.resolve import Addresses, LogServerError, Resolver, lookup, paths_of

CONNECT_LIMIT_S = 10.0
ANSWER_LIMIT_S = 30.0
CLOSE_LIMIT_S = 10.0
LONGEST_RETRY_S = 5.0
_SEND_BYTES = 1 << 16
_READ_BYTES = 1 << 14


class Security(Protocol):
    """TLS (see tls.py)."""

    def wrap(self, sock: socket.socket) -> socket.socket: ...
    def shake_hands(self, sock: socket.socket) -> int:
        """0 when done, else READ or WRITE: what to wait for. Raises: OSError."""

    def waits_for(self, error: OSError) -> int:
        """READ or WRITE if the error only says that; else 0."""


class Link:
    """`target`: network (tcp, udp, unix, unixgram), host and port or path (or several); retry_s,
    max_retries (-1: for ever), late (the server may be absent at the start), failure (the text
    when it is absent, `%s` stands for the reason).

    on_change: called when the queue has become shorter. on_trouble: told in words, once for each
    time the server is lost.
    """

    def __init__(
        self,
        loop: Loop,
        target: dict[str, Any],
        security: Security | None,
        on_change: Callable[[], None],
        on_trouble: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._target = target
        self._security = security
        self._on_change = on_change
        self._on_trouble = on_trouble
        self._datagrams = target["network"] in ("udp", "unixgram")
        self._socket: socket.socket | None = None
        self._ready = False
        self._wants = 0
        self._timer: Timer | None = None
        self._answer_timer: Timer | None = None
        self._failures = 0
        self._told = False
        self._addresses: Addresses = []
        self._queue: deque[Packet] = deque()
        self._batch: list[Packet] = []  # what `_out` holds
        self._out = memoryview(b"")
        self._sent: deque[Packet] = deque()  # on its way, for all we know
        self._sent_bytes = 0
        self._answers = b""
        self._closing = False
        self.waiting_bytes = 0
        self.closed = False

    @property
    def name(self) -> str:
        if "path" in self._target:
            return " or ".join(paths_of(self._target))
        return f"{self._target['host']}:{self._target['port']}"

    # --- opening ----------------------------------------------------------------------------

    def open(self) -> None:
        """The first connection. Raises: LogServerError in the words of Docker's clients' logs."""
        try:
            self._addresses = lookup(self._target)
            self._open_first()
        except LogServerError as error:
            if not self._target.get("late"):
                text = self._target.get("failure", "%s").replace("%s", str(error))
                raise LogServerError(text) from error
            self._retry_later()

    def _open_first(self) -> None:
        failure: OSError | None = None
        for family, kind, address in self._addresses:
            sock = socket.socket(family, kind | socket.SOCK_CLOEXEC)
            try:
                sock.settimeout(CONNECT_LIMIT_S)
                sock.connect(address)
                if self._security:
                    sock = self._security.wrap(sock)
                    self._security.shake_hands(sock)
            except OSError as error:
                sock.close()
                failure = error
            else:
                sock.setblocking(False)
                self._socket, self._datagrams = sock, kind == socket.SOCK_DGRAM
                self._serve()
                return
        reason = "no address" if failure is None else _words(failure)
        kind_of = self._target["network"]
        raise LogServerError(f"dial {kind_of} {self.name}: connect: {reason}")

    def _reconnect(self) -> None:
        self._timer = None
        Resolver(self._loop, self._target, self._resolved).start()

    def _resolved(self, addresses: Addresses) -> None:
        """One address after the other, attempt by attempt."""
        self._addresses = addresses or self._addresses
        if self.closed:
            return
        if not self._addresses:
            self._lose("its address cannot be found")
            return
        family, kind, address = self._addresses[self._failures % len(self._addresses)]
        sock = socket.socket(family, kind | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        self._socket, self._datagrams = sock, kind == socket.SOCK_DGRAM
        self._timer = self._loop.later(CONNECT_LIMIT_S, lambda: self._lose("it does not answer"))
        try:
            sock.connect(address)
        except BlockingIOError:
            self._loop.watch(sock.fileno(), WRITE, self._connected)
        except OSError as error:
            self._lose(_words(error))
        else:
            self._connected(WRITE)

    def _connected(self, _: int) -> None:
        assert self._socket is not None
        self._loop.forget(self._socket.fileno())
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._lose(os.strerror(code))
            return
        if self._security:
            self._socket = self._security.wrap(self._socket)
        self._shake_hands(0)

    def _shake_hands(self, _: int) -> None:
        assert self._socket is not None
        try:
            wants = self._security.shake_hands(self._socket) if self._security else 0
        except OSError as error:
            self._lose(_words(error))
            return
        if wants:
            self._loop.watch(self._socket.fileno(), wants, self._shake_hands)
        else:
            self._serve()

    def _serve(self) -> None:
        self._cancel_timer()
        self._ready = True
        self._failures = 0
        if self._told:
            self._told = False
            self._on_trouble(f"the log server {self.name} is back")
        self._watch(0)
        self.flush()

    def _watch(self, wants: int) -> None:
        """Always for what the server says: also that it has gone, before the next line."""
        assert self._socket is not None
        self._wants = wants
        self._loop.watch(self._socket.fileno(), READ | wants, self._happened)

    # --- sending ----------------------------------------------------------------------------

    def put(self, packet: Packet) -> None:
        """Queues a packet; `flush` sends."""
        self._queue.append(packet)
        self.waiting_bytes += len(packet[0])

    def flush(self) -> None:
        """Sends what the server takes now."""
        try:
            while self._ready and (self._out or self._queue):
                if not self._out:
                    self._fill()
                if not self._send():
                    break
        except OSError as error:
            self._lose(_words(error))
        self._on_change()
        if self._closing and not self._left():
            self._end()

    def _left(self) -> bool:
        return bool(self._out or self._queue or (self._sent and self._sent[-1][1]))

    def _fill(self) -> None:
        """The next packet, for a stream some at once."""
        size = 0
        while self._queue and (not self._batch or (not self._datagrams and size < _SEND_BYTES)):
            packet = self._queue.popleft()
            self._batch.append(packet)
            size += len(packet[0])
        self._out = memoryview(b"".join(data for data, _ in self._batch))

    def _send(self) -> bool:
        """Whether more may be sent now. Raises: OSError when the server is gone."""
        assert self._socket is not None
        try:
            sent = self._socket.send(self._out)
        except BlockingIOError:
            self._watch(WRITE)
            return False
        except OSError as error:
            if self._datagrams and self._pass_over(error):
                return True
            if wants := self._security.waits_for(error) if self._security else 0:
                self._watch(wants)
                return False
            raise
        if self._datagrams:
            sent = len(self._out)
        self._out = self._out[sent:]
        if not self._out:
            self._batch_sent()
        return True

    def _pass_over(self, error: OSError) -> bool:
        """A datagram's error that is no reason to connect again: nobody listens there (it is told
        of an earlier one), or the packet is too large."""
        if error.errno == errno.EMSGSIZE:
            self._out = memoryview(b"")
            self._batch_sent()
            self._on_trouble(f"the log server {self.name} takes no packet of that size")
            return True
        return error.errno == errno.ECONNREFUSED and self._target["network"] == "udp"

    def _batch_sent(self) -> None:
        for packet in self._batch:
            if not packet[1]:
                self.waiting_bytes -= len(packet[0])
            if not self._datagrams:
                self._sent.append(packet)
                self._sent_bytes += len(packet[0])
        self._batch = []
        if self._sent and self._sent[-1][1]:
            self._await_answer()
        elif self._sent:
            self._forget_acknowledged()
        if self._wants:
            self._watch(0)

    def _forget_acknowledged(self, unfinished: int = 0) -> None:
        """Drops what the other side's kernel has from what would be sent again; `unfinished`
        bytes of another packet came after."""
        unacknowledged = self._unacknowledged_bytes() - unfinished
        while self._sent and self._sent_bytes - len(self._sent[0][0]) >= unacknowledged:
            self._sent_bytes -= len(self._sent.popleft()[0])

    def _unacknowledged_bytes(self) -> int:
        if self._security or self._socket is None:  # of the encrypted stream nobody knows
            return 0
        raw = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        return int.from_bytes(raw, "little")

    # --- what comes back --------------------------------------------------------------------

    def _happened(self, events: int) -> None:
        if events & (READ | GONE) and not self._receive():
            return
        self.flush()

    def _receive(self) -> bool:
        """False when the server has gone."""
        assert self._socket is not None
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return True
        except OSError as error:
            if self._datagrams or (self._security and self._security.waits_for(error)):
                return True
            self._lose(_words(error))
            return False
        if not data and not self._datagrams:
            self._lose("it has closed the connection")
            return False
        self._answers += data
        while self._sent and self._sent[0][1] and self._sent[0][1] in self._answers:
            packet = self._sent.popleft()
            self._sent_bytes -= len(packet[0])
            self.waiting_bytes -= len(packet[0])
            self._answers = self._answers.partition(packet[1])[2]
            self._await_answer()
        self._answers = self._answers[-_READ_BYTES:]
        return True

    def _await_answer(self) -> None:
        if self._answer_timer:
            self._answer_timer.cancel()
            self._answer_timer = None
        if self._sent:
            self._answer_timer = self._loop.later(
                ANSWER_LIMIT_S, lambda: self._lose("it does not acknowledge")
            )

    # --- losing it --------------------------------------------------------------------------

    def _lose(self, reason: str) -> None:
        """Takes back what the server may not have, and connects again after a while."""
        if self._socket is not None and not self._datagrams:
            with contextlib.suppress(OSError):
                self._split_batch()
        for packet in self._sent:
            if not packet[1]:
                self.waiting_bytes += len(packet[0])
        self._queue.extendleft(reversed((*self._sent, *self._batch)))
        self._sent.clear()
        self._sent_bytes = 0
        self._batch, self._out, self._answers = [], memoryview(b""), b""
        self._drop_socket()
        if not self._told:
            self._told = True
            self._on_trouble(f"the log server {self.name} cannot be reached: {reason}")
        self._failures += 1
        self._retry_later()

    def _split_batch(self) -> None:
        """Tells what was sent whole from what was not. Raises: OSError."""
        sent = sum(len(data) for data, _ in self._batch) - len(self._out)
        while self._batch and len(self._batch[0][0]) <= sent:
            packet = self._batch.pop(0)
            sent -= len(packet[0])
            if not packet[1]:
                self.waiting_bytes -= len(packet[0])
            self._sent.append(packet)
            self._sent_bytes += len(packet[0])
        if not (self._sent and self._sent[0][1]):
            self._forget_acknowledged(unfinished=sent)

    def _retry_later(self) -> None:
        limit = self._target.get("max_retries", -1)
        if 0 <= limit < self._failures and self._queue:
            self._on_trouble(f"{len(self._queue)} messages for {self.name} are dropped")
            self._queue.clear()
            self.waiting_bytes = 0
            self._on_change()
            if self._closing:
                self._end()
                return
        first_s = float(self._target.get("retry_s") or 0.1)
        delay_s = min(first_s * 2 ** min(self._failures, 10), max(LONGEST_RETRY_S, first_s))
        self._timer = self._loop.later(delay_s, self._reconnect)

    def close(self) -> None:
        """No more packets come: `closed` is set when all are sent, or when the server has taken
        nothing for CLOSE_LIMIT_S."""
        self._closing = True
        if self._left():
            self._expect_less(self._open_packets())
        else:
            self._end()

    def _open_packets(self) -> int:
        return len(self._queue) + len(self._batch) + len(self._sent)

    def _expect_less(self, before: int) -> None:
        self._loop.later(CLOSE_LIMIT_S, lambda: self._check_progress(before))

    def _check_progress(self, before: int) -> None:
        left = self._open_packets()
        if self.closed:
            return
        if left < before:
            self._expect_less(left)
            return
        self._on_trouble(f"{left} messages for the log server {self.name} are lost")
        self._end()

    def _end(self) -> None:
        self.closed = True
        self._drop_socket()

    def _drop_socket(self) -> None:
        self._cancel_timer()
        if self._answer_timer:
            self._answer_timer.cancel()
            self._answer_timer = None
        self._ready = False
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _cancel_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "i/o timeout"
    return (error.strerror or str(error)).lower() if error.errno else str(error)
