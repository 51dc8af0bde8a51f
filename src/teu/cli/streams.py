"""Joins the user's stdin, stdout and stderr with a stream upgraded from HTTP.

The output side runs in the calling thread, the input side in a thread of its own, because each
must go on while the other is blocked: a container that does not read its stdin until somebody
reads its stdout would otherwise never end.
"""

from __future__ import annotations

import _socket
import _thread
import os

from teu.cli.frames import Demultiplexer, write_all
from teu.cli.http1 import RECEIVE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from teu.cli.http1 import Response
    from teu.cli.terminal import KeyWatch

_INPUT_SIZE = 1 << 16


class Detached(Exception):
    """The user typed the detach keys."""


class Stream:
    """Both directions of an upgraded connection.

    raw: the container has a terminal, so its output is not framed. keys: watch what is typed
    for the detach sequence.
    """

    def __init__(self, response: Response, *, raw: bool, keys: KeyWatch | None = None) -> None:
        connection = response.connection
        self._sock = connection.sock
        self._early = connection.data[connection.position :]
        self._raw = raw
        self._keys = keys
        self._detached = False

    def start_input(self, descriptor: int = 0) -> None:
        """Sends what `descriptor` says from now on, and its end as a half-close."""
        _thread.start_new_thread(self._send_input, (descriptor,))

    def copy_output(self, wait_readable: Callable[[int], None]) -> None:
        """Writes the output to descriptors 1 and 2 until the daemon closes the stream.

        wait_readable: blocks until a descriptor has data (see `signals.Wakeup`).

        Raises: Detached, BrokenPipeError (nobody reads our output), Failure (see frames).
        """
        feed = _write_raw if self._raw else Demultiplexer(write_all).feed
        if self._early:
            feed(self._early)
        while data := self._receive(wait_readable):
            feed(data)
        if self._detached:
            raise Detached

    def _receive(self, wait_readable: Callable[[int], None]) -> bytes:
        """The next output; b"" at its end."""
        while True:
            try:
                return self._sock.recv(RECEIVE_SIZE, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                wait_readable(self._sock.fileno())
            except ConnectionResetError:
                return b""

    def close(self) -> None:
        self._sock.close()

    def _send_input(self, descriptor: int) -> None:
        send = self._sock.sendall
        try:
            while data := _read(descriptor):
                if self._keys is not None:
                    data, self._detached = self._keys.feed(data)
                if data:
                    send(data)
                if self._detached:
                    self._hang_up()
                    return
        except OSError:
            return  # the container is gone; the output side says how it ended
        self.end_input()

    def end_input(self) -> None:
        """Tells the container that no more input comes."""
        try:
            self._sock.shutdown(_socket.SHUT_WR)
        except OSError:
            pass

    def _hang_up(self) -> None:
        """Wakes the output side, which is blocked in recv."""
        try:
            self._sock.shutdown(_socket.SHUT_RDWR)
        except OSError:
            pass


def _write_raw(data: bytes) -> None:
    write_all(1, data)


def _read(descriptor: int) -> bytes:
    """The next input; b"" at its end, also when there is no stdin or its terminal is gone."""
    try:
        return os.read(descriptor, _INPUT_SIZE)
    except OSError:
        return b""
